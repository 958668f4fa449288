"""Explanations on disk: what is said of them as JSON, their arrays by name."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfig import naming
from tfig.explanation import ROWS, Explanation, Nest

WORDS = ("method", "parameters", "layer", "output", "provenance")
"""Fields that are JSON as they are."""


def save(e: Explanation, path: Path) -> Path:
    """Write everything to an ``.npz`` file; returns its path."""
    path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
    arrays: dict[str, Any] = {}
    header = {
        "version": 1,
        **described(e),
        "attributions": packed("attributions", e.attributions, arrays),
        "x": packed("x", e.x, arrays),
        "trace": sorted(e.trace),
    }
    arrays.update({name: getattr(e, name) for name in ROWS if getattr(e, name) is not None})
    arrays.update({f"trace/{name}": value for name, value in e.trace.items()})
    np.savez_compressed(path, header=np.array(json.dumps(header)), **arrays)
    return path


def load(path: str | os.PathLike) -> Explanation:
    """Read what `save` wrote.

    Raises:
        ValueError: the file holds no explanation.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(str(arrays["header"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{os.fspath(path)!r} holds no tfig explanation; it must be a file written by save()."
        ) from error
    nests = {name: unpacked(header[name], arrays) for name in ("attributions", "x")}
    trace = {name: arrays[f"trace/{name}"] for name in header["trace"]}
    return undescribed(header, **nests, **{name: arrays.get(name) for name in ROWS}, trace=trace)


def described(e: Explanation) -> dict[str, Any]:
    """What is no array of an explanation, as JSON takes it."""
    return {
        **{name: getattr(e, name) for name in WORDS},
        "parameters": dict(e.parameters),
        "provenance": dict(e.provenance),
        "held": list(e.held),
        "channels": {name: list(axes) for name, axes in e.channels.items()},
        "class_names": _called(e),
    }


def undescribed(about: Mapping[str, Any], **fields: Any) -> Explanation:
    """The explanation of which `described` said this, with its other fields."""
    called = about.get("class_names")
    return Explanation(
        **{name: about[name] for name in WORDS if name in about},
        held=tuple(about.get("held", ())),
        channels={name: tuple(axes) for name, axes in about.get("channels", {}).items()},
        class_names=None if called is None else naming.listed({int(i): name for i, name in called.items()}),
        **fields,
    )


def packed(name: str, nest: Nest, arrays: dict[str, np.ndarray]) -> Any:
    """A JSON description of a nest, whose arrays go to `arrays` under names that start with `name`."""
    if nest is None:
        return None
    if isinstance(nest, dict):
        return {"dict": {key: packed(f"{name}/{key}", value, arrays) for key, value in nest.items()}}
    if isinstance(nest, (list, tuple)):
        return {type(nest).__name__: [packed(f"{name}/{i}", value, arrays) for i, value in enumerate(nest)]}
    text = nest.dtype == "O"
    arrays[name] = nest.astype(np.bytes_ if isinstance(nest.flat[0], bytes) else np.str_) if text else nest
    return name


def unpacked(described: Any, arrays: Mapping[str, np.ndarray]) -> Nest:
    """The nest of which `packed` gave this description."""
    if described is None or isinstance(described, str):
        return arrays[described] if described else None
    ((kind, parts),) = described.items()
    if kind == "dict":
        return {key: unpacked(value, arrays) for key, value in parts.items()}
    return {"list": list, "tuple": tuple}[kind](unpacked(value, arrays) for value in parts)


def _called(e: Explanation) -> dict[int, str] | None:
    """Names of classes by number; of a function those of the classes that occur."""
    if callable(e.class_names):
        found = [one for one in (e.target, e.trace.get("against")) if one is not None]
        return {int(i): naming.class_name(e.class_names, i) for one in found for i in np.unique(one)}
    return naming.listed(e.class_names) or None
