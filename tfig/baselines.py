"""Baselines: what "absent" means for an input.

Each is a frozen value; a named string stands for its default. Scales are each row's own unless given.
"""

import abc
import dataclasses
import difflib
import hashlib
import itertools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfig.sizes import Size, beyond_rows, extent


class Noise(NamedTuple):
    """Where random baselines draw from: functions of a tensor, in whose shape they draw, by each row's own seed."""

    normal: Callable[[tf.Tensor], tf.Tensor]
    uniform: Callable[[tf.Tensor], tf.Tensor]


class Baseline(abc.ABC):
    """A rule that gives a baseline for each row of an input."""

    spatial: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """The baseline of `x` [B, ...], broadcastable to it."""


@dataclasses.dataclass(frozen=True)
class Constant(Baseline):
    """The same number everywhere ("zeros", "black": 0; "white": 1, for inputs scaled to [0, 1])."""

    value: float = 0.0

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """The number."""
        return tf.fill(tf.shape(x), tf.constant(self.value, x.dtype))


@dataclasses.dataclass(frozen=True)
class Mean(Baseline):
    """Each row's own mean: per channel over the spatial axes; for [B, F], over the features. "mean"."""

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """The mean."""
        axes = list(range(1, max(2, len(x.shape) - 1)))
        return tf.broadcast_to(tf.reduce_mean(x, axes, keepdims=True), tf.shape(x))


@dataclasses.dataclass(frozen=True)
class Blur(Baseline):
    """x under a Gaussian blur along its spatial axes, borders mirrored without repeating the edge. "blur".

    Fields:
        size: taps of the kernel, odd.
        sigma: its standard deviation in pixels. Defaults as in I-GOS (51 taps, 50 pixels).
    """

    size: int = 51
    sigma: float = 50.0

    spatial = True

    def __post_init__(self):
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"size is {self.size!r}; a blur needs an odd number of taps.")
        if not self.sigma > 0:
            raise ValueError(f"sigma is {self.sigma!r}; it must be positive.")

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """One matrix product along each spatial axis."""
        reach = self.size // 2
        kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * self.sigma**2))
        return blurred(x, tf.constant(kernel / kernel.sum(), x.dtype), reach)


def blurred(x: tf.Tensor, kernel: tf.Tensor, reach: Size) -> tf.Tensor:
    """x [B, ..., C] under a kernel [2 reach + 1] along each spatial axis, borders mirrored as often as it takes."""
    letters, offsets = "abcdef"[: len(x.shape)], tf.range(-reach, reach + 1)
    for axis in range(1, len(x.shape) - 1):
        size = extent(x, axis)
        period = tf.maximum(2 * (size - 1), 1)
        folded = tf.math.floormod(tf.range(size)[:, tf.newaxis] + offsets, period)
        index = tf.minimum(tf.minimum(folded, period - folded), size - 1)
        matrix = tf.einsum("k,ikj->ij", kernel, tf.one_hot(index, size, dtype=x.dtype))
        x = tf.einsum(f"{letters},z{letters[axis]}->{letters.replace(letters[axis], 'z')}", x, matrix)
    return x


@dataclasses.dataclass(frozen=True)
class Uniform(Baseline):
    """Uniform noise between low and high (each row's own minimum and maximum, where None). "uniform"."""

    low: float | None = None
    high: float | None = None

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """One draw a row."""
        low, high = _range(x, self.low, self.high)
        return low + (high - low) * noise.uniform(x)


@dataclasses.dataclass(frozen=True)
class Gaussian(Baseline):
    """x plus Gaussian noise, clipped to low and high (each row's own range, where None). "gaussian".

    Fields:
        noise: standard deviation, as a share of high - low.
    """

    noise: float = 0.5
    low: float | None = None
    high: float | None = None

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """One draw a row."""
        low, high = _range(x, self.low, self.high)
        return tf.clip_by_value(x + self.noise * (high - low) * noise.normal(x), low, high)


