"""The user's words for targets, seeds and baselines, read into values and arrays."""

import difflib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfig import baselines, naming
from tfig.entry import Leaf
from tfig.problem import Method
from tfig.score import AGAINST_PREDICTED, NOTHING, PREDICTED, RUNNER_UP, At, Contrast, Quantity


class Asked(NamedTuple):
    """What is asked of rows: what is read off the outputs, codes of classes [B] and of those against them [B].

    `aside` is what a callable target takes beside the outputs, [B, ...] each.
    """

    quantity: Quantity
    target: np.ndarray
    against: np.ndarray
    aside: tuple[np.ndarray, ...] = ()


def asked(model: Any, output: str | None, target: Any, rows: int, class_names: Any = None) -> Asked:
    """A target in the user's words, read; classes may be named as `class_names` lists them.

    Raises:
        ValueError: no class, of the wrong length, or negative.
    """
    head = None
    if isinstance(target, tuple) and not (target and callable(target[0])):
        if len(target) != 2:
            raise ValueError(
                f"target is {target!r}; a tuple means (output, target). For F_a - F_b pass tfig.Contrast(a, b)."
            )
        head, target = target
        names = getattr(model, "output_names", ())
        if isinstance(head, str) and head in names and isinstance(getattr(model, "output", None), (list, tuple)):
            head = names.index(head)
    alone = output == "probabilities" and _independent(getattr(model, "loss", None), head, model)
    named = naming.numbered(class_names)
    none, words = np.full(rows, NOTHING, np.int32), {**named, "predicted": PREDICTED, "runner_up": RUNNER_UP}
    if isinstance(target, tuple) or callable(target):
        function, *given = target if isinstance(target, tuple) else (target,)
        aside = tuple(_beside(i, one, rows) for i, one in enumerate(given, 1))
        shapes = tuple((one.shape[1:], one.dtype.name) for one in aside)
        return Asked(Quantity(output, head, function, shapes, independent=alone), none, none, aside)
    where = None
    if isinstance(target, At):
        where, target = _place(target.where), target.target
    read = Quantity(output, head, where=where, independent=alone)
    if isinstance(target, Contrast):
        chosen = _classes("Contrast.a", target.a, rows, words)
        other = _classes("Contrast.b", target.b, rows, {**words, "predicted": AGAINST_PREDICTED})
        return Asked(read, chosen, other)
    chosen = _classes("target", "predicted" if target is None else target, rows, words)
    return Asked(read, chosen, none)


def _beside(number: int, given: Any, rows: int) -> np.ndarray:
    """What a callable target takes beside the outputs, a row for each row."""
    array = np.asarray(given)
    if array.ndim == 0 or len(array) != rows:
        raise ValueError(
            f"target[{number}] has shape {list(array.shape)}, and x has {rows} rows; beside a callable target stands "
            "what it takes of each row, [B, ...]. What holds for all rows the function can hold itself."
        )
    return array


def _place(where: Any) -> tuple[int, ...] | baselines.Arrays:
    """Where a `tfig.At` is: indices, a region of weights, or () for everywhere."""
    if where is None or isinstance(where, (int, np.integer)):
        return () if where is None else (int(where),)
    array = np.asarray(where)
    if isinstance(where, (tuple, list)) and array.ndim == 1 and array.dtype.kind in "iu" and array.size:
        return tuple(int(one) for one in where)
    if array.dtype.kind not in "fiub" or array.ndim == 0 or not (array >= 0).all() or not array.any():
        raise ValueError(
            f"At(where={where!r}) must be the indices of a position, such as (h, w), or a region of weights, [H, W], "
            "of which none is negative and some are not zero."
        )
    return baselines.Arrays(array.astype(np.float64))


def _independent(loss: Any, head: Any, model: Any) -> bool:
    """Whether the loss a model was compiled with has a sigmoid for each unit."""
    if isinstance(loss, dict):
        names = list(getattr(model, "output_names", ()))
        loss = loss.get(names[head] if isinstance(head, int) and head < len(names) else head)
    elif isinstance(loss, (list, tuple)):
        loss = loss[head] if isinstance(head, int) and head < len(loss) else None
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name.replace("_", "").lower() in ("binarycrossentropy", "binaryfocalcrossentropy", "bce")


def of_layer(given: Any, layer: Any) -> Any:
    """A baseline, or where it is one of a layer's own, what it is of this layer."""
    rule = given.value if isinstance(given, baselines.AtLayer) else given
    rule = baselines.named(rule) if isinstance(rule, str) else rule
    return rule.of(layer) if isinstance(rule, baselines.Vocabulary) and hasattr(layer, "embeddings") else given


