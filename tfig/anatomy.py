"""What Keras layers are made of, as far as rules of propagation must know: linear maps, activations, sums, routing.

Everything that is not listed here has no rule, and saying so is better than a plain gradient.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L
from keras import ops

from tfig.rules import Linear

DENSE = (L.Dense, L.EinsumDense)
CONVOLUTIONS = (
    L.Conv1D, L.Conv2D, L.Conv3D, L.DepthwiseConv1D, L.DepthwiseConv2D, L.SeparableConv1D, L.SeparableConv2D,
    L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose,
)  # fmt: skip
AVERAGES = (
    L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D,
    L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D,
)  # fmt: skip
AFFINE = (L.BatchNormalization, L.Normalization, L.Rescaling)
AFFINE_OPS = {"Negative"}
ACTIVATIONS = tuple(
    getattr(L, name) for name in ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax") if hasattr(L, name)
)
MAXIMA = (
    L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D,
    L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D,
)  # fmt: skip
SUMS = (L.Add, L.Subtract, L.Average)
ROUTING = (
    L.InputLayer, L.Flatten, L.Reshape, L.Permute, L.RepeatVector, L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D,
    L.Cropping1D, L.Cropping2D, L.Cropping3D, L.UpSampling1D, L.UpSampling2D, L.UpSampling3D, L.Dropout,
    L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.GaussianDropout, L.GaussianNoise,
    L.ActivityRegularization, L.Concatenate, L.Identity, L.Maximum, L.Minimum,
)  # fmt: skip
"""Layers that only move, repeat or choose values: the plain gradient is their rule."""

STRETCHING = (
    ("padding", 0, (L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D)),
    ("cropping", 0, (L.Cropping1D, L.Cropping2D, L.Cropping3D)),
    ("size", 1, (L.UpSampling1D, L.UpSampling2D, L.UpSampling3D)),
)
"""(by which attribute, the value of it that changes nothing, layers)."""

# Operations of functional models that are not layers, by the names of their classes.
ACTIVATION_OPS = {
    "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Sigmoid", "Tanh", "Softplus", "Softsign",
    "HardSigmoid", "HardSilu", "HardTanh", "Softmax", "LogSigmoid", "Mish",
}  # fmt: skip
SUM_OPS = {"Add", "Subtract"}
ROUTING_OPS = {
    "Reshape", "Transpose", "Squeeze", "ExpandDims", "Concatenate", "Stack", "GetItem", "Pad", "Repeat", "Tile", "Flip",
    "Cast", "Max", "Maximum", "Minimum", "Moveaxis", "Swapaxes", "Ravel", "Split", "Identity", "BroadcastTo", "Roll",
    "MaxPool",
}  # fmt: skip

# Graph operations that may stand between layers: they move values and change nothing.
ROUTING_TYPES = {
    "Identity", "IdentityN", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose", "ConcatV2", "Pack", "Unpack",
    "Split", "SplitV", "StridedSlice", "Slice", "Pad", "PadV2", "MirrorPad", "GatherV2", "GatherNd", "Tile",
    "EnsureShape", "BroadcastTo", "ReverseV2", "Shape", "ZerosLike", "OnesLike", "Rank", "Size",
}  # fmt: skip

# What a function of each element alone is made of.
ELEMENTWISE = {
    "Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "Maximum", "Minimum", "Pow", "SquaredDifference",
    "Relu", "Relu6", "Elu", "Selu", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Erfc", "Exp",
    "Expm1", "Log", "Log1p", "Sqrt", "Rsqrt", "Square", "Neg", "Abs", "Sign", "Reciprocal", "Inv", "Sin", "Cos",
    "Atan", "Floor", "Round", "ClipByValue", "SelectV2", "Greater", "GreaterEqual", "Less", "LessEqual", "Equal",
    "NotEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "Identity", "Cast", "StopGradient", "ZerosLike", "OnesLike",
    "Shape", "BroadcastTo", "Fill",
}  # fmt: skip


def kind(part: Any, args: tuple = ()) -> str | None:
    """What a layer or operation is: linear, affine, average, activation, maximum, sum, routing, or None: unknown.

    Args:
        args: what it is called with: a product with what is known beforehand is affine.
    """
    for name, classes in (
        ("linear", DENSE + CONVOLUTIONS),
        ("affine", AFFINE),
        ("average", AVERAGES),
        ("activation", ACTIVATIONS),
        ("maximum", MAXIMA),
        ("sum", SUMS),
        ("routing", ROUTING),
    ):
        for one in classes:
            if isinstance(part, one) and type(part).call is one.call:
                return None if _odd(part) else name
    if isinstance(part, keras.Layer):
        return None
    named = type(part).__name__
    return (
        "activation" if named in ACTIVATION_OPS else "sum" if named in SUM_OPS else "routing" if named in ROUTING_OPS
        else "affine" if named in AFFINE_OPS or _factor(part, args) is not None else None
    )  # fmt: skip


def _odd(part: Any) -> bool:
    """Settings that make a layer something else."""
    bilinear = isinstance(part, L.UpSampling2D) and part.interpolation != "nearest"
    reflected = isinstance(part, L.PReLU) and part.alpha is None
    return bool(
        bilinear or reflected or getattr(part, "lora_enabled", False) or getattr(part, "quantization_mode", None)
    )


def stages(layer: keras.Layer) -> list[Linear]:
    """The linear maps of a layer, one after the other, before its activation."""
    bias = wide(layer.bias) if getattr(layer, "use_bias", True) and layer.bias is not None else 0.0
    if isinstance(layer, L.Dense):
        return [Linear(lambda x, w: tf.linalg.matmul(x, w) if len(x.shape) == 2 else tf.tensordot(x, w, 1),
                       wide(layer.kernel), bias)]  # fmt: skip
    if isinstance(layer, L.EinsumDense):
        return [Linear(lambda x, w: ops.einsum(layer.equation, x, w), wide(layer.kernel), bias)]
    return _convolution(layer, _channels(layer, bias))


def _convolution(layer: Any, bias: Any) -> list[Linear]:
    padding = "valid" if layer.padding == "causal" else layer.padding
    strides = layer.strides if len(set(layer.strides)) > 1 else layer.strides[0]
    common = {"strides": strides, "padding": padding, "data_format": layer.data_format}
    dilated = {**common, "dilation_rate": layer.dilation_rate}

    def padded(x: tf.Tensor) -> tf.Tensor:
        if layer.padding != "causal":
            return x
        before = [layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0]
        return ops.pad(
            x, [[0, 0], before, [0, 0]] if layer.data_format == "channels_last" else [[0, 0], [0, 0], before]
        )

    if isinstance(layer, (L.SeparableConv1D, L.SeparableConv2D)):
        one = {"strides": 1, "padding": "valid", "data_format": layer.data_format}
        return [
            Linear(lambda x, w: ops.depthwise_conv(padded(x), w, **dilated), wide(layer.depthwise_kernel), 0.0),
            Linear(lambda x, w: ops.conv(x, w, **one), wide(layer.pointwise_kernel), bias),
        ]
    kernel = wide(layer.kernel)
    if isinstance(layer, (L.DepthwiseConv1D, L.DepthwiseConv2D)):
        return [Linear(lambda x, w: ops.depthwise_conv(padded(x), w, **dilated), kernel, bias)]
    if isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)):
        spread = {**common, "output_padding": layer.output_padding, "dilation_rate": layer.dilation_rate}
        return [Linear(lambda x, w: ops.conv_transpose(x, w, **spread), kernel, bias)]
    return [Linear(lambda x, w: ops.conv(padded(x), w, **dilated), kernel, bias)]


def _channels(layer: Any, bias: Any) -> Any:
    """A bias per channel, shaped to be added."""
    if layer.data_format == "channels_last" or isinstance(bias, float):
        return bias
    return tf.reshape(bias, [1, -1, *[1] * len(layer.strides)])


def affine(layer: Any, args: tuple, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(scale, offset) of what scales each channel of x at inference, shaped to be broadcast to it."""
    if not isinstance(layer, keras.Layer):
        factor, dtype = _factor(layer, args), wide(x).dtype
        return tf.constant(-1.0 if factor is None else factor, dtype), tf.zeros([], dtype)
    dtype = "float64" if layer.compute_dtype == "float64" else "float32"
    if isinstance(layer, L.Rescaling):
        return tf.cast(layer.scale, dtype), tf.cast(layer.offset, dtype)
    if isinstance(layer, L.Normalization):
        deviation = tf.maximum(tf.sqrt(wide(layer.variance)), keras.config.epsilon())
        scale, offset = 1 / deviation, -wide(layer.mean) / deviation
        return (1 / scale, wide(layer.mean)) if layer.invert else (scale, offset)
    scale = tf.math.rsqrt(wide(layer.moving_variance) + layer.epsilon)
    scale = scale * wide(layer.gamma) if layer.scale else scale
    offset = -wide(layer.moving_mean) * scale
    offset = offset + wide(layer.beta) if layer.center else offset
    shape = [1] * len(x.shape)
    shape[layer.axis] = -1
    return tf.reshape(scale, shape), tf.reshape(offset, shape)


