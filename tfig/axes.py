"""What each operation of a graph does to the axes of a tensor: which axis comes from which."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Origin(NamedTuple):
    """Where an axis comes from: an axis of an input, or a part of it, where it was split. Origins are in order."""

    leaf: int
    axis: int
    part: int = 0


ROWS = Origin(-1, 0)

Part = tuple[Origin | None, int | None]

Axis = tuple[Part, ...]
"""(origin or None: unknown, size) of what was merged into an axis, the slowest first."""

Axes = list[Axis]

UNKNOWN: Axis = ((None, None),)


def axis_of(origin: Origin | None, size: int | None) -> Axis:
    """An axis that nothing was merged into."""
    return ((origin, size),)


def single(axis: Axis) -> Origin | None:
    """The origin an axis is ordered by: it, or it with repetitions inside."""
    first, *rest = axis
    return first[0] if all(origin is None for origin, _ in rest) else None


Known = list[Axes | None]
Channels = dict[int, int]
Rule = Callable[[tf.Operation, Known, Channels], Axes | None]
"""(operation, axes of its inputs, axes taken for channels by the inputs' numbers) -> the axes of all its outputs."""


def _of_first(rule: Callable[[tf.Operation, Axes], Axes | None]) -> Rule:
    """A rule that needs the axes of the first input alone."""
    return lambda op, known, channels: None if known[0] is None else rule(op, known[0])


def _same(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    """As what is broadcast together: of each axis the origin that is known and not one wide."""
    rank = op.outputs[0].shape.rank
    found: Axes = [UNKNOWN] * rank
    for axes, tensor in zip(known, op.inputs, strict=True):
        for back in range(1, 1 + min(rank, len(axes or ()))):
            if axes and tensor.shape[-back] != 1 and single(found[-back]) is None:
                found[-back] = axes[-back]
    return found


def _first(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    return known[0]


def _channelled(which: int, new: bool) -> Rule:
    """What takes an axis for channels, and keeps the others; `new`: it makes channels of its own."""

    def rule(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
        axes = known[which]
        if axes is None:
            return None
        channel = 1 if op.get_attr("data_format").decode().startswith("NC") else len(axes) - 1
        origin = single(axes[channel])
        if origin and origin != ROWS and origin.part == 0:
            channels.setdefault(origin.leaf, origin.axis)
        return [UNKNOWN if new and axis == channel else one for axis, one in enumerate(axes)]

    return rule


def _transpose(op: tf.Operation, axes: Axes) -> Axes | None:
    order = tf.get_static_value(op.inputs[1])
    return None if order is None else [axes[axis] for axis in order]


def _reverse(op: tf.Operation, axes: Axes) -> Axes | None:
    turned = tf.get_static_value(op.inputs[1])
    if turned is None:
        return None
    turned = {int(axis) % len(axes) for axis in turned}
    return [UNKNOWN if axis in turned else one for axis, one in enumerate(axes)]


def _reshape(op: tf.Operation, axes: Axes) -> Axes | None:
    """Axes that keep their size stay; others are merged, or split as they were merged."""
    target = op.outputs[0].shape.as_list()
    if target == [None, None]:
        target = [None, _contracted(op.outputs[0])]
    parts: list[Part] = []
    for axis, size in zip(axes, op.inputs[0].shape.as_list(), strict=True):
        parts += [(axis[0][0], size)] if len(axis) == 1 else list(axis)
    found: Axes = []
    while target:
        size = target.pop(0)
        if size == 1 and (not parts or parts[0][1] != 1):
            axis = UNKNOWN
        elif not parts:
            return None
        elif size is None or parts[0][1] is None:
            axis = _up_to(parts, size, target)
        else:
            axis = _of_size(parts, size)
        if not axis:
            return None
        found.append(axis)
    return found


def _up_to(parts: list[Part], size: int | None, behind: list[int | None]) -> Axis:
    """Takes the rows, or what cannot be told, up to where the known sizes agree again; () where they do not."""
    if None in behind:
        taken = [parts.pop(0)]
        return tuple(taken) if (size is None) == (taken[0][1] is None) else ()
    rest, taken = math.prod(one or 0 for one in behind), [parts.pop(0)]
    while parts and math.prod(n or 0 for _, n in parts) != rest:
        taken.append(parts.pop(0))
    return tuple(taken)


def _of_size(parts: list[Part], size: int) -> Axis:
    """Takes what makes up an axis of a size: a share of one part, or several; () where none do."""
    origin, whole = parts[0]
    if whole is not None and whole > size and whole % size == 0:
        parts[0] = (origin and origin._replace(part=origin.part + 1), whole // size)
        return axis_of(origin, size)
    taken = [parts.pop(0)]
    while parts and math.prod(n or 0 for _, n in taken) < size:
        taken.append(parts.pop(0))
    if math.prod(n or 0 for _, n in taken) != size:
        return ()
    return tuple(part for part in taken if part[1] != 1) or tuple(taken[:1])


def _contracted(flat: tf.Tensor) -> int | None:
    """How many columns a matrix has, by the matrix that it is multiplied with."""
    factors = [op.inputs[1].shape for op in flat.consumers() if op.type == "MatMul" and op.inputs[0] is flat]
    return factors[0][0] if factors else None


def _expand(op: tf.Operation, axes: Axes) -> Axes | None:
    axis = tf.get_static_value(op.inputs[1])
    if axis is None:
        return None
    place = int(np.ravel(axis)[0]) % (len(axes) + 1)
    return [*axes[:place], UNKNOWN, *axes[place:]]


def _squeeze(op: tf.Operation, axes: Axes) -> Axes | None:
    gone = {axis % len(axes) for axis in op.get_attr("squeeze_dims")}
    gone = gone or {axis for axis, size in enumerate(op.inputs[0].shape.as_list()) if size == 1}
    return [one for axis, one in enumerate(axes) if axis not in gone]


def _reduced(op: tf.Operation, axes: Axes) -> Axes | None:
    gone = tf.get_static_value(op.inputs[1])
    if gone is None:
        return None
    gone = {int(axis) % len(axes) for axis in np.ravel(gone)}
    kept = op.get_attr("keep_dims")
    return [UNKNOWN if axis in gone else one for axis, one in enumerate(axes) if kept or axis not in gone]


def _joined(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    return next(axes for axes in known if axes is not None)


def _stacked(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    axes = next(axes for axes in known if axes is not None)
    place = op.get_attr("axis") % (len(axes) + 1)
    return [*axes[:place], UNKNOWN, *axes[place:]]


def _unstacked(op: tf.Operation, axes: Axes) -> Axes | None:
    place = op.get_attr("axis") % len(axes)
    return [*axes[:place], *axes[place + 1 :]]


def _strided(op: tf.Operation, axes: Axes) -> Axes | None:
    """A slice: axes with a negative step are turned round."""
    masks = {name: op.get_attr(f"{name}_mask") for name in ("ellipsis", "new_axis", "shrink_axis")}
    steps = tf.get_static_value(op.inputs[3])
    count = op.inputs[1].shape[0]
    if steps is None or count is None:
        return None
    rest, found = list(axes), []
    taken = sum(not (masks["new_axis"] | masks["ellipsis"]) >> k & 1 for k in range(count))
    for k in range(count):
        if masks["ellipsis"] >> k & 1:
            found += [rest.pop(0) for _ in range(len(rest) - taken)]
        elif masks["new_axis"] >> k & 1:
            found.append(UNKNOWN)
        else:
            taken -= 1
            axis = rest.pop(0)
            if not masks["shrink_axis"] >> k & 1:
                found.append(axis if steps[k] > 0 else UNKNOWN)
    return found + rest


def _tiled(op: tf.Operation, axes: Axes) -> Axes | None:
    times = tf.get_static_value(op.inputs[1], partial=True)
    if times is None:
        return None
    sizes = zip(op.inputs[0].shape, op.outputs[0].shape, times, strict=True)
    once = [n == 1 or (before is not None and before == after) for before, after, n in sizes]
    return [axis if one else UNKNOWN for axis, one in zip(axes, once, strict=True)]


def _multiplied(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    first, second = known
    rank = op.outputs[0].shape.rank
    rows = first[:-1] if first and len(first) == rank else [UNKNOWN] * (rank - 1)
    if first is None and second is not None and len(second) == rank:
        rows = [*second[:-2], UNKNOWN]
    return [*rows, second[-1] if second else UNKNOWN]


def _einsum(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    sources, target = op.get_attr("equation").decode().replace(" ", "").split("->")
    if "." in sources:
        return None
    named: dict[str, Axis] = {}
    for letters, axes in zip(sources.split(","), known, strict=True):
        named.update({letter: axis for letter, axis in zip(letters, axes or (), strict=False) if letter not in named})
    return [named.get(letter, UNKNOWN) for letter in target]


def _gathered(op: tf.Operation, known: Known, channels: Channels) -> Axes | None:
    axis = tf.get_static_value(op.inputs[2])
    if axis is None or op.get_attr("batch_dims"):
        return None
    if known[0] is None:
        values: Axes = [UNKNOWN] * op.inputs[0].shape.rank
        return [*values[:axis], *(known[1] or []), *values[axis + 1 :]]
    place = int(axis) % len(known[0])
    return [*known[0][:place], *[UNKNOWN] * op.inputs[1].shape.rank, *known[0][place + 1 :]]


def _table() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    rules.update(dict.fromkeys((
        "Add", "AddV2", "AddN", "Sub", "Mul", "MulNoNan", "RealDiv", "Div", "DivNoNan", "Maximum", "Minimum", "Pow",
        "SquaredDifference", "FloorDiv", "FloorMod", "SelectV2", "Greater", "GreaterEqual", "Less", "LessEqual",
        "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "ClipByValue", "BroadcastTo", "Xdivy", "Xlogy", "BiasAddV1",
    ), _same))  # fmt: skip
    rules.update(dict.fromkeys((
        "Identity", "Cast", "StopGradient", "PreventGradient", "CheckNumerics", "EnsureShape", "Snapshot", "Relu",
        "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Softmax", "LogSoftmax", "Erf",
        "Erfc", "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Neg", "Abs", "Sign", "Reciprocal", "Inv",
        "Sin", "Cos", "Floor", "Ceil", "Round", "Rint", "Cumsum", "Slice", "Pad", "PadV2", "MirrorPad", "SplitV", "LRN",
        "ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic", "ResizeArea", "SpaceToBatchND", "BatchToSpaceND",
        "LogicalNot", "IsNan", "IsFinite", "ZerosLike", "OnesLike", "FakeQuantWithMinMaxVars",
    ), _first))  # fmt: skip
    rules.update(dict.fromkeys(("Conv2D", "Conv3D", "DepthwiseConv2dNative"), _channelled(0, new=True)))
    rules.update(dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), _channelled(2, new=True)))
    rules.update(dict.fromkeys((
        "MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D", "FusedBatchNorm", "FusedBatchNormV3", "BiasAdd",
    ), _channelled(0, new=False)))  # fmt: skip
    rules.update(dict.fromkeys(("MatMul", "BatchMatMulV2", "BatchMatMulV3"), _multiplied))
    rules.update({"Split": lambda op, known, channels: known[1], "ConcatV2": _joined, "Pack": _stacked})
    rules.update({"Einsum": _einsum, "GatherV2": _gathered})
    firsts = {
        "Transpose": _transpose, "ReverseV2": _reverse, "Reshape": _reshape, "ExpandDims": _expand, "Tile": _tiled,
        "Squeeze": _squeeze, "Unpack": _unstacked, "StridedSlice": _strided,
        **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm"), _reduced),
    }  # fmt: skip
    return {**rules, **{name: _of_first(rule) for name, rule in firsts.items()}}


RULES: dict[str, Rule] = _table()
"""What each operation does to axes; the axes behind any other are unknown."""
