"""Images: the image, the map, and the map over the image."""

from typing import Any

import numpy as np

from tfig import view
from tfig.plots import canvas
from tfig.plots.panel import Panel


def size(panel: Panel) -> tuple[float, float]:
    """Inches."""
    return (3.1 if picture(panel) is None else 2.6 * 3 + 0.5), 2.6


def draw(place: Any, panel: Panel) -> None:
    """The map alone where there is no picture below it."""
    below = picture(panel)
    axes = place.subplots(1, 1 if below is None else 3, squeeze=False)[0]
    map_ = axes[0] if below is None else axes[1]
    map_.imshow(view.strength(panel.map, panel.top), cmap=canvas.MAP, vmin=-1, vmax=1)
    if below is not None:
        axes[0].imshow(view.pixels(below))
        axes[2].imshow(view.paint(panel.map, below, 0.7, panel.top))
    for one in axes:
        one.set_axis_off()
    canvas.scale_bar(place, list(axes), view.scale(panel.map, panel.top))


def picture(panel: Panel) -> np.ndarray | None:
    """The image, where x is one."""
    return panel.x if panel.x is not None and panel.x.ndim == 3 and panel.x.shape[-1] in (1, 3, 4) else None
