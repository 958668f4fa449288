"""The nearest point across the decision boundary."""

import dataclasses

import tensorflow as tf

from tfig.kernels.expectation import spread
from tfig.kernels.gradient import value_and_gradient
from tfig.kernels.rows import put, remaining
from tfig.network import Leaves
from tfig.problem import RowScore, per_row, row_sum
from tfig.sizes import extent


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where the boundary was crossed.

    Fields:
        points: leaves [B, ...]; where nothing was found, the last point tried.
        found: [B] bool.
        distance: [B], L2 distance from x.
    """

    points: Leaves
    found: tf.Tensor
    distance: tf.Tensor


def search(margin: RowScore, x: Leaves, radii: tuple[float, ...], steps: int, bisections: int = 12) -> Crossing:
    """Projected gradient descent on the margin in L2 balls of growing radius, then bisection back towards x.

    A ball is `radius` times the row's max - min wide and is searched with `steps` normalised steps of 2 radius/steps;
    a row stops at the first point whose margin is not positive. Only rows still searching are evaluated.
    """
    scale = tf.reduce_max(tf.stack([spread(leaf) for leaf in x]), 0)
    table = tf.constant(radii, scale.dtype)
    last = len(radii) * (steps + 1)

    def step(i, points, open_rows):
        index = remaining(open_rows)
        radius = table[i // (steps + 1)] * tf.gather(scale, index)
        start = tuple(tf.gather(leaf, index) for leaf in x)
        here = tuple(tf.gather(leaf, index) for leaf in points)
        value, gradient = value_and_gradient(margin.take(index), here)
        norm = tf.maximum(_norm(gradient), 1e-30)
        moved = tuple(
            a - b - per_row(2 * radius / (steps * norm), g) * g for a, b, g in zip(here, start, gradient, strict=True)
        )
        inside = tf.minimum(radius / tf.maximum(_norm(moved), 1e-30), 1.0)
        across = value <= 0
        new = tuple(
            tf.where(per_row(across, a), a, b + per_row(inside, m) * m)
            for a, b, m in zip(here, start, moved, strict=True)
        )
        return i + 1, *put((points, open_rows), index, (new, ~across))

    rows = extent(x[0], 0)
    _, points, missing = tf.while_loop(
        lambda i, points, open_rows: (i < last) & tf.reduce_any(open_rows),
        step,
        (tf.constant(0), x, tf.ones([rows], tf.bool)),
        parallel_iterations=1,
    )
    found = ~missing

    def halve(i, near, far):
        middle = (near + far) / 2
        across = margin(_between(x, points, middle)) <= 0
        return i + 1, tf.where(across, near, middle), tf.where(across, middle, far)

    state = (tf.constant(0), tf.zeros([rows], scale.dtype), tf.ones([rows], scale.dtype))
    _, _, far = tf.while_loop(lambda i, *_: i < bisections, halve, state, parallel_iterations=1)
    points = _between(x, points, tf.where(found, far, 1.0))
    return Crossing(points, found, _norm(tuple(a - b for a, b in zip(points, x, strict=True))))


def _between(start: Leaves, end: Leaves, alpha: tf.Tensor) -> Leaves:
    return tuple(a + per_row(alpha, a) * (b - a) for a, b in zip(start, end, strict=True))


def _norm(leaves: Leaves) -> tf.Tensor:
    return tf.sqrt(row_sum(tuple(tf.square(leaf) for leaf in leaves)))
