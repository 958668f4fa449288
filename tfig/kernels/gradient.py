"""The gradient of a score."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfig.network import Leaves
from tfig.problem import Problem
from tfig.score import Score


class Unconnected(ValueError):
    """The score does not depend on anything that is explained."""


def value_and_gradient(score: Callable[[Leaves], tf.Tensor], x: Leaves) -> tuple[tf.Tensor, Leaves]:
    """(F(x) [N], dF/dx [N, ...] for each leaf); leaves that F ignores get zeros.

    Raises:
        Unconnected: no leaf reaches the score by differentiable operations.
    """
    known = score.differentiated(x) if isinstance(score, Score) else None
    return differentiate(getattr(score, "apart", score), x) if known is None else known


def differentiate(score: Callable[[Leaves], tf.Tensor], x: Leaves) -> tuple[tf.Tensor, Leaves]:
    """The same, by what is made of the model here."""
    if tf.executing_eagerly():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            value = score(x)
        found = tape.gradient(value, x)
    else:  # no tape records where a trace is begun apart from another
        x = tuple(map(tf.identity, x))  # so that nothing before them is between them and the score
        value = score(x)
        found = tf.gradients(value, list(x))
    gradients = connected(found, x)
    if getattr(score, "scale", 1) == 1:
        return value, gradients
    return value, finite_or(gradients, lambda: value_and_gradient(score.unscaled(), x)[1])  # type: ignore[attr-defined]


def gradient_at_x(problem: Problem) -> Leaves:
    """dF(x)/dx, of F(x) as it has been computed where that was of these x in this graph, else of the model anew."""
    value, score = problem.ends[0], problem.score
    here = isinstance(score, Score) and score.scale == 1 and (score.shared is None or problem.source is not None)
    if here and value is not None and not tf.executing_eagerly():
        found = tf.gradients(value, list(problem.x))
        if any(gradient is not None for gradient in found):
            return connected(found, problem.x)
    return value_and_gradient(score, problem.x)[1]


def finite_or(scaled: Leaves, unscaled: Callable[[], Leaves]) -> Leaves:
    """What was found with a scale, where it is finite: large gradients of a float16 model overflow by it."""
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in scaled])

    def again() -> Leaves:
        return tuple(tf.where(tf.math.is_finite(a), a, b) for a, b in zip(scaled, unscaled(), strict=True))

    return tf.cond(finite, lambda: scaled, again)


def connected(gradients: Sequence[tf.Tensor | None], x: Leaves) -> Leaves:
    """Gradients as tensors: zeros for leaves that the score ignores.

    Raises:
        Unconnected: it ignores all of them.
    """
    if all(gradient is None for gradient in gradients):
        raise Unconnected(
            "the score does not depend on the input by differentiable operations (it does not at all, or argmax, "
            "rounding, integer conversion, a Python function or a stopped gradient stands between); explain an earlier "
            "output, or a layer behind it."
        )
    return tuple(
        tf.zeros_like(leaf) if gradient is None else tf.convert_to_tensor(gradient)
        for gradient, leaf in zip(gradients, x, strict=True)
    )