def start(
    method: Method, given: Any, described: list[Leaf], leaves: list[np.ndarray], read: Sequence[int] = ()
) -> tuple[Any, list[np.ndarray], Any]:
    """A baseline as (the rule of the question, arrays to feed for each explained input, a token baseline).

    Args:
        read: numbers of the inputs, where all are integers, that are looked up in the embedding explained.

    Raises:
        ValueError: the method cannot use it, or it does not fit the inputs.
    """
    floats = [(leaf, value) for leaf, value in zip(described, leaves, strict=True) if leaf.explained]
    if method.default_baseline is None:
        return None, [], None
    if given is None and method.default_baseline == "dataset":
        raise ValueError(f"{method.name} needs references; pass baseline=tfig.baselines.Dataset(references).")
    if isinstance(given, baselines.Dataset):
        if not method.takes_references:
            raise ValueError(f"{method.name} takes one baseline a row, not a Dataset; pass e.g. baseline='blur'.")
        inputs = floats or list(zip(described, leaves, strict=True))
        return baselines.Dataset(_references(given, inputs, described)), [], None
    if given is None and method.default_baseline == "boundary":
        given = baselines.NAMES["boundary"]
    if isinstance(given, (baselines.Boundary, baselines.AtLayer)):
        return given, [], None
    if not floats:
        name = method.default_baseline if given is None else given
        # A number with a fraction, like a name, is no token.
        if isinstance(name, (str, baselines.Baseline, float, np.floating)):
            return baselines.AtLayer(name), [], None
        alone = read and len(described) > len(read) and not isinstance(given, dict) and np.ndim(given) == 0
        parts = [given if i in read else None for i in range(len(described))] if alone else _each(given, described)
        # Nothing at all: the input stays as it is in x.
        arrays = [
            np.zeros(0, value.dtype) if part is None else baselines.fit(leaf.name, part, value)
            for leaf, part, value in zip(described, parts, leaves, strict=True)
        ]
        return None, [], baselines.Arrays(arrays)
    words = [leaf.name for leaf, _ in floats if not leaf.floating]
    if len(words) > 1 and isinstance(_plain(given), (int, np.integer)) and _plain(given) != 0:
        raise ValueError(
            f"baseline {_plain(given)!r} is one value, and inputs {words} each have their own: pass a dict of them."
        )
    rules: list[Any] = []
    fed = []
    for (leaf, value), part in zip(floats, _each(given, [leaf for leaf, _ in floats], described), strict=True):
        if not leaf.floating:
            rules.append(None)
            fed.append(_word(leaf, part, value))
            continue
        flat = method.default_baseline == "blur" and value.ndim < 3
        rule = baselines.named("zeros" if flat else method.default_baseline) if part is None else baselines.named(part)
        ruled = isinstance(rule, baselines.Baseline)
        if ruled and rule == baselines.NAMES["white"] and (value.max() > 1 or value.min() < 0):
            raise ValueError(
                f"baseline 'white' means 1.0, and {leaf.name!r} runs from {value.min():g} to {value.max():g}; "
                "pass the number that is white here."
            )
        rules.append(rule if ruled else baselines.NAMES["zeros"])
        fed.append(
            np.full((1, *value.shape[1:]), np.nan, value.dtype) if ruled else baselines.fit(leaf.name, part, value)
        )
    return tuple(rules), fed, None


def _plain(given: Any) -> Any:
    """The number of a constant; anything else as it is."""
    return given.value if isinstance(given, baselines.Constant) else given


def _word(leaf: Leaf, given: Any, value: np.ndarray) -> np.ndarray:
    """What stands for the absence of an integer, string or boolean: by default 0, "" or False."""
    words = leaf.dtype == "string"
    white = isinstance(given, baselines.Constant) and given.value == 1 and not words and value.max() > 1
    given = _plain(given)
    if given is None or (words and isinstance(given, (int, float)) and given == 0):
        given = "" if words else 0
    array = None if white or isinstance(given, baselines.Baseline) else np.asarray(given)
    if array is None or (array.dtype.kind in "OSU") != words or (not words and (array != np.round(array)).any()):
        raise ValueError(
            f"baseline {given!r} has no meaning for input {leaf.name!r}, which holds {leaf.dtype}; give it one of its "
            "own values: baseline={name: value, ...}, None for the default."
        )
    return baselines.fit(leaf.name, array, value)


