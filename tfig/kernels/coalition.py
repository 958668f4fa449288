"""Scores of coalitions: x with some of its features at a baseline, evaluated in chunks."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfig.kernels.expectation import each, fork, total, uniform
from tfig.network import Leaves
from tfig.problem import Problem, per_row
from tfig.sizes import Size, beyond_rows, extent


@dataclasses.dataclass(frozen=True)
class Features:
    """What is present or absent together: every position of every leaf belongs to one feature.

    Fields:
        index: for each leaf the features of its positions, int32 [B or 1, ...] without channels.
        count: M, their largest number in a row.
        known: M where it is known before any row is seen, and the same for all, else None.
    """

    index: Leaves
    count: tf.Tensor
    known: int | None

    def own(self, row: tf.Tensor) -> tf.Tensor:
        """How many features each of these rows has, the first ones of M, [N]."""
        if self.known is not None:
            return tf.fill(tf.shape(row), self.known)
        each_ = 1 + tf.reduce_max(tf.stack([tf.reduce_max(one, beyond_rows(one)) for one in self.of(row)]), 0)
        return tf.broadcast_to(each_, tf.shape(row))

    def has(self, row: tf.Tensor) -> tf.Tensor:
        """Whether each of M features is one of these rows', [N, M]."""
        return tf.range(self.count) < self.own(row)[:, tf.newaxis]

    def of(self, row: tf.Tensor) -> Leaves:
        """The index for rows that may repeat."""
        return tuple(tf.gather(leaf, row) if leaf.shape[0] != 1 else leaf for leaf in self.index)

    def spread(self, values: tf.Tensor, problem: Problem) -> Leaves:
        """Values [N, M] at every position of their feature, as maps over the problem's positions."""
        row = tf.range(tf.shape(values)[0])
        return tuple(
            tf.cast(channelled(leaf, tf.gather(values, full(index, values), batch_dims=1)), leaf.dtype)
            for index, leaf in zip(self.of(row), like(problem), strict=True)
        )

    def sizes(self) -> tf.Tensor:
        """How many positions each feature has, [B or 1, M]."""
        counts = [
            tf.reduce_sum(tf.one_hot(tf.reshape(leaf, [tf.shape(leaf)[0], -1]), self.count), 1) for leaf in self.index
        ]
        return tf.add_n(counts)


