"""What networks are made of, as far as rules of propagation must know: a few kinds of operations.

Whatever a layer is called, it computes TensorFlow operations. Each is of one kind here, or of none: what has no kind
has no rule, and saying so is better than a plain gradient.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

MOVING = {
    "Identity", "IdentityN", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose", "ConcatV2", "Pack", "Unpack",
    "Split", "SplitV", "StridedSlice", "Slice", "Pad", "PadV2", "MirrorPad", "GatherV2", "ResourceGather", "GatherNd",
    "Tile", "EnsureShape", "BroadcastTo", "ReverseV2", "ReverseSequence", "Roll", "StopGradient", "PreventGradient",
    "Snapshot", "SpaceToBatchND", "BatchToSpaceND", "SpaceToDepth", "DepthToSpace", "ResizeNearestNeighbor", "SelectV2",
    "Select", "ScatterNd", "MatrixBandPart", "MatrixDiagPartV3", "ExtractImagePatches", "CheckNumerics",
}  # fmt: skip
"""Only move, repeat or choose values."""

CONVOLUTIONS = {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2"}

PRODUCTS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}

MIXING = {
    "Mean", "Sum", "AvgPool", "AvgPool3D", "ResizeBilinear", "ResizeBicubic", "ScaleAndTranslate", "Cumsum",
    "SegmentSum", "UnsortedSegmentSum", "CropAndResize",
}  # fmt: skip
"""Linear, without weights."""

SUMS = {"AddV2", "Add", "Sub", "AddN", "BiasAdd"}

QUOTIENTS = {"RealDiv", "Div", "DivNoNan"}

SCALINGS = {"Mul", "MulNoNan", "Neg"} | QUOTIENTS

NORMALISATIONS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}

MAXIMA = {"Max", "Min", "MaxPool", "MaxPoolV2", "MaxPool3D"}

FUNCTIONS = {
    "Maximum", "Minimum", "Pow", "SquaredDifference", "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh",
    "Softplus", "Softsign", "Erf", "Erfc", "Exp", "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Abs", "Sign",
    "Reciprocal", "Inv", "Sin", "Cos", "Tan", "Asinh", "Sinh", "Cosh", "Atan", "Floor", "Ceil", "Round", "Rint",
    "ClipByValue", "Lgamma", "Digamma", "Xlogy", "Erfinv",
}  # fmt: skip
"""Of each element alone."""

PARTIAL = QUOTIENTS | {
    "Sqrt", "Rsqrt", "Log", "Log1p", "Pow", "Reciprocal", "Inv", "Xlogy", "Lgamma", "Digamma", "Erfinv",
}  # fmt: skip
"""Functions that are not of all numbers."""

CHOICES = {
    "Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalNot",
    "ZerosLike", "OnesLike", "IsNan", "IsFinite",
}  # fmt: skip
"""Of each element alone, with no slope."""

ALONE = FUNCTIONS | CHOICES | SCALINGS | (SUMS - {"BiasAdd"}) | {"Cast", "Identity", "IdentityN", "SelectV2", "Select"}
"""What a function of each element alone is made of."""

DATA = {"Conv2DBackpropInput": 2, "Conv3DBackpropInputV2": 2}
"""Which input of a product is not its weights, where it is not the first."""


def kind(op: tf.Operation, free: Sequence[int]) -> str | None:
    """What an operation is, of which the inputs `free` vary and others are known.

    "moving"; "mixing", linear; "weighing", linear by weights; "shift", "scale" by what is known; "sum", "product" of
    what varies; "maximum"; "softmax"; "function" of each element alone; None: unknown.
    """
    alone = len(free) == 1
    kinds = (
        ("moving", MOVING, True),
        ("mixing", MIXING, True),
        ("mixing", PRODUCTS, len(op.inputs) == 1),  # a trace, a diagonal
        ("weighing", CONVOLUTIONS | PRODUCTS, alone),
        ("product", CONVOLUTIONS | PRODUCTS, True),
        ("shift", SUMS, alone),
        ("sum", SUMS, True),
        ("function", QUOTIENTS, alone and free[0] == 1),
        ("scale", SCALINGS, alone),
        ("product", SCALINGS | {"SquaredDifference"}, not alone),
        ("shift", NORMALISATIONS, alone and free[0] == 0 and not _trains(op)),
        ("maximum", MAXIMA, True),
        ("maximum", {"Maximum", "Minimum"}, not alone),
        ("softmax", {"Softmax", "LogSoftmax"}, True),
        ("function", FUNCTIONS, alone),
    )
    return next((name for name, types, fits in kinds if op.type in types and fits), None)


def _trains(op: tf.Operation) -> bool:
    return op.type in NORMALISATIONS and op.get_attr("is_training")


def affine(op: tf.Operation, free: int) -> tuple[Any, Any]:
    """(scale, shift) of a scale or shift, z = scale * input `free` + shift, broadcastable to z; in float32 at least."""
    if op.type == "Neg":
        return -1.0, 0.0
    if op.type in NORMALISATIONS:
        _, gamma, beta, mean, variance = (wide(one) for one in op.inputs)
        scale = gamma * tf.math.rsqrt(variance + op.get_attr("epsilon"))
        shift = beta - mean * scale
        shape = [-1, 1, 1] if op.get_attr("data_format") == b"NCHW" else [-1]
        return tf.reshape(scale, shape), tf.reshape(shift, shape)
    other = tf.add_n([wide(one) for i, one in enumerate(op.inputs) if i != free])
    if op.type == "BiasAdd" and op.get_attr("data_format") == b"NCHW":
        other = tf.reshape(other, [-1, *[1] * (len(op.outputs[0].shape) - 2)])
    if op.type in SUMS:
        return (1.0, -other) if op.type == "Sub" and free == 0 else (-1.0 if op.type == "Sub" else 1.0, other)
    return (1 / other if op.type in QUOTIENTS else other), 0.0


def weights(op: tf.Operation, free: int) -> int:
    """Which input of an operation with weights they are, where `free` varies."""
    return 1 - free if op.type in PRODUCTS else 1


def channel(weights: tf.Operation, op: tf.Operation) -> int:
    """The axis, from the end, of the channels that an operation with weights makes, in what `op` behind it gives."""
    first = weights.type in CONVOLUTIONS and weights.get_attr("data_format").startswith(b"NC")
    return 1 - len(op.outputs[0].shape) if first else -1


def scalable(op: tf.Operation, free: int) -> bool:
    """Whether the channels of an operation's outputs are the last axis of its weights, or known by its type."""
    if op.type != "Einsum":
        return op.type in CONVOLUTIONS or free == 0
    terms, out = op.get_attr("equation").decode().split("->")
    return free == 0 and terms.split(",")[1][-1:] == out[-1:]


