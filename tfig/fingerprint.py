"""What a trace reads of Python, by value: what has changed since is another question."""

import hashlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)

WATCHED = (keras.Layer, keras.Variable, tf.Variable, tf.Tensor)
"""What is looked at on its own, or does not change."""

LIBRARIES = {"keras", "tensorflow", "numpy", "builtins", "threading", "weakref"}
"""Whose objects have a life of their own."""

DEEPEST = 4
"""How far into containers and objects values are looked at."""


def of(value: Any, depth: int = DEEPEST) -> Any:
    """A value as something that is equal where a trace would read the same, and holds nothing alive.

    Numbers, words, arrays and containers of them count by content, functions by themselves and what they read, other
    objects by their attributes; what cannot be looked into, by its identity alone.
    """
    if isinstance(value, PLAIN):
        return type(value).__name__, repr(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.shape, value.dtype.str, hashlib.blake2b(np.ascontiguousarray(value).tobytes()).digest()
    parts: Any = id(value)
    if depth and not isinstance(value, WATCHED):
        if isinstance(value, Mapping):
            parts = tuple((of(key, depth - 1), of(one, depth - 1)) for key, one in list(value.items()))
        elif isinstance(value, (list, tuple)):
            parts = tuple(of(one, depth - 1) for one in list(value))
        elif isinstance(value, (set, frozenset)):
            parts = tuple(sorted(repr(of(one, depth - 1)) for one in value))
        elif isinstance(value, types.FunctionType):
            parts = id(value), surroundings(value, depth - 1)
        elif _is_plain_object(value):
            parts = id(value), of(dict(vars(value)), depth - 1)
    return type(value).__name__, parts


def _is_plain_object(value: Any) -> bool:
    """Whether it is of a class of the user's, rather than of a library with a life of its own."""
    library = type(value).__module__.split(".")[0] in LIBRARIES
    return hasattr(value, "__dict__") and not library and not isinstance(value, (type, types.ModuleType))


def surroundings(function: Any, depth: int = DEEPEST) -> tuple:
    """What a Python function reads from outside: of its module and of the functions around it."""
    try:
        read = inspect.getclosurevars(inspect.unwrap(getattr(function, "__func__", function)))
    except (TypeError, ValueError):  # not a Python function
        return ()
    values = {**read.globals, **read.nonlocals}
    return tuple((name, of(value, min(depth, 2))) for name, value in values.items() if not _lives(value))


def _lives(value: Any) -> bool:
    """Whether a value is looked at elsewhere, or does not change: models, modules, classes, functions."""
    return isinstance(value, (types.ModuleType, type)) or callable(value)


def read_by(method: Callable[..., Any], owner: Any) -> dict[str, Any]:
    """The attributes of `owner` that one of its methods names, and those it calls name, whatever they are called."""
    own, seen, found = vars(owner), set(), {}
    waiting = [getattr(method, "__code__", None)]
    while waiting:
        code = waiting.pop()
        if code is None or code in seen:
            continue
        seen.add(code)
        waiting += [one for one in code.co_consts if isinstance(one, types.CodeType)]
        for name in code.co_names:
            if name in own:
                found[name] = own[name]
            else:
                waiting += _codes(inspect.getattr_static(type(owner), name, None))
    return found


def _codes(attribute: Any) -> Iterator[types.CodeType]:
    """The code behind an attribute of a class: a method, or a property."""
    for one in (attribute, getattr(attribute, "fget", None), getattr(attribute, "__func__", None)):
        code = getattr(one, "__code__", None)
        if code is not None:
            yield code
