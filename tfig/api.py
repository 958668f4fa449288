"""explain() and Explainer: from the user's arguments to a call of a program."""

import copy
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfig import arguments, baselines, entry, slices
from tfig.catalogue import method_named
from tfig.explanation import Explanation
from tfig.layout import moved
from tfig.methods.checks import whole
from tfig.problem import Method
from tfig.program import Program, Question, program
from tfig.score import NOTHING
from tfig.survey import last_map, oriented, survey

CHUNK_ELEMENTS = 2**22
"""Input elements evaluated together where no batch_size is given: 27 images of 224 x 224 x 3."""


def explain(
    model: Any,
    x: Any,
    method: str | Method = "integrated_gradients",
    *,
    target: Any = None,
    output: str | None = None,
    layer: str | keras.Layer | tuple[keras.Layer, int] | None = None,
    baseline: Any = None,
    batch_size: int | None = None,
    seed: int | np.ndarray = 0,
    progress: bool = False,
) -> Explanation:
    """Which parts of x made the model say this?

    Args:
        model: a Keras model; for methods that need only gradients or scores also a callable x -> outputs or a loaded
            SavedModel.
        x: array or tensor [B, ...], or the list, tuple or dict of them that the model takes. Cast to the model's
            input dtype. Integer inputs (token ids) are held constant.
        method: name (with the paper's hyper-parameters) or method object; `tfig.methods` lists them.
        target: None, each row's predicted class; int; `[B]` ints; `tfig.Contrast`; a callable outputs -> [B] of
            TensorFlow operations, row by row; ``(output, target)`` for a model of several outputs. One-unit outputs
            need none: the unit itself is explained. A target that needs x too (a reconstruction error) takes a model
            that hands it on: ``explain(lambda x: (model(x), x), x, target=lambda y: ...)``.
        output: None, what the model emits; "logits" or "probabilities", converted either way.
        layer: name, path (``backbone/conv5``) or layer whose output is explained in place of x. Of a layer called
            several times it is the last output, of an embedding the first, and a warning says so; ``embedding:0``
            counts calls, ``:-1`` from the last. A model of integers alone is explained at its embedding.
        baseline: None, the method's default; a name ("zeros", "black", "white", "mean", "blur", "uniform", "gaussian",
            "max_distance", "boundary"), number, array (``[...]``, ``[1, ...]`` or ``[B, ...]``), nest of these, or
            `tfig.baselines` object. In input space also at a layer, unless wrapped in `tfig.baselines.AtLayer`; for
            integer inputs, ints are tokens, and names and fractions lie at the layer. Methods without a baseline
            do not look at it.
        batch_size: rows the model evaluates together; by default as many as hold four million input elements, at
            most 256.
        seed: int for every row, or `[B]` ints; noise is a function of the row's seed alone.
        progress: show Keras' progress bar, in chunks of `batch_size` rows.

    Returns:
        an `Explanation`.

    Raises:
        ValueError: what was given does not fit the model or the method; the message says what does.

    Warns of what the explanation's `notes` say. Compiled programs are kept while the model lives; a change of its
    weights' identity, activations or flags, or of what its layers' calls or a callable read (numbers, words, arrays,
    containers and objects of them), compiles a new one. What changes out of sight needs `tfig.forget`.

    >>> e = tfig.explain(model, x, "igos", target=3, output="probabilities", baseline="blur")
    >>> e.heatmap().shape
    (8, 224, 224)
    """
    explainer = Explainer(
        model, method, target=target, output=output, layer=layer, baseline=baseline, batch_size=batch_size, seed=seed,
        progress=progress,
    )  # fmt: skip
    return explainer(x)


class Posed(NamedTuple):
    """A question as posed to rows.

    Fields:
        program: what answers it.
        target, against: [B] int32, codes as in `tfig.score`.
        fed: arrays for each explained input, [1, ...] or [B, ...]; NaN where the program's own rule holds.
        layer: where the question is posed, None for the input.
        leaves: the model's inputs, with the axes of their channels.
        channels: the axis of channels of the layer's outputs.
    """

    program: Program
    target: np.ndarray
    against: np.ndarray
    fed: list[np.ndarray]
    layer: keras.Layer | None
    leaves: list[entry.Leaf]
    channels: int


