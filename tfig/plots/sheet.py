"""A page: a picture of each input for each row, by the kind of what was explained."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfig import naming, view
from tfig.methods import REGISTRY
from tfig.plots import canvas, image, series, table, tokens, volume
from tfig.plots.panel import UNNAMED, Feature, Panel, Words, columns, shown
from tfig.provenance import ONLY

if TYPE_CHECKING:
    from tfig.explanation import Explanation

ROWS = 8
"""Rows drawn at most."""

WIDE = 500
"""Numbers in a row from which on they are taken for a series rather than a table."""


LONGEST = 48
"""Letters of a class's name in a title."""


class Kind(NamedTuple):
    """How a kind is drawn: the inches of a panel, what draws it, and the dimensions of the map of a row."""

    size: Callable[[Panel], tuple[float, float]]
    draw: Callable[[Any, Panel], None]
    rank: tuple[int, ...]


KINDS = {
    "image": Kind(image.size, image.draw, (2,)),
    "tokens": Kind(tokens.size, tokens.draw, (1,)),
    "series": Kind(series.size, series.draw, (1,)),
    "table": Kind(table.size, table.draw, (0, 1)),
    "volume": Kind(volume.size, volume.draw, (3,)),
    "video": Kind(volume.strip_size, volume.strip, (3,)),
}


class Part(NamedTuple):
    """What is drawn in one column: a kind, the inputs in it, a panel and the share of all attribution for each row."""

    kind: str
    name: str
    panels: list[Panel]
    share: np.ndarray


def plot(
    e: "Explanation",
    path: str | os.PathLike | None = None,
    image: Any = None,
    kind: str | Mapping[str, str] | None = None,
    words: Words = UNNAMED,
    class_names: Any = None,
) -> Any:
    """A figure of at most 8 rows, one panel for each input, saved to `path` if given."""
    return canvas.saved(page(e, parts(e, image, kind, words), range(min(len(e), ROWS)), class_names), path)


def page(e: "Explanation", found: list[Part], rows: Sequence[int], class_names: Any = None) -> Any:
    """A figure of some rows, one panel for each part; what is left of the explanation is counted below."""
    sizes = [[KINDS[part.kind].size(part.panels[row]) for row in rows] for part in found]
    across = [max(width for width, _ in column) for column in sizes]
    down = [max(column[i][1] for column in sizes) for i in range(len(rows))]
    several = 0.25 if len(found) > 1 else 0.0
    figure = canvas.figure(sum(across), sum(down) + several * len(down) + 0.3)
    places = figure.subfigures(
        len(down), len(found), squeeze=False, width_ratios=across, height_ratios=[height + several for height in down]
    )
    for i, row in enumerate(rows):
        for place, part in zip(places[i], found, strict=True):
            KINDS[part.kind].draw(place, part.panels[row])
            if several:
                place.suptitle(f"{part.name}: {part.share[row]:.0%}", fontsize=8)
        places[i, 0].axes[0].set_title(title(e, row, class_names), fontsize=9, loc="left", wrap=False)
    if len(e) > len(rows) == ROWS:
        figure.supxlabel(f"and {len(e) - ROWS} rows more", fontsize=8)
    return figure


def single(part: Part, row: int) -> Any:
    """A figure of one panel."""
    kind, panel = KINDS[part.kind], part.panels[row]
    figure = canvas.figure(*kind.size(panel))
    kind.draw(figure, panel)
    return figure


def title(e: "Explanation", row: int, class_names: Any = None) -> str:
    """The class of a row, what it is held against, and the score."""
    name = called(e, row, class_names)
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    return f"{name}, score {e.score[row]:.3g}".removeprefix(", ")


def called(e: "Explanation", row: int, class_names: Any = None) -> str:
    """The class of a row, and what it is held against; nothing where there is none: of a callable, or of one unit."""
    only = e.provenance.get("target") == ONLY
    names = e.class_names if class_names is None else naming.of_units(class_names, 1 if only else None)
    alone = names is None and only
    target = "" if e.target is None or alone else naming.class_name(names, e.target[row])
    against = e.trace.get("against")
    return target if against is None else f"{target} rather than {naming.class_name(names, against[row])}"


