"""Gradients that a ReLU changes on their way back: guided backpropagation and the deconvolutional network.

A tape cannot express a rule that is not linear in what comes from above; TensorFlow's symbolic gradients can, with the
gradient of an operation overridden where the model is traced.
"""

from collections.abc import Callable

import tensorflow as tf

from tfig import slices
from tfig.kernels.gradient import connected
from tfig.network import Leaves

RECTIFIERS = ("Relu", "Relu6", "LeakyRelu", "Elu", "Selu")


def _guided(op: tf.Operation, above: tf.Tensor) -> tf.Tensor:
    open_ = op.outputs[0] > 0
    if op.type == "Relu6":  # saturated, it lets nothing through
        open_ &= op.outputs[0] < 6
    return tf.where((above > 0) & open_, above, tf.zeros_like(above))


def _deconv(op: tf.Operation, above: tf.Tensor) -> tf.Tensor:
    return tf.maximum(above, tf.zeros_like(above))


# Registered once, for all models: nothing of a model is kept by it.
tf.RegisterGradient("tfig_guided")(_guided)
tf.RegisterGradient("tfig_deconv")(_deconv)


def overridden(score: Callable[[Leaves], tf.Tensor], x: Leaves, rule: str, name: str) -> Leaves:
    """dF/dx with ReLUs passing back by `rule`, "guided" or "deconv".

    Raises:
        ValueError: the model has no ReLU, or hides its operations in a function.
    """
    graph = tf.compat.v1.get_default_graph()
    begin = len(graph.get_operations())
    points = tuple(map(tf.identity, x))
    with slices.anew(), graph.gradient_override_map({kind: f"tfig_{rule}" for kind in RECTIFIERS}):
        value = score(points)
    made = {operation.type for operation in graph.get_operations()[begin:]}
    if not made & set(RECTIFIERS):
        raise ValueError(
            f"{name} changes how ReLUs pass back, and the model has none, or has them inside a function of its own; "
            "use a gradient or path method."
        )
    return connected(tf.gradients(value, points), points)
