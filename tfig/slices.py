"""The one place that touches Keras layers: observe or replace a layer's call while a program is traced.

A layer's ``call`` is replaced on the instance for the length of one trace and restored afterwards. This reaches
layers inside nested, shared-layer and subclassed models, and leaves skip connections around the layer at the
original input, which rebuilding a model from ``layer.output`` does not.
"""

import contextlib
import difflib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfig import fingerprint

LOCK = threading.RLock()
"""Held while layers are intercepted: two traces never see each other's replacements."""


_anew: list[None] = []


def changed() -> bool:
    """Whether models are traced otherwise than they are just now, so that no trace of another time stands for them."""
    return bool(_anew)


@contextlib.contextmanager
def anew() -> Iterator[None]:
    """While open, models are traced anew for what is computed, and not by a trace that others share."""
    with LOCK:
        _anew.append(None)
        try:
            yield
        finally:
            _anew.pop()


@contextlib.contextmanager
def intercept(layer: keras.Layer, replacement: Callable[..., Any], method: str = "call") -> Iterator[None]:
    """While open, ``layer(*args)`` runs ``replacement(original_call, *args)``, in this thread only."""
    with anew(), _instead(layer, replacement, method):
        yield


@contextlib.contextmanager
def _instead(layer: keras.Layer, replacement: Callable[..., Any], method: str) -> Iterator[None]:
    with LOCK:
        original, owner, before = getattr(layer, method), threading.get_ident(), vars(layer).get(method)

        def call(*args, **kwargs):
            if threading.get_ident() != owner:
                return original(*args, **kwargs)
            return replacement(original, *args, **kwargs)

        object.__setattr__(layer, method, call)
        try:
            yield
        finally:
            if before is None:
                object.__delattr__(layer, method)
            else:
                object.__setattr__(layer, method, before)


@contextlib.contextmanager
def untouched(model: keras.Layer) -> Iterator[None]:
    """While open, calls of `model` leave no losses and no updates behind, and keep those that were there.

    A stateless scope takes what a call would add; a call also begins by clearing the losses of the last one.
    """
    with keras.StatelessScope(), _instead(model, lambda clear: None, "_clear_losses"):
        yield


def observe(layer: keras.Layer, call: Callable[[], Any]) -> tuple[list[Any], Any]:
    """(what `layer` returned at each of its calls while ``call()`` ran, what that returned).

    Raises:
        ValueError: the layer was not called, or was called inside a loop or by a wrapper that calls it once a step,
            where "its output" has no single value.
    """
    seen: list[Any] = []

    def record(original, *args, **kwargs):
        output = original(*args, **kwargs)
        seen.append(output)
        return output

    with intercept(layer, record):
        outputs = call()
    if not seen:
        kind = type(layer).__name__
        hint = "it is the input itself: leave layer= out" if kind == "InputLayer" else "choose a layer on the way"
        raise ValueError(
            f"layer {layer.name!r} ({kind}) is not called on the way from the input to the output; {hint}."
        )
    if getattr(tf.nest.flatten(seen[-1])[0], "graph", None) is not getattr(tf.nest.flatten(outputs)[0], "graph", None):
        raise ValueError(
            f"layer {layer.name!r} is called inside a loop, once a step, so it has no single output; "
            "pass the layer that runs the loop."
        )
    return seen, outputs


def replace(layer: keras.Layer, call: Callable[[], Any], values: list[tf.Tensor], nth: int) -> Any:
    """``call()`` with the output of `layer` at its `nth` call (from 1) replaced by `values`, cast to its dtype."""
    hits = 0

    def swap(original, *args, **kwargs):
        nonlocal hits
        hits += 1
        output = original(*args, **kwargs)
        if hits != nth:
            return output
        leaves = tf.nest.flatten(output)
        floats = iter(values)
        return tf.nest.pack_sequence_as(
            output, [tf.cast(next(floats), leaf.dtype) if leaf.dtype.is_floating else leaf for leaf in leaves]
        )

    with intercept(layer, swap):
        return call()


Handler = Callable[..., Any]
"""(layer or operation, its own call, *args, **kwargs) -> its output: what takes the place of a call."""


