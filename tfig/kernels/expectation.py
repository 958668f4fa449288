"""Sums over samples, folded with the rows into chunks; and the noise that samples are drawn from.

Noise is drawn in float32 whatever it is added to, so that a model in float64 is asked the same questions.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfig.problem import Problem, per_row
from tfig.sizes import beyond_rows, extent

TOGETHER, SMALL = 8, 8192
"""How many rows of noise are drawn at a turn, at most, and how many numbers they may have."""

Term = Callable[[Problem, tf.Tensor, tf.Tensor], Any]
"""(problem of the chunk's rows, samples [N], rows [N]) -> a nest of [N, ...]: the terms of those samples."""


def total(problem: Problem, count: int | tf.Tensor, like: Any, term: Term) -> Any:
    """sum{ term(s) : s = 0...count-1 } for every row, a nest of [B, ...] shaped like `like`.

    (sample, row) pairs are evaluated together in chunks of at most ``problem.chunk`` rows (at least one sample at
    a time), so memory is flat in `count` and one trace serves every number of rows.
    """

    def add(sums: Any, terms: Any, turn: tf.Tensor, taken: tf.Tensor) -> Any:
        def fold(value, running):
            return running + tf.reduce_sum(tf.reshape(value, tf.concat([[taken], tf.shape(running)], 0)), 0)

        return tf.nest.map_structure(fold, terms, sums)

    return _folded(problem, count, tf.nest.map_structure(tf.zeros_like, like), term, add)


def each(problem: Problem, count: int | tf.Tensor, like: Any, term: Term) -> Any:
    """term(s) of every sample, not summed: a nest of [B, count, ...] where `like` is a nest of [B, ...]."""
    turns = -(-count // _width(problem))
    arrays = tf.nest.map_structure(
        lambda one: tf.TensorArray(one.dtype, turns, infer_shape=False, element_shape=[None, *one.shape[1:]]), like
    )
    shapes: list[tf.TensorShape] = []

    def write(arrays: Any, terms: Any, turn: tf.Tensor, taken: tf.Tensor) -> Any:
        shapes.extend(value.shape[1:] for value in tf.nest.flatten(terms))
        return tf.nest.map_structure(lambda array, value: array.write(turn, value), arrays, terms)

    def apart(array: tf.TensorArray) -> tf.Tensor:
        together = tf.ensure_shape(array.concat(), [None, *shapes.pop(0)])  # a sample after another
        inner = [extent(together, axis) for axis in beyond_rows(together)]
        parts = tf.reshape(together, [count, -1, *inner])
        return tf.transpose(parts, [1, 0, *range(2, len(parts.shape))])

    return tf.nest.map_structure(apart, _folded(problem, count, arrays, term, write))


def _width(problem: Problem) -> tf.Tensor:
    """How many samples of all rows are evaluated together."""
    return tf.maximum(problem.chunk // tf.maximum(problem.rows, 1), 1)


def _folded(problem: Problem, count: int | tf.Tensor, state: Any, term: Term, fold: Callable[..., Any]) -> Any:
    """fold(state, terms, turn, samples taken) over all turns, a chunk of samples each."""
    rows, width = problem.rows, _width(problem)

    def step(start: tf.Tensor, state: Any) -> tuple[tf.Tensor, Any]:
        taken = tf.minimum(width, count - start)
        pair = tf.range(taken * rows)
        row, sample = pair % rows, start + pair // rows
        return start + taken, fold(state, term(problem.take(row), sample, row), start // width, taken)

    return tf.while_loop(lambda start, _: start < count, step, (tf.constant(0), state), parallel_iterations=1)[1]


def slotted(value: tf.Tensor, which: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """`value` [N, ...] in one of `count` slots, which[n], and zeros in the others: [N, count, ...]."""
    own = tf.one_hot(which, count, on_value=True, off_value=False)
    here = tf.reshape(own, tf.concat([tf.shape(own), tf.ones([len(value.shape) - 1], tf.int32)], 0))
    return tf.where(here, value[:, tf.newaxis], tf.zeros([], value.dtype))


def over_noise(
    problem: Problem, count: int, noise: float, like: Any, term: Callable[[Problem, tf.Tensor], Any], at_source: bool
) -> Any:
    """The mean over `count` samples of term(problem with noise on x, rows [N]): a nest of [B, ...] shaped like `like`.

    x + noise (max x - min x) e with e standard normal; the range is each row's own, leaf by leaf.

    Args:
        at_source: at a layer, put the noise on the model's input instead of on the layer's output.
    """
    clean = problem.cut.x if at_source else problem.x
    deviations = [noise * spread(leaf) for leaf in clean]

    def perturbed(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Any:
        x = tuple(
            # Below zero, where no sample of the inner method counts: its draws must not repeat the noise.
            jitter(leaf, deviation, fork(p.seed, sample), tf.fill(tf.shape(row), -2 - i), row)
            for i, (leaf, deviation) in enumerate(zip(clean, deviations, strict=True))
        )
        moved = p.replace(seed=fork(p.seed, sample), x=x)
        if at_source:
            source = dataclasses.replace(p.cut, x=x)
            moved = moved.replace(source=source, x=source.features(x, source.constants))
        return term(moved, row)

    sums = total(problem, count, like, perturbed)
    return tf.nest.map_structure(lambda value: value / count, sums)


def over_references(problem: Problem, like: Any, term: Callable[[Problem], Any]) -> Any:
    """The mean over ``problem.references`` of term(problem from that baseline); without references, term(problem)."""
    if not problem.references:
        return term(problem)
    count = tf.shape(problem.references[0])[0]

    def one(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Any:
        terms = term(p.at_reference(sample))
        return tf.nest.map_structure(lambda value, shape: tf.cast(value, shape.dtype), terms, like)

    sums = total(problem, count, like, one)
    return tf.nest.map_structure(lambda value: value / tf.cast(count, value.dtype), sums)


def golden_pairs(seed: tf.Tensor, count: int) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Points (u, v) on the unit square for each row: (s/count, s * golden ratio) modulo 1, shifted at random.

    A low-discrepancy lattice whose points are each uniform, so means over them are unbiased; one shift for each row,
    from its seed.

    Returns:
        (sample [N], row [N]) -> u [N], v [N].
    """
    shift = uniform(seed, tf.zeros_like(seed[:, 0]), tf.zeros([1, 2]))
    ratio = (5**0.5 - 1) / 2
    lattice = tf.constant([(s / count, s * ratio % 1) for s in range(count)], tf.float32)

    def at(sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        point = tf.gather(lattice, sample) + tf.gather(shift, row) * [1 / count, 1.0]
        point = point - tf.floor(point)
        return point[:, 0], point[:, 1]

    return at


def spread(leaf: tf.Tensor) -> tf.Tensor:
    """max - min of each row, [N]."""
    axes = beyond_rows(leaf)
    return tf.reduce_max(leaf, axes) - tf.reduce_min(leaf, axes)


def jitter(x: tf.Tensor, deviation: tf.Tensor, seed: tf.Tensor, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """x[row[i]] + deviation[row[i]] * e[i], e standard normal from seed[i] and sample[i] alone, [N, ...]."""
    shape = [extent(x, axis) for axis in beyond_rows(x)]
    width = x.shape[1:].num_elements()
    # Row by row, while the row is in the cache: a pass over all of them costs as much as drawing. Small rows several
    # at a turn, since a turn costs as much as a thousand numbers.
    together = max(1, min(TOGETHER, SMALL // max(width, 1))) if width is not None else 1
    missing = -extent(seed, 0) % together

    def some(pair: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        keys, index = pair
        drawn = tf.cast(tf.stack([_standard(shape, key) for key in tf.unstack(keys, together)]), x.dtype)
        return tf.gather(x, index) + per_row(tf.gather(deviation, index), drawn) * drawn

    keys = tf.reshape(tf.pad(fork(seed, sample), [[0, missing], [0, 0]]), [-1, together, 2])
    index = tf.reshape(tf.pad(row, [[0, missing]]), [-1, together])
    spec = tf.TensorSpec([together, *x.shape[1:]], x.dtype)
    turns = tf.map_fn(some, (keys, index), fn_output_signature=spec)
    found = tf.reshape(turns, [-1, *shape])[: extent(seed, 0)]
    return tf.ensure_shape(found, [None, *x.shape[1:]])


def _standard(shape: list[Any], key: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers of a seed, those of `tf.random.stateless_normal(shape, key, alg="philox")`.

    That spells the scrambling of the seed out in fifty operations, for each program to trace and to prepare.
    """
    scrambled, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    philox = tf.random.Algorithm.PHILOX.value
    return tf.raw_ops.StatelessRandomNormalV2(shape=shape, key=scrambled, counter=counter, alg=philox)


def normal(seed: tf.Tensor, sample: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Standard normal noise [N, ...] in the shape of `like`: row i from seed[i] and sample[i] alone."""
    return jitter(tf.zeros_like(like[:1]), tf.ones([1], like.dtype), seed, sample, tf.zeros_like(sample))


def uniform(seed: tf.Tensor, sample: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Uniform noise on [0, 1) in the shape of `like` [N, ...]: row i from seed[i] and sample[i] alone.

    24 bits of SplitMix64 (Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, 2014), all rows at once:
    TensorFlow draws from one seed at a time, and a method of coalitions needs some numbers from each of thousands.
    """
    own, stream = tf.unstack(tf.cast(fork(seed, sample), tf.int64), 2, -1)
    begin = _mixed(own * 2**32 + stream)
    count = math.prod(extent(like, axis) for axis in beyond_rows(like))
    bits = _mixed(begin[:, tf.newaxis] + tf.range(1, tf.cast(count, tf.int64) + 1) * _signed(0x9E3779B97F4A7C15))
    drawn = tf.cast(_shifted(bits, 40), tf.float32) * 2.0**-24
    return tf.cast(tf.reshape(drawn, tf.shape(like)), like.dtype)


def fork(seed: tf.Tensor, sample: tf.Tensor) -> tf.Tensor:
    """Seeds [N, 2] of the stream that sample[i] of row i hands on to whatever draws inside it."""
    own, stream = tf.unstack(seed, 2, -1)
    return tf.stack([own, stream * 1_000_003 + sample + 1], -1)


def _mixed(bits: tf.Tensor) -> tf.Tensor:
    """SplitMix64's mixing of 64 bits."""
    for places, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = tf.bitwise.bitwise_xor(bits, _shifted(bits, places)) * _signed(factor)
    return tf.bitwise.bitwise_xor(bits, _shifted(bits, 31))


def _shifted(bits: tf.Tensor, places: int) -> tf.Tensor:
    """64 bits shifted to the right, zeros behind them."""
    moved = tf.bitwise.right_shift(bits, tf.constant(places, tf.int64))
    return tf.bitwise.bitwise_and(moved, tf.constant(2 ** (64 - places) - 1, tf.int64))


def _signed(bits: int) -> tf.Tensor:
    """64 bits as TensorFlow's signed whole numbers hold them."""
    return tf.constant(bits - 2**64, tf.int64)
