"""Differences from a reference carried back through a network: DeepLIFT.

The model is called at x and at its reference; both calls are the same operations. The multiplier of each tensor is
carried back by what each operation makes of the difference, so that multiplier * difference sums to the same before it
and behind it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tfig import anatomy
from tfig.anatomy import fit, pull, wide
from tfig.kernels.gradient import connected
from tfig.kernels.passage import Given, NoRule, Passage, back, ended, further, way
from tfig.network import Leaves
from tfig.problem import Problem
from tfig.score import Score

SMALL = 1e-4
"""A share of the values that differ, below which the mean of their derivatives takes the place of the quotient: it is
off by the square of this, and the quotient by the rounding of the values over it."""

RISING, FALLING = 0, 1
"""The multipliers of the positive and of the negative part of a difference; by rescale the first is of all of it."""


@dataclasses.dataclass
class Differences:
    """Rescale.

    Fields:
        name: of the method, for errors.
        here: how the score came from x.
        there: each tensor's value at the reference, by its name.
        ends: the names of the softmaxes whose probabilities are explained.
    """

    name: str
    here: Passage
    there: dict[str, tf.Tensor]
    ends: set[str]

    parts: ClassVar[tuple[int, ...]] = (RISING,)

    def pair(self, tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(at x, at the reference)."""
        return wide(tensor), wide(self.there.get(tensor.name, tensor))

    def middle(self, op: tf.Operation) -> list[tf.Tensor]:
        """The inputs halfway."""
        return [sum(self.pair(one)) / 2 if one.name in self.there else wide(one) for one in op.inputs]

    def back(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """One multiplier for all of a difference."""
        for tensor, value in self.passed(op, [parts[RISING] for parts in above]):
            yield tensor, RISING, value

    def passed(self, op: tf.Operation, above: Sequence[tf.Tensor | None]) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """(tensor before an operation, its multiplier), by the kind of the operation."""
        free = self.here.free(op)
        what = self.here.kind(op, free)
        if what == "function":
            source = self.here.source(op, free)
            # No plain product: a chain of these, where one broadcasts, a session multiplies in another order.
            yield source, fit(tf.math.multiply_no_nan(self._secant(op, source), above[0]), source)
            return
        if op.type in ("SelectV2", "Select") and op.inputs[0].name in self.here.varying:
            both = self._selected(op, above[0])
            values = [both[i - 1] for i in free]
        elif self.here.chosen(op):
            values = [self._gated(op, above[0], free, what)]
        elif what in ("moving", "mixing", "weighing", "shift", "sum", "scale"):
            values = pull(op, above, free)
        elif what == "product" and op.type not in anatomy.QUOTIENTS:
            values = pull(op, above, free, self.middle(op))  # m (y + y') / 2 and m (x + x') / 2
        elif what == "product":
            values = self._divided(op, above[0], free)
        elif what == "softmax":
            values = [self._softened(op, above[0])]
        elif what == "maximum":
            values = self._chosen(op, above, free)
        else:
            raise NoRule
        yield from ((op.inputs[i], value) for i, value in zip(free, values, strict=True))

    def _secant(self, op: tf.Operation, source: tf.Tensor) -> tf.Tensor:
        """Difference of the output over difference of what it is a function of, element by element."""
        (x, x0), (y, y0) = self.pair(source), self.pair(op.outputs[0])
        steps = self.here.between(source, op)
        if source.shape.as_list() != op.outputs[0].shape.as_list():  # a function that broadcasts
            x, x0 = x + tf.zeros_like(y), x0 + tf.zeros_like(y)

        def slope(at: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(at)
                value = self.replayed(steps, source, at)
            return tape.gradient(value, at, unconnected_gradients="zero")

        return quotient(y - y0, x - x0, (slope(x) + slope(x0)) / 2, x, x0)

    @staticmethod
    def replayed(steps: Sequence[tf.Operation], source: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
        """The output of the last of some operations, where `source` is `at`."""
        known = {source.name: at}
        for op in steps:
            inputs = [known.get(one.name, wide(one)) for one in op.inputs]
            made = anatomy.replay(op, inputs)
            known.update({out.name: one for out, one in zip(op.outputs, made, strict=False)})
        return known[steps[-1].outputs[0].name]

    def _selected(self, op: tf.Operation, m: tf.Tensor) -> list[tf.Tensor]:
        """To what is chosen in both cases; where the choice changes, all to what changes more."""
        (c, c0), (a, a0), (b, b0) = map(self.pair, op.inputs)
        y, y0 = self.pair(op.outputs[0])
        more = tf.abs(a - a0) >= tf.abs(b - b0)
        jump = tf.math.divide_no_nan(y - y0, tf.where(more, a - a0, b - b0))
        zero = tf.zeros_like(y)
        first = tf.where(c == c0, tf.where(c, zero + 1, zero), tf.where(more, jump, zero))
        second = tf.where(c == c0, tf.where(c, zero, zero + 1), tf.where(more, zero, jump))
        return [fit(m * first, op.inputs[1]), fit(m * second, op.inputs[2])]

    def _gated(self, op: tf.Operation, m: tf.Tensor, free: list[int], what: str | None) -> tf.Tensor:
        """Of a number and what was chosen or counted: all to the number.

        Raises:
            NoRule: for anything but a factor.
        """
        if what != "scale":
            raise NoRule(f"{self.here.called(op)} of what depends on x by a choice")
        (x, x0), (y, y0) = self.pair(op.inputs[free[0]]), self.pair(op.outputs[0])
        k = anatomy.affine(op, free[0])[0]
        return fit(m * quotient(y - y0, x - x0, k + tf.zeros_like(y), x, x0), op.inputs[free[0]])

    def _divided(self, op: tf.Operation, m: tf.Tensor, free: list[int]) -> list[tf.Tensor]:
        """a / b is a times 1 / b, and 1 / b a function."""
        (a, a0), (b, b0) = map(self.pair, op.inputs)
        inverse, inverse0 = (tf.math.reciprocal_no_nan(one) for one in (b, b0))
        both = [fit(m * (inverse + inverse0) / 2, op.inputs[0]), fit(-m * (a + a0) / 2 * inverse * inverse0, b)]
        return [both[i] for i in free]

    def _softened(self, op: tf.Operation, m: tf.Tensor) -> tf.Tensor:
        """At the end, logits count by how far they are from their mean; inside, exp(x) times 1 / sum exp(x)."""
        (x, x0), (p, p0) = self.pair(op.inputs[0]), self.pair(op.outputs[0])

        def centred(one: tf.Tensor) -> tf.Tensor:
            return one - tf.reduce_mean(one, -1, keepdims=True)

        if op.name in self.ends and op.type == "Softmax":
            slope = (p * (1 - p) + p0 * (1 - p0)) / 2
            return centred(m * quotient(p - p0, centred(x - x0), slope, x, x0))
        top = tf.maximum(tf.reduce_max(x, -1, keepdims=True), tf.reduce_max(x0, -1, keepdims=True))
        e, e0 = tf.exp(x - top), tf.exp(x0 - top)
        s, s0 = tf.reduce_sum(e, -1, keepdims=True), tf.reduce_sum(e0, -1, keepdims=True)
        gap = tf.abs(x - x0)
        steep = tf.maximum(e, e0) * tf.where(gap > 0, -tf.math.expm1(-gap) / tf.where(gap > 0, gap, 1), 1)
        if op.type == "LogSoftmax":
            falling = quotient(tf.math.log(s) - tf.math.log(s0), s - s0, (1 / s + 1 / s0) / 2, s, s0)
            return m - steep * falling * tf.reduce_sum(m, -1, keepdims=True)
        # Only differences of m count; from that of the largest logit on, none is lost beside its rounding.
        largest = tf.argmax(tf.maximum(x, x0), -1, tf.int32)[..., tf.newaxis]
        m = m - tf.gather(m, largest, axis=-1, batch_dims=len(x.shape) - 1)
        at, at0 = (tf.reduce_sum(m * one, -1, keepdims=True) for one in (e / s, e0 / s0))
        return steep * ((m - at0) / s + (m - at) / s0) / 2

    def _chosen(self, op: tf.Operation, above: Sequence[tf.Tensor | None], free: list[int]) -> list[tf.Tensor]:
        """What x's winner gains over the reference's is its own; the rest the reference's winner's (cross-maxima)."""
        total = [tf.zeros_like(self.pair(op.inputs[i])[0]) for i in free]
        extreme = tf.minimum if op.type in ("Min", "Minimum") else tf.maximum
        for which in (0, 1):
            gains: list[tf.Tensor | None] = []
            for out, m in zip(op.outputs, above, strict=True):
                if m is None:
                    gains.append(None)
                    continue
                y, y0 = self.pair(out)
                top = extreme(y, y0)
                gains.append(m * (top - y0 if which == 0 else y - top))
            inputs = [self.pair(one)[which] if one.dtype.is_floating else one for one in op.inputs]
            total = [a + b for a, b in zip(total, pull(op, gains, free, inputs), strict=True)]
        pairs = [self.pair(op.inputs[i]) for i in free]
        return [tf.math.divide_no_nan(one, x - x0) for one, (x, x0) in zip(total, pairs, strict=True)]


def quotient(
    numerator: tf.Tensor, denominator: tf.Tensor, otherwise: tf.Tensor, here: tf.Tensor, there: tf.Tensor
) -> tf.Tensor:
    """numerator / denominator, or `otherwise` where the denominator is too small a share of what it is between.

    Nothing where neither is to be had: at the root of nothing that does not change.
    """
    small = tf.abs(denominator) <= SMALL * tf.maximum(tf.abs(here), tf.abs(there))
    slope = tf.where(tf.math.is_finite(otherwise), otherwise, tf.zeros_like(otherwise))
    return tf.where(small, slope, numerator / tf.where(small, tf.ones_like(denominator), denominator))


def contributions(problem: Problem, rule: type[Differences], name: str) -> Leaves:
    """multiplier * (x - x') for each point, [N, ...] for each leaf.

    Args:
        rule: how differences are carried, rescale or reveal-cancel.
        name: of the method, for errors.
    """
    score = problem.score
    if not isinstance(score, Score):
        raise ValueError(f"{name} explains a score of a model, and this is none.")
    score = score.unscaled()

    def scored(known: tuple[Any, Passage] | None, leaves: Leaves) -> tuple[tf.Tensor, Any, Passage]:
        (values, end), passage = known or way(problem.rerule, score, leaves)
        score.require(end)
        value, whole = further(passage, lambda: score.of(values))
        return value, values, whole

    value, values, here = scored(problem.ways[0], problem.x)
    there = scored(problem.ways[1], problem.baseline)[2]
    if [op.type for op in here.operations] != [op.type for op in there.operations]:
        raise ValueError(
            f"{name} needs a model that computes the same at x and at its baseline, and this one does not."
        )
    twins = dict(zip((one.name for one in here.points), there.points, strict=True))
    for op, twin in zip(here.operations, there.operations, strict=True):
        twins.update({a.name: b for a, b in zip(op.outputs, twin.outputs, strict=True)})
    book = rule(name, here, twins, ended(values, here))
    ones = tf.ones_like(wide(value))
    given = back(here, book, [(value, part, ones) for part in rule.parts])
    found = [given[point.name] for point in here.points]
    connected([one[RISING] for one in found], problem.x)
    products = []
    for m, x, x0 in zip(found, problem.x, problem.baseline, strict=True):
        difference = wide(x) - wide(x0)
        parts = [difference] if len(rule.parts) == 1 else [tf.maximum(difference, 0.0), tf.minimum(difference, 0.0)]
        terms = [a * b for a, b in zip(m, parts, strict=False) if a is not None]
        products.append(tf.cast(tf.add_n(terms), x.dtype) if terms else tf.zeros_like(x))
    return tuple(products)
