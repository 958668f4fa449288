"""Descent on a mask: the smallest, smoothest part of x whose replacement by the baseline lowers the score most."""

import dataclasses

import tensorflow as tf

from tfig.kernels.expectation import fork, normal, total
from tfig.kernels.gradient import value_and_gradient
from tfig.network import Leaves
from tfig.problem import Problem, Trace, per_row


@dataclasses.dataclass(frozen=True)
class Canvas:
    """The leaf that is masked, and how a small mask is spread over it.

    Fields:
        leaf: its index among the explained leaves.
        rank: its number of spatial axes.
    """

    leaf: int
    rank: int

    @property
    def axes(self) -> range:
        """Everything of a mask but its rows."""
        return range(1, self.rank + 2)

    def small(self, x: tf.Tensor, resolution: int) -> list[tf.Tensor]:
        """The mask's shape without rows: `resolution` along each spatial axis, at most x's; [F] without such axes."""
        sides = [tf.minimum(resolution, tf.shape(x)[axis + 1]) for axis in range(self.rank)]
        return [*sides, 1] if sides else [tf.shape(x)[1]]

    def enlarge(self, mask: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """[N, h, w, 1] -> [N, H, W, 1], linear along each spatial axis with the corners aligned; [N, F] as it is."""
        for axis in range(1, self.rank + 1):
            matrix = aligned(tf.shape(mask)[axis], tf.shape(x)[axis], mask.dtype)
            letters = "abcdef"[: self.rank + 2]
            mask = tf.einsum(f"{letters},z{letters[axis]}->{letters.replace(letters[axis], 'z')}", mask, matrix)
        return mask


def aligned(small: tf.Tensor, large: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The matrix [large, small] of linear interpolation with aligned corners: position i lies at i (s-1)/(l-1)."""
    scale = tf.cast(small - 1, dtype) / tf.cast(tf.maximum(large - 1, 1), dtype)
    position = tf.cast(tf.range(large), dtype)[:, tf.newaxis] * scale
    return tf.maximum(1 - tf.abs(position - tf.cast(tf.range(small), dtype)), 0.0)


def total_variation(mask: tf.Tensor, rank: int, beta: float) -> tf.Tensor:
    """sum over spatial axes of mean|difference of neighbours|**beta, [N]; 0 without such axes."""
    terms = [tf.zeros_like(mask[(slice(None), *[0] * (len(mask.shape) - 1))])]
    for axis in range(1, rank + 1):
        size = tf.shape(mask)[axis]
        difference = tf.gather(mask, tf.range(1, size), axis=axis) - tf.gather(mask, tf.range(size - 1), axis=axis)
        count = tf.cast(tf.maximum(tf.reduce_prod(tf.shape(difference)[1:]), 1), mask.dtype)
        terms.append(tf.reduce_sum(tf.abs(difference) ** beta, range(1, rank + 2)) / count)
    return tf.add_n(terms)


def canvas(x: Leaves) -> Canvas:
    """The first leaf with spatial axes ([B, T, C], [B, H, W, C], [B, D, H, W, C]); without any, the first leaf."""
    spatial = (Canvas(i, len(leaf.shape) - 2) for i, leaf in enumerate(x) if len(leaf.shape) >= 3)
    return next(spatial, Canvas(0, 0))


def blend(x: tf.Tensor, baseline: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """x where the mask is 1, the baseline where it is 0."""
    return baseline + mask * (x - baseline)


def igos(
    problem: Problem,
    *,
    resolution: int,
    iterations: int,
    steps: int,
    l1: float,
    tv: float,
    tv_beta: float,
    noise: float,
    initial_step: float,
    shrink: float,
    armijo: float,
    minimum_step: float,
) -> tuple[tf.Tensor, Trace]:
    """Integrated-gradient descent on the mask of each row, with its own line search; parameters as in `tfig.IGOS`.

    Returns:
        the enlarged mask [B, H, W, 1] and the trace: mask [B, h, w, 1]; losses, scores and step_sizes,
        [B, iterations]; moved [B].
    """
    where = canvas(problem.x)
    rows, x = problem.rows, problem.x[where.leaf]
    deviation = noise * tf.math.reduce_std(x, range(1, len(x.shape)))

    def masked(p: Problem, mask: tf.Tensor) -> Leaves:
        leaves = list(p.x)
        leaves[where.leaf] = blend(p.x[where.leaf], p.baseline[where.leaf], mask)
        return tuple(leaves)

    def penalty(mask: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        size = tf.reduce_mean(tf.abs(1 - mask), where.axes)
        return weight * size + tv * total_variation(mask, where.rank, tv_beta)

    def integrated_gradient(mask: tf.Tensor, iteration: tf.Tensor) -> tf.Tensor:
        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
            image, share = p.x[where.leaf], tf.cast(sample + 1, x.dtype) / steps
            draw = normal(fork(p.seed, tf.fill(tf.shape(sample), iteration)), sample, image)
            jitter = per_row(tf.gather(deviation, row), image) * draw

            def score(small: Leaves) -> tf.Tensor:
                points = list(masked(p, where.enlarge(per_row(share, small[0]) * small[0], image)))
                points[where.leaf] += jitter
                return p.score(tuple(points))

            return value_and_gradient(score, (tf.gather(mask, row),))[1][0]

        return total(problem, steps, mask, term) / steps

    def search(mask, direction, loss, weight):
        """The first step initial_step * shrink**j of each row that satisfies Armijo, or falls below minimum_step."""
        slope = tf.reduce_sum(tf.square(direction), where.axes)

        def attempt(step, open_rows, new, score, taken):
            index = tf.cast(tf.where(open_rows)[:, 0], tf.int32)
            p = problem.take(index)
            trial = tf.clip_by_value(tf.gather(mask, index) - step * tf.gather(direction, index), 0.0, 1.0)
            value = p.score(masked(p, where.enlarge(trial, p.x[where.leaf])))
            limit = tf.gather(loss, index) - armijo * step * tf.gather(slope, index)
            rejected = (value + penalty(trial, tf.gather(weight, index)) > limit) & (step >= minimum_step)
            at = index[:, tf.newaxis]
            return (
                step * shrink,
                tf.tensor_scatter_nd_update(open_rows, at, rejected),
                tf.tensor_scatter_nd_update(new, at, trial),
                tf.tensor_scatter_nd_update(score, at, value),
                tf.tensor_scatter_nd_update(taken, at, tf.fill(tf.shape(index), step)),
            )

        nothing = tf.zeros_like(loss)
        start = (tf.constant(initial_step, x.dtype), tf.ones([rows], tf.bool), mask, nothing, nothing)
        _, _, new, score, taken = tf.while_loop(
            lambda step, open_rows, *_: tf.reduce_any(open_rows), attempt, start, parallel_iterations=1
        )
        return new, score, taken

    def iterate(i, mask, score, weight, losses, scores, sizes):
        with tf.GradientTape() as tape:
            tape.watch(mask)
            cost = penalty(mask, weight)
        direction = integrated_gradient(mask, i) + tape.gradient(cost, mask)
        loss = cost + score
        # The authors ease the size penalty of masks that still change nothing, half-way and towards the end.
        change = tf.abs(first - score)
        eased = tf.where((i == iterations // 2) & (change <= 1e-3), weight / 10, weight)
        eased = tf.where((i == int(iterations / 1.25)) & (i != iterations // 2) & (change <= 1e-2), weight / 5, eased)
        mask, score, step = search(mask, direction, loss, weight)
        return (
            i + 1, mask, score, eased if iterations > 3 else weight,
            losses.write(i, loss), scores.write(i, score), sizes.write(i, step),
        )  # fmt: skip

    first = problem.score(problem.x)
    ones = tf.ones(tf.stack([rows, *where.small(x, resolution)]), x.dtype)
    ones.set_shape([None] * (where.rank + 1) + [1 if where.rank else x.shape[-1]])
    logs = [tf.TensorArray(x.dtype, iterations, element_shape=[None]) for _ in range(3)]
    state = (tf.constant(0), ones, first, tf.fill([rows], tf.constant(l1, x.dtype)), *logs)
    _, mask, last, _, losses, scores, sizes = tf.while_loop(
        lambda i, *_: i < iterations, iterate, state, parallel_iterations=1
    )
    record = {"losses": losses, "scores": scores, "step_sizes": sizes}
    trace = {name: tf.transpose(log.stack()) for name, log in record.items()}
    moved = tf.abs(last - first) > 0.01 * tf.abs(first)
    return where.enlarge(mask, x), {"mask": mask, "moved": moved, **trace}
