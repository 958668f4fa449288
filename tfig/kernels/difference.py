"""Differences from a reference carried through a network: DeepLIFT.

The model is called once on blocks of rows stacked together: x, its reference, and one or two carriers of their
difference. Each part carries the difference as its rule says, so that the carriers of the output add up to the
difference of the output, and their gradient with respect to the carriers of the input is the multiplier.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfig import anatomy
from tfig.anatomy import wide
from tfig.kernels.gradient import connected, finite_or
from tfig.kernels.propagation import Book, NoRule, opened, read, summands
from tfig.layout import moved
from tfig.network import Leaves
from tfig.problem import Problem
from tfig.score import Score

hold = tf.stop_gradient

SMALL = 1e-4
"""A share of the values that differ, below which the mean of their derivatives takes the place of the quotient: it is
off by the square of this, and the quotient by the rounding of the values over it."""


@dataclasses.dataclass
class Differences(Book):
    """Rescale; with `cancel`, reveal-cancel where units are not on a map, with positive and negative parts apart."""

    name: str
    cancel: bool

    @property
    def blocks(self) -> int:
        """x, the reference, and the carriers: the difference, or its positive and its negative part."""
        return 4 if self.cancel else 3

    def _split(self, x: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """(x and reference, carriers)."""
        parts = tf.split(x, self.blocks)
        return tf.concat(parts[:2], 0), parts[2:]

    def _joined(self, states: tf.Tensor, carriers: list[tf.Tensor]) -> tf.Tensor:
        return tf.concat([hold(states), *(tf.cast(one, states.dtype) for one in carriers)], 0)

    def _weighted(self, carriers: list[tf.Tensor], apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], w: tf.Tensor):
        """Carriers behind a linear map: what raises its output apart from what lowers it."""
        if not self.cancel:
            return [apply(carriers[0], w)]
        up, down = tf.maximum(w, 0.0), tf.minimum(w, 0.0)
        plus, minus = carriers
        return [apply(plus, up) + apply(minus, down), apply(plus, down) + apply(minus, up)]

    def linear(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor, first: bool) -> tf.Tensor:
        """The same map, without bias."""
        states, carriers = self._split(x)
        carriers = [wide(one) for one in carriers]
        for part in anatomy.stages(layer):
            carriers = self._weighted(carriers, part.apply, part.weights)
        return self._joined(call(states), carriers)

    def affine(
        self, part: Any, call: Callable[..., Any], x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor
    ) -> tf.Tensor:
        """The scale, without the shift."""
        states, carriers = self._split(x)
        carriers = [wide(one) for one in carriers]
        return self._joined(call(states), self._weighted(carriers, lambda a, w: a * w, scale))

    def average(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
        """The same average."""
        return call(x)

    def sum(self, part: Any, call: Callable[..., Any], args: tuple, sees: Callable[[Any], bool]) -> tf.Tensor:
        """The same sum, without what does not depend on x."""
        if self.cancel and any(sign < 0 and sees(one) for sign, one in summands(part, args)):
            raise NoRule(f"{part.name!r} ({type(part).__name__}) by rule='reveal_cancel', only by 'rescale'")
        states, _ = self._split(call(*args))
        still = tf.nest.map_structure(lambda one: tf.zeros_like(one) if sees(one) else one, args)
        _, carriers = self._split(call(*args) - call(*still))
        return self._joined(states, carriers)

    def activation(self, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Difference of the output over difference of the input."""
        states, carriers = self._split(x)
        z, z0 = tf.split(states, 2)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(states)
            both = function(states)
        slope = tf.add_n(tf.split(tape.gradient(both, states), 2)) / 2
        y, y0 = tf.split(both, 2)
        if both.op.type == "Softmax":
            # Logits count by how far they are from their mean: only that moves a softmax.
            centred = [one - tf.reduce_mean(one, -1, keepdims=True) for one in carriers]
            moved = (z - z0) - tf.reduce_mean(z - z0, -1, keepdims=True)
            found = [one * hold(_quotient(y - y0, moved, (y * (1 - y) + y0 * (1 - y0)) / 2, z, z0)) for one in centred]
        elif self.cancel and len(x.shape) == 2:
            found = self._revealed(function, z0, carriers, slope)
        else:
            found = [one * hold(_quotient(y - y0, z - z0, slope, z, z0)) for one in carriers]
        return opened(self._joined(both, found), function(x))

    def _revealed(self, function: Callable, z0: tf.Tensor, carriers: list[tf.Tensor], slope: tf.Tensor):
        """Both orders in which the positive and the negative part can come, averaged."""
        plus, minus = (hold(one) for one in carriers)
        at, up, down, all_ = (function(z0 + one) for one in (tf.zeros_like(plus), plus, minus, plus + minus))
        raised, lowered = (up - at + all_ - down) / 2, (down - at + all_ - up) / 2
        return [
            carriers[0] * hold(_quotient(raised, plus, slope, z0, z0 + plus)),
            carriers[1] * hold(_quotient(lowered, minus, slope, z0, z0 + minus)),
        ]

    def maximum(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
        """What x's winner gains over the reference's is its own; the rest the reference's winner's (cross-maxima)."""
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
        states, carriers = self._split(x)
        both, carriers = moved(call(states), axis), [moved(one, axis) for one in carriers]
        return moved(self._maximum(layer, both, moved(states, axis), carriers), axis, back=True)

    def _maximum(self, layer: Any, both: tf.Tensor, states: tf.Tensor, carriers: list[tf.Tensor]) -> tf.Tensor:
        """Of maps with channels last."""
        y, y0 = tf.split(both, 2)
        top = tf.maximum(y, y0)
        here, there = (_winners(layer, one) for one in tf.split(states, 2))
        difference = tf.add_n([hold(one) for one in carriers])

        def taken(one: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(one, [tf.shape(one)[0], -1])
            return tf.reshape(tf.gather(flat, index, batch_dims=1), tf.shape(y))

        gains = [(top - y0, here), (y - top, there)]
        factors = [hold(tf.math.divide_no_nan(gain, taken(difference, index))) for gain, index in gains]
        return self._joined(both, [
            tf.add_n([factor * taken(one, index) for factor, (_, index) in zip(factors, gains, strict=True)])
            for one in carriers
        ])  # fmt: skip

    def routing(self, part: Any, call: Callable[..., Any], args: tuple, sees: Callable[[Any], bool]) -> Any:
        """What moves values moves differences; what chooses among them does not; what is held has none."""
        if type(part).__name__ in ("Maximum", "Minimum", "Max", "MaxPool"):
            raise NoRule(f"{part.name!r} ({type(part).__name__})")

        def carried(one: Any) -> Any:
            if not tf.is_tensor(one) or sees(one) or not one.dtype.is_floating or one.shape.rank in (None, 0):
                return one
            states, carriers = self._split(one)
            return self._joined(states, [tf.zeros_like(carrier) for carrier in carriers])

        return call(*tf.nest.map_structure(carried, args))


def _quotient(
    numerator: tf.Tensor, denominator: tf.Tensor, otherwise: tf.Tensor, here: tf.Tensor, there: tf.Tensor
) -> tf.Tensor:
    """numerator / denominator, or `otherwise` where the denominator is too small a share of what it is between."""
    small = tf.abs(denominator) <= SMALL * tf.maximum(tf.abs(here), tf.abs(there))
    return tf.where(small, otherwise, numerator / tf.where(small, tf.ones_like(denominator), denominator))


def _winners(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """Where each output of a max pooling comes from: indices [N, outputs] into a row of x, channels last, flattened.

    Raises:
        NoRule: pooling of volumes.
    """
    rank = len(x.shape)
    if rank not in (3, 4):
        raise NoRule(f"{layer.name!r} ({type(layer).__name__}): max pooling of volumes")
    if not hasattr(layer, "pool_size"):  # the whole map
        channels = x.shape[-1]
        flat = tf.reshape(x, [tf.shape(x)[0], -1, channels])
        return tf.argmax(flat, 1, tf.int32) * channels + tf.range(channels)
    wide = x if rank == 4 else x[:, :, tf.newaxis]
    size, strides = (list(one) if rank == 4 else [*one, 1] for one in (layer.pool_size, layer.strides))
    index = tf.nn.max_pool_with_argmax(wide, size, strides, layer.padding.upper())[1]
    return tf.reshape(tf.cast(index, tf.int32), [tf.shape(x)[0], -1])


def contributions(problem: Problem, cancel: bool, name: str) -> Leaves:
    """multiplier * (x - x') for each point, [N, ...] for each leaf.

    Args:
        cancel: positive and negative contributions apart (reveal-cancel).
        name: of the method, for errors.
    """
    score = problem.score
    if not isinstance(score, Score) or score.quantity.function is not None:
        raise ValueError(f"{name} carries the difference of a class's score; it takes no callable target.")
    book = Differences(name, cancel)
    differences = [x - b for x, b in zip(problem.x, problem.baseline, strict=True)]
    carriers = [[tf.maximum(d, 0.0), tf.minimum(d, 0.0)] if cancel else [tf.identity(d)] for d in differences]
    several = score.take(tf.tile(tf.range(problem.rows), [book.blocks]))
    flat = tf.nest.flatten(carriers)

    def multipliers(scale: float) -> Leaves:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(carriers)
            points = tuple(
                tf.concat([hold(x), hold(b), *parts], 0)
                for x, b, parts in zip(problem.x, problem.baseline, carriers, strict=True)
            )
            values = read(problem, several, points, book)
            chosen = scale * several.choose(several.summary(values))
            carried = tf.add_n(tf.split(chosen, book.blocks)[2:])
        return tuple(m / scale for m in connected(tape.gradient(carried, flat), flat))

    # float16 would lose the multipliers of single pixels: they are linear in the scale.
    found = multipliers(score.scale)
    if score.scale != 1:
        found = finite_or(found, lambda: multipliers(1.0))
    products = iter([m * one for m, one in zip(found, flat, strict=True)])
    return tuple(tf.add_n([next(products) for _ in parts]) for parts in carriers)