@dataclasses.dataclass(frozen=True)
class MaxDistance(Baseline):
    """The value farthest from each element within low and high (each row's own range, where None). "max_distance"."""

    low: float | None = None
    high: float | None = None

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Low or high, whichever is farther."""
        low, high = _range(x, self.low, self.high)
        return tf.where(x - low > high - x, low, high)


@dataclasses.dataclass(frozen=True)
class Vocabulary(Baseline):
    """The mean of an embedding's table, at every position: the word that is no word. "vocabulary".

    For models that are explained at an embedding. Zeros are no word either, but may be far from all of them, and behind
    a normalisation a path from zeros goes nowhere.
    """

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """Nothing: it is of the layer, not of x."""
        raise ValueError(
            "baseline 'vocabulary' is the mean of an embedding's table, and what is explained here is no output of an "
            "embedding; pass layer=, the embedding, or another baseline."
        )

    def of(self, layer: Any) -> "AtLayer":
        """The mean of the table of an embedding."""
        table = np.asarray(layer.embeddings, np.float64)
        return AtLayer(table.mean(0).astype(np.float32))


def _array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(str) if array.dtype == object else array


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """A nest of arrays compared by content, so that equal ones share a compiled program."""

    values: Any
    digest: bytes = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "values", tf.nest.map_structure(_array, self.values))
        digest = hashlib.sha256()
        for leaf in tf.nest.flatten(self.values):
            if leaf.dtype.kind in "fc" and not np.isfinite(leaf).all():
                raise ValueError(f"the {type(self).__name__} baseline holds NaN or infinite values.")
            digest.update(f"{leaf.dtype}{leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
        object.__setattr__(self, "digest", digest.digest())

    def __eq__(self, other):
        return type(self) is type(other) and self.digest == other.digest

    def __hash__(self):
        return hash((type(self), self.digest))


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset(Arrays):
    """References to average the explanation over, or to draw from: an array [R, ...], or a nest of them."""

    def __post_init__(self):
        super().__post_init__()
        counts = {len(leaf) if leaf.ndim else 0 for leaf in tf.nest.flatten(self.values)}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(
                f"Dataset needs at least one reference, [R, ...], the same number for each input; got {counts}."
            )


class Mode(Baseline):
    """The most frequent value of each feature over references [R, ...]; of ties the smallest.

    What every example shares (a watermark, a border, a background) is then no evidence for anything.
    """

    def __init__(self, references: np.ndarray):
        self.arrays = Arrays(_mode(np.asarray(references)))

    def __call__(self, x: tf.Tensor, noise: Noise) -> tf.Tensor:
        """The mode, for every row."""
        return tf.broadcast_to(tf.cast(self.arrays.values, x.dtype), tf.shape(x))

    def __eq__(self, other):
        return type(self) is type(other) and self.arrays == other.arrays

    def __hash__(self):
        return hash((Mode, self.arrays))


@dataclasses.dataclass(frozen=True)
class Boundary:
    """The nearest point found across the decision boundary of the predicted class: the baseline of Boundary-based IG.

    Projected gradient descent in L2 balls of growing radius, then bisection back towards x; on the logits, where the
    end of the model can be seen (of a SavedModel or a function it cannot, so that another point may be found). A row
    for which nothing is found has ``trace["boundary_found"]`` False, NaN attributions, and a warning;
    `trace["boundary_distance"]` is [B].

    Fields:
        radii: of the balls, as a share of each row's max - min.
        steps: descent steps in each ball.

    Source: Wang, Fredrikson & Datta, Robust Models Are More Interpretable Because Attributions Look Normal, 2021,
    arXiv:2103.11257 (radii and steps of the authors' code, and larger radii).
    """

    radii: tuple[float, ...] = (36 / 255, 64 / 255, 0.3, 0.5, 0.7, 0.9, 1.1, 2.0, 4.0, 8.0)
    steps: int = 40

    def __post_init__(self):
        if not self.radii or min(self.radii) <= 0 or list(self.radii) != sorted(self.radii):
            raise ValueError(f"radii are {self.radii!r}; they must be positive and rising.")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps!r}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class AtLayer:
    """A baseline in the space of the layer explained, not of the input: a name, number, array, or baseline object."""

    value: Any

    def __eq__(self, other):
        return type(self) is type(other) and self.rule == other.rule

    def __hash__(self):
        return hash((AtLayer, self.rule))

    @property
    def rule(self) -> "Baseline | Dataset | Arrays":
        """The value as a rule."""
        if isinstance(self.value, (str, Baseline, Dataset)):
            rule = named(self.value)
            if isinstance(rule, Boundary):
                raise ValueError("AtLayer('boundary') has no meaning here; pass baseline='boundary'.")
            return rule
        return Arrays(self.value)


NAMES: dict[str, Baseline | Boundary] = {
    "zeros": Constant(0.0),
    "black": Constant(0.0),
    "white": Constant(1.0),
    "mean": Mean(),
    "blur": Blur(),
    "uniform": Uniform(),
    "gaussian": Gaussian(),
    "max_distance": MaxDistance(),
    "boundary": Boundary(),
    "vocabulary": Vocabulary(),
}
"""Baselines by name, with their defaults."""


def named(baseline: Any) -> Any:
    """The baseline that a name stands for; anything else as it is.

    Raises:
        ValueError: unknown name, with close matches.
    """
    if not isinstance(baseline, str):
        return baseline
    if baseline not in NAMES:
        close = difflib.get_close_matches(baseline, NAMES, 3) or list(NAMES)
        raise ValueError(
            f"no baseline is named {baseline!r}; did you mean {' or '.join(map(repr, close))}? A string to put in "
            "place of others is passed as an array, [B or 1, ...]."
        )
    return NAMES[baseline]


def fit(name: str, baseline: Any, x: np.ndarray) -> np.ndarray:
    """A number or array as [1, ...] or [B, ...], for input `name` whose rows are `x` [B, ...].

    Raises:
        ValueError: it does not broadcast, or holds NaN.
    """
    array = np.asarray(baseline)
    words = array.dtype.kind in "OSU" and x.dtype.kind in "OSU"
    if array.dtype.kind not in "fiub" and not words:
        raise ValueError(
            f"the baseline of {name!r} is {baseline!r}; pass a name, number, array or tfig.baselines object."
        )
    if not words and not np.isfinite(array).all():
        raise ValueError(f"the baseline of {name!r} holds NaN or infinite values.")
    lead = array.shape[:1] if array.ndim == x.ndim else (1,)
    if array.ndim and not (
        array.shape[-x.ndim + 1 :] == x.shape[1:] and lead[0] in (1, len(x)) and array.ndim >= x.ndim - 1
    ):
        raise ValueError(
            f"the baseline of {name!r} has shape {list(array.shape)}, and x has {list(x.shape)}; pass "
            f"{list(x.shape[1:])}, [1, ...] or one per row. To average over references pass tfig.baselines.Dataset."
        )
    full = np.broadcast_to(array, (*lead, *x.shape[1:]))
    fitting = full.astype(object if words else x.dtype)
    if x.dtype.kind in "iub" and (fitting != full).any():
        raise ValueError(
            f"the baseline of {name!r} runs from {array.min()} to {array.max()}, and the input holds {x.dtype}: pass "
            "whole numbers that fit."
        )
    return fitting


def _range(x: tf.Tensor, low: float | None, high: float | None) -> tuple[tf.Tensor, tf.Tensor]:
    axes = beyond_rows(x)
    least = tf.reduce_min(x, axes, keepdims=True) if low is None else tf.constant(low, x.dtype)
    most = tf.reduce_max(x, axes, keepdims=True) if high is None else tf.constant(high, x.dtype)
    return least, most


def _mode(references: np.ndarray) -> np.ndarray:
    """Most frequent value along axis 0."""
    if len(references) == 0:
        raise ValueError("Mode needs at least one reference, [R, ...].")
    ordered = np.sort(references, 0)
    run, best, mode = np.ones(ordered.shape[1:], int), np.ones(ordered.shape[1:], int), ordered[0].copy()
    for before, now in itertools.pairwise(ordered):
        run = np.where(now == before, run + 1, 1)
        mode, best = np.where(run > best, now, mode), np.maximum(run, best)
    return mode
