"""Figures and what they are drawn with: the one place that imports matplotlib."""

import functools
import io
import os
from typing import Any

MAP = "RdBu_r"
"""Blue against, white for nothing, red for: told apart by colour-blind eyes too."""

FOR, AGAINST, NEITHER = "#b2182b", "#2166ac", "#7f7f7f"
DPI = 120


@functools.cache
def _kind() -> Any:
    """matplotlib's Figure, which needs no display, and shows itself in notebooks without pyplot too."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.text import Text
    except ImportError as error:
        raise ImportError("plot() needs matplotlib: pip install tfig[plot]") from error

    class Shown(Figure):
        def draw(self, renderer: Any) -> None:
            for text in self.findobj(Text):  # names are names: a "$" begins no formula
                text.set_parse_math(False)
            super().draw(renderer)

        def _repr_png_(self) -> bytes:
            return png(self, DPI)

    return Shown


def figure(width: float, height: float) -> Any:
    """A matplotlib Figure of so many inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return _kind()(figsize=(width, height), layout="constrained")


def saved(drawn: Any, path: str | os.PathLike | None) -> Any:
    """The figure, written to `path` if given."""
    if path is not None:
        drawn.savefig(path, dpi=DPI)
    return drawn


def png(drawn: Any, dpi: int) -> bytes:
    """The figure as the bytes of a PNG file."""
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def scale_bar(place: Any, beside: Any, full: float) -> None:
    """What colours mean, from -full to full, beside axes of a figure."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = place.colorbar(
        ScalarMappable(Normalize(-full, full), MAP), ax=beside, shrink=0.8, aspect=16, pad=0.02, ticks=[-full, 0, full]
    )
    bar.ax.set_yticklabels([f"{value:.2g}" for value in (-full, 0, full)], fontsize=6.5)
    bar.outline.set_linewidth(0.3)
    bar.ax.tick_params(length=2, width=0.3)


def colour(strength: float) -> tuple[float, float, float]:
    """The colour of a value in [-1, 1], RGB in [0, 1]."""
    from matplotlib import colormaps

    return colormaps[MAP](0.5 + 0.5 * strength)[:3]


def ink(background: tuple[float, float, float]) -> str:
    """Black or white: what is read on a background."""
    red, green, blue = background
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def families() -> list[str]:
    """A font of fixed width, and those of this machine that have the letters it lacks."""
    from matplotlib.font_manager import fontManager

    wider = (
        "CJK",
        "Noto Sans Arabic",
        "Noto Sans Hebrew",
        "Noto Sans Devanagari",
        "Noto Emoji",
        "Unifont",
        "WenQuanYi",
    )
    return ["DejaVu Sans Mono", *(name for name in fontManager.get_font_names() if any(one in name for one in wider))]
