"""Heat maps, overlays and plots: for people to look at."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfig import picture

if TYPE_CHECKING:
    from tfig.explanation import Explanation

WARM, COLD = picture.WARM, picture.COLD


def heatmap(attributions: Any, x: Any) -> Any:
    """Channels summed; maps over an image or sequence brought to its spatial size. Nests are mapped leaf by leaf."""
    if isinstance(attributions, dict):
        return {name: heatmap(leaf, x[name] if isinstance(x, dict) else None) for name, leaf in attributions.items()}
    if isinstance(attributions, (list, tuple)):
        inputs = x if isinstance(x, (list, tuple)) else [None] * len(attributions)
        return [heatmap(leaf, value) for leaf, value in zip(attributions, inputs, strict=True)]
    if attributions.ndim < 3:
        return attributions
    over_image = isinstance(x, np.ndarray) and x.ndim == 4 and attributions.ndim == 4
    larger = over_image and attributions.shape[:3] != x.shape[:3]
    return picture.heatmap(attributions, x.shape[1:3] if larger else None).numpy()


def full(e: "Explanation") -> float | None:
    """The value shown in full colour: 1 for masks, which have a scale of their own; None: each map's own."""
    return 1.0 if "mask" in e.trace else None


def strength(map_: np.ndarray, top: float | None = None) -> np.ndarray:
    """A map scaled to [-1, 1] by `top`, or the 99th percentile of its magnitude; all zeros stay zeros."""
    return picture.strength(map_[np.newaxis], top)[0].numpy()


def pixels(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] or [H, W] of any range as uint8 RGB [H, W, 3]: as `tfig.picture.pixels`."""
    image = np.asarray(image)
    return picture.pixels((image if image.ndim == 3 else image[..., np.newaxis])[np.newaxis])[0].numpy()


def paint(map_: np.ndarray, image: np.ndarray, alpha: float, top: float | None = None) -> np.ndarray:
    """One map [h, w], enlarged to its image [H, W, C], painted over it: uint8 RGB [H, W, 3]."""
    maps = picture.heatmap(map_[np.newaxis, ..., np.newaxis].astype(np.float32), image.shape[:2])
    return picture.paint(maps, np.asarray(image)[np.newaxis], alpha, top)[0].numpy()


def named(nest: Any) -> dict[str, Any]:
    """The leaves of a nest by name: keys of a dict, positions of a list, "" for a single array."""
    if isinstance(nest, dict):
        return {str(name): leaf for name, leaf in nest.items()}
    return {str(i): leaf for i, leaf in enumerate(nest)} if isinstance(nest, (list, tuple)) else {"": nest}


def overlay(maps: Any, images: Any, alpha: float, top: float | None = None) -> np.ndarray:
    """Maps [B, H, W] over images [B, H, W, C] or one [H, W, C] for all, uint8 RGB [B, H, W, 3].

    Of nests, the first map of an image is shown.

    Raises:
        ValueError: not images, or of another size.
    """
    found = [(name, leaf) for name, leaf in named(maps).items() if leaf.ndim == 3]
    over = named(images).get(found[0][0]) if found and isinstance(images, (dict, list, tuple)) else images
    over = None if over is None else np.asarray(over)
    if not found or over is None or over.ndim not in (3, 4):
        shapes = {name: list(leaf.shape) for name, leaf in named(maps).items()}
        given = None if over is None else list(over.shape)
        raise ValueError(
            f"an overlay needs maps [B, H, W] and images [B, H, W, C]; got maps {shapes} and images {given}."
        )
    rows = found[0][1]
    over = np.broadcast_to(over, (len(rows), *over.shape)) if over.ndim == 3 else over
    if len(over) != len(rows):
        raise ValueError(f"there are {len(rows)} maps and {len(over)} images.")
    return np.stack([paint(row, image, alpha, top) for row, image in zip(rows, over, strict=True)])


def _figure() -> Any:
    """Matplotlib's Figure, which needs no display."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot() needs matplotlib: pip install tfig[plot]") from error
    return Figure


