"""Paths that are no straight line: a walk that the gradient guides, and an image that comes into focus."""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfig.kernels.expectation import total
from tfig.kernels.gradient import value_and_gradient
from tfig.network import Leaves
from tfig.problem import Problem, per_row, row_sum
from tfig.sizes import Size, beyond_rows, extent

DIGIT = 14
"""Bits of a number that are looked at together to find the n-th smallest, at most."""


def guided(problem: Problem, steps: int, fraction: float, distance: float) -> Leaves:
    """Gradient times step, summed along a walk from x' to x that moves where the gradient is small first.

    At each of `steps` the walk is a share of the way (in L1); the `fraction` of coordinates with the smallest
    |gradient| are moved, and none is farther than `distance` from where the straight line is.
    """
    shapes = [tf.shape(leaf) for leaf in problem.x]
    widths = [math.prod(extent(leaf, axis) for axis in beyond_rows(leaf)) for leaf in problem.x]

    def joined(leaves: Leaves) -> tf.Tensor:
        parts = [tf.reshape(leaf, [-1, width]) for leaf, width in zip(leaves, widths, strict=True)]
        return parts[0] if len(parts) == 1 else tf.concat(parts, 1)

    def flat(leaves: Leaves) -> tf.Tensor:
        # What is chosen hangs on how far the walk has come: a rounding of lengths turns it.
        return tf.cast(joined(leaves), tf.float64)

    def shaped(vector: tf.Tensor) -> Leaves:
        parts = tf.split(vector, widths, 1) if len(widths) > 1 else [vector]
        return tuple(
            tf.cast(tf.ensure_shape(tf.reshape(part, shape), leaf.shape), leaf.dtype)
            for part, shape, leaf in zip(parts, shapes, problem.x, strict=True)
        )

    end, start = flat(problem.x), flat(problem.baseline)
    lengths = tf.abs(end - start)
    # In units of the row's longest, so that float32 holds single steps of it; of a power of two, which rounds nothing.
    unit = _power(tf.reduce_max(lengths, 1, keepdims=True))
    way, lengths = tf.sign(end - start) * unit, lengths / unit
    length = tf.reduce_sum(lengths, 1)
    near = 1e-9 * length
    place = tf.cast(fraction * tf.cast(extent(end, 1) - 1, tf.float64), tf.int32)

    def step(i, gone, found):
        """One gradient; `gone` is how far each coordinate has gone."""
        _, leaves = value_and_gradient(problem.score, shaped(start + gone * way))
        gradient = joined(leaves)
        slopes = tf.abs(gradient)
        slopes = slopes if slopes.dtype.size > 4 else tf.cast(slopes, tf.float32)
        alpha = tf.cast(i + 1, gone.dtype) / steps
        # At last, by the gradient at x, what rounding of the lengths may have left to go.
        low = tf.where(i == steps, tf.ones_like(alpha), tf.maximum(alpha - distance, 0.0))
        bound = tf.minimum(alpha + distance, 1.0) * lengths
        caught = tf.maximum(gone, low * lengths)
        room = bound - caught
        # Coordinates at their bound rank last; where even the limit is one of them, all that are open move.
        size = tf.where(room > 0, slopes, tf.constant(np.inf, slopes.dtype))
        nth = ranked(size)

        def move(going, at_bound, room, missing):
            """`at_bound` coordinates have moved as far as they may; `missing` of the way is left."""
            limit, at_bound = nth(at_bound + place)
            chosen = size <= tf.minimum(limit, limit.dtype.max)[:, tf.newaxis]
            left = tf.cast(chosen, room.dtype) * room
            reach = tf.reduce_sum(left, 1)
            going &= (missing > near) & (reach > 0)
            # Exactly to its bound, or it would stay open and count among the smallest gradients.
            share = tf.where(going, tf.minimum(missing / tf.where(going, reach, 1.0), 1.0), 0.0)
            return going & (share == 1), at_bound, room - share[:, tf.newaxis] * left, missing - share * reach

        missing = alpha * length - tf.reduce_sum(caught, 1)
        state = (tf.ones_like(length, tf.bool), tf.zeros_like(length, tf.int32), room, missing)
        room = tf.while_loop(lambda going, *_: tf.reduce_any(going), move, state, parallel_iterations=1)[2]
        # Never back: where a coordinate still stands at x', F may have a kink, or nothing beyond.
        moved = tf.maximum(bound - room, caught)
        return i + 1, moved, found + tf.cast(moved - gone, gradient.dtype) * gradient

    state = (tf.constant(0), tf.zeros_like(start), tf.zeros_like(joined(problem.x)))
    _, _, found = tf.while_loop(lambda i, *_: i <= steps, step, state, parallel_iterations=1)
    return shaped(tf.cast(found, way.dtype) * way)


def _power(value: tf.Tensor) -> tf.Tensor:
    """The highest power of two that is no greater, of float64; of 0 1."""
    exponent = tf.bitwise.bitwise_and(tf.bitcast(value, tf.int64), tf.constant(0x7FF << 52, tf.int64))
    return tf.where(exponent > 0, tf.bitcast(exponent, tf.float64), tf.ones_like(value))