def _factor(part: Any, args: tuple) -> Any:
    """What an operation multiplies its one tensor with, where that is known beforehand; else None."""
    named = type(part).__name__
    if named not in ("Multiply", "TrueDivide", "Divide") or len(args) != 2:
        return None
    known = [tf.get_static_value(one) if tf.is_tensor(one) else one for one in args]
    if known[1] is not None and tf.is_tensor(args[0]):
        return known[1] if named == "Multiply" else 1 / np.asarray(known[1])
    return known[0] if named == "Multiply" else None


def leaves_all(part: Any) -> bool:
    """Whether a padding, cropping or enlarging layer pads, crops and enlarges by nothing."""
    return any(
        isinstance(part, kinds) and np.all(np.asarray(getattr(part, way)) == nothing)
        for way, nothing, kinds in STRETCHING
    )


def per_channel(layer: keras.Layer, scale: tf.Tensor, rank: int) -> bool:
    """Whether a scale of a layer's outputs, of `rank` axes, is one number, or one for each of its channels."""
    shape = [1] * (rank - len(scale.shape)) + scale.shape.as_list()
    channel = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    return all(size == 1 or axis == channel for axis, size in enumerate(shape))


def outwards(layer: keras.Layer, scale: tf.Tensor) -> tf.Tensor:
    """A scale for each output channel, shaped to be multiplied into the layer's weights."""
    vector = tf.reshape(scale, [-1])
    if isinstance(layer, (L.DepthwiseConv1D, L.DepthwiseConv2D)) and vector.shape[0] != 1:
        return tf.reshape(vector, [-1, layer.depth_multiplier])
    transposed = isinstance(layer, (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose))
    return vector[:, tf.newaxis] if transposed else vector


def wide(value: Any) -> tf.Tensor:
    """A tensor or variable, in float32 where it has less."""
    tensor = tf.convert_to_tensor(value)
    return tf.cast(tensor, tf.float32) if tensor.dtype.size < 4 else tensor
