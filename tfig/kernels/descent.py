"""Descent by Adam on masks, and the mask that integrated gradients place and descent settles."""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfig.kernels.expectation import each, fork, jitter
from tfig.kernels.gradient import value_and_gradient
from tfig.kernels.mask import Objective, moves
from tfig.network import Leaves
from tfig.problem import Problem, Trace, per_row
from tfig.sizes import beyond_rows

REACHES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""How far masks are closed along the integrated gradient to begin with, in cells fully closed by its highest value."""

CREDIT = 1.5
"""How far a score is credited for being brought, in units of |F(x) - F(x')|: a logit has no bottom."""

ORDERED = (0.25, 0.2, 0.15, 0.1, 0.05, 0.0)
"""Shares of the integrated gradient itself in the mask answered: it orders what the descent has closed alike."""

KEPT = 0.85
"""The share of what the best of all masks gains that the mask answered must gain."""

Slope = Callable[[tf.Tensor, Leaves], tuple[tf.Tensor, Sequence[tf.Tensor]]]
"""(iteration, masks) -> (loss [B], its gradient with respect to each mask)."""

Draw = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(x under a mask, iteration) -> the same, disturbed at random, so that no one pattern of pixels is fitted."""

Penalty = Callable[[Objective, tf.Tensor], tf.Tensor]
"""(cost, masks [N, h, w, 1]) -> [N], in units of |F(x) - F(x')|."""


def adam(
    slope: Slope, masks: Leaves, iterations: int, rate: Callable[[tf.Tensor], tf.Tensor]
) -> tuple[Leaves, Leaves, tf.Tensor]:
    """(masks after `iterations` of Adam within [0, 1], their mean over all iterations, losses [B, iterations])."""

    def iterate(i, masks, first, second, sums, losses):
        loss, gradients = slope(i, masks)
        first = tuple(0.9 * a + 0.1 * g for a, g in zip(first, gradients, strict=True))
        second = tuple(0.999 * b + 0.001 * tf.square(g) for b, g in zip(second, gradients, strict=True))
        age = tf.cast(i + 1, loss.dtype)
        steps = (
            a / (1 - 0.9**age) / (tf.sqrt(b / (1 - 0.999**age)) + 1e-8) for a, b in zip(first, second, strict=True)
        )
        masks = tuple(tf.clip_by_value(m - rate(i) * step, 0.0, 1.0) for m, step in zip(masks, steps, strict=True))
        sums = tuple(s + m for s, m in zip(sums, masks, strict=True))
        return i + 1, masks, first, second, sums, losses.write(i, loss)

    nothing = tuple(tf.zeros_like(mask) for mask in masks)
    losses = tf.TensorArray(masks[0].dtype, iterations, element_shape=[None])
    state = (tf.constant(0), masks, nothing, nothing, masks, losses)
    _, masks, _, _, sums, losses = tf.while_loop(lambda i, *_: i < iterations, iterate, state, parallel_iterations=1)
    return masks, tuple(s / (iterations + 1) for s in sums), tf.transpose(losses.stack())


@dataclasses.dataclass(frozen=True)
class Way:
    """What a mask is to do to a score: lower it from F(x), or raise it from F(x').

    Fields:
        cost: blends what is kept over what takes its place.
        sign: 1 to lower the score, -1 to raise it.
        start: the score of an open mask, [B].
        unit: |F(x) - F(x')|, [B]; 0 where it is no more than rounding.
    """

    cost: Objective
    sign: float
    start: tf.Tensor
    unit: tf.Tensor

    def of(self, score: tf.Tensor) -> tf.Tensor:
        """A score [B] or [B, K] as units above the start: -1 where the mask does all it should, at least -CREDIT."""
        start, unit = (per_row(one, score) for one in (self.start, self.unit))
        return tf.maximum(tf.math.divide_no_nan(self.sign * (score - start), unit), -CREDIT)

    def slope(self, mask: tf.Tensor, draw: Draw, i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(units above the start [B], their gradient with respect to the mask)."""
        leaf, problem = self.cost.where.leaf, self.cost.problem
        with tf.GradientTape() as tape:
            tape.watch(mask)
            blended = draw(self.cost.blended(mask), i)
        points = list(problem.x)
        points[leaf] = blended
        score, gradients = value_and_gradient(problem.score, tuple(points))
        above = self.of(score)
        weight = tf.where(above > -CREDIT, tf.math.divide_no_nan(self.sign * tf.ones_like(score), self.unit), 0)
        return above, per_row(weight, mask) * tape.gradient(blended, mask, gradients[leaf])


def inserts(way: Way) -> Way:
    """The mask that would delete by `way` raises the score of the baseline instead."""
    cost = way.cost.swapped
    return Way(cost, -1.0, cost.problem.at_x, way.unit)


def deletes(cost: Objective) -> Way:
    """The mask lowers the score."""
    first, closed = cost.problem.at_x, cost.problem.at_baseline
    difference = tf.abs(first - closed)
    rounding = 1e-6 * tf.maximum(tf.abs(first), tf.abs(closed))
    return Way(cost, 1.0, first, tf.where(difference > rounding, difference, tf.zeros([], difference.dtype)))


def noisy(cost: Objective, deviation: tf.Tensor) -> Draw:
    """Adds normal noise of this deviation, [B]."""
    row = tf.range(cost.problem.rows)

    def add(image: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        stream = fork(cost.problem.seed, tf.fill(tf.shape(row), i + 1))
        # Drawn around zero, so that no gradient is taken back through the loop that draws.
        return image + jitter(tf.zeros_like(image), deviation, stream, 0 * row, row)

    return add


def settle(
    ways: Sequence[Way],
    penalty: Penalty,
    draw: Draw,
    *,
    resolution: int,
    iterations: int,
    steps: int,
    deviation: tf.Tensor,
    rate: float,
) -> tuple[tf.Tensor, Trace]:
    """The mask of each row that the integrated gradient places, and that descent shrinks or grows.

    Minimises penalty(P) + the mean of what P does in `ways`; where there are several, each with a mask of its own, P is
    their product, and the mean of what each mask does alone is added while descending.

    Args:
        ways: the first deletes.
        steps, deviation: of the integrated gradient, points and noise.
        rate: the first step of Adam, which shrinks to nothing.

    Returns:
        the enlarged P [B, H, W, 1] and the trace: mask [B, h, w, 1]; losses [B, iterations]; objective and moved, [B].
    """
    cost, unit = ways[0].cost, ways[0].unit
    x, where, problem = cost.x, cost.where, cost.problem
    open_ = where.open(x, resolution)
    pulled = cost.pulled(where.enlarge(open_, x), steps, deviation, tf.constant(0))
    # Placed at half the resolution, where it is smooth, and ordered at the whole.
    broad = where.spread(where.shrink(pulled, where.open(x, -(-resolution // 2))), open_)
    placed, order = _share_of_highest(broad), _share_of_highest(where.shrink(pulled, open_))

    def judged(masks: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """(objectives, scores deleted to) of several masks of each row, [B, K]."""
        together = tf.stack(masks, 1)

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, ...]:
            mask = tf.gather(tf.gather(together, row), sample, axis=1, batch_dims=1)
            costs = [way.cost.take(row) for way in ways]
            return penalty(costs[0], mask), *(tf.cast(one.score(mask), x.dtype) for one in costs)

        like = tf.cast(unit, x.dtype)
        penalties, *scores = each(problem, len(masks), (like,) * (1 + len(ways)), term)
        return penalties + _mean([way.of(score) for way, score in zip(ways, scores, strict=True)]), scores[0]

    begun = [tf.clip_by_value(1 - reach * placed, 0.0, 1.0) for reach in REACHES] + [tf.zeros_like(open_)]
    values, scores = judged(begun)
    # Begun where half of the difference is taken: an open mask in front of a saturated score finds no way down.
    late = tf.cast(ways[0].of(scores) > -0.5, x.dtype)
    start = _picked(begun, tf.argmin(values + 1e3 * late, 1))

    def slope(i: tf.Tensor, masks: Leaves) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(masks)
            product = _product(masks)
            size = penalty(cost, product)
        together = [way.slope(product, draw, i) for way in ways]
        pull = _mean([gradient for _, gradient in together])
        found = tape.gradient([size, product], masks, [tf.ones_like(size), pull])
        loss = size + _mean([value for value, _ in together])
        if len(ways) > 1:
            alone = [way.slope(mask, draw, i) for way, mask in zip(ways, masks, strict=True)]
            loss += _mean([value for value, _ in alone])
            found = [one + gradient / len(ways) for one, (_, gradient) in zip(found, alone, strict=True)]
        cells = tf.cast(tf.reduce_prod(tf.shape(product)[1:]), x.dtype)
        return loss, [cells * one for one in found]

    last, mean, losses = adam(
        slope, (start,) * len(ways), iterations, lambda i: rate * (1 - tf.cast(i, x.dtype) / iterations)
    )
    found = [(1 - share) * _product(mean) + share * (1 - order) for share in ORDERED] + [_product(last), start]
    values, scores = judged(found)
    best = tf.reduce_min(values, 1, keepdims=True)
    # The first that gains nearly as much as the best: the better ordered before the deeper.
    chosen = tf.argmax(tf.cast(values - best <= (1 - KEPT) * tf.abs(best), tf.int32), 1)
    able = unit > 0  # else there is nothing to delete
    mask = tf.where(per_row(able, open_), _picked(found, chosen), open_)
    reached, objective = (
        tf.where(able, tf.gather(one, chosen, batch_dims=1), still)
        for one, still in ((scores, ways[0].start), (values, tf.zeros_like(unit)))
    )
    moved = moves(ways[0].start, reached, unit)
    return where.enlarge(mask, x), {"mask": mask, "losses": losses, "objective": objective, "moved": moved}


def _product(masks: Leaves) -> tf.Tensor:
    product = masks[0]
    for mask in masks[1:]:
        product = product * mask
    return product


def _mean(values: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n(values) / len(values)


def _share_of_highest(map_: tf.Tensor) -> tf.Tensor:
    """What is positive of a map, as a share of its highest value; zeros where nothing is."""
    positive = tf.nn.relu(map_)
    return tf.math.divide_no_nan(positive, tf.reduce_max(positive, beyond_rows(map_), keepdims=True))


def _picked(masks: list[tf.Tensor], index: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.stack(masks, 1), index, axis=1, batch_dims=1)
