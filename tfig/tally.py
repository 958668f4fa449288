"""Means over more rows than fit anywhere: kept as sums that are merged, in any order, from any number of machines."""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from tfig import naming, view
from tfig.explanation import Explanation
from tfig.plots.panel import Words
from tfig.summary import features

ALL = "all"
"""Rows of every class."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """How many numbers there were, their sum and the sum of their squares, each as two doubles that add up to it."""

    count: int = 0
    sum: tuple[float, float] = (0.0, 0.0)
    squares: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Of numbers; those that are none are left out."""
        known = np.asarray(values, np.float64).ravel()
        known = known[np.isfinite(known)]
        high, low = _split(known)
        return cls(len(known), _exact(known), _exact([*high * high, *2 * high * low, *low * low]))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            _exact([*self.sum, *other.sum]),
            _exact([*self.squares, *other.squares]),
        )

    @property
    def mean(self) -> float:
        """NaN of nothing."""
        return float(sum(map(Fraction, self.sum)) / self.count) if self.count else math.nan

    @property
    def error(self) -> float:
        """The standard error of the mean; NaN of fewer than two."""
        if self.count < 2:
            return math.nan
        whole, squares = sum(map(Fraction, self.sum)), sum(map(Fraction, self.squares))
        spread = (squares - whole * whole / self.count) / (self.count - 1)
        return math.sqrt(max(spread, 0) / self.count)


