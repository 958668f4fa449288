"""Series: the signal as a line, the attribution as the colour behind it, a band for each channel."""

from typing import Any

import numpy as np

from tfig import view
from tfig.plots import canvas
from tfig.plots.panel import Panel

BINS = 1200
"""Columns that are drawn: of more steps the line spans each column's least and greatest, the colour its sum."""

CHANNELS = 8
"""Bands drawn: of more channels those with the most attribution."""


def size(panel: Panel) -> tuple[float, float]:
    """Inches."""
    return 9.0, 1.05 * len(strongest(panel)) + 0.75


def draw(place: Any, panel: Panel) -> None:
    """Bands share one scale of colour, and time."""
    signal = None if panel.x is None else _bands(np.asarray(panel.x, np.float64))
    values = _values(panel)
    shown = strongest(panel)
    summed = np.stack([_binned(values[:, channel]) for channel in shown])
    full = view.scale(summed, panel.top)
    axes = place.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for one, channel, sums in zip(axes, shown, summed, strict=True):
        if signal is not None:
            where, low, high = _envelope(signal[:, channel])
            one.fill_between(where, low, high, color="black", linewidth=0.9)
            room = 0.05 * max(float(np.ptp(signal[:, channel])), 1e-12)
            one.set_ylim(float(low.min()) - room, float(high.max()) + room)
        bottom, top = one.get_ylim()
        one.imshow(
            sums[np.newaxis], cmap=canvas.MAP, vmin=-full, vmax=full, aspect="auto", zorder=-1, interpolation="nearest",
            extent=(-0.5, len(values) - 0.5, bottom, top),
        )  # fmt: skip
        one.set_ylim(bottom, top)
        one.tick_params(labelsize=6.5, length=2)
        if values.shape[1] > 1:
            one.set_ylabel(panel.words[channel], fontsize=7, rotation=0, ha="right", va="center")
    axes[-1].set_xlabel(_axis(len(values), len(shown), values.shape[1]), fontsize=7)
    canvas.scale_bar(place, list(axes), full)


def strongest(panel: Panel) -> list[int]:
    """The channels drawn, in their order."""
    weight = np.abs(_values(panel)).sum(0)
    return sorted(np.argsort(-weight, kind="stable")[:CHANNELS].tolist())


def _values(panel: Panel) -> np.ndarray:
    """Attributions [T, C]; where all channels of a step have one, it is behind each of them."""
    values = _bands(panel.attributions)
    channels = 1 if panel.x is None else _bands(panel.x).shape[1]
    return np.repeat(values, channels, 1) if values.shape[1] == 1 else values


def _axis(steps: int, shown: int, channels: int) -> str:
    binned = f"; colour: sums of {-(-steps // BINS)} steps" if steps > BINS else ""
    left = f"; {shown} of {channels} channels, those with the most" if channels > shown else ""
    return f"step{binned}{left}"


def _bands(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 2 else values[:, np.newaxis]


def _edges(steps: int) -> np.ndarray:
    """Where columns begin."""
    width = -(-steps // BINS)
    return np.arange(0, steps, width)


def _binned(values: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values.astype(np.float64), _edges(len(values)))


def _envelope(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(where, least, greatest) of each column; each reaches its neighbour, so that the line is one."""
    edges = _edges(len(signal))
    low, high = np.minimum.reduceat(signal, edges), np.maximum.reduceat(signal, edges)
    width = (edges[1] - edges[0]) if len(edges) > 1 else 1
    if width > 1:
        first = signal[edges]
        low[:-1], high[:-1] = np.minimum(low[:-1], first[1:]), np.maximum(high[:-1], first[1:])
    return edges + (width - 1) / 2, low, high
