"""An explanation as a notebook shows it: small, and quickly."""

import numpy as np

from tfig import view
from tfig.explanation import Explanation
from tfig.pages import markup
from tfig.plots import canvas, image, sheet

ROWS, SIDE = 4, 192
"""Rows shown, and pixels of the side of a picture."""


def html(e: Explanation) -> str:
    """A few rows: overlays, coloured words, the strongest features; what else there is as a figure."""
    said = f"<p><code>{markup.escaped(repr(e))}</code></p>"
    try:
        parts = sheet.parts(e, most=ROWS) if len(e) else []
    except ValueError:  # of what has no picture the line says enough
        return said
    style = "display:inline-block;vertical-align:top;margin:0 1em .6em 0"
    rows = []
    for row in range(min(len(e), ROWS)):
        shown = "".join(_shown(part, row, view.full(e)) for part in parts)
        rows.append(f'<div style="{style}">{markup.escaped(sheet.title(e, row))}<br>{shown}</div>')
    more = f"<p>and {len(e) - ROWS} rows more</p>" if len(e) > ROWS else ""
    return f'<div style="max-width:70em">{said}{"".join(rows)}{more}</div>'


def png(e: Explanation) -> bytes | None:
    """The figure of the first rows; None where there is nothing to draw, or nothing to draw with."""
    try:
        return canvas.png(sheet.plot(e[:ROWS]), 72)
    except (ValueError, ImportError):
        return None


def _shown(part: sheet.Part, row: int, top: float | None) -> str:
    panel = part.panels[row]
    if part.kind == "tokens":
        return markup.words(panel)
    if part.kind == "table":
        return markup.bars(panel)
    if part.kind == "image":
        below = image.picture(panel)
        white = np.ones((*panel.map.shape, 1), np.float32)
        rgb = view.paint(panel.map, white if below is None else below, 0.8, top)
        style = f"width:{SIDE}px;image-rendering:{'pixelated' if max(rgb.shape) < SIDE else 'auto'}"
        return f'<img alt="map over the input" style="{style}" src="{markup.png(markup.reduced(rgb, SIDE))}">'
    try:
        return markup.figure(sheet.single(part, row), part.kind, 72)
    except ImportError:
        return f"({part.kind}; pip install tfig[plot] to see it)"