class Tally:
    """How much each feature does over any number of rows: mean |attribution|, by class too, and means of metrics.

    Sums are kept exactly to rounding (as pairs of doubles, by Shewchuk's summation, 1997), so that a tally of a job, of
    its halves merged and of its rows in another order are the same numbers. As large as there are features and classes.

    Args:
        kind, feature_names, channel_names, tokens: as in `tfig.summary`.
        regions: whole numbers [H, W], or [H, W, D], the same for all rows: |attributions| (channels summed) are summed
            over the positions of each number, and are features beside the others.
        region_names: a list, or a dict by number.

    >>> tally = tfig.Tally(feature_names=columns)
    >>> for e in tfig.read("explained"):
    ...     tally.add(e)
    >>> tally.mean("age"), tally.interval("age"), tally.mean("age", target=1)
    """

    def __init__(
        self,
        *,
        kind: str | Mapping[str, str] | None = None,
        feature_names: Any = None,
        channel_names: Any = None,
        tokens: Any = None,
        regions: np.ndarray | None = None,
        region_names: Any = None,
    ):
        self.kind, self.words = kind, Words(tokens, feature_names, channel_names)
        self.regions = None if regions is None else np.asarray(regions)
        if self.regions is not None and self.regions.dtype.kind not in "iub":
            raise ValueError(f"regions is of {self.regions.dtype}; pass whole numbers, one for each position.")
        self.region_names = naming.listed(region_names)
        self._attributions: dict[str, dict[str, Moments]] = {}
        self._metrics: dict[str, dict[str, Moments]] = {}

    def add(self, e: Explanation, metrics: Mapping[str, np.ndarray] | None = None) -> "Tally":
        """Add the rows of an explanation, and numbers [B] by which metrics mark them. Returns the tally itself."""
        rows = np.arange(len(e))
        classes = None if e.target is None else np.asarray(e.target)
        if e.attributions is not None:
            for feature in features(e, self.kind, self.words):
                of = rows if feature.rows is None else feature.rows
                _add(self._attributions, feature.name, np.abs(feature.attributions), classes, of)
        if self.regions is not None:
            for name, values in self._by_region(e):
                _add(self._attributions, name, values, classes, rows)
        for name, marks in (metrics or {}).items():
            if np.shape(marks) != (len(e),):
                raise ValueError(f"metrics[{name!r}] has shape {list(np.shape(marks))}; it must be [{len(e)}].")
            _add(self._metrics, name, np.asarray(marks), classes, rows)
        return self

    def merge(self, *others: "Tally") -> "Tally":
        """Add what others have counted. Returns the tally itself."""
        for other in others:
            for mine, theirs in ((self._attributions, other._attributions), (self._metrics, other._metrics)):
                for name, by_class in theirs.items():
                    known = mine.setdefault(name, {})
                    for target, moments in by_class.items():
                        known[target] = known.get(target, Moments()) + moments
        return self

    @property
    def features(self) -> list[str]:
        """Names, the strongest first."""
        return sorted(self._attributions, key=lambda name: -self._attributions[name][ALL].mean)

    @property
    def metrics(self) -> list[str]:
        """Names of metrics, as they came."""
        return list(self._metrics)

    @property
    def targets(self) -> list[int]:
        """Classes that were explained."""
        found = {target for by in (self._attributions, self._metrics) for known in by.values() for target in known}
        return sorted(int(target) for target in found - {ALL})

    def count(self, name: str, target: int | None = None) -> int:
        """Numbers that a mean is of: rows, or the times a word occurred."""
        return self._of(name, target).count

    def mean(self, name: str, target: int | None = None) -> float:
        """The mean of |attribution| of a feature, or of a metric; of one class, or of all. NaN of nothing."""
        return self._of(name, target).mean

    def interval(self, name: str, target: int | None = None, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high) of the mean, by its standard error and the normal distribution: for thirty rows and more."""
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence!r}; it must lie between 0 and 1.")
        found = self._of(name, target)
        reach = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * found.error
        return found.mean - reach, found.mean + reach

    def to_markdown(self, target: int | None = None) -> str:
        """A table of features, then metrics, with means, intervals and numbers of values."""
        lines = ["| | mean | 95 % | values |", "|---|---|---|---|"]
        for name in (*self.features, *self.metrics):
            low, high = self.interval(name, target)
            spread = "" if math.isnan(low) else f"{low:.3g} to {high:.3g}"
            lines.append(f"| {name} | {self.mean(name, target):.3g} | {spread} | {self.count(name, target):,} |")
        return "\n".join(lines) + "\n"

    def to_json(self) -> str:
        """What has been counted, for another machine."""
        sums = {"attributions": self._attributions, "metrics": self._metrics}
        return json.dumps(sums, default=dataclasses.astuple)

    def add_json(self, text: str) -> "Tally":
        """Add what `to_json` said. Returns the tally itself."""
        other = Tally()
        for mine, name in ((other._attributions, "attributions"), (other._metrics, "metrics")):
            for key, known in json.loads(text)[name].items():
                mine[key] = {target: Moments(n, tuple(one), tuple(two)) for target, (n, one, two) in known.items()}
        return self.merge(other)

    def __repr__(self) -> str:
        strongest = ", ".join(f"{name} {self.mean(name):.3g}" for name in self.features[:3])
        return f"<Tally of {len(self.features)} features: mean |attribution| {strongest}>"

    def _of(self, name: str, target: int | None) -> Moments:
        for by in (self._attributions, self._metrics):
            if name in by:
                return by[name].get(ALL if target is None else str(int(target)), Moments())
        raise ValueError(f"nothing is called {name!r}; there are {', '.join((*self.features, *self.metrics)[:20])}.")

    def _by_region(self, e: Explanation) -> Iterable[tuple[str, np.ndarray]]:
        regions: Any = self.regions
        maps = view.named(e.heatmap())
        fitting = {name: map_ for name, map_ in maps.items() if map_.shape[1:] == regions.shape}
        if len(fitting) != 1:
            shapes = {name: list(map_.shape[1:]) for name, map_ in maps.items()}
            raise ValueError(f"regions has shape {list(regions.shape)}, and maps have {shapes}; it must fit one.")
        (map_,) = fitting.values()
        for number in np.unique(regions):
            inside = np.abs(map_[:, regions == number]).sum(1, dtype=np.float64)
            yield self.region_names.get(int(number), f"region {number}"), inside


def _add(
    known: dict[str, dict[str, Moments]], name: str, values: np.ndarray, classes: np.ndarray | None, rows: np.ndarray
) -> None:
    by = known.setdefault(name, {})
    by[ALL] = by.get(ALL, Moments()) + Moments.of(values)
    if classes is not None:
        for target in np.unique(classes[rows]):
            by[str(target)] = by.get(str(target), Moments()) + Moments.of(values[classes[rows] == target])


def _exact(values: Any) -> tuple[float, float]:
    """A sum as the double next to it, and the double next to what that misses."""
    values = list(values)
    high = math.fsum(values)
    return high, math.fsum([*values, -high])


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as sums of two whose products are exact (Veltkamp, 1968)."""
    large = values * (2.0**27 + 1)
    high = large - (large - values)
    return high, values - high
