"""Descent on a mask: the smallest, smoothest part of x whose replacement by the baseline lowers the score most."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfig.kernels.expectation import fork, jitter, total
from tfig.kernels.gradient import value_and_gradient
from tfig.kernels.rows import put, remaining
from tfig.network import Leaves
from tfig.problem import Problem, Trace, per_row, row_sum
from tfig.sizes import Size, beyond_rows, extent, smaller


@dataclasses.dataclass(frozen=True)
class Canvas:
    """The leaf that is masked, and how a small mask is spread over it.

    Fields:
        leaf: its index among the explained leaves.
        rank: its number of spatial axes.
        smooth: what is done to a mask once it is enlarged.
    """

    leaf: int
    rank: int
    smooth: Callable[[tf.Tensor], tf.Tensor] | None = None

    def open(self, x: tf.Tensor, resolution: int) -> tf.Tensor:
        """Masks of ones, which delete nothing: [B, h, w, 1], at most `resolution` along each axis; or [B, F]."""
        sides = [smaller(resolution, extent(x, axis)) for axis in range(1, self.rank + 1)]
        ones = tf.ones([extent(x, 0), *(sides or [extent(x, 1)]), *[1][: self.rank]], x.dtype)
        known = [side if isinstance(side, int) else None for side in sides] + [1 if self.rank else x.shape[-1]]
        return tf.ensure_shape(ones, [None, *known])

    def enlarge(self, mask: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """[N, h, w, 1] -> [N, H, W, 1], linear along each spatial axis with the corners aligned; [N, F] as it is."""
        large = self.spread(mask, x)
        return large if self.smooth is None else self.smooth(large)

    def spread(self, mask: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """The same, not smoothed."""
        for axis in range(1, self.rank + 1):
            mask = _along(mask, aligned(extent(mask, axis), extent(x, axis), mask.dtype), axis)
        return mask

    def shrink(self, image: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """[N, H, W, 1] -> [N, h, w, 1], the shape of `mask`: the mean of what each cell is spread over."""
        for axis in range(1, self.rank + 1):
            matrix = aligned(extent(mask, axis), extent(image, axis), image.dtype)
            image = _along(image, tf.transpose(matrix / tf.reduce_sum(matrix, 0)), axis)
        return tf.ensure_shape(image, mask.shape)


def _along(tensor: tf.Tensor, matrix: tf.Tensor, axis: int) -> tf.Tensor:
    """A tensor [..., 1] times a matrix [new, old] along one axis, without turning its axes."""
    shape = [extent(tensor, one) for one in beyond_rows(tensor)]
    if axis == len(shape) - 1:  # one column each: rows of one product
        product = tf.matmul(tf.reshape(tensor, [-1, shape[axis - 1]]), matrix, transpose_b=True)
    else:
        product = tf.matmul(matrix, tf.reshape(tensor, [-1, shape[axis - 1], math.prod(shape[axis:])]))
    shape[axis - 1] = extent(matrix, 0)
    return tf.reshape(product, [-1, *shape])


def aligned(small: Size, large: Size, dtype: tf.DType) -> tf.Tensor:
    """The matrix [large, small] of linear interpolation with aligned corners: position i lies at i (s-1)/(l-1)."""
    if isinstance(small, int) and isinstance(large, int):  # one operation in place of two dozen
        place = np.arange(large)[:, np.newaxis] * ((small - 1) / max(large - 1, 1))
        return tf.constant(np.maximum(1 - np.abs(place - np.arange(small)), 0), dtype)
    scale = tf.cast(small - 1, dtype) / tf.cast(tf.maximum(large - 1, 1), dtype)
    position = tf.cast(tf.range(large), dtype)[:, tf.newaxis] * scale
    return tf.maximum(1 - tf.abs(position - tf.cast(tf.range(small), dtype)), 0.0)


def total_variation(mask: tf.Tensor, rank: int, beta: float, cells: int | None = None) -> tf.Tensor:
    """sum over spatial axes of mean|difference of neighbours|**beta, [N]; 0 without such axes.

    Args:
        cells: take differences as slopes, as if each axis had so many cells.
    """
    terms = [tf.zeros_like(mask[(slice(None), *[0] * (len(mask.shape) - 1))])]
    for axis in range(1, rank + 1):
        difference = neighbours(mask, axis)
        if cells is not None:
            difference *= tf.cast(extent(mask, axis), mask.dtype) / cells
        count = tf.cast(math.prod(extent(difference, one) for one in beyond_rows(difference)), mask.dtype)
        terms.append(tf.reduce_sum(tf.abs(difference) ** beta, beyond_rows(mask)) / tf.maximum(count, 1))
    return tf.add_n(terms)


def neighbours(tensor: tf.Tensor, axis: int) -> tf.Tensor:
    """Each position's successor along an axis less itself."""
    before = (slice(None),) * axis
    return tensor[(*before, slice(1, None))] - tensor[(*before, slice(None, -1))]