def full(index: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """An index with a row for each row of `values`."""
    return tf.broadcast_to(index, tf.concat([tf.shape(values)[:1], tf.shape(index)[1:]], 0))


def channelled(like: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Values of positions with an axis of channels, where `like` has one."""
    return positions[..., tf.newaxis] if len(positions.shape) < len(like.shape) else positions


def positions(leaf: tf.Tensor) -> list[Size]:
    """Sizes of a leaf's axes of positions: all but rows, and but channels where there are spatial axes."""
    rank = len(leaf.shape)
    return [extent(leaf, axis) for axis in range(1, rank if rank == 2 else rank - 1)]


def like(problem: Problem) -> Leaves:
    """Maps of zeros over the positions of x: [B, F], or [B, ..., 1]."""
    leaves = (leaf if len(leaf.shape) == 2 else leaf[..., :1] for leaf in problem.x)
    return tuple(tf.zeros(tf.shape(leaf), leaf.dtype if leaf.dtype.is_floating else problem.dtype) for leaf in leaves)


def mix(problem: Problem, features: Features, row: tf.Tensor, present: tf.Tensor) -> Leaves:
    """x with features of these rows at the baseline where `present` [N, M] is 0, and not where it is 1."""
    masks = [_placed(one, present, features.known) for one in features.of(row)]
    return blend(problem, tuple(channelled(leaf, mask) for leaf, mask in zip(problem.x, masks, strict=True)))


def _placed(index: tf.Tensor, present: tf.Tensor, count: int | None) -> tf.Tensor:
    """Zeros and ones of features [N, M] at every position of theirs."""
    if index.shape[0] != 1 or count is None or count > FEW:
        return tf.gather(present, full(index, present), batch_dims=1)
    # A product of zeros and ones is exact, and reads memory in its order.
    product = tf.matmul(present, tf.one_hot(tf.reshape(index, [-1]), count, axis=0, dtype=present.dtype))
    return tf.reshape(product, [-1, *(extent(index, axis) for axis in beyond_rows(index))])


def blend(problem: Problem, masks: Leaves) -> Leaves:
    """x where the masks are 1, the baseline where they are 0; what is no float is one or the other."""
    leaves = []
    for i, (x, b, m) in enumerate(zip(problem.x, problem.baseline, masks, strict=True)):
        if x.dtype.is_floating:
            leaves.append(b + tf.cast(m, x.dtype) * (x - b))
            continue
        stays = (m > 0.5) | (x == 0) if i in problem.padded else m > 0.5
        leaves.append(tf.ensure_shape(tf.where(stays, x, b), x.shape))
    return tuple(leaves)


def one_left_out(problem: Problem, features: Features, without: Callable[[Problem, tf.Tensor, tf.Tensor], Leaves]):
    """F(x) - F(x without feature m) for every m, [B, M]; `without`: (problem, m [N], row [N]) -> points."""
    clean = problem.at_x

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        return tf.gather(clean, row) - p.score(without(p, sample, row))

    return each(problem, features.count, clean, term)


def along(problem: Problem, counts: tf.Tensor) -> tf.Tensor:
    """F with the first counts[k] positions at the baseline, in the order of the rows' sides, [B, K].

    ``problem.sides`` holds each position's place in the order, int32 [B, ...] without channels for each leaf.
    """

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        limit = tf.gather(counts, sample)
        masks = (
            channelled(leaf, place >= tf.reshape(limit, [-1, *[1] * (len(place.shape) - 1)]))
            for leaf, place in zip(p.x, p.sides, strict=True)
        )
        return p.score(tuple(tf.where(m, x, b) for m, x, b in zip(masks, p.x, p.baseline, strict=True)))

    return each(problem, tf.size(counts), problem.at_x, term)


def chosen(problem: Problem, seed: tf.Tensor, sample: tf.Tensor, size: tf.Tensor) -> Leaves:
    """Random sets of `size` [N] of all positions, as masks bool [N, ...] without channels for each leaf."""
    return apart(problem, ordered(seed, sample, tf.add_n(counts(problem))) < size[:, tf.newaxis])


def counts(problem: Problem) -> list[tf.Tensor]:
    """How many positions each leaf has."""
    return [tf.reduce_prod(tf.stack(positions(leaf))) for leaf in problem.x]


def apart(problem: Problem, flags: tf.Tensor) -> Leaves:
    """Flags [N, M] of all positions, one leaf after the other, as masks [N, ...] without channels for each leaf."""
    sizes = counts(problem)
    parts = tf.split(flags, sizes, 1, len(sizes))
    return tuple(tf.reshape(part, [-1, *positions(leaf)]) for part, leaf in zip(parts, problem.x, strict=True))


def permuted(problem: Problem, features: Features, samples: int, at: Callable[..., Problem]) -> tf.Tensor:
    """The mean gain of each feature over random orders in which they appear, [B, M].

    Each order is walked once: its M + 1 scores telescope to F(x) - F(x') exactly.

    Args:
        at: (problem of the rows, order's number [N], row [N]) -> the problem with the baseline that order starts from.
    """
    count = features.count
    dtype = problem.dtype
    blank = tf.zeros([problem.rows, count], dtype)

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
        order, place = sample // (count + 1), sample % (count + 1)
        rank = shuffled(p.seed, order, features, row)
        present = tf.cast(rank < place[:, tf.newaxis], dtype)
        q = at(p, order, row)
        value = q.score(mix(q, features, row, present))
        came = tf.cast(rank == place[:, tf.newaxis] - 1, dtype)
        comes = tf.cast(rank == place[:, tf.newaxis], dtype)
        return value[:, tf.newaxis] * (came - comes) / samples

    return total(problem, samples * (count + 1), blank, term)


def shuffled(seed: tf.Tensor, sample: tf.Tensor, features: Features, row: tf.Tensor) -> tf.Tensor:
    """A random order of each row's features, as each one's place in it: int32 [N, M]; what it has not comes last."""
    return ordered(seed, sample, features.count, None if features.known is not None else features.has(row))


def ordered(seed: tf.Tensor, sample: tf.Tensor, count: tf.Tensor, own: tf.Tensor | None = None) -> tf.Tensor:
    """A random order of `count` things for each row, as each one's place in it: int32 [N, count]; `own` come first."""
    keys = tf.ensure_shape(uniform(seed, sample, tf.zeros([tf.shape(sample)[0], count])), [None, None])
    return tf.argsort(tf.argsort(keys if own is None else tf.where(own, keys, 2.0)))


def regressed(
    problem: Problem, features: Features, samples: int, draw: Callable, ridge: float, exact: bool
) -> tf.Tensor:
    """Values [B, M] of the linear model of coalitions that fits their scores best, by weighted least squares.

    A single feature leaves nothing to fit: all of F(x) - F(x') is its own.

    Args:
        draw: (seed [N], sample [N], row [N]) -> (present [N, M], weight [N]).
        ridge: added to the diagonal.
        exact: make the values sum to F(x) - F(x') (else an intercept is fitted, and dropped).
    """
    count = features.count
    width = count if exact else count + 1
    low, high = problem.at_baseline, problem.at_x
    blank = (tf.zeros([problem.rows, width, width], low.dtype), tf.zeros([problem.rows, width], low.dtype))

    def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        present, weight = (tf.cast(one, low.dtype) for one in draw(p.seed, sample, row))
        value = p.score(mix(p, features, row, present)) - tf.gather(low, row)
        known = present if exact else tf.concat([present, tf.ones_like(present[:, :1])], 1)
        weighed = weight[:, tf.newaxis] * known
        return weighed[:, :, tf.newaxis] * known[:, tf.newaxis], weighed * value[:, tf.newaxis]

    squares, products = total(problem, samples, blank, term)
    penalty = ridge * tf.ones([width]) if exact else tf.concat([ridge * tf.ones([count]), [1e-6]], 0)
    squares = squares + tf.linalg.diag(tf.cast(penalty, low.dtype))
    rows = tf.range(problem.rows)
    own = tf.cast(features.has(rows), low.dtype)
    if exact:
        free, ones = tf.unstack(tf.linalg.solve(squares, tf.stack([products, own], -1)), axis=-1)
        missing = (high - low) - tf.reduce_sum(free, -1)  # shared among its own
        values = free + ones * (missing / tf.reduce_sum(ones, -1))[:, tf.newaxis]
    else:
        values = tf.linalg.solve(squares, products[..., tf.newaxis])[:, :count, 0]
    return tf.where((features.own(rows) == 1)[:, tf.newaxis], own * (high - low)[:, tf.newaxis], values)


FEW = 128
"""Features up to which all positions are filled by a product faster than one by one."""

MOST = 20
"""Features of which all coalitions can be listed."""


def listed(samples: int) -> int:
    """The largest number of features of which `samples` coalitions are all."""
    return next((m for m in range(MOST, 1, -1) if 2**m - 2 <= samples), 1)


def told_apart(samples: int, count: int) -> None:
    """Raise ValueError if random coalitions are too few for `count` features."""
    if count > listed(samples) and samples < 4 * count:
        raise ValueError(
            f"samples is {samples}, and {count} features need at least four coalitions each to be told "
            f"apart; raise it to {4 * count} or more, or explain fewer segments."
        )


def shapley_kernel(features: Features, samples: int) -> tuple[int, Callable]:
    """(number of coalitions, draw) of KernelSHAP: all of a row's where they are few enough, else random pairs.

    A coalition of k of M features weighs (M - 1) / (binomial(M, k) k (M - k)).
    """
    most, known = listed(samples), features.known
    if known is not None:
        told_apart(samples, known)
    table = np.zeros([most + 1, most + 1], np.float32)
    for m in range(2, most + 1):
        for k in range(1, m):
            table[m, k] = (m - 1) / (math.comb(m, k) * k * (m - k))

    def every(seed: tf.Tensor, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        own, place = tf.minimum(features.own(row), most), tf.minimum(tf.range(features.count), MOST)
        bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift((sample + 1)[:, tf.newaxis], place), 1)
        present = tf.where(features.has(row), bits, 0)
        weight = tf.gather(tf.reshape(tf.constant(table), [-1]), own * (most + 1) + tf.reduce_sum(present, 1))
        return tf.cast(present, tf.float32), tf.where(sample < tf.bitwise.left_shift(1, own) - 2, weight, 0.0)

    def pairs(seed: tf.Tensor, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pair, own = sample // 2, features.own(row)[:, tf.newaxis]
        sizes = tf.range(1, tf.maximum(features.count, 2))
        chance = tf.where(sizes < own, 1 / tf.cast(sizes * tf.maximum(own - sizes, 1), tf.float32), 0.0)
        reached = tf.cumsum(chance, 1)
        draw = uniform(fork(seed, tf.zeros_like(pair)), pair, tf.zeros([tf.shape(pair)[0], 1]))
        size = 1 + tf.reduce_sum(tf.cast((draw * reached[:, -1:] > reached) & (chance > 0), tf.int32), 1)
        present = shuffled(seed, pair, features, row) < size[:, tf.newaxis]
        flipped = tf.not_equal(present, (sample % 2 == 1)[:, tf.newaxis]) & features.has(row)
        return tf.cast(flipped, tf.float32), tf.ones_like(draw[:, 0])

    if known is not None:
        return (2**known - 2, every) if known <= most else (samples, pairs)

    def either(seed: tf.Tensor, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        few = features.own(row) <= most
        (all_, weight), (some, one) = every(seed, sample, row), pairs(seed, sample, row)
        return tf.where(few[:, tf.newaxis], all_, some), tf.where(few, weight, one)

    return samples, either


def of_channels(leaf: tf.Tensor, window: tuple[int, ...]) -> bool:
    """Whether a window has an entry for the channels of a leaf."""
    return len(leaf.shape) > 2 and len(window) == len(leaf.shape) - 1


def windowed(problem: Problem, window: tuple[int, ...]) -> Leaves:
    """Maps of zeros over what windows tell apart."""
    pairs = zip(problem.x, like(problem), strict=True)
    return tuple(tf.zeros(tf.shape(x), blank.dtype) if of_channels(x, window) else blank for x, blank in pairs)


def windows(problem: Problem, window: tuple[int, ...], strides: tuple[int, ...]) -> Leaves:
    """F(x) - F(x with a window at the baseline), at each position the mean over the windows that cover it.

    Windows of `window` positions start every `strides`; the last ones are cut at the edge. Windows with one entry more
    than there are axes of positions are of channels too.
    """
    clean = problem.at_x
    total_maps = []
    for which, (leaf, blank) in enumerate(zip(problem.x, windowed(problem, window), strict=True)):
        sides = tf.unstack(tf.shape(leaf))[1:] if of_channels(leaf, window) else positions(leaf)
        size = (window * len(sides))[: len(sides)] if len(window) == 1 else window
        step = strides * len(positions(leaf)) if len(strides) == 1 else strides
        step = (*step, 1) if len(step) < len(sides) == len(size) and of_channels(leaf, window) else step
        if len(size) != len(sides) or len(step) != len(sides):
            raise ValueError(f"window {window} and strides {strides} must have {len(sides)} entries, or one for all.")
        if any(s > w for s, w in zip(step, size, strict=True)):
            raise ValueError(f"strides {step} leave gaps between windows of {size}.")
        counts = [tf.maximum(-(-(n - w) // s), 0) + 1 for n, w, s in zip(sides, size, step, strict=True)]

        def covered(sample: tf.Tensor, sides=sides, size=size, step=step, counts=counts, leaf=leaf) -> tf.Tensor:
            mask = tf.ones([tf.shape(sample)[0], *[1] * len(sides)])
            rest = sample
            for axis in reversed(range(len(sides))):
                start = (rest % counts[axis]) * step[axis]
                rest = rest // counts[axis]
                place = tf.range(sides[axis])
                inside = (place >= start[:, tf.newaxis]) & (place < start[:, tf.newaxis] + size[axis])
                shape = [tf.shape(sample)[0], *[1] * axis, sides[axis], *[1] * (len(sides) - axis - 1)]
                mask = mask * tf.reshape(tf.cast(inside, tf.float32), shape)
            return channelled(leaf, mask)

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor, which=which, covered=covered, blank=blank):
            inside = tf.cast(covered(sample), blank.dtype)
            masks = tuple(
                1 - inside if i == which else tf.ones([1] * len(one.shape), blank.dtype) for i, one in enumerate(p.x)
            )
            difference = tf.gather(clean, row) - p.score(blend(p, masks))
            return per_row(difference, inside) * inside, inside

        sums, covers = total(problem, tf.reduce_prod(tf.stack(counts)), (blank, blank), term)
        total_maps.append(sums / covers)
    return tuple(total_maps)


def soft_masks(seed: tf.Tensor, sample: tf.Tensor, leaf: tf.Tensor, cells: int, probability: float) -> tf.Tensor:
    """Random masks [N, ...]: a coarse grid of zeros and ones, enlarged linearly, shifted at random by part of a cell.

    Without spatial axes, each feature is kept on its own; masks of what is no float are zeros and ones.
    """
    sides = positions(leaf)
    rows = tf.shape(sample)[0]
    if len(leaf.shape) == 2:
        return tf.cast(uniform(seed, sample, tf.zeros([rows, sides[0]])) < probability, tf.float32)
    grid = tf.cast(uniform(seed, sample, tf.zeros([rows, *[cells] * len(sides)])) < probability, tf.float32)
    shifts = uniform(fork(seed, tf.zeros_like(sample)), sample, tf.zeros([rows, len(sides)]))
    letters = "abcdef"[: len(sides)]
    for axis, side in enumerate(sides):
        cell = tf.cast(-(-side // cells), tf.float32)
        length = (cells + 1) * cell
        place = (
            (tf.cast(tf.range(side), tf.float32) + 0.5 + tf.floor(shifts[:, axis : axis + 1] * cell)) * cells / length
        )
        place = tf.clip_by_value(place - 0.5, 0.0, cells - 1.0)
        weights = tf.maximum(1 - tf.abs(place[..., tf.newaxis] - tf.range(cells, dtype=tf.float32)), 0.0)
        here = letters[axis]
        grid = tf.einsum(f"n{letters},nz{here}->n{letters.replace(here, 'z')}", grid, weights)
    return (grid if leaf.dtype.is_floating else tf.round(grid))[..., tf.newaxis]
