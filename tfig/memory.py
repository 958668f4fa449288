"""What has been found out about models, kept by them for as long as they live and stay as they are."""

import collections
import contextlib
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from tfig import slices
from tfig.fingerprint import surroundings

KEPT = 32
"""Answers of a kind kept for each model; the least recently used is dropped first."""


T = TypeVar("T")
Store = weakref.WeakKeyDictionary[Any, collections.OrderedDict[tuple, T]]
_stores: list[Store[Any]] = []


def store() -> Store[Any]:
    """What is remembered of models: by model, by (question, what may change under it)."""
    _stores.append(weakref.WeakKeyDictionary())
    return _stores[-1]


def remembered(where: Store[T], model: Any, question: Callable[[], tuple], make: Callable[[], T]) -> T:
    """What `make` gave for a question to a model as it is, from the store where it has been asked for before.

    A change of the model's variables, activations or flags, or of what the calls of its layers read
    (`tfig.fingerprint`), is a new question. The store's entries die with the model; of each model the `KEPT` last used
    are kept.
    """
    owner = getattr(model, "__self__", model)
    with slices.LOCK:
        try:
            known = where.setdefault(owner, collections.OrderedDict())
        except TypeError:  # neither hashable nor weakly referable
            return make()
        asked, state = question(), _state(model)
        if (asked, state) not in known:
            found = make()
            before, asked, state = state, question(), _state(model)
            if state != before:  # what a trace itself has changed, a counter of calls, is no change of any question
                for one in _stores:
                    _carry(one.get(owner, {}), before, state)
            known[asked, state] = found
        known.move_to_end((asked, state))
        while len(known) > KEPT:
            known.popitem(last=False)
        return known[asked, state]


def recalled(where: Store[T], model: Any, question: Callable[[], tuple]) -> T | None:
    """The same where it has been asked for before; else None."""
    with slices.LOCK, contextlib.suppress(TypeError):
        known = where.get(getattr(model, "__self__", model))
        return None if known is None else known.get((question(), _state(model)))
    return None


def _state(model: Any) -> tuple:
    """What a user may change of a model, by value."""
    return slices.state(model), surroundings(model)


def _carry(known: dict[tuple, Any], before: tuple, after: tuple) -> None:
    """Let what holds of one state hold of another."""
    held = list(known.items())
    known.clear()
    known.update({(asked, after if state == before else state): value for (asked, state), value in held})


def forget(model: Any) -> None:
    """Drop what was compiled for a model, or a callable: the next question is traced anew.

    Needed only where a call reads what cannot be seen from outside: an object changed in place that is no number, word,
    array or container of them, a file, a global of another module.

    >>> model.lookup.refresh()
    >>> tfig.forget(model)
    """
    with slices.LOCK, contextlib.suppress(TypeError):
        for one in _stores:
            one.pop(getattr(model, "__self__", model), None)