def canvas(x: Leaves) -> Canvas:
    """The first leaf with spatial axes ([B, T, C], [B, H, W, C], [B, D, H, W, C]); without any, the first leaf."""
    spatial = (Canvas(i, len(leaf.shape) - 2) for i, leaf in enumerate(x) if len(leaf.shape) >= 3)
    return next(spatial, Canvas(0, 0))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a mask of a problem's rows costs: its size, its roughness, and the score that it leaves.

    Fields:
        problem: the problem.
        where: the leaf that is masked.
        tv, tv_beta: weight and exponent of roughness.
        cells: as if of how many along an axis roughness is measured; None: as many as there are.
    """

    problem: Problem
    where: Canvas
    tv: float
    tv_beta: float
    cells: int | None = None

    @property
    def x(self) -> tf.Tensor:
        """The leaf that is masked."""
        return self.problem.x[self.where.leaf]

    @property
    def baseline(self) -> tf.Tensor:
        """What a closed mask shows."""
        return self.problem.baseline[self.where.leaf]

    @property
    def swapped(self) -> "Objective":
        """Blends the baseline over x: the same mask inserts what it would delete."""
        x, baseline = list(self.problem.x), list(self.problem.baseline)
        x[self.where.leaf], baseline[self.where.leaf] = self.baseline, self.x
        return dataclasses.replace(self, problem=self.problem.replace(x=tuple(x), baseline=tuple(baseline)))

    def take(self, rows: tf.Tensor) -> "Objective":
        """The objective of the rows with these indices."""
        return dataclasses.replace(self, problem=self.problem.take(rows))

    def penalty(self, mask: tf.Tensor, l1: tf.Tensor | float) -> tf.Tensor:
        """l1 mean|1 - M| + tv TV(M), [N]."""
        size = tf.reduce_mean(tf.abs(1 - mask), beyond_rows(mask))
        return l1 * size + self.tv * total_variation(mask, self.where.rank, self.tv_beta, self.cells)

    def score(self, mask: tf.Tensor) -> tf.Tensor:
        """F where the mask blends x and baseline, [N]."""
        leaves = list(self.problem.x)
        leaves[self.where.leaf] = self.blended(mask)
        return self.problem.score(tuple(leaves))

    def integrated_gradient(self, mask: tf.Tensor, steps: int, deviation: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
        """d/dM mean{ F(x' + k/steps M (x - x') + deviation e[k]) : k = 1...steps }, with e from the rows' `stream`."""
        with tf.GradientTape() as tape:
            tape.watch(mask)
            enlarged = self.where.enlarge(mask, self.x)
        # Enlarging is linear: its transpose is applied once to the sum, not to every term.
        return tape.gradient(enlarged, mask, output_gradients=self.pulled(enlarged, steps, deviation, stream))

    def pulled(self, enlarged: tf.Tensor, steps: int, deviation: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
        """The same with respect to the enlarged mask."""
        leaf, difference = self.where.leaf, self.x - self.baseline

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
            share, change = tf.cast(sample + 1, difference.dtype) / steps, tf.gather(difference, row)
            start = jitter(self.baseline, deviation, fork(p.seed, tf.fill(tf.shape(row), stream)), sample, row)
            points = list(p.x)
            points[leaf] = start + per_row(share, change) * tf.gather(enlarged, row) * change
            gradient = value_and_gradient(p.score, tuple(points))[1][leaf]
            towards = tf.reduce_sum(gradient * change, -1, keepdims=True) if self.where.rank else gradient * change
            return per_row(share, towards) * towards

        return total(self.problem, steps, enlarged, term) / steps

    def blended(self, mask: tf.Tensor) -> tf.Tensor:
        """x' + M (x - x')."""
        change, large = self.x - self.baseline, self.where.enlarge(mask, self.x)
        if self.where.rank:
            # A product spreads over channels, and sums them backwards, in half the time of broadcasting; of two axes,
            # since oneDNN's of more spoils memory where images are one pixel high.
            spread = tf.matmul(tf.reshape(large, [-1, 1]), tf.ones([1, change.shape[-1]], change.dtype))
            large = tf.reshape(spread, tf.shape(change))
        return self.baseline + large * change


Cost = Callable[[tf.Tensor, Leaves], tuple[tf.Tensor, tf.Tensor]]
"""(rows [N], masks of these rows) -> (loss [N], score [N])."""


@dataclasses.dataclass(frozen=True)
class LineSearch:
    """Steps initial * shrink**j until the Armijo condition holds or the step is below `minimum`."""

    initial: float
    shrink: float
    armijo: float
    minimum: float

    def __call__(self, cost: Cost, masks: Leaves, directions: Leaves, loss: tf.Tensor) -> tuple:
        """(masks, score, step accepted) for each row, each by its own search; rows that are done stand still.

        Args:
            cost: (rows [N], their masks) -> (loss [N], score [N]).
            masks, directions: [B, ...] each, descended on together.
            loss: [B], of the masks as they are.
        """
        slope = row_sum(tuple(tf.square(direction) for direction in directions))

        def attempt(step, still, new, score, taken):
            index = remaining(still)
            trials = tuple(
                tf.clip_by_value(tf.gather(mask, index) - step * tf.gather(way, index), 0.0, 1.0)
                for mask, way in zip(masks, directions, strict=True)
            )
            value, scored = cost(index, trials)
            limit = tf.gather(loss, index) - self.armijo * step * tf.gather(slope, index)
            rejected = (value > limit) & (step >= self.minimum)
            found = put((still, *new, score, taken), index, (rejected, *trials, scored, tf.fill(tf.shape(index), step)))
            return step * self.shrink, found[0], tuple(found[1:-2]), found[-2], found[-1]

        nothing = tf.zeros_like(loss)
        start = (tf.constant(self.initial, loss.dtype), tf.ones_like(loss, tf.bool), masks, nothing, nothing)
        return tf.while_loop(lambda step, still, *_: tf.reduce_any(still), attempt, start, parallel_iterations=1)[2:]


def igos(
    cost: Objective,
    search: LineSearch,
    *,
    resolution: int,
    iterations: int,
    steps: int,
    l1: float,
    deviation: tf.Tensor,
) -> tuple[tf.Tensor, Trace]:
    """Integrated-gradient descent on the mask of each row; parameters as in `tfig.IGOS`, noise by its deviation.

    Returns:
        the enlarged mask [B, H, W, 1] and the trace: mask [B, h, w, 1]; losses, scores and step_sizes,
        [B, iterations]; moved [B].
    """
    x, where = cost.x, cost.where
    first, closed = cost.problem.at_x, cost.problem.at_baseline
    half, late = iterations // 2, int(iterations / 1.25)

    def iterate(i, mask, score, l1, logs):
        with tf.GradientTape() as tape:
            tape.watch(mask)
            penalty = cost.penalty(mask, l1)
        loss = penalty + score
        direction = cost.integrated_gradient(mask, steps, deviation, i) + tape.gradient(penalty, mask)

        def value(rows, masks):
            some = cost.take(rows)
            score = some.score(masks[0])
            return score + some.penalty(masks[0], tf.gather(l1, rows)), score

        (mask,), new, step = search(value, (mask,), (direction,), loss)
        logs = tuple(log.write(i, value) for log, value in zip(logs, (loss, new, step), strict=True))
        # The authors ease the size penalty of masks that still change nothing, half-way and towards the end.
        change = tf.abs(first - score)
        if iterations > 3:
            divisor = tf.where((i == half) & (change <= 1e-3), 10.0, 1.0)
            l1 /= tf.cast(tf.where((i == late) & (half < late) & (change <= 1e-2), 5.0, divisor), l1.dtype)
        return i + 1, mask, new, l1, logs

    ones = where.open(x, resolution)
    logs = tuple(tf.TensorArray(x.dtype, iterations, element_shape=[None]) for _ in range(3))
    state = (tf.constant(0), ones, first, tf.fill(tf.shape(first), tf.constant(l1, x.dtype)), logs)
    _, mask, last, _, logs = tf.while_loop(lambda i, *_: i < iterations, iterate, state, parallel_iterations=1)
    trace = dict(zip(("losses", "scores", "step_sizes"), (tf.transpose(log.stack()) for log in logs), strict=True))
    return where.enlarge(mask, x), {"mask": mask, "moved": moves(first, last, tf.abs(closed - first)), **trace}


def moves(first: tf.Tensor, last: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    """Whether a mask changes the score, from `first` to `last`, by more than 1 % of `whole`, what the baseline does."""
    return tf.abs(last - first) > tf.maximum(0.01 * whole, 1e-6 * tf.abs(first))