def rerule(model: Any, handler: Handler) -> contextlib.AbstractContextManager:
    """While open, calls of layers without layers inside, and of a functional model's operations, are `handler`'s.

    Raises:
        ValueError: the model is none of Keras', so nothing of it can be reached.
    """
    reachable(model)
    everything = [model, *layers(model)]
    found: list[Any] = [layer for layer in everything if not layers(layer)]
    found += [
        operation
        for one in everything
        if isinstance(one, keras.Model) and hasattr(one, "operations")
        for operation in one.operations
        if not isinstance(operation, keras.Layer)
    ]
    return _unrolled(loops(model), _intercepted(found, handler))


def loops(model: Any) -> list[keras.Layer]:
    """The layers of a model that loop over time."""
    return [layer for layer in [model, *layers(model)] if isinstance(layer, keras.layers.RNN)]


@contextlib.contextmanager
def _unrolled(recurrent: list[keras.Layer], inner: contextlib.AbstractContextManager) -> Iterator[None]:
    """While open, loops over a known number of steps are unrolled, so that each step can be reached."""

    def steps(layer: Any, original: Any, sequences: Any, initial_state: Any, mask: Any, **kwargs: Any) -> Any:
        plain = {
            "unroll": tf.nest.flatten(sequences)[0].shape[1] is not None,
            "use_cudnn": False,
            "go_backwards": False,
        }
        kept = {name: getattr(layer, name) for name in plain if hasattr(layer, name)}
        if layer.go_backwards:  # turned here: Keras, unrolling, would not turn the mask of the outputs
            sequences = tf.nest.map_structure(lambda one: tf.reverse(one, [1]), sequences)
            mask = None if mask is None else tf.reverse(mask, [1])
        for name in kept:
            setattr(layer, name, plain[name])
        try:
            return original(sequences, initial_state, mask, **kwargs)
        finally:
            for name, value in kept.items():
                setattr(layer, name, value)

    with contextlib.ExitStack() as stack:
        for layer in recurrent:
            stack.enter_context(intercept(layer, functools.partial(steps, layer), "inner_loop"))
        with inner:
            yield


def reachable(model: Any) -> None:
    """Raise ValueError if the model is none of Keras', so that nothing of it can be reached."""
    if not isinstance(model, keras.Layer):
        raise ValueError(
            f"this method needs a Keras model, whose layers it can reach, and {type(model).__name__} is none; pass the "
            "Keras model, or use a gradient or path method."
        )


def watched(model: Any, handler: Handler) -> contextlib.AbstractContextManager:
    """While open, calls of all layers inside `model`, those with layers inside too, are `handler`'s."""
    inner = [layer for layer in layers(model) if not isinstance(layer, keras.layers.InputLayer)]
    alone = isinstance(model, keras.Layer) and not inner
    return _intercepted([model] if alone else inner, handler)


@contextlib.contextmanager
def _intercepted(parts: list[Any], handler: Handler) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for part in {id(part): part for part in parts}.values():

            def call(original, *args, part=part, **kwargs):
                return handler(part, original, *args, **kwargs)

            # Keras calls quantised layers by another method.
            other = quantised(part) and hasattr(part, "quantized_call")
            stack.enter_context(intercept(part, call, "quantized_call" if other else "call"))
        yield


def quantised(part: Any) -> bool:
    """Whether a layer computes with whole numbers."""
    policy = getattr(getattr(part, "dtype_policy", None), "name", "")
    return bool(getattr(part, "quantization_mode", None)) or policy.startswith(("int8", "int4"))


def nothing(handler: Handler) -> contextlib.AbstractContextManager:
    """Of no model: there is nothing to reach."""
    return rerule(None, handler)


def layers(model: Any) -> list[keras.Layer]:
    """Every layer inside `model`, nested ones included, in the order of creation; none for what is no Keras model."""
    found = model._flatten_layers(include_self=False) if isinstance(model, keras.Layer) else ()
    return list({id(layer): layer for layer in found}.values())


def paths(model: keras.Layer) -> dict[str, keras.Layer]:
    """Every layer inside `model` by its name with those of the models around it: ``backbone/conv5``."""
    found: dict[str, keras.Layer] = {}
    for child in model._flatten_layers(include_self=False, recursive=False):
        found[child.name] = child
        found.update({f"{child.name}/{inner}": layer for inner, layer in paths(child).items()})
    return found


