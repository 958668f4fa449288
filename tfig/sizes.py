"""Axes and sizes of tensors, as plain numbers where they are known.

Each operation of a program is traced, optimised and prepared before its first answer, and a size that is computed is
four of them.
"""

from typing import TypeAlias

import tensorflow as tf

Size: TypeAlias = int | tf.Tensor
"""A number, or a scalar int32 where it is known only when the program runs."""


def extent(x: tf.Tensor, axis: int) -> Size:
    """How long an axis is."""
    known = x.shape[axis]
    return tf.unstack(tf.shape(x))[axis] if known is None else known


def smaller(a: Size, b: Size) -> Size:
    """The smaller of two sizes."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tf.minimum(a, b)


def beyond_rows(x: tf.Tensor) -> list[int]:
    """All axes but that of rows."""
    return list(range(1, len(x.shape)))
