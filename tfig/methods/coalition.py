"""Methods that ask for the score with parts of x at a baseline."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.baselines import Arrays
from tfig.kernels import coalition
from tfig.kernels.coalition import Features
from tfig.kernels.expectation import fork, total, uniform
from tfig.methods.checks import at_least, one_of, whole
from tfig.network import Leaf, Leaves
from tfig.problem import Method, Problem, Trace, per_row

GRID = 8
"""Segments along each spatial axis where none are given."""


@dataclasses.dataclass(frozen=True)
class _Segmented(Method):
    """What methods over segments share: what a feature is.

    `segments`: None, each feature of [B, F], and a grid of 8 along each spatial axis; an int, the grid's size; a map
    [H, W] of whole numbers from 0; or a function image [H, W, C] -> map, called outside the program, for each row.
    """

    segments: Any = dataclasses.field(default=None, kw_only=True)

    default_baseline = "zeros"

    def __post_init__(self):
        given = self.segments
        if given is None or callable(given) or isinstance(given, Arrays):
            return
        if np.ndim(given) == 0:
            whole("segments", given, 1)
            return
        segments = np.asarray(given)
        if segments.dtype.kind not in "iu" or segments.min() < 0:
            raise ValueError(f"segments is an array of {segments.dtype} from {segments.min()}; it must count from 0.")
        object.__setattr__(self, "segments", Arrays(segments.astype(np.int32)))

    @property
    def parameters(self) -> dict[str, object]:
        """The hyper-parameters; segments in words, where they are no number."""
        found = super().parameters
        if not (found["segments"] is None or isinstance(found["segments"], int)):
            found["segments"] = "a function" if callable(self.segments) else "a map"
        return found

    def side_specs(self, leaves: Sequence[Leaf]) -> list[tf.TensorSpec]:
        """A map for each image, of a function that gives them."""
        if not callable(self.segments):
            return []
        return [tf.TensorSpec([None, *leaf.shape[1:-1]], tf.int32) for leaf in leaves if len(leaf.shape) > 2]

    def sides(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The maps of each row, of a function that gives them."""
        if not callable(self.segments):
            return []
        maps = []
        for leaf in x:
            if leaf.ndim < 3:
                continue
            found = np.stack([np.asarray(self.segments(row)) for row in leaf])
            if found.shape != leaf.shape[:-1] or found.dtype.kind not in "iu":
                raise ValueError(
                    f"segments gave {found.dtype} {list(found.shape[1:])} for a row {list(leaf.shape[1:])}; it must "
                    f"give a map of whole numbers, {list(leaf.shape[1:-1])}."
                )
            maps.append((found - found.min()).astype(np.int32))
        return maps

    def like(self, problem: Problem) -> Leaves:
        """Maps over positions."""
        return coalition.like(problem.x)

    def features(self, problem: Problem) -> Features:
        """The features of a problem's leaves, counted through."""
        if callable(self.segments) and problem.source is not None:
            raise ValueError(
                "segments by a function are of the image, and layer= explains a layer; pass a grid's size."
            )
        index, count = [], tf.constant(0)
        known: int | None = 0
        fed = iter(problem.sides)
        for leaf in problem.x:
            sides, shape = coalition.positions(leaf), leaf.shape[1:].as_list()
            static = shape if len(leaf.shape) == 2 else shape[:-1]
            if len(sides) == 1 and len(leaf.shape) == 2 and not isinstance(self.segments, Arrays):
                one, number = tf.range(sides[0])[tf.newaxis], sides[0]
                size = static[0]
            elif isinstance(self.segments, Arrays):
                given = self.segments.values
                if list(given.shape) != static:
                    raise ValueError(f"segments is a map {list(given.shape)}, and the positions are {static}.")
                one, size = tf.constant(given[np.newaxis]), int(given.max()) + 1
                number = tf.constant(size)
            elif callable(self.segments):
                one = next(fed)
                number, size = tf.reduce_max(one) + 1, None
            else:
                one, number, size = _grid(sides, static, GRID if self.segments is None else self.segments)
            index.append(one + count)
            count = count + number
            known = None if known is None or size is None else known + size
        return Features(tuple(index), count if known is None else tf.constant(known), known)


