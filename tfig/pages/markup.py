"""Pieces of HTML: pictures, coloured words, tables. What comes from outside is escaped here."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from tfig import picture, view
from tfig.plots import canvas, table, tokens
from tfig.plots.panel import Panel

SIDE = 512
"""Pixels of the longer side of a picture in a page: larger ones are reduced."""


def escaped(text: Any) -> str:
    """Text as HTML, in and outside of quotes."""
    return html.escape(str(text), quote=True)


def attributes(values: Mapping[str, Any]) -> str:
    """Attributes of an element."""
    return " ".join(f'{name}="{escaped(value)}"' for name, value in values.items())


def png(rgb: np.ndarray) -> str:
    """A picture [H, W, 3], uint8, as a data URI."""
    return data("image/png", view.png(rgb))


def data(kind: str, content: bytes) -> str:
    """Bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def reduced(array: np.ndarray, side: int = SIDE) -> np.ndarray:
    """An image [H, W, ...] whose longer side is `side` at most, averaged where it is longer."""
    longest = max(array.shape[:2])
    if longest <= side:
        return array
    height, width = (max(1, round(size * side / longest)) for size in array.shape[:2])
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA)


def figure(drawn: Any, alt: str, dpi: int = 110) -> str:
    """A matplotlib figure as a picture in its own size."""
    width, source = round(drawn.get_figwidth() * 96), data("image/png", canvas.png(drawn, dpi))
    return f'<img alt="{escaped(alt)}" style="width:min(100%,{width}px)" src="{source}">'


def rgb(strength: float, alpha: float = 0.75) -> str:
    """The colour of a value in [-1, 1] as CSS: nothing for 0."""
    red, green, blue = picture.WARM if strength > 0 else picture.COLD
    return f"rgb({red} {green} {blue} / {alpha * abs(strength):.3f})"


def words(panel: Panel) -> str:
    """Coloured words that wrap, with their values for pointers and screen readers; padding left out."""
    pieces, (shown, values) = [], tokens.visible(panel)
    full = view.scale(values, panel.top) if len(values) else 1.0
    for word, value in zip(shown, values, strict=True):
        strength = float(np.clip(value / full, -1, 1))
        said = f"{escaped(word)}: {value:+.3g}"
        style = f"background:{rgb(strength)};padding:.15em .25em;border-radius:.2em"
        pieces.append(f'<span class="t" data-s="{strength:.4f}" title="{said}" style="{style}">{escaped(word)}</span>')
    return f'<p class="words">{" ".join(pieces)}</p>'


def bars(panel: Panel, caption: str = "") -> str:
    """A table of features with bars, the strongest first; sums are in its last rows."""
    found = table.bars(panel)
    most = max((abs(value) for _, value in found), default=0.0) or 1.0
    rows = []
    for name, value in found:
        strength = value / most
        side = "left:50%" if value >= 0 else "right:50%"
        place = f"position:absolute;top:.3em;bottom:.3em;{side};width:{50 * abs(strength):.2f}%"
        bar = f'<i style="{place};background:{rgb(np.sign(value), 0.85)}"></i>'
        rows.append(
            f'<tr><th scope="row">{escaped(name)}</th><td data-v="{value:.9g}">{value:+.4g}</td>'
            f'<td aria-hidden="true" style="position:relative;width:45%;min-width:6em">{bar}</td></tr>'
        )
    head = '<thead><tr><th scope="col">feature</th><th scope="col">attribution</th><td></td></tr></thead>'
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return f'<table class="bars sortable">{title}{head}<tbody>{"".join(rows)}</tbody></table>'


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """A table whose first column names its rows; a cell may be (what is shown, the number it is sorted by, is bold)."""

    def cell(value: Any) -> str:
        shown, number, bold = value if isinstance(value, tuple) else (value, None, False)
        order = "" if number is None else f' data-v="{number:.9g}"'
        return f"<td{order}>{f'<b>{escaped(shown)}</b>' if bold else escaped(shown)}</td>"

    titles = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    body = "".join(f'<tr><th scope="row">{escaped(row[0])}</th>{"".join(map(cell, row[1:]))}</tr>' for row in rows)
    title = f"<caption>{escaped(caption)}</caption>" if caption else ""
    return f'<table class="grid sortable">{title}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>'


def items(lines: Iterable[str]) -> str:
    """A list; nothing where it is empty."""
    inside = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<ul>{inside}</ul>" if inside else ""


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """A list of names and what they are."""
    return f"<dl>{''.join(f'<dt>{escaped(a)}</dt><dd>{escaped(b)}</dd>' for a, b in pairs)}</dl>"
