"""Volumes: three cuts through the strongest voxel. Clips: a strip of frames."""

from typing import Any

import numpy as np

from tfig import view
from tfig.plots import canvas
from tfig.plots.panel import Panel

FRAMES = 8
"""Frames of a clip that are drawn."""


def size(panel: Panel) -> tuple[float, float]:
    """Inches."""
    return 2.6 * 3 + 0.5, 2.7


def draw(place: Any, panel: Panel) -> None:
    """Cuts across depth, height and width, in one scale of colour; the voxel is marked."""
    found = np.unravel_index(int(np.abs(np.nan_to_num(panel.map)).argmax()), panel.map.shape)
    full = view.scale(panel.map, panel.top)
    grey = None if panel.x is None or panel.x.shape[:-1] != panel.map.shape else panel.x[..., :1]
    axes = place.subplots(1, 3, squeeze=False)[0]
    for axis, (one, what) in enumerate(zip(axes, ("depth", "row", "column"), strict=True)):
        cut = np.take(panel.map, found[axis], axis)
        below = None if grey is None else np.take(grey, found[axis], axis)
        _painted(one, cut, below, full)
        one.set_xlabel(f"{what} {found[axis]}", fontsize=7)
        across, down = [found[i] for i in range(3) if i != axis][::-1]
        if not panel.map.any():
            continue
        one.plot(across, down, "+", color="black", markersize=7, markeredgewidth=0.8)
    canvas.scale_bar(place, list(axes), full)


def strip_size(panel: Panel) -> tuple[float, float]:
    """Inches."""
    return 1.25 * len(frames(panel)) + 0.6, 1.7


def strip(place: Any, panel: Panel) -> None:
    """Frames of a clip, the map over them, in one scale of colour."""
    full = view.scale(panel.map, panel.top)
    chosen = frames(panel)
    pictured = panel.x is not None and panel.x.shape[:-1] == panel.map.shape
    axes = place.subplots(1, len(chosen), squeeze=False)[0]
    for one, i in zip(axes, chosen, strict=True):
        _painted(one, panel.map[i], panel.x[i] if pictured and panel.x is not None else None, full)
        one.set_xlabel(f"frame {i}", fontsize=7)
    canvas.scale_bar(place, list(axes), full)


def frames(panel: Panel) -> list[int]:
    """The frames drawn: at even distances, and the strongest."""
    count = len(panel.map)
    if count <= FRAMES:
        return list(range(count))
    weight = np.abs(np.nan_to_num(panel.map)).reshape(count, -1).sum(1)
    even = np.linspace(0, count - 1, FRAMES).round().astype(int)
    strongest = int(weight.argmax())
    even[int(np.abs(even - strongest).argmin())] = strongest
    return even.tolist()


def _painted(axes: Any, map_: np.ndarray, below: np.ndarray | None, full: float) -> None:
    if below is None or below.shape[-1] not in (1, 3, 4):
        axes.imshow(map_, cmap=canvas.MAP, vmin=-full, vmax=full)
    else:
        axes.imshow(view.paint(map_, below, 0.8, full))
    axes.set_xticks([])
    axes.set_yticks([])
