"""What one look at a traced model shows: its layers in their order, its last feature map, where channels are."""

import dataclasses
import functools
import operator
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfig import arguments, layout, slices
from tfig.entry import Leaf
from tfig.graph import ancestors, depending
from tfig.memory import Store, remembered, store
from tfig.network import Network
from tfig.score import Quantity, apply
from tfig.tracing import traced

WHOLE = Quantity()
"""All outputs of a model."""

LOOPING = (keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed)


class LookedUp(NamedTuple):
    """An embedding, the inputs that its indices are computed of, by number, and those that are its indices."""

    layer: weakref.ref[keras.Layer]
    inputs: tuple[int, ...]
    plain: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Survey:
    """What one look at a traced model shows.

    Fields:
        called: the layers without layers inside, in the order of calls, weakly.
        channels: the axis of each input's channels, -1 or 1.
        features: the axis of channels of each layer's last output, by the layer's id.
        last: the layers whose maps end side by side: with all positions of an input, before anything else has them.
        shown: the layer of each size of maps with the most channels, by name, with its shape.
        spatial: whether the output itself has positions of the input.
        looked_up: the embeddings that inputs are looked up in, and which inputs, by number.
    """

    called: tuple[weakref.ref[keras.Layer], ...]
    channels: tuple[int, ...]
    features: dict[int, int]
    last: tuple[weakref.ref[keras.Layer], ...]
    shown: dict[str, list[int | None]]
    spatial: bool
    looked_up: tuple[LookedUp, ...] = ()


def survey(model: Any, structure: Any, quantity: Quantity = WHOLE) -> Survey:
    """Trace the model once, and look; it is looked at again when it has changed, or another quantity is asked of.

    Args:
        quantity: what is read off the outputs; by default all of them.
    """
    flat = tf.nest.map_structure(lambda leaf: dataclasses.replace(leaf, channels=-1), structure)
    network = Network(model, flat)

    def key() -> tuple:
        # Layers that are gone are equal to none, whatever has their ids now.
        parts = tuple(map(weakref.ref, slices.layers(model)))
        return tuple(network.leaves), parts, *quantity.key

    def look() -> Survey:
        found: list[Survey] = []

        def trace(*x):
            seen: list[Call] = []

            def record(layer: keras.Layer, call: Any, *args: Any, **kwargs: Any) -> Any:
                output = call(*args, **kwargs)
                tensors = [leaf for leaf in tf.nest.flatten(output) if tf.is_symbolic_tensor(leaf)]
                if tensors:
                    seen.append(Call(layer, args[0] if args else None, tensors[0]))
                return output

            with slices.watched(model, record):
                outputs = network(x)
            found[:] = [_looked_at(x, seen, *_read(outputs, quantity))]
            return outputs

        traced(trace, [leaf.spec for leaf in network.leaves])
        return found[0]

    return remembered(_surveys, model, key, look)


def _read(outputs: Any, quantity: Quantity) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """(what a quantity is, the outputs that it is read off)."""
    if quantity is WHOLE:
        return tf.nest.flatten(outputs), tf.nest.flatten(outputs)
    values, _ = dataclasses.replace(quantity, output=None).read(outputs)
    if quantity.function is not None:
        rows = tf.shape(tf.nest.flatten(values)[0])[:1]
        aside = (tf.zeros(tf.concat([rows, shape], 0), dtype) for shape, dtype in quantity.aside)
        return [apply(quantity.function, values, *aside)], tf.nest.flatten(values)
    return [values], tf.nest.flatten(values)


class Call(NamedTuple):
    """A call of a layer: what it was given first, and the first tensor that it gave."""

    layer: keras.Layer
    given: Any
    output: tf.Tensor


