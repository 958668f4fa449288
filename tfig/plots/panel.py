"""What one picture shows: a row of an input, its attributions, and the words for both."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tfig import naming


class Words(NamedTuple):
    """What a user calls things: as `Explanation.plot` takes them."""

    tokens: Any = None
    feature_names: Any = None
    channel_names: Any = None


UNNAMED = Words()


class Panel(NamedTuple):
    """One row of one input (or of a layer), channels last.

    Fields:
        attributions: [..., C].
        map: with channels summed, enlarged to the size of an image.
        x: the input, or None where what is explained has another shape.
        top: the value in full colour, where it has one of its own.
        words: one for each token; or names of features or channels, as many as are drawn.
        ends: (F(x'), F(x)) where the attributions of this panel add up to their difference.
    """

    attributions: np.ndarray
    map: np.ndarray
    x: np.ndarray | None = None
    top: float | None = None
    words: tuple[str, ...] = ()
    ends: tuple[float, float] | None = None


class Feature(NamedTuple):
    """A column of a table: name, values [B] or None, attributions [B]; of a word, which row each time is of."""

    name: str
    values: np.ndarray | None
    attributions: np.ndarray
    rows: np.ndarray | None = None


def columns(
    name: str, attributions: np.ndarray, x: np.ndarray | None, given: Any, units: bool = False
) -> list[Feature]:
    """The features of a table [B, F], or of one column [B], named by a list, or by a dict of lists by input."""
    if isinstance(given, Mapping):
        given = given.get(name)
    flat = attributions.reshape(len(attributions), -1)
    values = None if x is None or x.shape != attributions.shape else x.reshape(flat.shape)
    single = flat.shape[1] == 1 and name
    given = [name] if given is None and single else [given] if isinstance(given, str) and flat.shape[1] == 1 else given
    names = naming.features(given, flat.shape[1], "unit" if units else "feature")
    if name and given is None:
        names = [f"{name} {i}" for i in range(flat.shape[1])]
    return [Feature(one, None if values is None else values[:, i], flat[:, i]) for i, one in enumerate(names)]


def shown(value: Any) -> str:
    """A value of a table in few letters."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
