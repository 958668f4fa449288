"""Which axis of a tensor is which axis of the input, followed forward through a traced graph.

Shapes do not tell channels from positions, nor a map from its transpose; what is computed does.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.axes import ROWS, RULES, UNKNOWN, Axes, Known, Origin, axis_of, single


@dataclasses.dataclass
class Trail:
    """What was found.

    Fields:
        axes: the axes of each tensor that depends on an input, by its name.
        channels: which axis of an input was taken for its channels, by the input's number; the first taker decides.
    """

    axes: dict[str, Axes] = dataclasses.field(default_factory=dict)
    channels: dict[int, int] = dataclasses.field(default_factory=dict)

    def positions(self, tensor: tf.Tensor) -> list[Origin | None]:
        """The origin of each axis but the rows; None where it is unknown or several."""
        return [single(axis) for axis in self.axes.get(tensor.name, [UNKNOWN] * (tensor.shape.rank or 1))[1:]]

    def channel_axis(self, tensor: tf.Tensor) -> int:
        """The axis of a feature map's channels: 1 where positions of an input follow it to the end, else -1."""
        rest = self.positions(tensor)
        return 1 if len(rest) > 1 and rest[0] is None and all(rest[1:]) else -1

    def is_map(self, tensor: tf.Tensor, ranks: Sequence[int | None]) -> bool:
        """Whether a tensor has all positions of an input in their order, more than one of them, and channels.

        Args:
            ranks: of the inputs; None: of no interest.
        """
        kept = slice(1, None) if self.channel_axis(tensor) == 1 else slice(0, -1)
        places, sizes = self.positions(tensor)[kept], tensor.shape.as_list()[1:][kept]
        if not places or not all(places):
            return False
        leaves = {one.leaf for one in places if one}
        ordered = all(a < b for a, b in itertools.pairwise(places) if a and b)
        several = math.prod(2 if size is None else size for size in sizes) > 1
        rank = ranks[min(leaves)] if min(leaves) >= 0 else None
        return len(leaves) == 1 and rank is not None and ordered and several and len(places) >= rank - 2


def follow(inputs: Sequence[tf.Tensor], kept: Mapping[str, tf.Tensor], operations: Iterable[tf.Operation]) -> Trail:
    """The axes of all tensors that depend on `inputs`, in the order of their making.

    Args:
        kept: tensors that have the rows and the second axis of another, whatever makes them (what loops over time
            gives), by name.
    """
    trail = Trail()
    for i, leaf in enumerate(inputs):
        sizes = leaf.shape.as_list()
        trail.axes[leaf.name] = [axis_of(Origin(i, axis) if axis else ROWS, size) for axis, size in enumerate(sizes)]
    _walk(operations, kept, trail)
    return trail


def _walk(operations: Iterable[tf.Operation], kept: Mapping[str, tf.Tensor], trail: Trail) -> None:
    for op in operations:
        known = [trail.axes.get(tensor.name) for tensor in op.inputs]
        if not any(one is not None for one in known) or any(output.name in trail.axes for output in op.outputs):
            continue
        for output, axes in zip(op.outputs, _outputs(op, known, trail), strict=True):
            rank = output.shape.rank
            if rank is None:
                continue
            source = trail.axes.get(kept[output.name].name) if output.name in kept else None
            found = axes if source is None else [*source[:2], *[UNKNOWN] * (rank - 2)]
            trail.axes[output.name] = found if found is not None and len(found) == rank else [UNKNOWN] * rank


def _outputs(op: tf.Operation, known: Known, trail: Trail) -> Known:
    """The axes of each output."""
    if op.type == "IdentityN":
        return known
    if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
        return _called(op, known, trail)
    rule = RULES.get(op.type)
    return [rule(op, known, trail.channels) if rule else None] * len(op.outputs)


def _called(op: tf.Operation, known: Known, trail: Trail) -> Known:
    """What is computed inside a function, as Keras' grouped convolutions and loaded models are."""
    body = getattr(op.graph._get_function(op.get_attr("f").name), "graph", None)
    if body is None:
        return [None] * len(op.outputs)
    inside = Trail({one.name: axes for one, axes in zip(body.inputs, known, strict=True) if axes}, trail.channels)
    _walk(body.get_operations(), {}, inside)
    return [inside.axes.get(one.name) for one in body.outputs]


def moved(value: Any, channels: int, *, back: bool = False) -> Any:
    """A tensor or array with its axis of channels last; `back`: with the last axis where its channels were."""
    rank = len(value.shape)
    if channels in (-1, rank - 1) or rank < 3:
        return value
    order = [0, rank - 1, *range(1, rank - 1)] if back else [0, *range(2, rank), 1]
    return value.transpose(order) if isinstance(value, np.ndarray) else tf.transpose(value, order)
