"""Functions of tensors, traced once: the only tf.function; and parts of them."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfig import slices

_place: contextvars.ContextVar[str | None] = contextvars.ContextVar("place", default=None)


@contextlib.contextmanager
def placed(device: str | None, strategy: tf.distribute.Strategy | None = None) -> Iterator[None]:
    """Functions traced here are for a device and run on it, and read the copies of variables that a strategy keeps
    there."""
    before = _place.set(device)
    try:
        with contextlib.nullcontext() if strategy is None else strategy.scope(), tf.device(device):
            yield
    finally:
        _place.reset(before)


def place() -> str | None:
    """The device that functions are traced for; None: any."""
    return _place.get()


def traced(body: Callable[..., Any], signature: Sequence[Any]) -> Any:
    """A function of tensors, traced once, while nobody else replaces layers."""
    device = place()

    def there(*arguments: Any) -> Any:
        with tf.device(device):
            return body(*arguments)

    with slices.LOCK:
        made = tf.function(there if device else body, input_signature=signature, autograph=False)
        return made.get_concrete_function()


def part(function: Any, definition: tf.compat.v1.GraphDef, inputs: int, wanted: tf.Tensor) -> Any:
    """What a traced function makes of its first inputs in the beginning, when its graph was this, as one of its own.

    A call of the whole gives the same. But a session looks for what nobody needs only when it has taken all of it
    apart: an export that reads outputs through functions that also differentiate takes three times as long to warm up.
    """
    own, others = function.inputs[:inputs], {inside.op.name for inside in function.inputs[inputs:]}
    names = {node.name for node in definition.node}
    held = [(outside, inside.name) for outside, inside in function.graph.captures if inside.op.name in names]
    kept = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
    kept.node.extend(node for node in definition.node if node.name not in others)
    for node in kept.node:
        if "_gradient_op_type" in node.attr:  # of the whole's tensors, which a SavedModel cannot find here
            node.attr["_gradient_op_type"].s = b"of what is only read"

    def body(*leaves: tf.Tensor) -> tf.Tensor:
        capture = tf.compat.v1.get_default_graph().capture
        given = {inside.name: leaf for inside, leaf in zip(own, leaves, strict=True)}
        given |= {inside: capture(outside) for outside, inside in held}
        return tf.graph_util.import_graph_def(kept, given, [wanted.name], name="")[0]

    return traced(body, [tf.TensorSpec(inside.shape, inside.dtype) for inside in own])