def _looked_at(x: Sequence[tf.Tensor], seen: list[Call], score: list[tf.Tensor], read: list[tf.Tensor]) -> Survey:
    graph = tf.compat.v1.get_default_graph()
    outer = [one for one in seen if one.output.graph is graph]
    # What keeps the steps of a sequence in their order does so by loops, in which no axis can be followed.
    kept = {
        one.output.name: one.given
        for one in outer
        if isinstance(one.layer, LOOPING) and tf.is_tensor(one.given) and (one.output.shape.rank or 0) > 2
    }
    trail = layout.follow(x, kept, graph.get_operations())
    # Of inputs that are held nothing is explained.
    floating = [leaf.dtype.is_floating for leaf in x]
    ranks = [len(leaf.shape) if kind or not any(floating) else None for leaf, kind in zip(x, floating, strict=True)]
    behind, ends = ancestors(score), {id(one) for one in read}
    maps: dict[int, Call] = {}
    for one in outer:  # what a layer hands through, or hands on from inside, is its maker's
        made = one.output is not one.given and not isinstance(one.layer, (keras.layers.Permute, keras.layers.Masking))
        made = made and one.output.op.name in behind and id(one.output) not in ends
        if made and one.output.dtype.is_floating and trail.is_map(one.output, ranks):
            maps.setdefault(id(one.output), one)
    sizes: dict[tuple, Call] = {}
    for one in maps.values():  # of each size the one with the most channels, the last of equals
        size = tuple(one.output.shape[1:-1])
        if size not in sizes or (one.output.shape[-1] or 0) >= (sizes[size].output.shape[-1] or 0):
            sizes[size] = one
    return Survey(
        called=tuple(weakref.ref(one.layer) for one in seen if not slices.layers(one.layer)),
        channels=tuple(1 if trail.channels.get(i) == 1 else -1 for i in range(len(x))),
        features={id(one.layer): trail.channel_axis(one.output) for one in outer},
        last=tuple(weakref.ref(layer) for layer in _ends(list(maps.values()), graph.get_operations())),
        shown={one.layer.name: one.output.shape.as_list() for one in sizes.values()},
        spatial=any(any(trail.positions(one)) for one in read if one.op.name in behind and (one.shape.rank or 0) > 2),
        looked_up=_looked_up(x, outer),
    )


def _looked_up(x: Sequence[tf.Tensor], seen: list[Call]) -> tuple[LookedUp, ...]:
    """Embeddings whose indices are computed of the values of inputs, at the first call that is."""
    seen = [one for one in seen if isinstance(one.layer, keras.layers.Embedding) and tf.is_symbolic_tensor(one.given)]
    operations = tf.compat.v1.get_default_graph().get_operations() if seen else []
    of = [{op.name for op in depending(operations, [leaf])} | {leaf.op.name} for leaf in x]
    found: dict[int, LookedUp] = {}
    for one in seen:
        inputs = tuple(i for i, names in enumerate(of) if one.given.op.name in names)
        if inputs and one.given.dtype.is_integer:
            op = one.given.op
            while op.type in ("Cast", "Identity"):
                op = op.inputs[0].op
            plain = tuple(i for i in inputs if x[i].op is op)
            found.setdefault(id(one.layer), LookedUp(weakref.ref(one.layer), inputs, plain))
    return tuple(found.values())


def _ends(maps: list[Call], operations: Iterable[tf.Operation]) -> list[keras.Layer]:
    """The layers from whose maps no other map is computed."""
    own: dict[str, int] = {}
    for i, one in enumerate(maps):
        own[one.output.op.name] = own.get(one.output.op.name, 0) | 1 << i
    reached: dict[str, int] = {}
    used = 0
    for op in operations:
        before = functools.reduce(operator.or_, (reached[tensor.op.name] for tensor in op.inputs), 0)
        mine = own.get(op.name, 0)
        used |= before if mine else 0
        reached[op.name] = before | mine
    return [one.layer for i, one in enumerate(maps) if not used >> i & 1]


def last_map(model: Any, structure: Any, quantity: Quantity) -> keras.Layer:
    """The layer whose map is the last with the positions of the input in their order, nested layers included.

    Raises:
        ValueError: there is none, or no single one, naming what there is; or the model is none of Keras'.
    """
    slices.reachable(model)
    found = survey(model, structure, quantity)
    candidates = ", ".join(f"{name!r} {shape}" for name, shape in list(found.shown.items())[-6:])
    if not found.shown:
        raise ValueError(
            f"model {model.name!r} has no feature map in which the positions of its input can be followed, "
            "[B, H, W, C]; pass layer=."
        )
    if found.spatial:
        raise ValueError(f"the output of model {model.name!r} is itself a map; pass layer=, such as {candidates}.")
    if len(found.last) > 1:
        ends = sorted({layer.name for layer in (one() for one in found.last) if layer is not None})
        raise ValueError(
            f"{len(found.last)} maps of model {model.name!r} end side by side, of {', '.join(map(repr, ends))}; "
            f"pass layer=, such as {candidates}."
        )
    return found.last[0]()


