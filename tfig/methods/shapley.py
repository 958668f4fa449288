"""Methods that share the score out among segments: Shapley values by orders and by regression, QII, LIME."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfig.kernels import coalition
from tfig.kernels.coalition import Features
from tfig.kernels.expectation import uniform
from tfig.methods.checks import at_least, one_of, whole
from tfig.methods.segments import Segmented, drawn, marginal
from tfig.network import Leaves
from tfig.problem import Problem, Trace


@dataclasses.dataclass(frozen=True)
class ShapleySampling(Segmented):
    """Shapley values by random orders: the mean gain of each feature when it joins those before it.

    mean{ F(those before i, and i) - F(those before i) : orders }. Each order telescopes, so sums are exact: a segment's
    value is spread evenly over its positions, and sum(attributions) == F(x) - F(x'). The values themselves are in
    ``trace["values"]``, [B, M], where the number of segments is known beforehand.

    Fields:
        samples: orders, of M + 1 scores each.
        segments: None, each feature of [B, F], each step of [B, T, C] (or 512 segments of a longer one), and a grid of
            8 along each spatial axis of what has more; an int, the grid's size; a map [H, W] of whole numbers from 0;
            or a function image -> map, such as skimage.segmentation.slic.

    >>> tfig.explain(model, x, tfig.ShapleySampling(samples=50, segments=7), output="logits")
    """

    samples: int = 100

    cost = "samples passes for each segment"
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
    maps = features.spread(tf.math.divide_no_nan(values, tf.cast(features.sizes(), values.dtype)), problem)
    return maps, {"values": values} if features.known is not None else {}


@dataclasses.dataclass(frozen=True)
class KernelSHAP(Segmented):
    """Shapley values as the weighted least-squares fit of the scores of coalitions, constrained to sum.

    A coalition of k of M segments weighs (M - 1) / (binomial(M, k) k (M - k)). Where 2**M - 2 <= samples all coalitions
    are evaluated, and the values are exact; else random ones, each with its complement. Spread as in `ShapleySampling`.

    Fields:
        samples: coalitions, one score each.
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, tfig.KernelSHAP(samples=2048, segments=5), output="logits")
    """

    samples: int = 2048

    cost = "samples passes"
    name = "kernel_shap"
    principles = "123"
    reference = "Lundberg & Lee, A Unified Approach to Interpreting Model Predictions, 2017, arXiv:1705.07874"
    complete = True
    stochastic = True

    def __post_init__(self):
        super().__post_init__()
        whole("samples", self.samples, 2)

    def sides(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The maps of each row; there must be coalitions enough for their segments."""
        maps = super().sides(x)
        if maps:
            coalition.told_apart(self.samples, int(sum(one.reshape(len(one), -1).max(1) + 1 for one in maps).max()))
        return maps

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The fit."""
        features = self.features(problem)
        number, draw = coalition.shapley_kernel(features, self.samples)
        return _shared(features, coalition.regressed(problem, features, number, draw, 1e-6, True), problem)


@dataclasses.dataclass(frozen=True)
class LIME(Segmented):
    """The linear model that fits the scores of random coalitions near x best.

    Ridge regression with an intercept on coalitions in which each segment is present with probability 1/2, weighed by
    exp(-d**2 / kernel_width**2), d = 1 - sqrt(share of segments present): the cosine distance to x. A segment's weight
    stands at each of its positions; that of a single segment is F(x) - F(x').

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

    cost = "samples passes"
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

        def draw(seed: tf.Tensor, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            keys = uniform(seed, sample, tf.zeros([tf.shape(sample)[0], features.count]))
            whole_ = (sample == 0)[:, tf.newaxis]  # x itself is one of them
            present = tf.cast(((keys < 0.5) | whole_) & features.has(row), tf.float32)
            distance = 1 - tf.sqrt(tf.reduce_sum(present, 1) / tf.cast(features.own(row), tf.float32))
            return present, tf.exp(-tf.square(distance / self.kernel_width))

        values = coalition.regressed(problem, features, self.samples, draw, max(self.alpha, 1e-6), False)
        return features.spread(values, problem), {"values": values} if features.known is not None else {}


@dataclasses.dataclass(frozen=True)
class QII(Segmented):
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

    cost = "samples passes for each segment"
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
            return marginal(self, problem, self.samples), {}
        features = self.features(problem)
        if problem.source is not None and problem.source.space != "layer":
            raise ValueError(
                "QII of orders at a layer needs its references there: tfig.baselines.AtLayer(Dataset(...))."
            )

        def start(p: Problem, order: tf.Tensor, row: tf.Tensor) -> Problem:
            which = drawn(p, order, tf.zeros([tf.shape(order)[0], features.count]))
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
