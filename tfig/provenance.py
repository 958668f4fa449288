"""How an answer came about, in words that outlast the objects they speak of."""

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import baselines, naming
from tfig.problem import Method
from tfig.score import At, Contrast
from tfig.version import VERSION

ONLY = "the only unit of the output"
"""What is explained of models whose output has one unit."""


def provenance(
    model: Any, method: Method, target: Any, baseline: Any, seed: Any, class_names: Any, units: int | None
) -> dict[str, str]:
    """The model's name, what was asked, and the versions that answered."""
    default = method.default_baseline
    absent = "none: the method has no baseline" if default is None else _said(baseline, default)
    return {
        "model": f"{type(model).__name__} {getattr(model, 'name', getattr(model, '__name__', ''))}".strip(),
        "target": ONLY if units == 1 and target is None else _target(target, class_names),
        "baseline": absent,
        "seed": str(seed) if np.ndim(seed) == 0 else "one for each row",
        "tfig": VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def weights(model: Any) -> str:
    """How many numbers a model's variables hold, and the SHA-256 of their bytes in the model's order."""
    digest, count = hashlib.sha256(), 0
    variables: Any = getattr(model, "weights", None) or getattr(model, "variables", None)
    for variable in variables or ():
        value = np.ascontiguousarray(variable)
        digest.update(value.tobytes())
        count += value.size
    return f"{count:,} numbers, SHA-256 {digest.hexdigest()}"


def _target(target: Any, class_names: Any) -> str:
    match target:
        case None:
            said = "the predicted class of each row"
        case Contrast():
            said = f"{_target(target.a, class_names)} rather than {_target(target.b, class_names)}"
        case At():
            place = "all places" if target.where is None else "a region" if np.ndim(target.where) > 1 else target.where
            said = f"{_target(target.target, class_names)}, at {place}"
        case (head, inner) if isinstance(target, tuple) and not callable(head):
            said = f"output {head!r}: {_target(inner, class_names)}"
        case (function, *_) if isinstance(target, tuple):
            said = f"the function {getattr(function, '__name__', type(function).__name__)} of the outputs and arrays"
        case _ if callable(target):
            said = f"the function {getattr(target, '__name__', type(target).__name__)} of the outputs"
        case str():
            words = {"predicted": "the predicted class", "runner_up": "the class that comes second"}
            said = words.get(target, target)
        case _:
            given = np.asarray(target)
            alone = given.ndim == 0 and given.dtype.kind in "iu"
            said = naming.class_name(class_names, int(given)) if alone else "a class given for each row"
    return said


def _said(baseline: Any, default: str) -> str:
    match baseline:
        case None:
            said = f"{default} (the method's default)"
        case baselines.Arrays():
            shapes = ", ".join(str(list(leaf.shape)) for leaf in tf.nest.flatten(baseline.values))
            said = f"{type(baseline).__name__} of {shapes}, SHA-256 {baseline.digest.hex()[:16]}"
        case baselines.Mode():
            said = f"the mode of references, SHA-256 {baseline.arrays.digest.hex()[:16]}"
        case baselines.AtLayer():
            said = f"at the layer: {_said(baseline.value, default)}"
        case dict():
            said = "; ".join(f"{name}: {_said(value, default)}" for name, value in baseline.items())
        case list() | tuple():
            said = "; ".join(_said(value, default) for value in baseline)
        case _ if np.ndim(baseline):
            array = np.asarray(baseline)
            digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
            said = f"an array {list(array.shape)}, SHA-256 {digest[:16]}"
        case _:
            said = repr(baseline)
    return said
