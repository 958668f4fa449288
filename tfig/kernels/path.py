"""Integrals along the line from a baseline to x: quadrature rules, fixed and placed by probing, refined on demand."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.kernels.expectation import each, total
from tfig.kernels.gradient import value_and_gradient
from tfig.kernels.rows import put, remaining
from tfig.network import Leaves
from tfig.problem import Problem, Source, per_row, row_sum
from tfig.sizes import Size

RULES = ("midpoint", "trapezoid", "left", "right", "gauss_legendre", "adaptive")
"""Quadrature rules on [0, 1]; their weights sum to one."""

PARTS = 8
"""Stretches of a path of which adaptive nodes know how much the score changes: a forward pass between any two."""

EDGES = tuple(part / PARTS for part in range(1, PARTS))
"""Where these stretches meet."""

GRID = 16
"""Places on a path, for each node, on which adaptive nodes may lie."""

FLOOR = 0.01
"""The least that a stretch is taken to change the score by, as a share of the score's range on the path."""

At = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(sample [N], row [N]) -> (position on the path [N], weight [N])."""

Levels = Callable[[Size], At]
"""level (an index into a rising list of counts) -> the nodes of that level."""


def tabulate(rule: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights [count] of a fixed rule on [0, 1].

    midpoint: (k + 1/2)/n; left: k/n; right: (k + 1)/n, weight 1/n each. trapezoid: k/(n - 1), weight 1/(n - 1), half
    of that at both ends. gauss_legendre: exact for polynomials of degree 2n - 1.
    """
    k = np.arange(count)
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(count)
        return (points + 1) / 2, weights / 2
    if rule == "trapezoid":
        weights = np.full(count, 1 / (count - 1))
        weights[[0, -1]] /= 2
        return k / (count - 1), weights
    return (k + {"midpoint": 0.5, "left": 0.0, "right": 1.0}[rule]) / count, np.full(count, 1 / count)


def line(start: Leaves, end: Leaves, alpha: tf.Tensor) -> Leaves:
    """start + alpha (end - start), one alpha for each row."""
    return tuple(a + per_row(alpha, b) * (b - a) for a, b in zip(start, end, strict=True))


def along(problem: Problem, places: Sequence[float], like: Any, read: Callable[[Any, Leaves], Any]) -> Any:
    """read(score, points) at places on the path, [B, len(places), ...] where `like` is [B, ...]."""
    table = tf.constant(places, tf.float32)

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Any:
        alpha = tf.gather(table, sample)
        points = line(p.baseline, p.x, alpha)
        if 1.0 in places:  # x itself, where rounding would leave a hair
            points = tuple(tf.where(per_row(alpha == 1, x), x, a) for a, x in zip(points, p.x, strict=True))
        return read(p.score, points)

    return each(problem, len(places), like, term)


def scores(problem: Problem, places: Sequence[float]) -> tf.Tensor:
    """F at places on the path, by forward passes: [B, len(places)]."""
    return along(problem, places, tf.TensorSpec([None], problem.dtype), lambda score, points: score(points))


def integrate(problem: Problem, count: int | tf.Tensor, at: At) -> Leaves:
    """(x - x') * sum{ w[k] dF(x' + a[k] (x - x')) : k = 0...count-1 }, by nodes a and weights w."""

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
        alpha, weight = at(sample, row)
        _, gradients = value_and_gradient(p.score, line(p.baseline, p.x, alpha))
        return tuple(per_row(weight, g) * g * (x - b) for g, x, b in zip(gradients, p.x, p.baseline, strict=True))

    return total(problem, count, problem.x, term)


def fixed(rule: str, counts: list[int]) -> Levels:
    """The same nodes for every row, counts[level] of them."""
    table = np.zeros([len(counts), 2, max(counts)])
    for level, count in enumerate(counts):
        table[level, :, :count] = tabulate(rule, count)

    def at(level: Size) -> At:
        points, weights = tf.unstack(table[level] if isinstance(level, int) else tf.gather(table, level))
        return lambda sample, row: (tf.gather(points, sample), tf.gather(weights, sample))

    return at