def outwards(op: tf.Operation, scale: tf.Tensor) -> tf.Tensor:
    """A scale for each output channel, [C] or [1], shaped to be multiplied into the weights of a scalable operation."""
    if scale.shape[0] == 1:
        return scale
    if op.type == "DepthwiseConv2dNative":
        return tf.reshape(scale, [-1, op.inputs[1].shape[-1]])
    if op.type in DATA:
        return scale[:, tf.newaxis]
    turned = {"MatMul": "transpose_b", "BatchMatMul": "adj_y", "BatchMatMulV2": "adj_y", "BatchMatMulV3": "adj_y"}
    return scale[:, tf.newaxis] if op.type in turned and op.get_attr(turned[op.type]) else scale


def replay(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The outputs of an operation on other inputs, in the present graph; floats are as wide as the inputs."""
    if op.type in ("Identity", "IdentityN"):
        return list(inputs)
    if op.type == "Cast":
        return [tf.cast(inputs[0], widened(op.outputs[0].dtype))]
    if op.type == "Conv2D" and _groups(op, inputs) > 1:
        return [_grouped(op, inputs)]
    make, names, counts, attributes = _signature(op)
    waiting, given = list(inputs), []
    for count in counts:
        if count is None:
            given.append(waiting.pop(0))
        else:
            size = op.get_attr(count)
            size = size if isinstance(size, int) else len(size)
            given.append(waiting[:size])
            waiting = waiting[size:]
    values = [*given, *map(op.get_attr, attributes)]
    made = make(**dict(zip(names, values, strict=True)))
    return list(made) if isinstance(made, (list, tuple)) else [made]


_signatures: dict[str, tuple[Any, list[str], list[str | None], list[str]]] = {}


def _signature(op: tf.Operation) -> tuple[Any, list[str], list[str | None], list[str]]:
    """(the raw operation; its arguments: inputs, then attributes, some by other names than the operation has for them;
    of each input the attribute that says how many tensors it is, or None: one; attributes).
    """
    if op.type not in _signatures:
        make, inputs = getattr(tf.raw_ops, op.type), op.op_def.input_arg
        names = [name for name in inspect.signature(make).parameters if name != "name"]
        inferred = {name for one in inputs for name in (one.type_attr, one.number_attr, one.type_list_attr)}
        left = [one for one in op.op_def.attr if one.name not in inferred]
        left.sort(key=lambda one: one.HasField("default_value"))
        counts = [one.number_attr or one.type_list_attr or None for one in inputs]
        _signatures[op.type] = make, names, counts, [one.name for one in left]
    return _signatures[op.type]


def _groups(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> int:
    axis = 1 if op.get_attr("data_format") == b"NCHW" else -1
    return (inputs[0].shape[axis] or 1) // (inputs[1].shape[-2] or 1)


def _grouped(op: tf.Operation, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """A convolution in groups, group by group: its slope is not to be had on every processor."""
    axis, groups = 1 if op.get_attr("data_format") == b"NCHW" else -1, _groups(op, inputs)
    (x, w), (_, down, right, _) = inputs, op.get_attr("strides")
    if axis == -1 and w.shape[2] == 1 and down == right and set(op.get_attr("dilations")) == {1}:
        each = tf.reshape(w, [*w.shape[:2], groups, -1])
        padding = op.get_attr("padding").decode()
        if padding == "EXPLICIT":
            around = op.get_attr("explicit_paddings")
            x, padding = tf.pad(x, [around[i : i + 2] for i in range(0, 8, 2)]), "VALID"
        return tf.nn.depthwise_conv2d(x, each, [1, down, right, 1], padding)
    parts = zip(tf.split(inputs[0], groups, axis), tf.split(inputs[1], groups, -1), strict=True)
    return tf.concat([replay(op, pair)[0] for pair in parts], axis)


def pull(
    op: tf.Operation, above: Sequence[tf.Tensor | None], free: Sequence[int], inputs: Sequence[tf.Tensor] | None = None
) -> list[tf.Tensor]:
    """The slope of sum{ above * outputs } by the inputs `free`, in float32 at least.

    Args:
        inputs: where it is taken; by default at the operation's own.
    """
    if op.type == "Cast":
        return [tf.cast(above[0], wide(op.inputs[0]).dtype)]
    if op.type in ("Identity", "StopGradient", "PreventGradient", "EnsureShape", "Snapshot", "CheckNumerics"):
        return [above[0]]
    if op.type == "IdentityN":
        return [above[i] if above[i] is not None else tf.zeros_like(wide(op.inputs[i])) for i in free]
    if op.type in ("Reshape", "Squeeze", "ExpandDims"):
        return [tf.reshape(above[0], tf.shape(op.inputs[0]))]
    points = [wide(one) for one in inputs or op.inputs]
    for i in free:  # the same tensor twice has a slope in each place
        points[i] = tf.identity(points[i])
    watched = [points[i] for i in free]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(watched)
        outputs = replay(op, points)
    pairs = [(out, one) for out, one in zip(outputs, above, strict=False) if one is not None]
    return tape.gradient(
        [out for out, _ in pairs], watched, output_gradients=[one for _, one in pairs], unconnected_gradients="zero"
    )


def fit(value: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """`value` summed over what `like` was broadcast along."""
    shapes = value.shape.as_list(), like.shape.as_list()
    if shapes[0] == shapes[1] and None not in shapes[0][1:]:  # rows are never broadcast
        return value
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(like), s1=tf.shape(value))[0]
    return tf.reshape(tf.reduce_sum(value, axes), tf.shape(like))


def wide(value: Any) -> tf.Tensor:
    """A tensor or variable, floats in float32 where they have less."""
    tensor = tf.convert_to_tensor(value)
    return tf.cast(tensor, widened(tensor.dtype))


def widened(dtype: tf.DType) -> tf.DType:
    """float32 in place of less."""
    return tf.float32 if dtype.is_floating and dtype.size < 4 else dtype