def parts(
    e: "Explanation",
    image: Any = None,
    kind: str | Mapping[str, str] | None = None,
    words: Words = UNNAMED,
    most: int = ROWS,
) -> list[Part]:
    """What there is to draw of the first `most` rows.

    Raises:
        ValueError: `kind` is none, or does not fit; there are not as many words as what they name.
    """
    rows, top = min(len(e), most), view.full(e)
    if not rows:
        raise ValueError("the explanation has no rows, so there is nothing to show.")
    leaves = explained(e, kind, words)
    pictures = view.named(e.channels_last("x") if image is None else image)
    weights = {leaf.name: _weight(leaf.attributions) for leaf in leaves}
    total = np.maximum(sum(weights.values()), 1e-30)
    found: list[Part] = []
    features: list[Feature] = []
    for leaf in leaves:
        name = leaf.name
        if leaf.kind == "table":
            features += columns(name, leaf.attributions, leaf.x, words.feature_names, leaf.units)
            continue
        picture = _each(pictures.get(name, leaf.x), len(e)) if leaf.kind == "image" else leaf.x
        panels = [
            Panel(
                leaf.attributions[i], leaf.map[i], None if picture is None else picture[i], top,
                _words(leaf.kind, leaf, words, i, len(e)),
            )
            for i in range(rows)
        ]  # fmt: skip
        found.append(Part(leaf.kind, name, panels, weights[name] / total))
    if features:
        share = sum(_weight(one.attributions) for one in features) / total
        found.append(Part("table", "table" if found else "", _tables(e, features, rows, not found), share))
    return found


def _weight(attributions: np.ndarray) -> np.ndarray:
    """How much attribution each row has, [B], whatever its sign."""
    return np.abs(np.nan_to_num(attributions)).reshape(len(attributions), -1).sum(1)


class Leaf(NamedTuple):
    """An input, or a layer's output, that is explained: its name, kind, [B, ...] attributions, map and values.

    `units`: whether its channels are units of a layer, not those of the input.
    """

    name: str
    kind: str
    attributions: np.ndarray
    map: np.ndarray
    x: np.ndarray | None
    units: bool = False


def explained(e: "Explanation", kind: str | Mapping[str, str] | None = None, words: Words = UNNAMED) -> list[Leaf]:
    """The inputs, or the outputs of the layer, that are explained, with their kinds; what is held is left out.

    Raises:
        ValueError: `kind` is none, or does not fit.
    """
    attributions, inputs = view.named(e.channels_last("attributions")), view.named(e.channels_last("x"))
    maps = view.named(e.heatmap())
    if e.layer is None and len(maps) > len(e.held):
        order = sorted(maps) if isinstance(e.attributions, dict) else list(maps)
        maps = {name: leaf for name, leaf in maps.items() if order.index(name) not in e.held}
    inside = e.layer is not None and not (e.method in REGISTRY and REGISTRY[e.method].of_input)
    found = []
    for name, summed in maps.items():
        own, map_ = attributions[name], summed
        beside = _beside(name, inputs, map_, words.tokens, inside)
        units = inside and own.ndim > 2 and own.shape[-1] > 1
        if inside and beside is not None and beside.ndim == own.ndim and beside.ndim in (3, 5):
            # A class map is enlarged to the positions of x; units of a layer have a time of their own.
            own, beside = (own, None) if units else (view.enlarged(own, beside.shape[1:-1]), beside)
            map_ = own.sum(-1)
        chosen = _asked(kind, name, own, map_) or guess(own, map_, beside, words, e.layer)
        found.append(Leaf(name, chosen, own, map_, beside, units or (inside and own.ndim == 2)))
    return found


def guess(attributions: np.ndarray, map_: np.ndarray, x: np.ndarray | None, words: Words, layer: str | None) -> str:
    """The kind of an input, by the shapes and the types of its attributions and itself.

    Raises:
        ValueError: it has none.
    """
    ids = x is not None and x.dtype.kind in "iubOSU" and x.ndim == 2
    if words.tokens is not None and map_.ndim == 2 and (x is None or ids):
        return "tokens"
    if map_.ndim == 2 and ids and x is not None and x.shape == map_.shape and x.shape[1] > 1:
        return "tokens" if words.feature_names is None else "table"
    if map_.ndim <= 2 and attributions.ndim <= 2:
        long = map_.ndim == 2 and map_.shape[1] > WIDE and words.feature_names is None and layer is None
        return "series" if long else "table"
    if map_.ndim == 2:
        return "series"
    if map_.ndim == 3:
        return "image"
    if map_.ndim == 4:
        return "video" if x is not None and x.ndim == 5 and x.shape[-1] == 3 else "volume"
    raise ValueError(f"there is no picture of attributions {list(attributions.shape)}; sum them over some axes first.")


