"""Summaries: means as bars, and every row as a point."""

import os
from typing import Any

import numpy as np

from tfig.plots import canvas

POINTS = 2000
"""Points drawn of a feature at most: of more rows as many at even ranks."""

BINS = 80
"""Columns over the width of the picture, in which points are stacked."""


def plot(summary: Any, path: str | os.PathLike | None = None, top: int = 15) -> Any:
    """Of a `tfig.Summary`, a row for each of the strongest features: its mean with interval, and its points."""
    names = summary.features[:top]
    figure = canvas.figure(9.0, 0.34 * len(names) + 1.0)
    bars, swarm = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.7])
    rows = np.arange(len(names))
    means = np.array([summary.mean(name) for name in names])
    ends = np.array([summary.interval(name) for name in names])
    reach = np.abs(np.nan_to_num(ends - means[:, np.newaxis])).T
    bars.barh(rows, means, color=canvas.NEITHER, height=0.6, xerr=reach, error_kw={"linewidth": 0.9, "capsize": 2})
    bars.set_yticks(rows, names, fontsize=7.5)
    bars.set_xlabel("mean of |attribution|, 95 %", fontsize=7.5)
    widest = max((float(np.abs(np.nan_to_num(summary.attributions[name])).max()) for name in names), default=0) or 1.0
    for row, name in zip(rows, names, strict=True):
        values = summary.attributions[name]
        chosen = np.argsort(values, kind="stable")
        chosen = chosen[np.isfinite(values[chosen])]
        if len(chosen) > POINTS:
            chosen = chosen[np.linspace(0, len(chosen) - 1, POINTS).round().astype(int)]
        heights = row + stacked(values[chosen], widest)
        shades = _ranks(summary.values[name])
        colours: dict[str, Any] = {"color": canvas.NEITHER}
        if shades is not None:
            colours = {"c": shades[chosen], "cmap": "coolwarm", "vmin": 0, "vmax": 1}
        swarm.scatter(values[chosen], heights, s=7, linewidths=0, **colours)
    swarm.axvline(0, color="black", linewidth=0.5)
    valued = any(_ranks(summary.values[name]) is not None for name in names)
    meaning = "; colour: the value of the feature, from low (blue) to high (red)" if valued else ""
    swarm.set_xlabel(f"attribution, by row{meaning}", fontsize=7.5)
    bars.set_ylim(len(names) - 0.4, -0.6)
    for one in (bars, swarm):
        one.tick_params(labelsize=7.5, length=2)
        for side in ("top", "right"):
            one.spines[side].set_visible(False)
    return canvas.saved(figure, path)


def stacked(values: np.ndarray, widest: float) -> np.ndarray:
    """Heights in [-0.4, 0.4] by which points in one column stand apart around the middle."""
    columns = np.round(values / widest * BINS / 2).astype(int)
    heights = np.zeros(len(values))
    for column in np.unique(columns):
        inside = np.flatnonzero(columns == column)
        places = (np.arange(len(inside)) + 1) // 2 * (-1.0) ** np.arange(len(inside))
        heights[inside] = np.random.default_rng(0).permutation(places)
    return heights * min(0.06, 0.4 / max(np.abs(heights).max(), 1))


def _ranks(values: np.ndarray | None) -> np.ndarray | None:
    """Each value's place among the others, in [0, 1]: outliers leave colours to the rest; None of words."""
    if values is None or values.dtype.kind not in "fiub":
        return None
    distinct, where = np.unique(values, return_inverse=True)
    return where / max(len(distinct) - 1, 1)
