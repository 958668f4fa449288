"""Segments ranked by what they add to those ranked before them: XRAI."""

import tensorflow as tf


def rank(attribution: tf.Tensor, segments: tf.Tensor, least: int) -> tf.Tensor:
    """Each position's mean attribution in the region by which it was added, [B, H, W].

    Regions may overlap. At each turn the segment whose positions not yet taken have the highest mean is added; segments
    with fewer than `least` such positions are passed over. What no segment took gets its own mean.

    Args:
        attribution: [B, H, W].
        segments: [B, H, W, K], K maps of whole numbers from 0.
    """
    shape = tf.shape(segments)
    rows, places, maps = shape[0], shape[1] * shape[2], shape[3]
    count = tf.reduce_max(segments) + 1
    flat = tf.reshape(attribution, [rows, places])
    # Every map of every row has numbers of its own: one sum over all of them.
    of = tf.reshape(tf.cast(segments, tf.int32), [rows, places, maps])
    offset = (tf.range(rows)[:, tf.newaxis, tf.newaxis] * maps + tf.range(maps)) * count
    index = of + offset

    def sums(values: tf.Tensor) -> tf.Tensor:
        spread = tf.repeat(values[..., tf.newaxis], maps, 2)
        found = tf.math.unsorted_segment_sum(tf.reshape(spread, [-1]), tf.reshape(index, [-1]), rows * maps * count)
        return tf.reshape(found, [rows, maps * count])

    def add(going, free, shown):
        kept = tf.cast(free, flat.dtype)
        sizes = sums(kept)
        means = tf.math.divide_no_nan(sums(flat * kept), sizes)
        open_ = sizes >= max(least, 1)
        best = tf.argmax(tf.where(open_, means, tf.constant(float("-inf"), means.dtype)), 1, tf.int32)
        there = tf.reduce_any(open_, 1)
        chosen = best + tf.range(rows) * maps * count
        taken = tf.reduce_any(tf.equal(index, chosen[:, tf.newaxis, tf.newaxis]), 2) & free & there[:, tf.newaxis]
        value = tf.gather(means, best, batch_dims=1)[:, tf.newaxis]
        return there, free & ~taken, tf.where(taken, value, shown)

    state = (tf.ones([rows], tf.bool), tf.ones([rows, places], tf.bool), tf.zeros_like(flat))
    _, free, shown = tf.while_loop(lambda going, *_: tf.reduce_any(going), add, state, parallel_iterations=1)
    left = tf.cast(free, flat.dtype)
    rest = tf.math.divide_no_nan(tf.reduce_sum(flat * left, 1), tf.reduce_sum(left, 1))
    return tf.reshape(tf.where(free, rest[:, tf.newaxis], shown), shape[:3])
