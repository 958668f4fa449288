"""What depends on what in a graph while it is traced."""

from collections.abc import Iterable

import tensorflow as tf


def ancestors(tensors: Iterable[tf.Tensor]) -> set[str]:
    """The names of all operations that tensors are computed by."""
    waiting, seen = [tensor.op for tensor in tensors], set()
    while waiting:
        op = waiting.pop()
        if op.name not in seen:
            seen.add(op.name)
            waiting.extend(tensor.op for tensor in op.inputs)
    return seen


SHAPES = {"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"}
"""Know a tensor's shape, and none of its values."""


def depending(operations: Iterable[tf.Operation], tensors: Iterable[tf.Tensor]) -> list[tf.Operation]:
    """Those of `operations`, in the order of their making, that compute with the values of `tensors`, or of these."""
    sources, names, found = {id(one) for one in tensors}, set(), []
    for op in operations:
        if op.type not in SHAPES and any(id(one) in sources or one.op.name in names for one in op.inputs):
            names.add(op.name)
            found.append(op)
    return found
