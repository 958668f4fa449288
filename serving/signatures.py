"""Programs as signatures of a SavedModel: named, batch-major, with optional inputs."""

import dataclasses
import functools
import inspect
import keyword
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfig import entry, picture
from tfig.api import CHUNK_ELEMENTS, Explainer, Posed
from tfig.entry import Leaf
from tfig.layout import moved
from tfig.network import Network
from tfig.score import AGAINST_PREDICTED, NOTHING, PREDICTED
from tfig.serving import protocol
from tfig.tracing import traced

OUT_OF_RANGE = -(2**31)
"""A class code that is no class and no word."""

GENERATED = re.compile(r"(keras_tensor|input_layer|args)(_\d+)*$")
"""Names that Keras gives to inputs that the user has not named."""

Tensors = dict[str, tf.Tensor]


def function(body: Callable[..., Tensors], specs: dict[str, tf.TensorSpec], defaults: dict[str, tf.Tensor]) -> Any:
    """A `tf.function` of named inputs, those with a default last, that a SavedModel can hold as a signature.

    Optional inputs are served only if they are the eager tensors among the defaults of a Python function's parameters.
    """
    parameter = inspect.Parameter
    parameters = [
        parameter(f"p{i}", parameter.POSITIONAL_OR_KEYWORD, default=defaults.get(name, parameter.empty))
        for i, name in enumerate(specs)
    ]
    declared = inspect.Signature(parameters)

    def call(*args, **kwargs):
        bound = declared.bind(*args, **kwargs)
        bound.apply_defaults()
        return body(**dict(zip(specs, bound.args, strict=True)))

    call.__signature__ = declared  # type: ignore[attr-defined]
    return tf.function(call, input_signature=list(specs.values()), autograph=False)


def names(leaves: list[Leaf]) -> list[str]:
    """The names inputs are served by: the user's own, or x, x_1, ...

    Raises:
        ValueError: two inputs, or an input and an option, would have the same name.
    """
    counter = iter(range(len(leaves)))
    found = [entry.generated(next(counter)) if GENERATED.match(leaf.name) else leaf.name for leaf in leaves]
    for name in found:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(
                f"input {name!r} cannot be an input of a signature; rename it, with letters, digits and _ "
                "(keras.Input(name=...))."
            )
    taken = {protocol.TARGET, protocol.CONTRAST, protocol.SEED, protocol.BASELINE}
    taken |= {protocol.of(protocol.BASELINE, name) for name in found}
    clash = sorted({name for name in found if found.count(name) > 1 or name in taken})
    if clash:
        raise ValueError(
            f"inputs named {clash} clash with each other or with the options of an explanation; rename them."
        )
    return found


def positional(count: int) -> list[str]:
    """The names that Keras' own export gives to inputs of a model that declares none."""
    return ["args_0", *(f"args_0_{i}" for i in range(1, count))]


def predict(model: Any, structure: Any) -> Any:
    """The signature that answers as the model's own export does: the same names, the same outputs."""
    leaves: list[Leaf] = tf.nest.flatten(structure)
    specs = {leaf.name: tf.TensorSpec(leaf.shape, leaf.dtype, name=leaf.name) for leaf in leaves}
    if not entry.declared(model):
        wire = ["args_0", *(f"args_0_{i}" for i in range(1, len(leaves)))]
        specs = {
            name: tf.TensorSpec(leaf.shape, leaf.dtype, name=name) for name, leaf in zip(wire, leaves, strict=True)
        }
    call = Network(model, structure)

    def body(**inputs: tf.Tensor) -> Tensors:
        given = [tf.ensure_shape(inputs[name], spec.shape) for name, spec in specs.items()]
        outputs = call(given)
        if isinstance(outputs, dict):
            return {str(name): tf.identity(value) for name, value in outputs.items()}
        return {f"output_{i}": tf.identity(value) for i, value in enumerate(tf.nest.flatten(outputs))}

    return function(body, specs, {})


