"""Descent on two masks together, one that deletes and one that inserts; and on one mask by Adam."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfig.baselines import Blur, Noise, blurred
from tfig.kernels.descent import Draw, adam
from tfig.kernels.expectation import fork, jitter, slotted, spread, total, uniform
from tfig.kernels.gradient import value_and_gradient
from tfig.kernels.mask import LineSearch, Objective, moves, neighbours, total_variation
from tfig.network import Leaves
from tfig.problem import Problem, Trace, per_row
from tfig.sizes import beyond_rows, extent

SIGMA = 0.01
"""How much a step in the image excuses a step in the mask."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """The cost of two masks: what the product deletes and inserts, what each does alone, and the product's roughness.

    Fields:
        cost: blends x over the baseline.
        steps: of each integral.
        deviation: of the noise, [B].
        l1: weight of the product's size.
    """

    cost: Objective
    steps: int
    deviation: tf.Tensor
    l1: float

    def take(self, rows: tf.Tensor) -> "Pair":
        """Of the rows with these indices."""
        return dataclasses.replace(self, cost=self.cost.take(rows), deviation=tf.gather(self.deviation, rows))

    def penalty(self, product: tf.Tensor) -> tf.Tensor:
        """See `bilateral`."""
        return bilateral(self.cost, product, self.l1)

    def score(self, delete: tf.Tensor, insert: tf.Tensor, stream: tf.Tensor) -> tf.Tensor:
        """The integrated scores of the four terms, with their signs, [B]."""
        at = self._points(self.cost.where.enlarge(_four(delete, insert), self.cost.x), stream)

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
            point = at(p, sample, row)
            return point.sign * tf.cast(p.score(point.leaves), point.sign.dtype)

        return total(self.cost.problem, 4 * self.steps, tf.zeros_like(self.deviation), term) / self.steps

    def directions(self, delete: tf.Tensor, insert: tf.Tensor, stream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Half the sum of the terms' gradients, with their signs, and the penalty's, for each mask."""
        product, masks, where = delete * insert, _four(delete, insert), self.cost.where
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([product, masks])
            penalty, enlarged = self.penalty(product), where.enlarge(masks, self.cost.x)
        at = self._points(enlarged, stream)

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
            point = at(p, sample, row)
            towards = value_and_gradient(p.score, point.leaves)[1][where.leaf] * point.change
            towards = tf.reduce_sum(towards, -1, keepdims=True) if where.rank else towards
            # Back, the mask's slope and the term's sign are both negative.
            return slotted(per_row(point.share, towards) * towards, point.which, 4)

        # Enlarging is linear: its transpose is applied once to the sums, not to every term.
        apart = tf.stack(tf.split(tf.zeros_like(enlarged), 4), 1)
        sums = total(self.cost.problem, 4 * self.steps, apart, term) / self.steps
        slopes = tape.gradient(enlarged, masks, tf.concat(tf.unstack(sums, axis=1), 0))
        back_and_forth, away, deleting, inserting = tf.split(slopes, 4)
        both, rough = back_and_forth + away, tape.gradient(penalty, product)
        return (both * insert + deleting) / 2 + rough * insert, (both * delete + inserting) / 2 + rough * delete

    def _points(self, masks: tf.Tensor, stream: tf.Tensor) -> Callable[[Problem, tf.Tensor, tf.Tensor], "Point"]:
        """start + k/steps M (end - start) + deviation e[k]: from x' to x in terms 0 and 2, from x to x' in 1 and 3."""
        cost = self.cost
        change, starts = cost.x - cost.baseline, tf.concat([cost.baseline, cost.x], 0)
        rows, deviations = extent(change, 0), tf.tile(self.deviation, [2])

        def at(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Point:
            which, k = sample // self.steps, sample % self.steps
            sign = tf.cast(1 - 2 * (which % 2), change.dtype)
            share = tf.cast(k + 1, change.dtype) / self.steps
            noise = fork(p.seed, tf.fill(tf.shape(row), stream))
            start, here = jitter(starts, deviations, noise, k, row + rows * (which % 2)), tf.gather(change, row)
            leaves = list(p.x)
            leaves[cost.where.leaf] = start + per_row(sign * share, here) * (
                tf.gather(masks, row + rows * which) * here
            )
            return Point(tuple(leaves), which, sign, share, here)

        return at


class Point(NamedTuple):
    """Where a term of the pair's integrals is evaluated: which term, with what sign, how far along, and x - x'."""

    leaves: Leaves
    which: tf.Tensor
    sign: tf.Tensor
    share: tf.Tensor
    change: tf.Tensor


def _four(delete: tf.Tensor, insert: tf.Tensor) -> tf.Tensor:
    """The masks of the four terms, [4 B, ...]: the product both ways, the one that deletes, the one that inserts."""
    return tf.concat([delete * insert, delete * insert, delete, insert], 0)


def bilateral(cost: Objective, mask: tf.Tensor, l1: float) -> tf.Tensor:
    """l1 mean|1 - M| + tv (TV(M) + TV(enlarged M, excused by edges of x)) / 2, [N]."""
    where = cost.where
    size = tf.reduce_mean(tf.abs(1 - mask), beyond_rows(mask))
    rough = total_variation(mask, where.rank, cost.tv_beta, cost.cells)
    if where.rank:
        large = where.enlarge(mask, cost.x)
        for axis in range(1, where.rank + 1):
            steps = [neighbours(one, axis) for one in (large, tf.reduce_mean(cost.x, -1, keepdims=True))]
            if cost.cells is not None:  # whatever the image's size and range
                steps[0] *= tf.cast(extent(large, axis), large.dtype) / cost.cells
                steps[1] = tf.math.divide_no_nan(steps[1], per_row(spread(cost.x), steps[1]))
            excused = tf.abs(steps[0]) ** cost.tv_beta * tf.exp(-tf.square(steps[1]) / SIGMA)
            rough += tf.reduce_mean(excused, beyond_rows(mask))
        rough /= 2
    return l1 * size + cost.tv * rough


def descend(pair: Pair, search: LineSearch, resolution: int, iterations: int) -> tuple[tf.Tensor, Trace]:
    """(enlarged product [B, H, W, 1], trace: mask, losses and step_sizes), each row by its own line search."""
    where, x = pair.cost.where, pair.cost.x

    def iterate(i, delete, insert, logs):
        def cost(rows, masks):
            some = pair.take(rows)
            value = some.penalty(masks[0] * masks[1]) + some.score(masks[0], masks[1], i)
            return value, value

        loss, _ = cost(tf.range(tf.shape(x)[0]), (delete, insert))
        (delete, insert), _, step = search(cost, (delete, insert), pair.directions(delete, insert, i), loss)
        logs = tuple(log.write(i, value) for log, value in zip(logs, (loss, step), strict=True))
        return i + 1, delete, insert, logs

    ones = where.open(x, resolution)
    logs = tuple(tf.TensorArray(x.dtype, iterations, element_shape=[None]) for _ in range(2))
    state = (tf.constant(0), ones, ones, logs)
    _, delete, insert, logs = tf.while_loop(lambda i, *_: i < iterations, iterate, state, parallel_iterations=1)
    product = delete * insert
    losses, sizes = (tf.transpose(log.stack()) for log in logs)
    first, closed = pair.cost.problem.at_x, pair.cost.problem.at_baseline
    moved = moves(first, pair.cost.score(product), tf.abs(closed - first))
    return where.enlarge(product, x), {"mask": product, "moved": moved, "losses": losses, "step_sizes": sizes}


def smoothed(blur: float | tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """A blur of enlarged masks, of this deviation in pixels."""

    def smooth(large: tf.Tensor) -> tf.Tensor:
        reach = tf.maximum(tf.cast(3 * blur, tf.int32), 1)
        kernel = tf.exp(-tf.square(tf.cast(tf.range(-reach, reach + 1), large.dtype) / blur) / 2)
        return blurred(large, kernel / tf.reduce_sum(kernel), reach)

    if isinstance(blur, tf.Tensor):
        return smooth
    rule = Blur(2 * max(int(3 * blur), 1) + 1, blur)
    return lambda large: rule(large, Noise(tf.zeros_like, tf.zeros_like))


def shifted(cost: Objective, shift: int | tf.Tensor) -> Draw:
    """Turns images round by up to `shift` - 1 positions along each axis, each row by its own draw."""
    problem, rank = cost.problem, cost.where.rank

    def turn(image: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        for axis in range(1, rank + 1):
            draw = uniform(fork(problem.seed, tf.fill([problem.rows], -axis - 1)), tf.fill([problem.rows], i),
                           tf.zeros([problem.rows, 1]))  # fmt: skip
            place = tf.range(extent(image, axis)) + tf.cast(draw * shift, tf.int32)
            turned = tf.experimental.numpy.moveaxis(image, axis, 1)
            picked = tf.gather(turned, place % extent(image, axis), axis=1, batch_dims=1)
            image = tf.ensure_shape(tf.experimental.numpy.moveaxis(picked, 1, axis), image.shape)
        return image

    return (lambda image, i: image) if isinstance(shift, int) and shift < 2 else turn


def perturb(
    cost: Objective, l1: float, rate: float, iterations: int, resolution: int, draw: Draw
) -> tuple[tf.Tensor, Trace]:
    """(enlarged mask, trace) by Adam on l1 sum|1 - M| + tv sum|dM|**tv_beta + F, x under M disturbed by `draw`."""
    where, x, problem = cost.where, cost.x, cost.problem

    def slope(i: tf.Tensor, masks: Leaves) -> tuple[tf.Tensor, list[tf.Tensor]]:
        (mask,) = masks
        with tf.GradientTape() as tape:
            tape.watch(mask)
            points = list(problem.x)
            points[where.leaf] = draw(cost.blended(mask), i)
            size = tf.reduce_sum(tf.abs(1 - mask), beyond_rows(mask))
            rough = tf.zeros_like(size)
            for axis in range(1, where.rank + 1):
                rough += tf.reduce_sum(tf.abs(neighbours(mask, axis)) ** cost.tv_beta, beyond_rows(mask))
            penalty = l1 * size + cost.tv * rough
        value, slopes = value_and_gradient(problem.score, tuple(points))
        found = tape.gradient([penalty, points[where.leaf]], mask, [tf.ones_like(penalty), slopes[where.leaf]])
        return value + penalty, [found]

    (mask,), _, losses = adam(slope, (where.open(x, resolution),), iterations, lambda i: tf.constant(rate, x.dtype))
    first, last, closed = problem.at_x, cost.score(mask), problem.at_baseline
    return where.enlarge(mask, x), {"mask": mask, "moved": moves(first, last, tf.abs(closed - first)), "losses": losses}