def _grid(sides: list[tf.Tensor], static: list[int | None], cells: int) -> tuple[tf.Tensor, tf.Tensor, int | None]:
    """(index, number, number if known) of a grid of `cells` along each axis, at most its positions."""
    index, number = tf.zeros([1] * (len(sides) + 1), tf.int32), tf.constant(1)
    known: int | None = 1
    for axis, side in enumerate(sides):
        along = tf.minimum(cells, side)
        place = tf.range(side) * along // side
        shape = [1, *[1] * axis, -1, *[1] * (len(sides) - axis - 1)]
        index, number = index * along + tf.reshape(place, shape), number * along
        length = static[axis]
        known = None if known is None or length is None else known * min(cells, length)
    return index, number, known


@dataclasses.dataclass(frozen=True)
class FeatureAblation(_Segmented):
    """What the score loses when a feature or segment is put at its baseline.

    F(x) - F(x with segment m at x'), at every position of m.

    Fields:
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, tfig.FeatureAblation(segments=skimage.segmentation.slic))
    """

    name = "feature_ablation"
    reference = "Zeiler & Fergus, 2013, arXiv:1311.2901; as Kokhlikyan et al., Captum, 2020, arXiv:2009.07896"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One score for each feature."""
        features = self.features(problem)

        def without(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
            return coalition.mix(p, features.of(row), 1 - tf.one_hot(sample, features.count))

        return features.spread(coalition.one_left_out(problem, features, without), problem.x), {}


@dataclasses.dataclass(frozen=True)
class Occlusion(Method):
    """What the score loses when a window of x is put at its baseline, averaged over the windows that cover a position.

    mean{ F(x) - F(x with w at x') : windows w over the position }. A window of 1 is Occlusion-1; one of the whole image
    gives every position F(x) - F(x').

    Fields:
        window: positions along every spatial axis (or features), or a tuple with one for each axis.
        strides: steps between windows; None: 1.

    >>> tfig.explain(model, x, tfig.Occlusion(window=16, strides=8), baseline="blur")
    """

    window: int | tuple[int, ...] = 1
    strides: int | tuple[int, ...] | None = None

    name = "occlusion"
    principles = "12"
    reference = "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901"
    default_baseline = "zeros"

    def __post_init__(self):
        for name, value in (("window", self.window), ("strides", 1 if self.strides is None else self.strides)):
            for one in value if isinstance(value, tuple) else (value,):
                whole(name, one, 1)
        window, strides = self._pairs
        if len(window) == len(strides) and any(s > w for w, s in zip(window, strides, strict=True)):
            raise ValueError(f"strides {self.strides!r} leave gaps between windows of {self.window!r}.")

    @property
    def _pairs(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        strides = 1 if self.strides is None else self.strides
        return tuple(one if isinstance(one, tuple) else (one,) for one in (self.window, strides))  # type: ignore

    def like(self, problem: Problem) -> Leaves:
        """Maps over positions."""
        return coalition.like(problem.x)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One score for each window."""
        return coalition.windows(problem, *self._pairs), {}


@dataclasses.dataclass(frozen=True)
class PredictionDifference(_Segmented):
    """What the score loses on average when a feature takes the values it has in a data set.

    F(x) - mean{ F(x with segment m as in x') : x' drawn from references }, at every position of m.

    Fields:
        samples: draws for each feature.
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, "prediction_difference", baseline=tfig.baselines.Dataset(references))
    """

    samples: int = 10

    name = "prediction_difference"
    principles = "12"
    reference = (
        "Robnik-Sikonja & Kononenko, 2008; Zintgraf et al., Visualizing Deep Neural Network Decisions: Prediction "
        "Difference Analysis, 2017, arXiv:1702.04595"
    )
    takes_references = True
    stochastic = True
    default_baseline = "dataset"
    needs = "baseline=tfig.baselines.Dataset(references)"

    def __post_init__(self):
        super().__post_init__()
        whole("samples", self.samples, 1)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One score for each draw of each feature."""
        return _marginal(self, problem, self.samples), {}


def _marginal(method: _Segmented, problem: Problem, samples: int) -> Leaves:
    """F(x) - mean F(x with a feature drawn from the references), at every position of the feature."""
    features = method.features(problem)
    repeated = dataclasses.replace(features, count=features.count * samples, known=None)

    def without(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
        feature = sample // samples
        q = p.at_reference(_drawn(p, sample, tf.zeros([tf.shape(sample)[0], 1]))[:, 0])
        return coalition.mix(q, features.of(row), 1 - tf.one_hot(feature, features.count))

    losses = coalition.one_left_out(problem, repeated, without)
    means = tf.reduce_mean(tf.reshape(losses, [problem.rows, features.count, samples]), -1)
    return features.spread(means, problem.x)


def _drawn(p: Problem, sample: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Indices of references, drawn in the shape of `like` [N, ...]."""
    count = tf.shape(p.references[0])[0]
    draw = uniform(fork(p.seed, tf.zeros_like(sample)), sample, like) * tf.cast(count, tf.float32)
    return tf.minimum(tf.cast(draw, tf.int32), count - 1)


@dataclasses.dataclass(frozen=True)
class ShapleySampling(_Segmented):
    """Shapley values by random orders: the mean gain of each feature when it joins those before it.

    mean{ F(those before i, and i) - F(those before i) : orders }. Each order telescopes, so sums are exact: a segment's
    value is spread evenly over its positions, and sum(attributions) == F(x) - F(x'). The values themselves are in
    ``trace["values"]``, [B, M], where the number of segments is known beforehand.

    Fields:
        samples: orders, of M + 1 scores each.
        segments: None, each feature of [B, F], and a grid of 8 along each spatial axis; an int, the grid's size; a map
            [H, W] of whole numbers from 0; or a function image -> map, such as skimage.segmentation.slic.

    >>> tfig.explain(model, x, tfig.ShapleySampling(samples=50, segments=7), output="logits")
    """

    samples: int = 100

    name = "shapley_sampling"
    principles = "123"
    reference = (
        "Castro, Gomez & Tejada, Polynomial calculation of the Shapley value based on sampling, 2009; Strumbelj & "
        "Kononenko, An Efficient Explanation of Individual Classifications using Game Theory, 2010"
    )
    complete = True
    stochastic = True

    def __post_init__(self):
        super().__post_init__()
        whole("samples", self.samples, 1)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The walks."""
        features = self.features(problem)
        return _shared(features, coalition.permuted(problem, features, self.samples, lambda p, order, row: p), problem)


def _shared(features: Features, values: tf.Tensor, problem: Problem) -> tuple[Leaves, Trace]:
    """Values [B, M] spread evenly over their positions, and themselves."""
    maps = features.spread(tf.math.divide_no_nan(values, features.sizes()), problem.x)
    return maps, {"values": values} if features.known is not None else {}


@dataclasses.dataclass(frozen=True)
class KernelSHAP(_Segmented):
    """Shapley values as the weighted least-squares fit of the scores of coalitions, constrained to sum.

    A coalition of k of M segments weighs (M - 1) / (binomial(M, k) k (M - k)). Where 2**M - 2 <= samples all coalitions
    are evaluated, and the values are exact; else random ones, each with its complement. Spread as in `ShapleySampling`.

    Fields:
        samples: coalitions, one score each.
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, tfig.KernelSHAP(samples=2048, segments=5), output="logits")
    """

    samples: int = 2048

    name = "kernel_shap"
    principles = "123"
    reference = "Lundberg & Lee, A Unified Approach to Interpreting Model Predictions, 2017, arXiv:1705.07874"
    complete = True
    stochastic = True

    def __post_init__(self):
        super().__post_init__()
        whole("samples", self.samples, 2)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The fit."""
        features = self.features(problem)
        if features.known == 1:
            whole_ = tf.cast(problem.score(problem.x) - problem.score(problem.baseline), tf.float32)
            return _shared(features, whole_[:, tf.newaxis], problem)
        number, draw = coalition.shapley_kernel(features, self.samples)
        return _shared(features, coalition.regressed(problem, features, number, draw, 1e-6, True), problem)


@dataclasses.dataclass(frozen=True)
class LIME(_Segmented):
    """The linear model that fits the scores of random coalitions near x best.

    Ridge regression with an intercept on coalitions in which each segment is present with probability 1/2, weighed by
    exp(-d**2 / kernel_width**2), d = 1 - sqrt(share of segments present): the cosine distance to x. A segment's weight
    stands at each of its positions.

    Fields:
        samples: coalitions, one score each.
        kernel_width: how near a coalition must be to count.
        alpha: the ridge.
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, tfig.LIME(segments=skimage.segmentation.quickshift))
    """

    samples: int = 1000
    kernel_width: float = 0.25
    alpha: float = 1.0

    name = "lime"
    reference = "Ribeiro, Singh & Guestrin, Why Should I Trust You?, 2016, arXiv:1602.04938"
    stochastic = True

    def __post_init__(self):
        super().__post_init__()
        whole("samples", self.samples, 2)
        if not self.kernel_width > 0:
            raise ValueError(f"kernel_width is {self.kernel_width!r}; it must be positive.")
        at_least("alpha", self.alpha, 0)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The fit."""
        features = self.features(problem)

        def draw(seed: tf.Tensor, sample: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            keys = uniform(seed, sample, tf.zeros([tf.shape(sample)[0], features.count]))
            present = tf.cast((keys < 0.5) | (sample == 0)[:, tf.newaxis], tf.float32)  # x itself is one of them
            distance = 1 - tf.sqrt(tf.reduce_mean(present, 1))
            return present, tf.exp(-tf.square(distance / self.kernel_width))

        values = coalition.regressed(problem, features, self.samples, draw, self.alpha, False)
        return features.spread(values, problem.x), {"values": values} if features.known is not None else {}


@dataclasses.dataclass(frozen=True)
class RISE(Method):
    """The mean of random soft masks, weighed by the score of what each leaves of x.

    sum{ F(mask x + (1 - mask) x') mask : masks } / (samples probability). Masks are grids of zeros and ones, enlarged
    linearly and shifted.

    Fields:
        samples: masks.
        cells: of the grid, along each spatial axis.
        probability: that a cell is kept.

    >>> tfig.explain(model, x, tfig.RISE(samples=2000), output="probabilities")
    """

    samples: int = 4000
    cells: int = 7
    probability: float = 0.5

    name = "rise"
    reference = "Petsiuk, Das & Saenko, RISE: Randomized Input Sampling for Explanation, 2018, arXiv:1806.07421"
    stochastic = True
    default_baseline = "zeros"

    def __post_init__(self):
        whole("samples", self.samples, 1)
        whole("cells", self.cells, 1)
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability is {self.probability!r}; it must lie between 0 and 1.")

    def like(self, problem: Problem) -> Leaves:
        """Maps over positions."""
        return coalition.like(problem.x)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean."""

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
            masks = tuple(
                coalition.soft_masks(
                    fork(p.seed, tf.fill(tf.shape(row), -2 - i)), sample, leaf, self.cells, self.probability
                )
                for i, leaf in enumerate(p.x)
            )
            masks = tuple(tf.cast(mask, leaf.dtype) for mask, leaf in zip(masks, p.x, strict=True))
            value = p.score(coalition.blend(p, masks))
            return tuple(per_row(value, mask) * mask / (self.samples * self.probability) for mask in masks)

        blank = tuple(tf.zeros_like(leaf) for leaf in coalition.like(problem.x))
        return total(problem, self.samples, blank, term), {}


@dataclasses.dataclass(frozen=True)
class QII(_Segmented):
    """Quantitative input influence: what the score owes to a feature's value, rather than to one from its marginal.

    "unary": F(x) - mean{ F(x with i drawn from its marginal) }. "shapley": the mean gain when i takes its value, over
    random orders, each from a start whose features are drawn from their marginals, each on its own.

    Fields:
        kind: "unary" or "shapley".
        samples: draws for each feature; orders.
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, tfig.QII("shapley"), baseline=tfig.baselines.Dataset(references))
    """

    kind: str = "unary"
    samples: int = 100

    name = "qii"
    reference = "Datta, Sen & Zick, Algorithmic Transparency via Quantitative Input Influence, 2016"
    takes_references = True
    stochastic = True
    default_baseline = "dataset"
    needs = "baseline=tfig.baselines.Dataset(references)"

    def __post_init__(self):
        super().__post_init__()
        one_of("kind", self.kind, ("unary", "shapley"))
        whole("samples", self.samples, 1)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The draws, or the walks."""
        if self.kind == "unary":
            return _marginal(self, problem, self.samples), {}
        features = self.features(problem)
        if problem.source is not None and problem.source.space != "layer":
            raise ValueError(
                "QII of orders at a layer needs its references there: tfig.baselines.AtLayer(Dataset(...))."
            )

        def start(p: Problem, order: tf.Tensor, row: tf.Tensor) -> Problem:
            which = _drawn(p, order, tf.zeros([tf.shape(order)[0], features.count]))
            leaves = []
            for index, references in zip(features.of(row), p.references, strict=True):
                leaves.append(_picked(references, tf.gather(which, coalition.full(index, which), batch_dims=1)))
            return p.replace(baseline=tuple(leaves), references=())

        return _shared(features, coalition.permuted(problem, features, self.samples, start), problem)


def _picked(references: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """references[which[n, p], p] for every row n and position p."""
    rank = len(which.shape) - 1
    flat = tf.reshape(which, [tf.shape(which)[0], -1])
    spots = tf.shape(flat)[1]
    table = tf.reshape(references, [tf.shape(references)[0] * spots, -1])
    found = tf.gather(table, flat * spots + tf.range(spots))
    return tf.reshape(found, tf.concat([tf.shape(which)[:1], tf.shape(references)[1:]], 0)) if rank else found