@dataclasses.dataclass(frozen=True)
class Served:
    """An explanation of a model, to be made two signatures.

    Fields:
        explainer: the question.
        leaves: the model's inputs.
        names: the names they are served by.
        posed: the program and what it is fed where the caller says nothing.
        fill: what takes the place of numbers that are not finite; None: they stay.
        pictures: whether maps over images are drawn, too.
    """

    explainer: Explainer
    leaves: list[Leaf]
    names: list[str]
    posed: Posed
    fill: float | None = None
    pictures: bool = True

    @property
    def specs(self) -> dict[str, tf.TensorSpec]:
        """The model's own inputs."""
        return {
            name: tf.TensorSpec(leaf.shape, leaf.dtype, name=name)
            for name, leaf in zip(self.names, self.leaves, strict=True)
        }

    @property
    def explained(self) -> list[tuple[str | None, Leaf]]:
        """Inputs that are attributed, with the names their tensors end in: None for a model's only input."""
        several = len(self.leaves) > 1
        pairs = zip(self.names, self.posed.leaves, strict=True)
        return [(name if several else None, leaf) for name, leaf in pairs if leaf.explained]

    @property
    def options(self) -> dict[str, tf.Tensor]:
        """What a caller may say beyond the inputs, with what holds where it is not said."""
        found: dict[str, tf.Tensor] = {}
        if self.explainer.target is None or not callable(_inner(self.explainer.target)):
            found[protocol.TARGET] = tf.constant(self.posed.target)
            found[protocol.CONTRAST] = tf.constant(self.posed.against)
        if self.posed.program.fed:
            for (name, leaf), given in zip(self.explained, self.posed.fed, strict=True):
                found[protocol.of(protocol.BASELINE, name)] = tf.constant(_unsaid(leaf, given))
        found[protocol.SEED] = tf.constant(np.reshape(self.explainer.seed, [1]).astype(np.int32))
        return found

    def signatures(self, name: str) -> dict[str, Any]:
        """All signatures of the explanation, by name: plain, with options, and of an image its pictures alone.

        The others call the fullest, so that the graph is there once.
        """
        full = self.full()
        outputs = list(full.get_concrete_function().structured_outputs)
        contrasted = (self.posed.against != NOTHING).any()
        plain = [one for one in outputs if contrasted or one != protocol.CONTRAST]
        found = {name: self._part(full, plain), protocol.at(name): full}
        for word, key in protocol.pictured(name).items():
            wanted = protocol.pictures(outputs, word)
            if any(one.split("_")[0] == word for one in wanted):
                found[key] = self._part(full, wanted)
        return found

    def _part(self, full: Any, wanted: list[str]) -> Any:
        """The signature of the model's inputs alone, of some of the outputs."""
        options = [value.numpy() for value in self.options.values()]

        def body(**inputs: tf.Tensor) -> Tensors:
            found = full(*(inputs[name] for name in self.specs), *map(tf.constant, options))
            return {name: tf.identity(found[name]) for name in wanted}

        return function(body, self.specs, {})

    def full(self) -> Any:
        """The signature that also takes the options."""
        options = self.options
        specs = {
            name: tf.TensorSpec([None, *self._shape(name)], default.dtype, name=name)
            for name, default in options.items()
        }

        def body(**inputs: tf.Tensor) -> Tensors:
            return self._answer(inputs)

        return function(body, {**self.specs, **specs}, options)

    def _shape(self, option: str) -> tuple[int | None, ...]:
        """An option's shape after its rows: a baseline's is its input's."""
        baselines = {protocol.of(protocol.BASELINE, name): leaf.shape[1:] for name, leaf in self.explained}
        return baselines.get(option, ())

    def _answer(self, inputs: Tensors) -> Tensors:
        """The program's answer to inputs and options, by name."""
        leaves = tuple(
            tf.cast(tf.ensure_shape(inputs[name], leaf.shape), leaf.compute_dtype)
            for name, leaf in zip(self.names, self.leaves, strict=True)
        )  # fmt: skip
        rows = tf.shape(leaves[0])[:1]
        none = tf.fill(rows, NOTHING)

        def each(option: str) -> tf.Tensor:
            # Its name is what an error says of too many or too few rows.
            return tf.broadcast_to(inputs[option], rows, name=option) if option in inputs else none

        target, against, seed = each(protocol.TARGET), each(protocol.CONTRAST), each(protocol.SEED)
        # Codes below the words are no words here, and a single unit has nothing to be contrasted with.
        target = tf.where(target < PREDICTED, OUT_OF_RANGE, target)
        lowest = NOTHING if self.posed.program.units == 1 else AGAINST_PREDICTED
        against = tf.where(against < lowest, OUT_OF_RANGE, against)
        leaves, fed = self._baselines(leaves, inputs)
        found = self.posed.program.run(leaves, target, against, seed, self._chunk(leaves), fed, (), ())
        return self._named(found, leaves)

    def _baselines(self, leaves: tuple[tf.Tensor, ...], options: Tensors) -> tuple[tuple, tuple]:
        """(leaves, baselines to feed): a row of NaN is the default; a row of some NaN is no baseline, and no input."""
        if not self.posed.program.fed:
            return leaves, ()
        fed, whole = [], list(leaves)
        first = next((i for i, leaf in enumerate(self.leaves) if leaf.floating), 0)
        values = [value for value, leaf in zip(leaves, self.posed.leaves, strict=True) if leaf.explained]
        for (name, leaf), value, default in zip(self.explained, values, self.posed.fed, strict=True):
            option = protocol.of(protocol.BASELINE, name)
            sent = tf.broadcast_to(options[option], tf.shape(value), name=option)
            if not leaf.floating:
                fed.append(sent)
                continue
            axes = range(1, len(value.shape))
            absent = tf.reduce_all(tf.math.is_nan(sent), axes, keepdims=True)
            finite = tf.reduce_all(tf.math.is_finite(sent), axes)
            bad = tf.logical_not(finite | tf.reshape(absent, [-1]))
            row = tf.reshape(bad, [-1, *[1] * (len(whole[first].shape) - 1)])
            whole[first] = tf.where(row, tf.constant(np.nan, whole[first].dtype), whole[first])
            fed.append(tf.where(absent, tf.constant(default), sent))
        return tuple(whole), tuple(fed)

    def _chunk(self, leaves: tuple[tf.Tensor, ...]) -> tf.Tensor:
        """How many rows are evaluated together: as in-process, from the size of a row."""
        if self.explainer.batch_size is not None:
            return tf.constant(self.explainer.batch_size)
        sizes = [tf.reduce_prod(tf.shape(leaf)[1:]) for leaf in leaves]
        return tf.clip_by_value(CHUNK_ELEMENTS // tf.maximum(tf.reduce_max(tf.stack(sizes)), 1), 1, 256)

    def _named(self, found: dict[str, Any], leaves: tuple[tf.Tensor, ...]) -> Tensors:
        named = {protocol.STATUS: found["status"], protocol.SCORE: found["score"]}
        for word in (protocol.TARGET, protocol.BASELINE_SCORE, protocol.DELTA):
            if word in found:
                named[word] = found[word]
        if "against" in found:
            named[protocol.CONTRAST] = found["against"]
        named.update({protocol.TRACE + word: value for word, value in found["trace"].items()})
        maps = found["attributions"]
        if self.posed.layer is None:
            ends: list[str | None] = [name for name, _ in self.explained]
        else:
            ends = [None] if len(maps) == 1 else [str(i) for i in range(len(maps))]
        top = 1.0 if "mask" in found["trace"] else None
        whose = [leaf.channels for leaf in self.posed.leaves if leaf.explained]
        axes = whose if self.posed.layer is None else [self.posed.channels] * len(maps)
        for end, leaf, axis in zip(ends, maps, axes, strict=True):
            named[protocol.of(protocol.ATTRIBUTIONS, end)] = leaf
            image, last = self._image(end, leaves), moved(leaf, axis)
            if image is None or len(leaf.shape) != 4 or not self.pictures:
                continue
            over = (tf.TensorSpec(one.shape, one.dtype) for one in (last, image))
            draw = _drawing(*over, top, self.posed.layer is not None and not self.explainer.method.of_input)
            named[protocol.of(protocol.HEATMAP, end)], named[protocol.overlay(end)] = draw(last, image)
        return {name: self._filled(value) for name, value in named.items()}

    def _filled(self, value: tf.Tensor) -> tf.Tensor:
        if self.fill is None or not value.dtype.is_floating:
            return tf.identity(value)
        return tf.where(tf.math.is_finite(value), value, tf.cast(self.fill, value.dtype))

    def _image(self, end: str | None, leaves: tuple[tf.Tensor, ...]) -> tf.Tensor | None:
        """The image that maps named `end` lie over, if there is one."""
        images = {
            name: moved(value, leaf.channels)
            for name, value, leaf in zip(self.names, leaves, self.posed.leaves, strict=True)
            if len(leaf.shape) == 4 and leaf.dtype != "string"
        }
        if self.posed.layer is None and end is not None:
            return images.get(end)
        return next(iter(images.values())) if len(images) == 1 else None


@functools.lru_cache(maxsize=32)
def _drawing(maps: tf.TensorSpec, images: tf.TensorSpec, top: float | None, inside: bool) -> Any:
    """(heat map, PNG files) of maps over images, traced once for all explanations that draw such.

    Args:
        inside: whether maps are of a layer's size, which may be known to be the images' own.
    """

    def draw(maps: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        known = maps.shape[1:3].is_fully_defined() and maps.shape[1:3] == images.shape[1:3]
        shown = picture.heatmap(maps, tf.shape(images)[1:3] if inside and not known else None)
        return shown, tf.io.encode_png(picture.paint(shown, images, 0.6, top))

    return traced(draw, [maps, images])


def _unsaid(leaf: Leaf, given: np.ndarray) -> np.ndarray:
    """A baseline that holds where a caller says none: NaN, for which the program has a rule, or what was exported."""
    if leaf.floating:
        return np.full([1, *(size or 1 for size in leaf.shape[1:])], np.nan, given.dtype)
    return given[(slice(1), *(slice(1 if size is None else size) for size in leaf.shape[1:]))]


def _inner(target: Any) -> Any:
    return target[1] if isinstance(target, tuple) and len(target) == 2 else target
