"""Words for numbers: names of classes, features and tokens, however they are given."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PADDING = ("", "[PAD]", "<pad>")
"""What vocabularies call the positions behind the end of a text."""


def listed(given: Any) -> dict[int, str]:
    """A list of names, or a dict of them by number (or of numbers by name), as names by number; {} of anything else."""
    if isinstance(given, Mapping):
        turned = all(isinstance(name, str) and isinstance(i, (int, np.integer)) for name, i in given.items())
        return {int(i): str(name) for i, name in ((b, a) if turned else (a, b) for a, b in given.items())}
    if given is None or isinstance(given, str) or callable(given):
        return {}
    if not isinstance(given, Iterable):
        raise ValueError(f"class_names is {given!r}; pass a list, a dict by number, or a function number -> name.")
    return {i: str(name) for i, name in enumerate(given)}


def numbered(given: Any) -> dict[str, int]:
    """Numbers by name; {} where two classes share one."""
    names = listed(given)
    return {name: i for i, name in names.items()} if len(set(names.values())) == len(names) else {}


def class_name(given: Any, number: int) -> str:
    """What a class is called: by a list, a dict or a function; "class 3" where nothing names it."""
    if callable(given):
        return str(given(int(number)))
    return listed(given).get(int(number), f"class {number}")


def of_units(given: Any, units: int | None) -> Any:
    """What the units of an output are called; two names of a single unit are of 0 and of 1, and its score is of 1.

    Raises:
        ValueError: a list names more units than there are, or fewer.
    """
    names = listed(given)
    if units == 1 and set(names) == {0, 1}:
        return {0: names[1]}
    if units is not None and not isinstance(given, Mapping) and names and len(names) != units:
        raise ValueError(
            f"class_names has {len(names)} entries, and the output has {units} units; give each its name, or a dict of "
            "names by number."
        )
    return given


def features(given: Any, count: int, what: str = "feature") -> list[str]:
    """The names of `count` features or channels.

    Raises:
        ValueError: there are not as many names.
    """
    if given is None:
        return [f"{what} {i}" for i in range(count)]
    if isinstance(given, str) or len(given) != count:
        raise ValueError(f"{what}_names has {len(given)} entries, and there are {count} {what}s; give each its name.")
    return [str(name) for name in given]


def tokens(given: Any, ids: np.ndarray, row: int = 0, rows: int = 1) -> list[str]:
    """The words of one row of tokens.

    Args:
        given: None, the ids themselves; a list of words for each row; a vocabulary (a list or dict id -> word, or
            words -> ids); a Keras layer with `get_vocabulary` or a tokenizer
            with `id_to_token`; a function, ids [T] -> T words.
        ids: [T], integers or strings.
        row, rows: which row of how many.

    Raises:
        ValueError: there are not as many words as tokens.
    """
    ids = np.asarray(ids)
    if given is None:
        words = ids.tolist()
    elif hasattr(given, "id_to_token"):
        words = [given.id_to_token(int(i)) for i in ids]
    elif hasattr(given, "get_vocabulary") or isinstance(given, Mapping):
        known = listed(given if isinstance(given, Mapping) else given.get_vocabulary())
        words = [known.get(int(i), i) for i in ids]
    elif callable(given):
        words = _listed(given(ids))
    elif isinstance(given, str):
        words = given.split()
    else:
        words = _chosen(_listed(given), ids, row, rows)
    if len(words) != len(ids):
        raise ValueError(
            f"tokens gives {len(words)} words for {len(ids)} tokens; give one for each (padding too), a vocabulary, or "
            "a function ids [T] -> T words."
        )
    return [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in words]


def padding(words: Sequence[str], ids: np.ndarray) -> np.ndarray:
    """Which tokens [T] only fill a row up: zeros and empty words at its ends."""
    ids = np.asarray(ids)
    nothing = np.array([word in PADDING for word in words], bool)
    nothing |= (ids == 0) if ids.dtype.kind in "iu" else np.zeros(len(ids), bool)
    inside = np.flatnonzero(~nothing)
    ends = np.ones(len(ids), bool)
    if len(inside):
        ends[inside[0] : inside[-1] + 1] = False
    return ends


def _listed(words: Any) -> list[Any]:
    words = words.numpy() if hasattr(words, "numpy") else words
    return words.split() if isinstance(words, str) else list(words)


def _chosen(given: list[Any], ids: np.ndarray, row: int, rows: int) -> list[Any]:
    """Of lists of words that of the row; of a vocabulary the words of the ids; words as they are."""
    if given and not isinstance(given[0], (str, bytes)):
        if len(given) != rows:
            raise ValueError(f"tokens has {len(given)} lists of words, and there are {rows} rows.")
        return _listed(given[row])
    vocabulary = ids.dtype.kind in "iu" and len(ids) and int(ids.max()) < len(given)
    return [given[int(i)] for i in ids] if vocabulary else given
