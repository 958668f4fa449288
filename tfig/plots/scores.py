"""Evaluations: curves, and a table shaded by rank."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfig.plots import canvas


def table(evaluation: Any, path: str | os.PathLike | None) -> Any:
    """Of a `tfig.Evaluation`: curves, mean over rows, above the table, shaded by rank: dark green is the best."""
    methods, metrics = evaluation.methods, evaluation.metrics
    panels = _panels(evaluation)
    heights = ([3.6] if panels else []) + [0.42 * len(methods) + 1]
    width = max(1.35 * len(metrics) + 2.4, 4.0 * len(panels))
    figure = canvas.figure(width, sum(heights))
    places = figure.add_gridspec(len(heights), max(len(panels), 1), height_ratios=heights)
    _drawn(figure, [figure.add_subplot(places[0, i]) for i in range(len(panels))], panels)
    axes = figure.add_subplot(places[-1, :])
    means = np.array([[evaluation.mean(method, metric) for metric in metrics] for method in methods])
    shades = _shades(means, [evaluation.better[metric] for metric in metrics])
    axes.imshow(shades, cmap="Greens", vmin=0, vmax=2, aspect="auto")
    for column, metric in enumerate(metrics):
        best = evaluation.best(metric)
        for row, method in enumerate(methods):
            low, high = evaluation.interval(method, metric)
            mean = means[row, column]
            shown = "-" if np.isnan(mean) else f"{mean:.3g}" + ("" if np.isnan(low) else f"\n[{low:.3g}, {high:.3g}]")
            weight = "bold" if method in best else "normal"
            axes.text(column, row, shown, ha="center", va="center", fontsize=7, fontweight=weight)
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    labels = [metric.replace("_", "\n") + arrows[evaluation.better[metric]] for metric in metrics]
    axes.set_xticks(range(len(metrics)), labels, fontsize=7.5)
    axes.set_yticks(range(len(methods)), [name.replace("_", " ") for name in methods], fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    return canvas.saved(figure, path)


def curves(evaluation: Any) -> Any:
    """The curves of a `tfig.Evaluation` alone, mean over rows."""
    panels = _panels(evaluation)
    figure = canvas.figure(4.0 * len(panels), 3.6)
    _drawn(figure, list(figure.subplots(1, len(panels), squeeze=False)[0]), panels)
    return figure


def _panels(evaluation: Any) -> dict[str, dict[str, Any]]:
    """Curves by metric and method."""
    return {
        metric: {name: curves[metric] for name, curves in evaluation.curves.items() if metric in curves}
        for metric in evaluation.metrics
        if any(metric in curves for curves in evaluation.curves.values())
    }


def _drawn(figure: Any, places: list[Any], panels: Mapping[str, Mapping[str, Any]]) -> None:
    """A panel for each metric, and one legend."""
    for axes, (metric, curves) in zip(places, panels.items(), strict=True):
        _curves(axes, curves)
        axes.set_title(metric.replace("_", " "), fontsize=9)
    if places:
        lines = places[0].get_lines()
        names = [line.get_label() for line in lines]
        figure.legend(lines, names, loc="outside upper center", ncols=7, fontsize=7.5, frameon=False)


def _curves(axes: Any, curves: Mapping[str, Any]) -> None:
    for i, (name, curve) in enumerate(curves.items()):
        style = ["-", "--", ":", "-."][i // 10 % 4]
        label = name.replace("_", " ")
        axes.plot(curve.fractions, curve.scores.mean(0), style, color=f"C{i % 10}", label=label, linewidth=1.3)
    axes.set_xlabel("share of positions changed", fontsize=8)
    axes.set_ylabel("score, mean over rows", fontsize=8)
    axes.tick_params(labelsize=7)


def _shades(means: np.ndarray, better: list[str]) -> np.ndarray:
    """Each column from 0, the worst, to 1, the best, by rank; 0 where nothing is known."""
    shades = np.zeros(means.shape)
    for column, way in enumerate(better):
        known = np.isfinite(means[:, column])
        if way and known.sum() > 1:
            values = means[known, column] * (1 if way == "higher" else -1)
            shades[known, column] = [(values < value).sum() / (known.sum() - 1) for value in values]
    return shades