def plot(e: "Explanation", path: str | os.PathLike | None, image: Any) -> Any:
    """A figure of at most 8 rows: image, map and overlay; bars for tables, stripes for sequences."""
    Figure = _figure()
    rows = min(len(e), 8)
    inputs = named(e.channels_last("x") if image is None else image)
    panels = [(name, leaf, _images(leaf, inputs.get(name), len(e))) for name, leaf in named(e.heatmap()).items()]
    columns = sum(1 if images is None else 3 for _, _, images in panels)
    figure = Figure(figsize=(2.6 * columns, 2.6 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for i in range(rows):
        column = 0
        for name, leaf, images in panels:
            if images is None:
                _stripes(axes[i, column], leaf[i], full(e))
            else:
                _pictures(axes[i, column : column + 3], leaf[i], images[i], full(e))
            if name and i == 0:
                axes[i, column].set_title(name, fontsize=8, loc="right")
            column += 1 if images is None else 3
        axes[i, 0].set_title(_title(e, i), fontsize=9, loc="left")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def grid(explanations: Mapping[str, "Explanation"], path: str | os.PathLike | None, image: Any) -> Any:
    """A figure with a row for each of at most 8 rows, the image first, then each explanation over it, labelled."""
    Figure = _figure()
    shown = {name: e for name, e in explanations.items() if any(leaf.ndim == 3 for leaf in named(e.heatmap()).values())}
    if not shown:
        raise ValueError("the explanations are of no image, so there is no grid to draw; plot them one by one.")
    first = next(iter(shown.values()))
    inputs = named(first.channels_last("x") if image is None else image)
    images = next(leaf for leaf in inputs.values() if np.ndim(leaf) in (3, 4))
    images = np.broadcast_to(images, (len(first), *np.shape(images)[-3:]))
    rows, across = min(len(first), 8), min(len(shown) + 1, 7)
    down = -(-(len(shown) + 1) // across)
    figure = Figure(figsize=(2.1 * across, 2.3 * rows * down + 0.2), layout="constrained")
    axes = figure.subplots(rows * down, across, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    for i in range(rows):
        for place, name in enumerate(["", *shown]):
            one = axes[i * down + place // across, place % across]
            one.imshow(shown[name][i].overlay(images[i : i + 1], 0.8)[0] if name else pixels(images[i]))
            one.set_title(name.replace("_", " ") if name else _title(first, i), fontsize=8)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def table(evaluation: Any, path: str | os.PathLike | None) -> Any:
    """Of a `tfig.Evaluation`: curves, mean over rows, above the table, shaded by rank: dark green is the best."""
    methods, metrics = evaluation.methods, evaluation.metrics
    panels = {
        metric: {name: curves[metric] for name, curves in evaluation.curves.items() if metric in curves}
        for metric in metrics
        if any(metric in curves for curves in evaluation.curves.values())
    }
    heights = ([3.6] if panels else []) + [0.42 * len(methods) + 1]
    width = max(1.35 * len(metrics) + 2.4, 4.0 * len(panels))
    figure = _figure()(figsize=(width, sum(heights)), layout="constrained")
    places = figure.add_gridspec(len(heights), max(len(panels), 1), height_ratios=heights)
    for place, (metric, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(places[0, place])
        _curves(axes, curves)
        axes.set_title(metric.replace("_", " "), fontsize=9)
        if place == 0:
            lines = axes.get_lines()
            names = [line.get_label() for line in lines]
            figure.legend(lines, names, loc="outside upper center", ncols=7, fontsize=7.5, frameon=False)
    axes = figure.add_subplot(places[-1, :])
    means = np.array([[evaluation.mean(method, metric) for metric in metrics] for method in methods])
    shades = _shades(means, [evaluation.better[metric] for metric in metrics])
    axes.imshow(shades, cmap="Greens", vmin=0, vmax=2, aspect="auto")
    for column, metric in enumerate(metrics):
        best = evaluation.best(metric)
        for row, method in enumerate(methods):
            low, high = evaluation.interval(method, metric)
            mean = means[row, column]
            shown = "-" if np.isnan(mean) else f"{mean:.3g}" + ("" if np.isnan(low) else f"\n[{low:.2g}, {high:.2g}]")
            weight = "bold" if method in best else "normal"
            axes.text(column, row, shown, ha="center", va="center", fontsize=7, fontweight=weight)
    arrows = {"higher": " ↑", "lower": " ↓", "": ""}
    labels = [metric.replace("_", "\n") + arrows[evaluation.better[metric]] for metric in metrics]
    axes.set_xticks(range(len(metrics)), labels, fontsize=7.5)
    axes.set_yticks(range(len(methods)), [name.replace("_", " ") for name in methods], fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


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


def _images(maps: np.ndarray, images: Any, rows: int) -> np.ndarray | None:
    """Images [B, H, W, C] to show beside maps [B, H, W], or None where they are no images."""
    if maps.ndim != 3 or not isinstance(images, np.ndarray) or images.shape[-1] not in (1, 3, 4):
        return None
    if images.ndim == 3:
        images = np.broadcast_to(images, (rows, *images.shape))
    return images if images.ndim == 4 else None


def _title(e: "Explanation", row: int) -> str:
    target = "" if e.target is None else f"class {e.target[row]}"
    against = e.trace.get("against")
    if against is not None:
        target += f" rather than {against[row]}"
    return f"{target}  score {e.score[row]:.3g}".strip()


def _pictures(axes: Any, map_: np.ndarray, image: np.ndarray, top: float | None) -> None:
    axes[0].imshow(pixels(image))
    axes[1].imshow(strength(map_, top), cmap="RdBu_r", vmin=-1, vmax=1)
    axes[2].imshow(paint(map_, image, 0.7, top))
    for one in axes:
        one.set_axis_off()


def _stripes(axes: Any, values: np.ndarray, top: float | None) -> None:
    while values.ndim > 2:  # volumes and clips: their mean over the first axis
        values = values.mean(0)
    if values.ndim == 2:
        axes.imshow(strength(values, top), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axes.set_axis_off()
        return
    colours = ["#b2182b" if value > 0 else "#2166ac" for value in values]
    axes.barh(np.arange(len(values)), values, color=colours)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.5)
    axes.set_yticks(np.arange(len(values)) if len(values) <= 20 else [])
    axes.tick_params(labelsize=7)