class Explainer:
    """One question to one model, compiled at its first use and kept: the arguments of `explain`, without x.

    >>> explainer = tfig.Explainer(model, "integrated_gradients", output="logits")
    >>> explainer(x, target=3)
    >>> for e in explainer.map(dataset): ...
    """

    def __init__(
        self,
        model: Any,
        method: str | Method = "integrated_gradients",
        *,
        target: Any = None,
        output: str | None = None,
        layer: str | keras.Layer | tuple[keras.Layer, int] | None = None,
        baseline: Any = None,
        batch_size: int | None = None,
        seed: int | np.ndarray = 0,
        progress: bool = False,
    ):
        if not callable(model) and entry.serving_signature(model) is None:
            raise ValueError(
                f"model is {type(model).__name__}; pass a Keras model, a callable x -> outputs or a loaded SavedModel."
            )
        if isinstance(getattr(model, "__self__", None), keras.Model) and model.__name__ == "predict":
            raise ValueError("model.predict returns arrays, which have no gradient; pass the model itself.")
        self.model, self.method = model, method_named(method)
        self.target, self.baseline, self.seed = target, baselines.named(baseline), seed
        if output not in (None, "logits", "probabilities"):
            raise ValueError(f"output is {output!r}; pass None, 'logits' or 'probabilities'.")
        self.output = output
        self.layer = None if layer is None else slices.place(model, layer)
        if self.method.needs_layer and layer is None and not self.method.picks_layer:
            raise ValueError(f"{self.method.name} is defined at a layer; pass layer=.")
        if isinstance(self.baseline, baselines.AtLayer) and layer is None:
            raise ValueError("baseline=AtLayer(...) lies in the space of a layer; pass layer=.")
        if batch_size is not None:
            whole("batch_size", batch_size)
        self.batch_size, self.progress = batch_size, progress

    def __call__(self, x: Any, target: Any = None) -> Explanation:
        """Explain `x`; `target` takes the place of the one given at construction."""
        return self._answer(x, self.target if target is None else target, self.progress)

    def _answer(self, x: Any, target: Any, progress: bool) -> Explanation:
        if isinstance(x, list) and x and all(np.isscalar(leaf) for leaf in tf.nest.flatten(x)):
            x = np.asarray(x)
        structure, leaves = entry.read(self.model, x)
        posed = self.pose(structure, leaves, target)
        pairs = zip(leaves, posed.leaves, strict=True)
        sides = self.method.sides([moved(value, leaf.channels) for value, leaf in pairs if leaf.explained])
        call, calls = posed.program.call or (0, 1)
        if calls > 1 and not isinstance(self.layer, tuple) and posed.layer is not None:
            name = slices.address(self.model, posed.layer)
            warnings.warn(
                f"layer {name!r} is called {calls} times, and call {call} is explained; pass layer='{name}:{call}', or "
                "another call.",
                stacklevel=3,
            )
        asked = self if target is self.target else self.about(target)
        parts = [
            asked._explanation(answer, structure, [leaf[span] for leaf in leaves], posed)
            for span, answer in self.answers(posed, leaves, sides, progress)
        ]
        return _warned(Explanation.concatenate(parts))

    @property
    def by_row(self) -> bool:
        """Whether seed or baseline are given for each row, and so belong to rows in their order."""
        given = self.baseline.value if isinstance(self.baseline, baselines.AtLayer) else self.baseline
        return any(np.ndim(value) > 0 for value in (self.seed, *tf.nest.flatten(given)))

    def about(self, target: Any) -> "Explainer":
        """The same question of another target."""
        other = copy.copy(self)
        other.target = target
        return other

    def answers(
        self, posed: "Posed", leaves: list[np.ndarray], sides: list[np.ndarray], progress: bool = False
    ) -> Iterator[tuple[slice, dict[str, Any]]]:
        """What the program says of rows `leaves`, chunk by chunk: (which rows, its answer)."""
        rows, compiled = len(leaves[0]), posed.program
        seeds = arguments.per_row("seed", self.seed, rows)
        size = self.batch_size or int(np.clip(CHUNK_ELEMENTS // max(leaf[0].size for leaf in leaves), 1, 256))
        starts = range(0, rows, size)
        bar = keras.utils.Progbar(len(starts), unit_name="chunk") if progress else None
        for start in starts:
            span = slice(start, start + size)
            given = [value if len(value) == 1 else value[span] for value in posed.fed] if compiled.fed else []
            yield (
                span,
                compiled.run(
                    tuple(tf.convert_to_tensor(leaf[span]) for leaf in leaves),
                    *(tf.constant(values[span]) for values in (posed.target, posed.against, seeds)),
                    tf.constant(size, tf.int32),
                    tuple(map(tf.convert_to_tensor, given)),
                    tuple(tf.convert_to_tensor(side[span]) for side in sides),
                ),
            )
            if bar:
                bar.add(1)

    def pose(self, structure: Any, leaves: list[np.ndarray], target: Any) -> "Posed":
        """The program for rows `leaves` of inputs `structure`, and what it is fed beside them."""
        structure = oriented(self.model, structure)
        if self.method.stepwise and slices.loops(self.model):
            sizes = iter(leaves)
            structure = tf.nest.map_structure(lambda leaf: leaf.shaped(next(sizes).shape), structure)
        described: list[entry.Leaf] = tf.nest.flatten(structure)
        quantity, codes, against = arguments.quantity(self.model, self.output, target, len(leaves[0]))
        if isinstance(structure, dict) and isinstance(self.baseline, (list, tuple)):
            raise ValueError(f"x is a dict and baseline a list; name the inputs: {[leaf.name for leaf in described]}.")
        layer, which = self.layer if isinstance(self.layer, tuple) else (self.layer, None)
        if layer is None and self.method.picks_layer:
            layer = last_map(self.model, structure, quantity)
        if layer is None and not any(leaf.explained for leaf in described):
            layer = self._looked_up(structure, leaves)
        channels = -1
        if layer is not None and slices.turned(self.model):
            channels = survey(self.model, structure).features.get(id(layer), -1)
        rule, fed, tokens = arguments.start(self.method, self.baseline, described, leaves)
        question = Question(self.method, quantity, layer, rule, tokens, channels, which)
        compiled = program(self.model, structure, question)
        self._check_range(compiled, codes, against)
        return Posed(compiled, codes, against, fed, layer, described, channels)

    def map(self, dataset: Iterable[Any], progress: bool | None = None) -> Iterator[Explanation]:
        """Explain a stream of batches, one `Explanation` each, holding one batch at a time.

        Args:
            dataset: a batched `tf.data.Dataset` (or any iterable) of x, or of (x, y) or (x, y, weight) tuples as Keras
                takes them, of which x is used. Several inputs come as a list or a dict.
            progress: show Keras' progress bar, in batches; by default as constructed.
        """
        shown = self.progress if progress is None else progress
        size = int(dataset.cardinality()) if hasattr(dataset, "cardinality") else -1
        bar = keras.utils.Progbar(size if size >= 0 else None, unit_name="batch") if shown else None
        for batch in dataset:
            yield self._answer(batch[0] if isinstance(batch, tuple) else batch, self.target, progress=False)
            if bar:
                bar.add(1)

    def _check_range(self, compiled: Program, codes: np.ndarray, against: np.ndarray) -> None:
        if compiled.units is None:
            return
        top = int(max(codes.max(), against.max()))
        if top >= compiled.units:
            only = "; a one-unit output needs no target" if compiled.units == 1 else ""
            raise ValueError(
                f"target {top} is out of range: the output has {compiled.units} units, 0 to {compiled.units - 1}{only}."
            )
        if compiled.units == 1 and (against != NOTHING).any():
            raise ValueError("Contrast needs at least two units, and the output has one; leave target= out.")

    def _address(self, layer: keras.Layer, program: Program) -> str:
        """By which a layer is found again, with the number of its call where there are several."""
        name, (call, calls) = slices.address(self.model, layer), program.call or (0, 1)
        return name if calls == 1 else f"{name}:{call}"

    def _looked_up(self, structure: Any, leaves: list[np.ndarray]) -> keras.Layer:
        """The embedding of a model whose inputs are all integers.

        Raises:
            ValueError: none, or several, are looked up by an input.
        """
        described: list[entry.Leaf] = tf.nest.flatten(structure)
        known = survey(self.model, structure).looked_up if isinstance(self.model, keras.Layer) else ()
        found = [(layer, inputs) for layer, inputs in ((one(), inputs) for one, inputs in known) if layer is not None]
        if len(found) == 1:
            return found[0][0]
        kinds = ", ".join(f"{leaf.name!r} is {leaf.dtype}" for leaf in described)
        varied = [layer for layer, inputs in found if any((leaves[i] != leaves[i].flat[0]).any() for i in inputs)]
        names = [slices.address(self.model, layer) for layer in varied or [layer for layer, _ in found]]
        pass_this = f"layer={names[0]!r}" if names else "layer= with the first layer of float output"
        others = f" (or {', '.join(map(repr, names[1:]))})" if names[1:] else ""
        raise ValueError(
            f"nothing to attribute to: {kinds}, and only float inputs are explained; pass {pass_this}{others}."
        )

    def _explanation(
        self, answer: dict[str, Any], structure: Any, leaves: list[np.ndarray], posed: Posed
    ) -> Explanation:
        found = tf.nest.map_structure(lambda tensor: tensor.numpy(), answer)
        maps, layer = list(found["attributions"]), posed.layer
        x = tf.nest.pack_sequence_as(structure, leaves)
        if layer is not None:
            attributions = maps[0] if len(maps) == 1 else maps
        else:
            rest = iter(maps)
            filled = [
                next(rest) if leaf.explained else np.zeros(value.shape, np.float32)
                for leaf, value in zip(posed.leaves, leaves, strict=True)
            ]
            attributions = tf.nest.pack_sequence_as(structure, filled)
        inputs = tuple(leaf.channels for leaf in posed.leaves)
        at_layer = layer is not None and not self.method.of_input
        channels = {"attributions": (posed.channels,) * len(maps) if at_layer else inputs, "x": inputs}
        trace = found["trace"]
        if (found.get("against", np.array([NOTHING])) != NOTHING).any():
            trace["against"] = found["against"]
        return Explanation(
            attributions=attributions,
            target=found.get("target"),
            score=found["score"],
            baseline_score=found.get("baseline_score"),
            convergence_delta=found.get("convergence_delta"),
            method=self.method.name,
            parameters=self.method.parameters,
            layer=None if layer is None else self._address(layer, posed.program),
            output=self.output,
            trace=trace,
            x=x,
            explainer=self,
            channels=channels if 1 in {*channels["attributions"], *inputs} else {},
        )


def _warned(e: Explanation) -> Explanation:
    """Warn of what the explanation itself says against it."""
    for note in e.notes:
        warnings.warn(note, stacklevel=3)
    return e