def oriented(model: Any, structure: Any) -> Any:
    """The nest of leaves, each with the axis of its channels.

    The model is looked at only where something speaks for channels that are not last.
    """
    leaves: list[Leaf] = tf.nest.flatten(structure)
    if not slices.turned(model) and not any(leaf.looks_turned for leaf in leaves):
        return structure
    found = [
        dataclasses.replace(leaf, channels=axis if leaf.floating and len(leaf.shape) > 2 else -1)
        for leaf, axis in zip(leaves, survey(model, structure).channels, strict=True)
    ]
    return tf.nest.pack_sequence_as(structure, found)


_surveys: Store[Survey] = store()


def looked_up(model: Any, structure: Any) -> tuple[LookedUp, ...]:
    """The embeddings that inputs are looked up in; none where the model's layers cannot be reached."""
    return survey(model, structure).looked_up if isinstance(model, keras.Layer) else ()


def switched(model: Any, structure: Any, held: Sequence[int] | None, flags: Sequence[int] = ()) -> Any:
    """The nest of inputs with those marked that are switched between x and a baseline, and those in which 0 is padding.

    Args:
        held: numbers of inputs that are not. None: a mask is not, a flag beside an input that an embedding looks up, of
            its shape, which no embedding looks up.
        flags: numbers of inputs that hold zeros and ones alone.
    """
    leaves: list[Leaf] = tf.nest.flatten(structure)
    if all(leaf.floating for leaf in leaves):
        return structure
    known = looked_up(model, structure)
    padded = {i for one in known if getattr(one.layer(), "mask_zero", False) for i in one.plain}
    if held is None:
        tokens = {i for one in known for i in one.inputs}
        shapes = {leaves[i].shape[1:] for i in tokens if leaves[i].shape[1:] != (1,)}
        held = [i for i in flags if i not in tokens and leaves[i].shape[1:] in shapes]
    marked = [
        leaf if leaf.floating or i in held else dataclasses.replace(leaf, switched=True, padded=i in padded)
        for i, leaf in enumerate(leaves)
    ]
    return tf.nest.pack_sequence_as(structure, marked)


def read_by(model: Any, structure: Any, layer: keras.Layer | None) -> tuple[int, ...]:
    """The inputs, by number, that are looked up in an embedding."""
    return next((one.inputs for one in looked_up(model, structure) if one.layer() is layer), ())


def embedding(model: Any, structure: Any, leaves: list[np.ndarray]) -> keras.Layer:
    """The embedding of a model whose inputs are all integers.

    Raises:
        ValueError: none, or several, are looked up by an input.
    """
    described: list[Leaf] = tf.nest.flatten(structure)
    known = ((one.layer(), one.inputs) for one in looked_up(model, structure))
    found = [(layer, inputs) for layer, inputs in known if layer is not None]
    flags = arguments.flags(None, described, leaves)
    tokens = [one for one in found if not set(one[1]) <= set(flags)]  # of zeros and ones: segments of a text
    if len(found) == 1 or len(tokens) == 1:
        return (tokens or found)[0][0]
    kinds = ", ".join(f"{leaf.name!r} is {leaf.dtype}" for leaf in described)
    varied = [layer for layer, inputs in found if any((leaves[i] != leaves[i].flat[0]).any() for i in inputs)]
    names = [slices.address(model, layer) for layer in varied or [layer for layer, _ in found]]
    pass_this = f"layer={names[0]!r}" if names else "layer= with the first layer of float output"
    others = f" (or {', '.join(map(repr, names[1:]))})" if names[1:] else ""
    raise ValueError(
        f"nothing to attribute to: {kinds}, and only float inputs are explained; pass {pass_this}{others}."
    )
