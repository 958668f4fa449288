"""Many methods side by side: a labelled grid."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfig import view
from tfig.plots import canvas, sheet

if TYPE_CHECKING:
    from tfig.explanation import Explanation


def grid(explanations: Mapping[str, "Explanation"], path: str | os.PathLike | None, image: Any) -> Any:
    """A figure with a row for each of at most 8 rows, the image first, then each explanation over it, labelled."""
    shown = {
        name: e for name, e in explanations.items() if any(leaf.ndim == 3 for leaf in view.named(e.heatmap()).values())
    }
    if not shown:
        raise ValueError("the explanations are of no image, so there is no grid to draw; plot them one by one.")
    first = next(iter(shown.values()))
    inputs = view.named(first.channels_last("x") if image is None else image)
    images = next(leaf for leaf in inputs.values() if np.ndim(leaf) in (3, 4))
    images = np.broadcast_to(images, (len(first), *np.shape(images)[-3:]))
    rows, across = min(len(first), 8), min(len(shown) + 1, 7)
    down = -(-(len(shown) + 1) // across)
    figure = canvas.figure(2.1 * across, 2.3 * rows * down + 0.2)
    axes = figure.subplots(rows * down, across, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    for i in range(rows):
        for place, name in enumerate(["", *shown]):
            one = axes[i * down + place // across, place % across]
            one.imshow(shown[name][i].overlay(images[i : i + 1], 0.8)[0] if name else view.pixels(images[i]))
            one.set_title(_label(shown[name], name, i) if name else sheet.title(first, i), fontsize=8)
    return canvas.saved(figure, path)


def _label(e: "Explanation", name: str, row: int) -> str:
    """A method's name; of several inputs, with the share of the one that is shown."""
    leaves = view.named(e.heatmap())
    label = name.replace("_", " ")
    if len(leaves) < 2:
        return label
    shown = next(key for key, leaf in leaves.items() if leaf.ndim == 3)
    weights = {key: float(np.abs(np.nan_to_num(leaf[row])).sum()) for key, leaf in view.named(e.attributions).items()}
    return f"{label}: {weights[shown] / max(sum(weights.values()), 1e-30):.0%} in {shown}"
