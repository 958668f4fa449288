"""Tables: the features that did most, from F(x') to F(x) where they add up to it."""

from typing import Any

import numpy as np

from tfig.plots import canvas
from tfig.plots.panel import Panel

STRONGEST = 15
"""Features drawn; the rest are one bar."""


def size(panel: Panel) -> tuple[float, float]:
    """Inches."""
    return 6.4, 0.24 * len(bars(panel)) + (1.0 if panel.ends else 0.7)


def bars(panel: Panel) -> list[tuple[str, float]]:
    """(label, attribution), the strongest first; what is left over, and what the sum misses, last."""
    values = np.nan_to_num(panel.attributions.reshape(-1), posinf=0.0, neginf=0.0)
    order = np.argsort(-np.abs(values), kind="stable")
    # One feature fewer where one bar would stand for one.
    kept = order if len(order) <= STRONGEST + 1 else order[:STRONGEST]
    found = [(panel.words[i], float(values[i])) for i in kept]
    if len(kept) < len(order):
        rest = order[STRONGEST:]
        found.append((f"{len(rest)} others", float(values[rest].sum())))
    if panel.ends is not None:
        missed = panel.ends[1] - panel.ends[0] - float(values.sum())
        if abs(missed) > 1e-3 * max(abs(panel.ends[1] - panel.ends[0]), float(np.abs(values).max())):
            found.append(("not attributed", missed))
    return found


def draw(place: Any, panel: Panel) -> None:
    """A waterfall, its first bar at the top and at F(x'); bars from zero where there is no F(x') to begin at."""
    found = bars(panel)
    axes = place.subplots()
    values = np.array([value for _, value in found])
    begins = np.zeros(len(values))
    if panel.ends is not None:
        begins = panel.ends[0] + np.concatenate([[0.0], np.cumsum(values)[:-1]])
        for row, end in enumerate((begins + values)[:-1]):
            axes.plot([end, end], [row - 0.36, row + 1.36], color=canvas.NEITHER, linewidth=0.5, zorder=0)
    colours = [
        canvas.NEITHER if name == "not attributed" else canvas.FOR if value > 0 else canvas.AGAINST
        for name, value in found
    ]
    axes.barh(np.arange(len(values)), values, left=begins, color=colours, height=0.72)
    low, high = min(begins.min(), (begins + values).min()), max(begins.max(), (begins + values).max())
    room = 0.16 * max(high - low, 1e-12)
    for row, value in enumerate(values):
        right = value >= 0
        place_ = begins[row] + value + (0.1 if right else -0.1) * room
        axes.text(place_, row, f"{value:+.3g}", va="center", ha="left" if right else "right", fontsize=6.5)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_yticks(np.arange(len(values)), [name for name, _ in found], fontsize=7)
    axes.tick_params(labelsize=7, length=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if panel.ends is None:
        axes.axvline(0, color="black", linewidth=0.5)
        return
    first, last = panel.ends
    axes.axvline(first, color=canvas.NEITHER, linewidth=0.6, linestyle=":", zorder=0)
    axes.axvline(last, color="black", linewidth=0.6, linestyle=":", zorder=0)
    axes.set_xlabel(f"from F(x') = {first:.3g} to F(x) = {last:.3g}", fontsize=7)