def _asked(kind: str | Mapping[str, str] | None, name: str, attributions: np.ndarray, map_: np.ndarray) -> str | None:
    """What the user says an input is."""
    given = kind.get(name) if isinstance(kind, Mapping) else kind
    if given is None:
        return None
    fitting = [one for one, how in KINDS.items() if map_.ndim - 1 in how.rank]
    if given not in KINDS or given not in fitting:
        raise ValueError(
            f"kind is {given!r}; attributions {list(attributions.shape)} can be drawn as {', '.join(fitting)}."
        )
    return given


def _beside(name: str, inputs: Mapping[str, Any], map_: np.ndarray, tokens: Any, inside: bool) -> np.ndarray | None:
    """The input that a map lies over: its own; or of a layer behind tokens those with the most different ones."""
    arrays = {key: leaf for key, leaf in inputs.items() if isinstance(leaf, np.ndarray)}
    known = [leaf for leaf in arrays.values() if leaf.dtype.kind in "iuOSU" and leaf.shape == map_.shape]
    if name in arrays and (not inside or arrays[name].ndim > 2):
        return arrays[name]
    if not known and hasattr(tokens, "get_vocabulary"):  # which the model holds: texts are what comes in
        words = [leaf for leaf in arrays.values() if leaf.dtype.kind in "OSU" and leaf.size == len(leaf)]
        texts = (leaf.reshape(len(leaf)) for leaf in words)
        known = [ids for ids in map(np.asarray, map(tokens, texts)) if ids.shape == map_.shape]
    return max(known, key=lambda leaf: len(np.unique(leaf)), default=None)


def _each(pictures: Any, rows: int) -> Any:
    """An image for each row."""
    if pictures is None or np.ndim(pictures) not in (3, 4):
        return None
    pictures = np.asarray(pictures)
    if pictures.ndim == 4 and len(pictures) not in (1, rows):
        raise ValueError(f"there are {rows} rows and {len(pictures)} images; pass one for each row, or one for all.")
    return np.broadcast_to(pictures, (rows, *pictures.shape[-3:]))


def _words(kind: str, leaf: Leaf, words: Words, row: int, rows: int) -> tuple[str, ...]:
    if kind == "tokens":
        return tuple(spoken(leaf, words.tokens, row, rows)[0])
    if kind == "series":
        known = [array for array in (leaf.attributions, leaf.x) if array is not None]
        count = max(array.shape[2] if array.ndim == 3 else 1 for array in known)
        return tuple(naming.features(words.channel_names, count, "unit" if leaf.units else "channel"))
    return ()


def spoken(leaf: Leaf, tokens: Any, row: int, rows: int) -> tuple[list[str], np.ndarray]:
    """The words of a row of tokens, and their ids; zeros of float where there are none.

    Raises:
        ValueError: a vocabulary is given, and there are no ids to look up.
    """
    length = leaf.map.shape[1]
    if leaf.x is not None and leaf.x.shape == leaf.map.shape:
        return naming.tokens(tokens, leaf.x[row], row, rows), leaf.x[row]
    if tokens is None:
        return [str(i) for i in range(length)], np.zeros(length)
    if not isinstance(tokens, (list, tuple, np.ndarray)) or isinstance(tokens[0], str):
        raise ValueError(
            f"tokens= is to name ids, and there are none for the {length} positions that are explained; pass a list of "
            "words for each row."
        )
    return naming.tokens(tokens, np.zeros(length), row, rows), np.zeros(length)


def _tables(e: "Explanation", features: list[Feature], rows: int, alone: bool) -> list[Panel]:
    """A panel for each row of all columns; from F(x') to F(x) where there is nothing beside them."""
    values = np.stack([feature.attributions for feature in features], 1)
    complete = alone and e.convergence_delta is not None and e.baseline_score is not None
    panels = []
    for i in range(rows):
        words = tuple(
            feature.name if feature.values is None else f"{feature.name} = {shown(feature.values[i])}"
            for feature in features
        )
        ends = None
        if complete and e.baseline_score is not None:
            ends = float(e.baseline_score[i]), float(e.score[i])
        panels.append(Panel(values[i], values[i], words=words, ends=ends))
    return panels
