"""Explanations in other libraries' forms: SHAP, pandas, xarray."""

import importlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfig import naming
from tfig.explanation import Explanation
from tfig.plots import sheet
from tfig.plots.panel import Feature, Words, columns

AXES = {
    "image": ("height", "width"), "series": ("step",), "volume": ("depth", "height", "width"),
    "video": ("frame", "height", "width"), "tokens": ("position",), "table": ("feature",),
}  # fmt: skip
"""What the axes of a row are called, by its kind; a last one more is "channel"."""


def to_shap(e: Explanation, words: Words) -> Any:
    """As `Explanation.to_shap`."""
    shap = _library("shap")
    leaves = sheet.explained(e, None, words)
    names: Any = None
    if all(leaf.kind == "table" for leaf in leaves):
        features = _features(leaves, words)
        values = np.stack([one.attributions for one in features], 1)
        known = [one for one in features if one.values is not None]
        data = np.stack([np.asarray(one.values, object) for one in known], 1) if len(known) == len(features) else None
        if data is not None and all(np.asarray(one.values).dtype.kind in "fiub" for one in known):
            data = data.astype(np.float64)
        names = [one.name for one in features]
    elif len(leaves) > 1:
        raise ValueError(
            f"a shap.Explanation holds one input, and {[leaf.name for leaf in leaves]} are explained; take the arrays "
            "of one from attributions[name], or all from to_xarray()."
        )
    elif leaves[0].kind == "tokens":
        (leaf,) = leaves
        values, rows = leaf.map, len(leaf.map)
        data = np.array([sheet.spoken(leaf, words.tokens, row, rows)[0] for row in range(rows)], object)
    else:
        (leaf,) = leaves
        values, data = leaf.attributions, leaf.x
    base = np.zeros(len(e)) if e.baseline_score is None else e.baseline_score
    return shap.Explanation(values=values, base_values=base, data=data, feature_names=names)


def to_dataframe(e: Explanation, words: Words) -> Any:
    """As `Explanation.to_dataframe`."""
    pandas = _library("pandas")
    leaves = sheet.explained(e, None, words)
    kinds = {leaf.kind for leaf in leaves}
    facts = _facts(e)
    if kinds == {"table"}:
        features = {one.name: one.attributions for one in _features(leaves, words)}
        twice = sorted(set(features) & set(facts))
        if twice:
            raise ValueError(f"features are called {twice}, as what is told of rows is; pass other feature_names=.")
        return pandas.DataFrame({**features, **facts})
    if kinds != {"tokens"} or len(leaves) > 1:
        shapes = {leaf.name or "x": list(leaf.attributions.shape) for leaf in leaves}
        raise ValueError(f"a DataFrame holds a table or a text, and what is explained is {shapes}; use to_xarray().")
    (leaf,) = leaves
    parts = []
    for row, map_ in enumerate(leaf.map):
        said, ids = sheet.spoken(leaf, words.tokens, row, len(leaf.map))
        kept = np.flatnonzero(~naming.padding(said, ids) | (map_ != 0))
        told = {"row": row, "position": kept, "token": [said[i] for i in kept], "attribution": map_[kept]}
        parts.append(pandas.DataFrame(told))
    return pandas.concat(parts, ignore_index=True)


def to_xarray(e: Explanation, words: Words) -> Any:
    """As `Explanation.to_xarray`."""
    xarray = _library("xarray")
    arrays: dict[str, Any] = {name: (("row",), np.asarray(values)) for name, values in _facts(e).items()}
    coordinates: dict[str, Any] = {"row": np.arange(len(e))}
    for leaf in sheet.explained(e, None, words):
        end, rank = f"_{leaf.name}" if leaf.name else "", leaf.attributions.ndim - 1
        axes = (*AXES[leaf.kind], "channel")[:rank]
        dims = ("row", *(f"{axis}{end}" for axis in axes))
        arrays[f"attributions{end}"] = (dims, leaf.attributions)
        if leaf.x is not None and leaf.x.shape == leaf.attributions.shape:
            arrays[f"x{end}"] = (dims, leaf.x)
        elif leaf.x is not None and leaf.x.ndim == leaf.attributions.ndim - 1:
            arrays[f"x{end}"] = (dims[:-1], leaf.x)
        for axis, names in (("feature", words.feature_names), ("channel", words.channel_names)):
            own = names.get(leaf.name) if isinstance(names, Mapping) else names
            if axis in axes and own is not None:
                coordinates[f"{axis}{end}"] = naming.features(own, leaf.attributions.shape[1 + axes.index(axis)], axis)
    attributes = {
        "method": e.method, "parameters": json.dumps(dict(e.parameters), default=str), "layer": e.layer or "",
        "output": e.output or "", **e.provenance,
    }  # fmt: skip
    return xarray.Dataset(arrays, coordinates, attributes)


def _features(leaves: list[sheet.Leaf], words: Words) -> list[Feature]:
    return [
        one for leaf in leaves for one in columns(leaf.name, leaf.attributions, leaf.x, words.feature_names, leaf.units)
    ]


def _facts(e: Explanation) -> dict[str, Any]:
    """What is told of each row: its class, with its name where it has one, and the scores."""
    told = {"score": e.score, "baseline_score": e.baseline_score, "convergence_delta": e.convergence_delta}
    facts: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    if e.target is not None:
        facts = {"target": e.target, **facts}
        if e.class_names is not None:
            names = {number: naming.class_name(e.class_names, number) for number in np.unique(e.target)}
            facts = {"class": [names[number] for number in e.target], **facts}
    return facts


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"to_{_CALLS[name]}() needs {name}: pip install tfig[exchange]") from error


_CALLS = {"shap": "shap", "pandas": "dataframe", "xarray": "xarray"}
