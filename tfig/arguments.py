"""The user's words for targets, seeds and baselines, read into values and arrays."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfig import baselines
from tfig.entry import Leaf
from tfig.problem import Method
from tfig.score import AGAINST_PREDICTED, NOTHING, PREDICTED, RUNNER_UP, Contrast, Quantity


def quantity(model: Any, output: str | None, target: Any, rows: int) -> tuple[Quantity, np.ndarray, np.ndarray]:
    """A target as (what is read off the outputs, class codes [B], codes of the class against [B]).

    Raises:
        ValueError: no class, of the wrong length, or negative.
    """
    head = None
    if isinstance(target, tuple):
        if len(target) != 2:
            raise ValueError(
                f"target is {target!r}; a tuple means (output, target). For F_a - F_b pass tfig.Contrast(a, b)."
            )
        head, target = target
        names = getattr(model, "output_names", ())
        if isinstance(head, str) and head in names and isinstance(getattr(model, "output", None), (list, tuple)):
            head = names.index(head)
    alone = output == "probabilities" and _independent(getattr(model, "loss", None), head, model)
    none, words = np.full(rows, NOTHING, np.int32), {"predicted": PREDICTED, "runner_up": RUNNER_UP}
    if isinstance(target, Contrast):
        chosen = _classes("Contrast.a", target.a, rows, words)
        other = _classes("Contrast.b", target.b, rows, {"predicted": AGAINST_PREDICTED, "runner_up": RUNNER_UP})
        return Quantity(output, head, independent=alone), chosen, other
    if callable(target):
        return Quantity(output, head, target, alone), none, none
    chosen = _classes("target", "predicted" if target is None else target, rows, words)
    return Quantity(output, head, independent=alone), chosen, none


def _independent(loss: Any, head: Any, model: Any) -> bool:
    """Whether the loss a model was compiled with has a sigmoid for each unit."""
    if isinstance(loss, dict):
        names = list(getattr(model, "output_names", ()))
        loss = loss.get(names[head] if isinstance(head, int) and head < len(names) else head)
    elif isinstance(loss, (list, tuple)):
        loss = loss[head] if isinstance(head, int) and head < len(loss) else None
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name.replace("_", "").lower() in ("binarycrossentropy", "binaryfocalcrossentropy", "bce")


def start(
    method: Method, given: Any, described: list[Leaf], leaves: list[np.ndarray]
) -> tuple[Any, list[np.ndarray], Any]:
    """A baseline as (the rule of the question, arrays to feed for each explained input, a token baseline).

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
        return baselines.Dataset(_references(given, inputs)), [], None
    if given is None and method.default_baseline == "boundary":
        given = baselines.NAMES["boundary"]
    if isinstance(given, (baselines.Boundary, baselines.AtLayer)):
        return given, [], None
    if not floats:
        name = method.default_baseline if given is None else given
        # A number with a fraction, like a name, is no token.
        if isinstance(name, (str, baselines.Baseline, float, np.floating)):
            return baselines.AtLayer(name), [], None
        parts = _each(given, described)
        arrays = [
            baselines.fit(leaf.name, part, value) for leaf, part, value in zip(described, parts, leaves, strict=True)
        ]
        return None, [], baselines.Arrays(arrays)
    rules, fed = [], []
    for (leaf, value), part in zip(floats, _each(given, [leaf for leaf, _ in floats], described), strict=True):
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


def _references(given: baselines.Dataset, inputs: list[tuple[Leaf, np.ndarray]]) -> list[np.ndarray]:
    """The references of each input, checked and in its dtype."""
    values = given.values
    parts = [values[leaf.name] for leaf, _ in inputs] if isinstance(values, dict) else tf.nest.flatten(values)
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
    return [part.astype(value.dtype) for (_, value), part in zip(inputs, parts, strict=True)]


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
    """Class codes [rows] of an int, ints, or one of `words`."""
    if isinstance(value, str):
        if value not in words:
            raise ValueError(f"{name} is {value!r}; words are {' and '.join(map(repr, words))}.")
        return np.full(rows, words[value], np.int32)
    classes = per_row(name, value, rows)
    if (classes < 0).any():
        raise ValueError(f"{name} {int(classes.min())} is negative; classes count from 0.")
    return classes
