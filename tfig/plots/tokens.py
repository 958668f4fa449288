"""Texts: words on a ground of the colour of what they did, broken into lines."""

import unicodedata
from typing import Any

import numpy as np

from tfig import naming, view
from tfig.plots import canvas
from tfig.plots.panel import Panel

CELLS = 96
"""Letters in a line."""

WIDTH, LINE, CELL = 8.6, 0.27, 0.602
"""Inches of a text and of a line; the width of a letter of the font, in its size."""


def size(panel: Panel) -> tuple[float, float]:
    """Inches."""
    return WIDTH, LINE * (len(_lines(visible(panel)[0])) + 1) + 0.35


def draw(place: Any, panel: Panel) -> None:
    """Words in their order; what only fills the row up is left out, and its sum told if it has one."""
    from matplotlib.patches import Rectangle

    words, values = visible(panel)
    lines = _lines(words)
    full = view.scale(values, panel.top) if len(values) else 1.0
    axes = place.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, CELLS)
    room = place.bbox.height / place.dpi / LINE - 2  # beside taller pictures lines keep their height
    axes.set_ylim(max(len(lines), room), 0)
    family = canvas.families()
    points = (WIDTH - 0.9) * 72 / CELLS / CELL
    for down, line in enumerate(lines):
        for across, i, text in line:
            colour = canvas.colour(float(np.clip(values[i] / full, -1, 1)))
            box = Rectangle((across - 0.2, down + 0.06), _width(text) + 0.4, 0.88, color=colour, linewidth=0)
            axes.add_patch(box)
            axes.text(
                across, down + 0.52, text, fontsize=points, color=canvas.ink(colour), va="center", ha="left",
                family=family,
                parse_math=False,
            )  # fmt: skip
    canvas.scale_bar(place, axes, full)


def visible(panel: Panel) -> tuple[list[str], np.ndarray]:
    """(words, their values), without padding at the ends; one more stands for padding that has a value."""
    ids = np.zeros(len(panel.words), np.float32) if panel.x is None else panel.x
    hidden = naming.padding(panel.words, ids)
    words = [" ".join(word.split()) or "␣" for word, out in zip(panel.words, hidden, strict=True) if not out]
    values = panel.map[~hidden]
    if np.any(panel.map[hidden]):
        words.append(f"[{hidden.sum()} of padding]")
        values = np.append(values, panel.map[hidden].sum())
    return words, values


def _lines(words: list[str]) -> list[list[tuple[int, int, str]]]:
    """Lines of (at which letter, which word, its text)."""
    lines: list[list[tuple[int, int, str]]] = [[]]
    across = 0
    for i, word in enumerate(words):
        text = word if _width(word) <= CELLS else word[: CELLS // 2 - 1] + "…"
        if across and across + _width(text) > CELLS:
            lines.append([])
            across = 0
        lines[-1].append((across, i, text))
        across += _width(text) + 1
    return lines


def _width(text: str) -> int:
    """Cells of a font of fixed width: letters of the East take two, and accents none."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