def flags(given: Any, described: list[Leaf], leaves: list[np.ndarray]) -> list[int]:
    """Numbers of the inputs that hold zeros and ones alone, and are given no baseline of their own."""
    parts = [given.get(leaf.name) for leaf in described] if isinstance(given, dict) else given
    said = parts if isinstance(parts, (list, tuple)) and len(parts) == len(described) else [None] * len(described)
    return [
        i
        for i, (leaf, value, part) in enumerate(zip(described, leaves, said, strict=True))
        if leaf.dtype != "string" and part is None and ((value == 0) | (value == 1)).all()
    ]


def _each(given: Any, explained: list[Leaf], described: list[Leaf] | None = None) -> list[Any]:
    """What was given as baseline, for each explained input."""
    names = [leaf.name for leaf in explained]
    everything = [leaf.name for leaf in described or explained]
    if isinstance(given, dict):
        unknown = set(given) - set(everything)
        if unknown:
            raise ValueError(f"baseline names inputs {sorted(unknown)}; the explained inputs are {names}.")
        _unheld([name for name in given if name not in names and given[name] is not None], names)
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)) and len(everything) > 1:
        if len(given) == len(everything):
            pairs = zip(given, everything, strict=True)
            _unheld([name for part, name in pairs if part is not None and name not in names], names)
            return [part for part, name in zip(given, everything, strict=True) if name in names]
        if len(given) != len(names):
            raise ValueError(f"baseline has {len(given)} entries, and the explained inputs are {names}.")
        return list(given)
    if isinstance(given, (list, tuple)):
        given = np.asarray(given)
    if len(names) > 1 and np.ndim(given):
        raise ValueError(
            f"baseline is one array, and there are {len(names)} explained inputs {names}; pass a nest like x."
        )
    return [given] * len(names)


def _unheld(held: list[str], explained: list[str]) -> None:
    """Refuse baselines that would not be used."""
    if held:
        raise ValueError(
            f"baseline gives {held}, which are no floats and are held at x: nothing would come of it; give those of "
            f"{explained} alone."
        )


def _references(
    given: baselines.Dataset, inputs: list[tuple[Leaf, np.ndarray]], described: list[Leaf]
) -> list[np.ndarray]:
    """The references of each input, checked and in its dtype; what is held may be among what is given."""
    values, names = given.values, [leaf.name for leaf, _ in inputs]
    if isinstance(values, dict):
        if set(names) - set(values):
            raise ValueError(f"Dataset holds {sorted(values)}, and the explained inputs are {names}.")
        parts = [values[name] for name in names]
    else:
        parts = tf.nest.flatten(values)
        if len(parts) == len(described):
            parts = [part for part, leaf in zip(parts, described, strict=True) if leaf.name in names]
    if len(parts) != len(inputs):
        raise ValueError(
            f"Dataset holds {len(parts)} arrays, and the explained inputs are {[leaf.name for leaf, _ in inputs]}."
        )
    for (leaf, value), part in zip(inputs, parts, strict=True):
        if part.shape[1:] != value.shape[1:]:
            raise ValueError(
                f"references of {leaf.name!r} have shape {list(part.shape)}; they must be [R, ...] like x, "
                f"{['R', *value.shape[1:]]}."
            )
    return [
        part if value.dtype.kind in "OSU" else part.astype(value.dtype)
        for (_, value), part in zip(inputs, parts, strict=True)
    ]


def per_row(name: str, value: Any, rows: int) -> np.ndarray:
    """An int, or one for each row, as int32 [rows]."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {value!r}; it must be an int or one int per row.")
    if array.ndim > 1 or (array.ndim == 1 and len(array) != rows):
        raise ValueError(f"{name} has shape {list(array.shape)}, and x has {rows} rows; pass an int or one per row.")
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"{name} does not fit into 32 bits: {value!r}.")
    return np.broadcast_to(array, (rows,)).astype(np.int32)


def _classes(name: str, value: Any, rows: int, words: dict[str, int]) -> np.ndarray:
    """Class codes [rows] of an int, ints, or of one or several of `words`."""
    given = np.asarray(value)
    if given.dtype.kind in "OSU":
        unknown = next((str(one) for one in given.ravel() if one not in words), None)
        if unknown is not None:
            close = difflib.get_close_matches(unknown, words, 5)
            hint = f"did you mean {' or '.join(map(repr, close))}? Words are" if close else "words are"
            raise ValueError(
                f"{name} is {unknown!r}; {hint} 'predicted' and 'runner_up', and the names that class_names= or "
                "model.class_names lists, each once."
            )
        return per_row(name, np.array([words[one] for one in given.ravel()], np.int32).reshape(given.shape), rows)
    classes = per_row(name, value, rows)
    if (classes < 0).any():
        raise ValueError(f"{name} {int(classes.min())} is negative; classes count from 0.")
    return classes
