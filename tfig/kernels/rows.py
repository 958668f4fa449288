"""Working on the rows that are not done yet, and putting their results back in place."""

from typing import Any

import tensorflow as tf


def remaining(flags: tf.Tensor) -> tf.Tensor:
    """Indices of the rows whose flag [B] is set, int32 [N]."""
    return tf.cast(tf.where(flags)[:, 0], tf.int32)


def put(old: Any, index: tf.Tensor, new: Any) -> Any:
    """`old`, a nest of [B, ...], with the rows at `index` [N] replaced by `new`, the same nest of [N, ...]."""

    def one(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
        if before.dtype == tf.bool:  # scattering booleans has no GPU kernel
            return put(tf.cast(before, tf.int32), index, tf.cast(after, tf.int32)) > 0
        return tf.tensor_scatter_nd_update(before, index[:, tf.newaxis], after)

    return tf.nest.map_structure(one, old, new)