def ranked(values: tf.Tensor) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """From n [N], from 0: (the n-th smallest of each row [N], how many finite numbers of the row are no greater [N]).

    Of `values` [N, D], float32 or float64 and not negative; the largest where there are no more than n. Digit by digit
    of their bits, which rise as such numbers do: a histogram finds the digit of the n-th among those that share the
    digits before, which are soon few. A sort takes a dozen times as long.
    """
    whole = tf.bitcast(values, tf.int32 if values.dtype == tf.float32 else tf.int64)
    rows, width = extent(whole, 0), extent(whole, 1)
    # As many digits as there are numbers, and no fewer than tell finite numbers from infinite ones.
    exponents = 8 if values.dtype == tf.float32 else 11
    bits = max(exponents, min(DIGIT, width.bit_length())) if isinstance(width, int) else 11
    top = 8 * whole.dtype.size - 1 - bits  # the sign is 0
    first = tf.cast(tf.bitwise.right_shift(whole, top), tf.int32)
    often = _often(tf.range(rows)[:, tf.newaxis], first, rows, bits)
    # All infinite numbers are one, and may be many: they share the digit of no other.
    infinite = tf.bitwise.right_shift(tf.bitcast(tf.constant(np.inf, values.dtype), whole.dtype), top)

    def nth(n: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        n = tf.minimum(n, width - 1)
        left, below = _digit(often, n)
        found = tf.bitwise.left_shift(tf.cast(below, whole.dtype), tf.constant(top, whole.dtype))
        wanted = tf.where(below < tf.cast(infinite, tf.int32), below, -1)
        place = tf.where(tf.reshape(first == wanted[:, tf.newaxis], [-1]))[:, 0]
        row = tf.cast(place // tf.cast(width, place.dtype), tf.int32)
        others = tf.gather(tf.reshape(whole, [-1]), place)
        rest = top
        while rest:
            size = min(bits, rest)
            rest -= size
            digit = tf.cast(tf.bitwise.right_shift(others, rest) & ((1 << size) - 1), tf.int32)
            left, below = _digit(_often(row, digit, rows, size), left)
            found += tf.bitwise.left_shift(tf.cast(below, whole.dtype), tf.constant(rest, whole.dtype))
            alike = digit == tf.gather(below, row)
            row, others = row[alike], others[alike]
        return tf.bitcast(found, values.dtype), n - left + _count(row, rows)

    return nth


def _often(row: tf.Tensor, digit: tf.Tensor, rows: Size, bits: int) -> tf.Tensor:
    """How often each digit of that many bits is in each row, of `digit` beside the `row` it is in.

    [N, A, B]: of the digit's first half of bits, and its second.
    """
    # One histogram for all rows takes half the time of one each.
    counts = _count(tf.reshape((1 << bits) * row + digit, [-1]), (1 << bits) * rows)
    return tf.reshape(counts, [-1, 1 << bits // 2, 1 << bits - bits // 2])


def _count(places: tf.Tensor, size: Size) -> tf.Tensor:
    return tf.raw_ops.DenseBincount(input=places, size=size, weights=tf.constant([], tf.int32))


def _digit(often: tf.Tensor, n: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(which of its digit the n-th is, that digit; 0 where there are too few), of `often` as above."""

    def half(counts, n):
        reached = tf.cumsum(counts, 1)
        wholly = tf.cast(reached <= n[:, tf.newaxis], tf.int32)  # digits that lie wholly before
        below = tf.reduce_sum(wholly, 1)
        return n - tf.reduce_sum(wholly * counts, 1), tf.where(below < tf.shape(counts)[1], below, 0)

    left, first = half(tf.reduce_sum(often, 2), n)
    left, second = half(tf.gather(often, first, batch_dims=1), left)
    return left, first * often.shape[2] + second


def focus(problem: Problem, steps: int, sigma: float) -> tuple[Leaves, tf.Tensor]:
    """(gradient times change, summed while x comes into focus, what the sum misses of the score's change [B]).

    The path is x under a Gaussian blur whose deviation falls from `sigma` to 0 in equal steps; the gradient is taken in
    the middle of each step, the change over all of it.
    """

    def blurred(leaves: Leaves, deviation: tf.Tensor) -> Leaves:
        return tuple(_blur(leaf, deviation, sigma) if len(leaf.shape) > 2 else leaf for leaf in leaves)

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
        at = [sigma * (1 - (tf.cast(sample, tf.float32) + part) / steps) for part in (0.0, 0.5, 1.0)]
        before, middle, after = (blurred(p.x, deviation) for deviation in at)
        _, gradients = value_and_gradient(p.score, middle)
        return tuple(g * (b - a) for g, a, b in zip(gradients, before, after, strict=True))

    found = total(problem, steps, problem.x, term)
    ends = [blurred(problem.x, tf.fill([problem.rows], value)) for value in (sigma, 0.0)]
    change = problem.score(ends[1]) - problem.score(ends[0])
    return found, row_sum(found) - change


def _blur(x: tf.Tensor, deviation: tf.Tensor, largest: float) -> tf.Tensor:
    """x [N, ...] under a Gaussian blur along its spatial axes, by each row's deviation [N]; zero beyond borders."""
    reach = int(4 * largest + 0.5)
    letters = "abcdef"[: len(x.shape)]
    offsets = tf.cast(tf.range(-reach, reach + 1), x.dtype)

    def bell(offset: tf.Tensor) -> tf.Tensor:
        wide = tf.reshape(tf.cast(deviation, x.dtype), [-1, *[1] * len(offset.shape)])
        inside = tf.abs(offset) <= tf.floor(4 * wide + 0.5)
        # A deviation of zero leaves x as it is.
        height = tf.exp(-tf.square(offset) / tf.maximum(2 * tf.square(wide), 1e-12))
        return tf.where(inside, height, 0.0)

    area = tf.reduce_sum(bell(offsets), 1)
    for axis in range(1, len(x.shape) - 1):
        place = tf.cast(tf.range(tf.shape(x)[axis]), x.dtype)
        matrix = bell(place[:, tf.newaxis] - place) / per_row(area, tf.zeros([1, 1, 1], x.dtype))
        here, first = letters[axis], letters[0]
        x = tf.einsum(f"{letters},{first}z{here}->{letters.replace(here, 'z')}", x, matrix)
    return x
