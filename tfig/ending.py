"""How a model ends: logits and probabilities, opened and converted either way.

The traced graph is walked back from the outputs through what only reshapes them to a softmax or sigmoid, so it does not
matter whether that is a Dense layer's activation, a layer, an operation, nested or in a subclass.
"""

import tensorflow as tf

from tfig.network import Leaves


def converted(
    outputs: tf.Tensor, output: str | None, points: Leaves, independent: bool = False
) -> tuple[tf.Tensor, str]:
    """(outputs as `output` asks for, how they end); the probabilities of `independent` logits are sigmoids."""
    end, logits = _ending(outputs, points)
    values = outputs
    if output == "logits":
        if logits is None:
            raise ValueError(_refusal(end))
        values = logits
    elif output == "probabilities":
        if end.startswith(("hidden in", "clipping by")):
            raise ValueError(_refusal(end))
        if end in ("open", "LogSoftmax"):
            alone = independent or outputs.shape.rank == 1 or outputs.shape[-1] == 1
            values = tf.nn.sigmoid(outputs) if alone and end == "open" else tf.nn.softmax(outputs)
    return (tf.cast(values, tf.float32) if values.dtype.size < 4 else values), end


def _refusal(end: str) -> str:
    if end.startswith("hidden in"):
        found = f"the end of the model is {end}, so tfig cannot see whether it emits logits or probabilities"
    else:
        found = f"the model's outputs come from {end}, from which the logits cannot be recovered"
    return (
        found
        + "; pass output=None to explain what the model emits, or a model that ends in logits, softmax or sigmoid."
    )


_RESHAPING = ("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient", "EnsureShape")
_MOVING = ("ConcatV2", "Pack", "StridedSlice", "Slice", "Transpose", "ReverseV2", "GatherV2", "GatherNd", "Pad", "Tile")
_ARITHMETIC = (
    "AddV2",
    "Add",
    "AddN",
    "Sub",
    "Mul",
    "RealDiv",
    "Div",
    "Neg",
    "Mean",
    "Sum",
    "Log",
    "Square",
    "Pow",
)
_CLIPPING = ("Maximum", "Minimum", "ClipByValue", "Relu6")
_NORMALISING = ("LogSoftmax", "Exp", "RealDiv", "Div", "Reciprocal", "Inv", "Softplus", "Tanh", "Erf")
_CALLS = (
    "PartitionedCall",
    "StatefulPartitionedCall",
    "If",
    "While",
    "StatelessWhile",
    "StatelessIf",
    "Case",
    "PyFunc",
)


def _ending(outputs: tf.Tensor, points: Leaves) -> tuple[str, tf.Tensor | None]:
    """How a traced output ends, and its logits where they can be reached.

    Returns:
        ("Softmax" or "Sigmoid", logits), ("open", the outputs: they are the logits), or, with None,
        "LogSoftmax", a mixture such as "AddV2 of Softmax", or "hidden in <call>".
    """
    tensor = outputs
    while tensor.op.type in _RESHAPING and not any(tensor is point for point in points):
        tensor = tensor.op.inputs[0]
    if any(tensor is point for point in points):
        return "open", outputs
    op = tensor.op
    if op.type in ("Softmax", "Sigmoid"):
        logits = tf.cast(op.inputs[0], outputs.dtype)
        return op.type, logits if logits.shape.rank == outputs.shape.rank else tf.reshape(logits, tf.shape(outputs))
    if op.type in _CALLS:
        return f"hidden in {op.type}", None
    if _inside(op, 8):
        return f"{op.type} of {_inside(op, 8)}", None
    if op.type in _NORMALISING and not _by_constant(op):
        return op.type, None
    # A hard sigmoid is a line, clipped, and scaled to end at one.
    scaled = op.inputs[0].op if _by_constant(op) else op
    return (f"clipping by {scaled.type}", None) if scaled.type in _CLIPPING else ("open", outputs)


def _inside(op: tf.Operation, depth: int) -> str | None:
    """The softmax or sigmoid of which `op` is a mixture, a part, a clipping or another function."""
    if op.type in ("Softmax", "Sigmoid"):
        return op.type
    if depth == 0 or op.type not in _RESHAPING + _MOVING + _ARITHMETIC + _CLIPPING:
        return None
    found = [_inside(tensor.op, depth - 1) for tensor in op.inputs if tensor.op.type != "Const"]
    everything = op.type in _ARITHMETIC and len(found) > 1
    return next(filter(None, found), None) if not everything or all(found) else None


def _by_constant(op: tf.Operation) -> bool:
    """Whether `op` only scales: division by a constant."""
    return len(op.inputs) == 2 and op.inputs[1].op.type == "Const"
