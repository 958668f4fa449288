"""Reveal-cancel: what raises a unit is carried apart from what lowers it.

Both parts are carried forward through the network, and each has its own multiplier on the way back.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from tfig import anatomy
from tfig.anatomy import fit, wide
from tfig.kernels.difference import FALLING, RISING, Differences, quotient
from tfig.kernels.passage import Given


@dataclasses.dataclass
class Revealed(Differences):
    """Reveal-cancel where units are not on a map, with positive and negative parts apart.

    Behind what mixes both in a way of its own, the parts are those of the whole difference.
    """

    parts = (RISING, FALLING)

    def __post_init__(self):
        self.known: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}
        for op in self.here.operations:
            if len(op.outputs) == 1 and op.outputs[0].dtype.is_floating:
                found = self._carried(op, self.here.free(op))
                if found is not None:
                    self.known[op.outputs[0].name] = found

    def apart(self, tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The positive and the negative part of a difference."""
        if tensor.name in self.known:
            return self.known[tensor.name]
        x, x0 = self.pair(tensor)
        return tf.maximum(x - x0, 0.0), tf.minimum(x - x0, 0.0)

    def _carried(self, op: tf.Operation, free: list[int]) -> tuple[tf.Tensor, tf.Tensor] | None:
        """The parts of an output, where they follow from those of the inputs; None: those of its own difference."""
        if not free or self.here.chosen(op):
            return None
        what = self.here.kind(op, free)
        if what == "function":
            return self._functioned(op, self.here.source(op, free))
        if what in ("weighing", "scale", "shift") and op.type not in anatomy.DATA:
            plus, minus = self.apart(op.inputs[free[0]])
            (up, down), apply = self._signed(op, free[0])
            return apply(plus, up) + apply(minus, down), apply(plus, down) + apply(minus, up)
        if what in ("sum", "moving", "mixing") and op.type != "Sub":
            parts = [self.apart(one) if i in free else None for i, one in enumerate(op.inputs)]
            still = [tf.zeros_like(wide(one)) if one.dtype.is_floating else one for one in op.inputs]
            plus, minus = (
                anatomy.replay(op, [still[i] if both is None else both[which] for i, both in enumerate(parts)])[0]
                for which in (0, 1)
            )
            return plus, minus
        return None

    def _dense(self, op: tf.Operation, source: tf.Tensor) -> bool:
        """Whether it is a function of units on no map, and of all numbers."""
        steps = self.here.between(source, op)
        return len(source.shape) == 2 and not any(one.type in anatomy.PARTIAL for one in steps)

    def _functioned(self, op: tf.Operation, source: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """On a map, the same slope for both parts; elsewhere both orders in which they can come, averaged."""
        (_, x0), (plus, minus) = self.pair(source), self.apart(source)
        if not self._dense(op, source):
            slope = self._secant(op, source)
            return plus * slope, minus * slope
        steps = self.here.between(source, op)
        at, up, down, all_ = (
            self.replayed(steps, source, x0 + one) for one in (tf.zeros_like(plus), plus, minus, plus + minus)
        )
        return (up - at + all_ - down) / 2, (down - at + all_ - up) / 2

    @staticmethod
    def _signed(op: tf.Operation, free: int) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tf.Tensor]]:
        """(what is positive and what is negative of the weights or of a scale; how they are applied)."""
        if op.type in anatomy.CONVOLUTIONS | anatomy.PRODUCTS:
            at = anatomy.weights(op, free)

            def apply(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
                placed = {free: x, at: w}
                return anatomy.replay(op, [placed.get(i, one) for i, one in enumerate(op.inputs)])[0]

            w = wide(op.inputs[at])
        else:
            w, apply = tf.cast(anatomy.affine(op, free)[0], wide(op.inputs[free]).dtype), tf.multiply
        return (tf.maximum(w, 0.0), tf.minimum(w, 0.0)), apply

    def back(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """Both parts on their own way."""
        free, out = self.here.free(op), op.outputs[0].name
        what = self.here.kind(op, free)
        if out not in self.known:  # what both parts are given together
            yield from self._together(op, above)
        elif what == "function":
            yield from self._revealed(op, self.here.source(op, free), above[0])
        elif what in ("weighing", "scale"):
            x, ((up, down), apply) = op.inputs[free[0]], self._signed(op, free[0])
            zero = tf.zeros_like(wide(op.outputs[0]))
            rising, falling = (zero if one is None else one for one in above[0])
            for which, first, second in ((RISING, rising, falling), (FALLING, falling, rising)):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    point = wide(x)
                    tape.watch(point)
                    applied = [apply(point, up), apply(point, down)]
                yield x, which, tape.gradient(applied, point, output_gradients=[first, second])
        else:
            for which in (RISING, FALLING):
                if above[0][which] is not None:
                    for x, value in self.passed(op, [parts[which] for parts in above]):
                        yield x, which, value

    def _revealed(
        self, op: tf.Operation, source: tf.Tensor, above: Given
    ) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """What became of each part over the part."""
        slope, (_, x0), dense = self._secant(op, source), self.pair(source), self._dense(op, source)
        parts = zip(self.apart(source), self.known[op.outputs[0].name], above, strict=True)
        for which, (before, after, m) in enumerate(parts):
            if m is not None:
                step = quotient(after, before, slope, x0, x0 + before) if dense else slope
                yield source, which, fit(m * step, source)

    def _together(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        whole: list[tf.Tensor | None] = []
        for out, parts in zip(op.outputs, above, strict=True):
            if parts[0] is None and parts[1] is None:
                whole.append(None)
                continue
            x, x0 = self.pair(out)
            rising, falling = (tf.zeros_like(x) if one is None else one for one in parts)
            whole.append(tf.where(x > x0, rising, falling))
        for tensor, value in self.passed(op, whole):
            yield tensor, RISING, value
            yield tensor, FALLING, value
