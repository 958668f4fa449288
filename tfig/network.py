"""A model as a function of the leaves of its input: how it is called, and cut, while a program is traced."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfig import slices
from tfig.entry import Leaf, serving_signature
from tfig.layout import moved

Leaves = tuple[tf.Tensor, ...]


class Network:
    """A Keras model, a loaded SavedModel or a callable, held weakly, as a function of its input leaves, channels last.

    Args:
        model: what was given to `tfig.explain`.
        structure: the nest of the user's x, with a `Leaf` at each place.
    """

    def __init__(self, model: Any, structure: Any):
        self.model = reference(model)
        self.structure = structure
        self.leaves: list[Leaf] = tf.nest.flatten(structure)

    @property
    def explained(self) -> list[Leaf]:
        """The inputs that are attributed."""
        return [leaf for leaf in self.leaves if leaf.explained]

    @property
    def half(self) -> bool:
        """Whether some layer computes in float16, where small gradients vanish."""
        return any(layer.compute_dtype == "float16" for layer in slices.layers(self.model()))

    @property
    def dtype(self) -> tf.DType:
        """What scores and attributions are computed in."""
        precise = any(leaf.precise or leaf.dtype == "float64" for leaf in self.leaves)
        return tf.float64 if precise else tf.float32

    def __call__(self, x: Sequence[tf.Tensor]) -> Any:
        """The model's outputs for the leaves `x`, never in training mode; losses are not left behind."""
        model = self.model()
        if model is None:
            raise ReferenceError("the model of this program is gone; keep a reference to it while explaining.")
        cast = [
            tf.cast(leaf.outer_of(value), leaf.dtype) if leaf.explained else value
            for value, leaf in zip(x, self.leaves, strict=True)
        ]
        inputs = tf.nest.pack_sequence_as(self.structure, cast)
        if isinstance(model, keras.Layer):
            with slices.untouched(model):
                return model(inputs, training=False)
        signature = serving_signature(model)
        if signature is not None:
            outputs = signature(**{leaf.name: value for leaf, value in zip(self.leaves, cast, strict=True)})
            return next(iter(outputs.values())) if len(outputs) == 1 else outputs
        try:
            return model(inputs)
        except (TypeError, AttributeError, NotImplementedError) as error:
            raise ValueError(
                f"the function failed on TensorFlow tensors ({type(error).__name__}: {error}); it must be made of "
                "TensorFlow operations, which NumPy and model.predict are not: pass the model itself."
            ) from error

    def merge(self, points: Leaves, constants: Leaves) -> Leaves:
        """All leaves in order, from the explained ones and those held constant."""
        explained, held = iter(points), iter(constants)
        return tuple(next(explained) if leaf.explained else next(held) for leaf in self.leaves)

    def inner(self, x: Sequence[Any]) -> tuple[Any, ...]:
        """Explained leaves as the user gives them, as methods see them."""
        return tuple(leaf.inner_of(value) for value, leaf in zip(x, self.explained, strict=bool(x)))

    def outer(self, x: Leaves) -> Leaves:
        """Explained leaves as methods see them, as the user gives them."""
        return tuple(leaf.outer_of(value) for value, leaf in zip(x, self.explained, strict=bool(x)))

    def split(self, x: Sequence[tf.Tensor]) -> tuple[Leaves, Leaves]:
        """(explained leaves, constant leaves)."""
        pairs = list(zip(x, self.leaves, strict=True))
        return tuple(v for v, leaf in pairs if leaf.explained), tuple(v for v, leaf in pairs if not leaf.explained)


class Cut:
    """A network cut at the output of a layer: the half before it, and the half after it.

    A layer called several times is cut at its last call, an embedding at its first: what comes later is often the
    head of a language model that has the same weights.

    Args:
        network: what is cut.
        layer: where.
        channels: the axis of channels of the layer's outputs, -1 or 1.
        which: of its calls, from 0, or from the last, -1.

    Attributes:
        calls: how often the layer was called on the way, once `features` has been asked for.
        call: which of these it is cut at, from 0.
    """

    def __init__(self, network: Network, layer: keras.Layer, channels: int = -1, which: int | None = None):
        self.network, self.layer, self.channels = network, layer, channels
        first = isinstance(layer, keras.layers.Embedding)
        self._which = which if which is not None else 0 if first else -1
        self.calls = self.call = 0

    def features(self, x: Leaves) -> Leaves:
        """The floating-point outputs of the layer, channels last, in the dtype they are explained in."""
        return self.observed(x)[0]

    def observed(self, x: Leaves) -> tuple[Leaves, Any]:
        """(the same, the model's outputs).

        Raises:
            ValueError: the layer is not called on the way, or has no floating-point output.
        """
        seen, outputs = slices.observe(self.layer, lambda: self.network(x))
        self.calls = len(seen)
        if not -self.calls <= self._which < self.calls:
            raise ValueError(
                f"layer {self.layer.name!r} has no call {self._which}: it is called {self.calls} time(s) on the way, "
                f"0 to {self.calls - 1}."
            )
        self.call = self._which % self.calls
        floats = [leaf for leaf in tf.nest.flatten(seen[self.call]) if leaf.dtype.is_floating]
        if not floats:
            kinds = ", ".join(leaf.dtype.name for leaf in tf.nest.flatten(seen[self.call]))
            raise ValueError(
                f"layer {self.layer.name!r} gives {kinds}, and only floating-point outputs can be explained; "
                "choose a later layer."
            )
        if any(leaf.shape.rank == 0 or leaf.shape[0] is not None for leaf in floats):
            raise ValueError(
                f"layer {self.layer.name!r} gives shape {floats[0].shape.as_list()}, one output for all rows; only a "
                "layer with an output for each row can be explained."
            )
        return self.inner(tuple(tf.cast(leaf, self.network.dtype) for leaf in floats)), outputs

    def inner(self, values: Leaves) -> Leaves:
        """Values at the layer, with channels last."""
        return tuple(moved(value, self.channels) for value in values)

    def outer(self, values: Leaves) -> Leaves:
        """Values with channels last, as the layer has them."""
        return tuple(moved(value, self.channels, back=True) for value in values)

    def outputs(self, values: Leaves, x: Leaves) -> Any:
        """The model's outputs for the leaves `x` with the layer's output replaced by `values`."""
        return slices.replace(self.layer, lambda: self.network(x), list(self.outer(values)), self.call + 1)


def reference(model: Any) -> Callable[[], Any]:
    """A weak reference to the model, also where it is a bound method."""
    if hasattr(model, "__self__") and hasattr(model, "__func__"):
        return weakref.WeakMethod(model)
    return weakref.ref(model)