def address(model: Any, layer: keras.Layer) -> str:
    """The name by which `find` finds a layer: its own, or its path where others have the same."""
    known = paths(model)
    if sum(one.name == layer.name for one in {id(one): one for one in known.values()}.values()) == 1:
        return layer.name
    return next((path for path, one in known.items() if one is layer), layer.name)


def turned(model: Any) -> bool:
    """Whether layers of the model put channels before positions, or change the order of axes."""
    parts = [part for one in (model, *layers(model)) for part in (one, *getattr(one, "operations", ()))]
    return any(
        getattr(part, "data_format", None) == "channels_first" or type(part).__name__ in ("Permute", "Transpose")
        for part in parts
    )


def precise(model: Any) -> bool:
    """Whether some layer of the model computes in float64."""
    return any(layer.compute_dtype == "float64" for layer in layers(model))


def place(model: Any, layer: Any) -> keras.Layer | tuple[keras.Layer, int]:
    """What `layer=` stands for: a layer, or one of its calls, from 0, or from the last, -1: ``embedding:0``.

    Raises:
        ValueError: as `find`.
    """
    if isinstance(layer, str):
        name, _, number = layer.rpartition(":")
        if name and number.removeprefix("-").isdecimal():
            return find(model, name), int(number)
    if isinstance(layer, tuple) and len(layer) == 2 and isinstance(layer[1], int):
        return find(model, layer[0]), layer[1]
    return find(model, layer)


def find(model: Any, layer: str | keras.Layer) -> keras.Layer:
    """The layer of `model` that a name, a path (``backbone/conv5``) or a layer object stands for.

    Raises:
        ValueError: no such layer (with close matches), several of that name, or one that a wrapper calls once a step.
    """
    everything = layers(model)
    if not everything:
        raise ValueError(f"layer= needs a Keras model, and {type(model).__name__} is none; leave layer= out.")
    if isinstance(layer, str):
        known = paths(model)
        named = {id(one): (path, one) for path, one in known.items() if path == layer or path.endswith("/" + layer)}
        if layer in known:
            named = {0: (layer, known[layer])}
        if len(named) > 1:
            shown = ", ".join(repr(path) for path, _ in named.values())
            raise ValueError(
                f"{len(named)} layers are named {layer!r}: {shown}; pass one of these paths, or the layer."
            )
        if not named:
            close = difflib.get_close_matches(layer, {*known, *(one.name for one in everything)}, 3) or list(known)[-8:]
            raise ValueError(f"no layer {layer!r} in model {model.name!r}; did you mean one of {', '.join(close)}?")
        ((_, layer),) = named.values()
    elif not isinstance(layer, keras.Layer):
        raise ValueError(f"layer is {layer!r}; pass a layer's name, its path or the layer itself.")
    elif not any(layer is one for one in everything):
        raise ValueError(f"layer {getattr(layer, 'name', layer)!r} is not part of model {model.name!r}.")
    for wrapper in everything:
        if isinstance(wrapper, keras.layers.TimeDistributed) and any(layer is one for one in layers(wrapper)):
            raise ValueError(
                f"layer {layer.name!r} is called once a step by {wrapper.name!r} (TimeDistributed), so it has no "
                f"single output; pass layer={wrapper.name!r}."
            )
    return layer


def state(model: Any) -> tuple:
    """What a trace of `model` depends on and a user may change: variables, activations, flags, and what calls read."""
    if not isinstance(model, keras.Layer):
        return ()
    flags = [(id(getattr(layer, "activation", None)), _settings(layer)) for layer in [model, *layers(model)]]
    return (tuple(map(id, model.variables)), tuple(flags))


def _settings(layer: keras.Layer) -> tuple:
    """A layer's numbers, flags and words; of a class of the user's, whatever its call reads, by value."""
    found = {name: value for name, value in vars(layer).items() if type(value) in (bool, int, float, str)}
    found = {name: value for name, value in found.items() if name[0] != "_" and name != "built"}
    settings: tuple = (layer.trainable, *found.items())
    call = type(layer).call
    if not type(layer).__module__.startswith("keras."):
        read = fingerprint.read_by(call, layer)
        given = {name: value for name, value in read.items() if name not in found}
        settings += (fingerprint.of(given), fingerprint.surroundings(call))
    elif isinstance(layer, keras.layers.Lambda):
        settings += (fingerprint.of([layer.function, layer.arguments]),)
    return settings
