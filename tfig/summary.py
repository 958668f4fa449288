"""Many rows at once: how much each feature, channel or word does."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tfig import naming
from tfig.explanation import Explanation
from tfig.plots import sheet
from tfig.plots.panel import Feature, Words, columns

RESAMPLED = 2000
"""Times that rows are drawn anew for a confidence interval."""


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) of the mean: quantiles of means of values drawn anew with replacement (Efron's bootstrap).

    NaN of fewer than two values, which say nothing of others.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; it must lie between 0 and 1.")
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLED, len(values)))
    low, high = np.quantile(values[draws].mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """What `tfig.summary` returns: features by the mean of |attribution|, the strongest first.

    Fields:
        attributions: by feature, one number for each row; of a word, for each time it occurs.
        values: by feature, what the input was there: numbers or words; None where it has no value of its own.
        method: name of the method.
    """

    attributions: Mapping[str, np.ndarray]
    values: Mapping[str, np.ndarray | None]
    method: str

    @property
    def features(self) -> list[str]:
        """Names, the strongest first."""
        return list(self.attributions)

    def mean(self, feature: str) -> float:
        """The mean of |attribution|."""
        return float(np.abs(self._known(feature)).mean())

    def interval(self, feature: str, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high) of the mean, by Efron's bootstrap; NaN of a single row."""
        return interval(np.abs(self._known(feature)), confidence)

    def _known(self, feature: str) -> np.ndarray:
        """Without rows that have no number."""
        values = self.attributions[feature]
        return values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)

    def __repr__(self) -> str:
        strongest = ", ".join(f"{name} {self.mean(name):.3g}" for name in self.features[:3])
        more = f" and {len(self.features) - 3} more" if len(self.features) > 3 else ""
        return f"<Summary by {self.method}: mean |attribution| {strongest}{more}>"

    def to_markdown(self) -> str:
        """A table of features, means, intervals and numbers of values."""
        lines = ["| | mean of \\|attribution\\| | 95 % | values |", "|---|---|---|---|"]
        for name in self.features:
            low, high = self.interval(name)
            spread = "" if np.isnan(low) else f"{low:.3g} to {high:.3g}"
            lines.append(f"| {name} | {self.mean(name):.3g} | {spread} | {len(self.attributions[name])} |")
        return "\n".join(lines) + "\n"

    def plot(self, path: str | os.PathLike | None = None, top: int = 15) -> Any:
        """The strongest `top` features: means with intervals, and beside them every row as a point (a beeswarm).

        A point's place is its attribution, its colour the feature's value, from blue (low) to red (high); grey where
        values are words or there are none. Saved to `path` if given.

        Returns:
            the matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed (``pip install tfig[plot]``).
        """
        from tfig.plots import swarm

        return swarm.plot(self, path, top)


def summary(
    e: Explanation,
    *,
    kind: str | Mapping[str, str] | None = None,
    feature_names: Any = None,
    channel_names: Any = None,
    tokens: Any = None,
) -> Summary:
    """How much each feature of a table, channel of an image or a series, or word of texts does, over all rows.

    Args:
        e: of many rows.
        kind, feature_names, channel_names, tokens: as in `Explanation.plot`.

    Returns:
        a `Summary`. Channels are summed over positions, and their value is the mean over positions; words are told
        apart by what they are, wherever they stand.

    Raises:
        ValueError: `kind` or the names do not fit.

    >>> tfig.summary(tfig.explain(model, table), feature_names=columns).plot("summary.png")
    """
    found: dict[str, np.ndarray] = {}
    values: dict[str, np.ndarray | None] = {}
    for feature in features(e, kind, Words(tokens, feature_names, channel_names)):
        found[feature.name], values[feature.name] = feature.attributions, feature.values
    whole = Summary(found, values, e.method)
    order = sorted(found, key=lambda name: -whole.mean(name))
    return Summary({name: found[name] for name in order}, {name: values[name] for name in order}, e.method)


def features(e: Explanation, kind: str | Mapping[str, str] | None, words: Words) -> Iterator[Feature]:
    """The features of a table, channels of an image or a series, and words of texts, over all rows."""
    for leaf in sheet.explained(e, kind, words):
        if leaf.kind == "table":
            yield from columns(leaf.name, leaf.attributions, leaf.x, words.feature_names, leaf.units)
        elif leaf.kind == "tokens":
            yield from _by_word(leaf, words.tokens)
        else:
            yield from _by_channel(leaf, words.channel_names)


def _by_word(leaf: sheet.Leaf, tokens: Any) -> list[Feature]:
    """What each word did each time it occurs, padding left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row, map_ in enumerate(leaf.map):
        words, ids = sheet.spoken(leaf, tokens, row, len(leaf.map))
        for word, value, out in zip(words, map_, naming.padding(words, ids), strict=True):
            if not out:
                found.setdefault(word, []).append((row, float(value)))
    return [
        Feature(word, None, np.array([value for _, value in times]), np.array([row for row, _ in times]))
        for word, times in found.items()
    ]


def _by_channel(leaf: sheet.Leaf, names: Any) -> list[Feature]:
    """Sums over positions of each channel."""

    def channels(array: np.ndarray) -> np.ndarray:
        whole = array if array.ndim > leaf.map.ndim else array[..., np.newaxis]
        return whole.reshape(len(whole), -1, whole.shape[-1])

    sums = channels(leaf.attributions).sum(1)
    known = leaf.x is not None and leaf.x.shape == leaf.attributions.shape
    means = channels(leaf.x).mean(1) if known and leaf.x is not None else None
    before = f"{leaf.name} " if leaf.name else ""
    called = naming.features(names, sums.shape[1], "unit" if leaf.units else "channel")
    return [Feature(before + name, None if means is None else means[:, i], sums[:, i]) for i, name in enumerate(called)]