def adaptive(problem: Problem, counts: list[int]) -> Levels:
    """Nodes at equal quantiles of sqrt(|dF| + range / 100) along the path, for each row; their weights are their cells.

    dF is what F changes by in each of `PARTS` even stretches, measured by forward passes between them; range, the
    largest F less the smallest, keeps every stretch in view, and what the rounding of F makes of dF from moving nodes.
    """
    between = problem.between if problem.between is not None else scores(problem, EDGES)
    values = tf.concat([problem.at_baseline[:, tf.newaxis], between, problem.at_x[:, tf.newaxis]], 1)
    whole = tf.reduce_max(values, -1, keepdims=True) - tf.reduce_min(values, -1, keepdims=True)
    density = tf.cast(tf.sqrt(tf.abs(values[:, 1:] - values[:, :-1]) + FLOOR * whole), tf.float32) + 1e-20
    share = density / tf.reduce_sum(density, -1, keepdims=True)
    reached = tf.cumsum(share, -1, exclusive=True)
    table = tf.constant(counts, tf.float32)

    def quantile(u: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        inside = (u[:, tf.newaxis] - tf.gather(reached, row)) / tf.gather(share, row)
        return tf.reduce_sum(tf.clip_by_value(inside, 0.0, 1.0), -1) / PARTS

    def at(level: Size) -> At:
        def place(sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            k = tf.cast(sample, tf.float32)
            n = float(counts[level]) if isinstance(level, int) else tf.gather(table, level)
            low, high = quantile(k / n, row), quantile((k + 1) / n, row)
            # On a grid, so that roundings of F, which differ from batch to batch, seldom move a node across a kink.
            return (tf.floor(quantile((k + 0.5) / n, row) * GRID * n) + 0.5) / (GRID * n), high - low

        return place

    return at


@dataclasses.dataclass(frozen=True)
class Refined:
    """An integral refined per row, and what was reached.

    Fields:
        attributions: leaves [B, ...].
        steps: [B] int32, quadrature nodes in the final estimate.
        converged: [B] bool, whether |sum - (F(x) - F(x'))| is within the tolerance.
    """

    attributions: Leaves
    steps: tf.Tensor
    converged: tf.Tensor


def refine(problem: Problem, counts: list[int], nodes: Levels, tolerance: float) -> Refined:
    """Integrate with counts[0] nodes, then, for the rows that miss the tolerance, with counts[1], and so on.

    A row is done when |delta| <= max(tolerance |F(x) - F(x')|, 1e-6 max(1, |F(x)|)).

    Args:
        problem: the problem.
        counts: numbers of nodes, rising.
        nodes: where they lie.
        tolerance: relative to |F(x) - F(x')|.
    """
    value = problem.at_x
    difference = value - problem.at_baseline
    allowed = tf.maximum(tolerance * tf.abs(difference), 1e-6 * tf.maximum(tf.abs(value), 1.0))
    table = tf.constant(counts)

    def more(level, found, steps, open_rows):
        return (level < len(counts)) & tf.reduce_any(open_rows)

    def step(level, found, steps, open_rows):
        rows = remaining(open_rows)
        at = nodes(level)
        new = integrate(problem.take(rows), table[level], lambda sample, row: at(sample, tf.gather(rows, row)))
        missed = tf.abs(row_sum(new) - tf.gather(difference, rows)) > tf.gather(allowed, rows)
        used = tf.fill(tf.shape(rows), table[level])
        return level + 1, *put((found, steps, open_rows), rows, (new, used, missed))

    rows = problem.rows
    start = (
        tf.constant(0),
        tuple(tf.zeros_like(x) for x in problem.x),
        tf.zeros([rows], tf.int32),
        tf.ones([rows], tf.bool),
    )
    _, found, steps, open_rows = tf.while_loop(more, step, start, parallel_iterations=1)
    return Refined(found, steps, ~open_rows)


def conductance(problem: Problem, steps: int) -> Leaves:
    """sum{ dF/dy at the middle of step k * (y at its end - y at its start) : k = 0...steps-1 }, y the layer's output.

    The path runs at the model's input, from 0 to 1 without a gap.
    """

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
        # Neighbouring steps share an edge: one more sample at the end serves all, in place of two edges for each.
        count, rows = tf.shape(sample)[0], problem.rows
        extended = tf.concat([tf.range(count), tf.range(count - rows, count)], 0)
        edge = tf.concat([sample, sample[-rows:] + 1], 0)
        ends = p.cut.take(extended)
        y = ends.features(at_input(ends, tf.cast(edge, tf.float32) / steps), ends.constants)
        _, gradients = layer_gradient(p, (tf.cast(sample, tf.float32) + 0.5) / steps)
        return tuple(g * (leaf[rows:] - leaf[:-rows]) for g, leaf in zip(gradients, y, strict=True))

    return total(problem, steps, problem.x, term)


def layer_gradient(p: Problem, alpha: tf.Tensor) -> tuple[tf.Tensor, Leaves]:
    """(F, dF/dy) with y the layer's output, where the model's input is at `alpha` on its path."""
    source = p.cut
    points = at_input(source, alpha)
    score = source.at(p.score, points, source.constants)
    return value_and_gradient(score, source.features(points, source.constants))


def at_input(source: Source, alpha: tf.Tensor) -> Leaves:
    """The model's input at `alpha` on its path.

    Raises:
        ValueError: the input cannot be moved, or its baseline was given at the layer.
    """
    if not source.baseline:
        raise ValueError(
            "this method moves the model's float input from a baseline to x and reads the layer on the way; with an "
            "integer input, or a baseline given by AtLayer, use integrated_gradients at the layer."
        )
    return line(source.baseline, source.x, alpha)
