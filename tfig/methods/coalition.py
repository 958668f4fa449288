"""Methods that ask for the score with parts of x at a baseline."""

import dataclasses

import tensorflow as tf

from tfig.kernels import coalition
from tfig.kernels.expectation import fork, total
from tfig.methods.checks import whole
from tfig.methods.segments import Segmented, marginal
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace, per_row


@dataclasses.dataclass(frozen=True)
class FeatureAblation(Segmented):
    """What the score loses when a feature or segment is put at its baseline.

    F(x) - F(x with segment m at x'), at every position of m.

    Fields:
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, tfig.FeatureAblation(segments=skimage.segmentation.slic))
    """

    cost = "a pass for each segment"
    name = "feature_ablation"
    reference = "Zeiler & Fergus, 2013, arXiv:1311.2901; as Kokhlikyan et al., Captum, 2020, arXiv:2009.07896"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One score for each feature."""
        features = self.features(problem)

        def without(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
            return coalition.mix(p, features, row, 1 - tf.one_hot(sample, features.count))

        return features.spread(coalition.one_left_out(problem, features, without), problem), {}


@dataclasses.dataclass(frozen=True)
class Occlusion(Method):
    """What the score loses when a window of x is put at its baseline, averaged over the windows that cover a position.

    mean{ F(x) - F(x with w at x') : windows w over the position }. A window of 1 is Occlusion-1; one of the whole image
    gives every position F(x) - F(x').

    Fields:
        window: positions along every spatial axis (or features), or a tuple with one for each axis; at most x's.
            The last window of an axis is cut off at the border, so that every position is covered. A tuple with one
            entry more, the last, is of channels too: (5, 1) hides five steps of one channel of a series.
        strides: steps between windows; None: 1.

    >>> tfig.explain(model, x, tfig.Occlusion(window=16, strides=8), baseline="blur")
    """

    window: int | tuple[int, ...] = 1
    strides: int | tuple[int, ...] | None = None

    cost = "a pass for each window"
    gives = "a value for each position, all channels at once, or for each entry where windows count channels"
    name = "occlusion"
    principles = "12"
    switches = True
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
        """Maps over positions, or over those and channels."""
        return coalition.windowed(problem, self._pairs[0])

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One score for each window."""
        return coalition.windows(problem, *self._pairs), {}


@dataclasses.dataclass(frozen=True)
class PredictionDifference(Segmented):
    """What the score loses on average when a feature takes the values it has in a data set.

    F(x) - mean{ F(x with segment m as in x') : x' drawn from references }, at every position of m.

    Fields:
        samples: draws for each feature.
        segments: see `ShapleySampling`.

    >>> tfig.explain(model, x, "prediction_difference", baseline=tfig.baselines.Dataset(references))
    """

    samples: int = 10

    cost = "samples passes for each segment"
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
        return marginal(self, problem, self.samples), {}


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

    cost = "samples passes"
    gives = "a value for each position, all channels at once: [B, ..., 1], of tables [B, F]"
    name = "rise"
    reference = "Petsiuk, Das & Saenko, RISE: Randomized Input Sampling for Explanation, 2018, arXiv:1806.07421"
    stochastic = True
    switches = True
    default_baseline = "zeros"

    def __post_init__(self):
        whole("samples", self.samples, 1)
        whole("cells", self.cells, 1)
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability is {self.probability!r}; it must lie between 0 and 1.")

    def like(self, problem: Problem) -> Leaves:
        """Maps over positions."""
        return coalition.like(problem)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean."""

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
            masks = tuple(
                coalition.soft_masks(
                    fork(p.seed, tf.fill(tf.shape(row), -2 - i)), sample, leaf, self.cells, self.probability
                )
                for i, leaf in enumerate(p.x)
            )
            masks = tuple(tf.cast(mask, leaf.dtype) for mask, leaf in zip(masks, coalition.like(p), strict=True))
            value = p.score(coalition.blend(p, masks))
            return tuple(per_row(value, mask) * mask / (self.samples * self.probability) for mask in masks)

        return total(problem, self.samples, coalition.like(problem), term), {}
