"""explain() and Explainer: from the user's arguments to a call of a program."""

import copy
import dataclasses
import functools
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfig import arguments, baselines, entry, naming, slices
from tfig.catalogue import method_named
from tfig.devices import first, named, spread
from tfig.explanation import Explanation
from tfig.methods.checks import whole
from tfig.network import Network
from tfig.problem import Method
from tfig.program import Program, Question, program
from tfig.provenance import provenance
from tfig.score import NOTHING, RUNNER_UP
from tfig.survey import embedding, last_map, oriented, read_by, survey, switched

WHERE = re.compile(r"Graph execution error|Detected at node|File \"|<stack traces|\[\[")
"""What TensorFlow's errors begin lines with that say where it was, not what."""

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
    class_names: Any = None,
    devices: Sequence[str] | None = None,
) -> Explanation:
    """Which parts of x made the model say this?

    Args:
        model: a Keras model; for methods that need only gradients or scores also a callable x -> outputs or a loaded
            SavedModel.
        x: array or tensor [B, ...], or the list, tuple or dict of them that the model takes. Cast to the model's
            input dtype; or a `tf.data.Dataset` of them, or of (x, y). Integer, string and boolean inputs are held
            constant, but by methods that only put parts of x in place of others (occlusion, RISE, Shapley, LIME, ...),
            which switch them too; never masks beside tokens.
        method: name (with the paper's hyper-parameters) or method object; `tfig.methods` lists them.
        target: None, each row's predicted class; int; `[B]` ints; a name, or names, of `class_names`;
            `tfig.Contrast`; `tfig.At`, a class at a place of outputs [B, ..., C]; a callable
            outputs -> [B] of TensorFlow operations, row by row, or ``(function, array, ...)``, called with the rows of
            arrays [B, ...] too; ``(output, target)`` for a model of several outputs. One-unit outputs need none: the
            unit itself is explained. A target that needs x too (a reconstruction error) takes a model that hands it on:
            ``explain(lambda x: (model(x), x), x, target=lambda y: ...)``.
        output: None, what the model emits; "logits" or "probabilities", converted either way.
        layer: name, path (``backbone/conv5``) or layer whose output is explained in place of x. Of a layer called
            several times it is the last output, of an embedding the first, and a warning says so; ``embedding:0``
            counts calls, ``:-1`` from the last. A model of integers alone is explained at its embedding, where inputs
            of more than zeros and ones are looked up in one; of several the error names the first to try.
        baseline: None, the method's default; a name ("zeros", "black", "white", "mean", "blur", "uniform", "gaussian",
            "max_distance", "boundary", "vocabulary"), number, array (``[...]``, ``[1, ...]`` or ``[B, ...]``), nest of
            these, or `tfig.baselines` object. In input space also at a layer, unless wrapped in
            `tfig.baselines.AtLayer`; for integer inputs, ints are tokens, and names and fractions lie at the layer.
            Methods without a baseline do not look at it.
        batch_size: rows the model evaluates together; by default as many as hold four million input elements, at
            most 256.
        seed: int for every row, or `[B]` ints; noise is a function of the row's seed alone.
        progress: show Keras' progress bar, in rows.
        class_names: what classes are called, for `target` and for pictures: a list, a dict by number (or of numbers by
            name), or a function number -> name, for pictures alone; by default `model.class_names` where it has them.
            Two names of an only unit are of 0 and of 1: its score is called by the second.
        devices: names ("GPU:0", ...) of devices among which rows are split, each with a program of its own; nothing is
            exchanged between them. By default those of the `tf.distribute.MirroredStrategy` in whose scope the model
            was made, which keeps its weights on each; else the one that TensorFlow chooses.

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
        progress=progress, class_names=class_names, devices=devices,
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
        aside: what a callable target takes beside the outputs.
        structure, question: of what the program is made.
    """

    program: Program
    target: np.ndarray
    against: np.ndarray
    fed: list[np.ndarray]
    layer: keras.Layer | None
    leaves: list[entry.Leaf]
    channels: int
    aside: tuple[np.ndarray, ...]
    structure: Any
    question: Question


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
        class_names: Any = None,
        devices: Sequence[str] | None = None,
    ):
        if not callable(model) and entry.serving_signature(model) is None:
            raise ValueError(
                f"model is {type(model).__name__}; pass a Keras model, a callable x -> outputs or a loaded SavedModel"
                f"{', such as keras.saving.load_model(path).' if isinstance(model, (str, os.PathLike)) else '.'}"
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
        self.batch_size, self.progress, self.class_names = batch_size, progress, class_names
        self._devices = named(model, devices)

    def __call__(self, x: Any, target: Any = None) -> Explanation:
        """Explain `x`; `target` takes the place of the one given at construction."""
        return self._answer(x, self.target if target is None else target, self.progress)

    def compile(self, x: Any) -> "Explainer":
        """Do the work of the first call ahead of it: trace the program for inputs like `x`, and run it on one row.

        Args:
            x: as it will be explained, with any number of rows, of which the first is explained here.

        Returns:
            the same explainer, so that ``tfig.Explainer(model, "igos").compile(x)`` is one line.

        Raises:
            ValueError: as `explain` does.
        """
        structure, leaves = self._read(x)
        posed = self.pose(structure, leaves, self.target)
        seeds = arguments.per_row("seed", self.seed, len(leaves[0]))
        sides = self._sides(posed, [leaf[:1] for leaf in leaves])
        for device in self._devices or (None,):
            with first([] if device is None else [device], self.model):
                self._asked(posed, leaves, sides, seeds, 1, slice(1))  # a number of rows is no part of what is compiled
        return self

    def _answer(self, x: Any, target: Any, progress: bool) -> Explanation:
        structure, leaves = self._read(x)
        posed = self.pose(structure, leaves, target)
        sides = self._sides(posed, leaves)
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
        said = provenance(
            self.model, self.method, asked.target, self.baseline, self.seed, self._named(posed.program.units),
            posed.program.units,
        )  # fmt: skip
        return _warned(dataclasses.replace(Explanation.concatenate(parts), provenance=said))

    def _read(self, x: Any) -> tuple[Any, list[np.ndarray]]:
        """(the nest of the inputs, the rows of each)."""
        if isinstance(x, tf.data.Dataset):
            x = entry.gathered(self.model, x)
        if isinstance(x, list) and x and all(np.isscalar(leaf) for leaf in tf.nest.flatten(x)):
            x = np.asarray(x)
        return entry.read(self.model, x)

    def _sides(self, posed: "Posed", leaves: list[np.ndarray]) -> list[np.ndarray]:
        """What the method computes of rows in Python."""
        pairs = zip(leaves, posed.leaves, strict=True)
        return self.method.sides([leaf.inner_of(value) for value, leaf in pairs if leaf.explained])

    @property
    def _called(self) -> Any:
        return getattr(self.model, "class_names", None) if self.class_names is None else self.class_names

    def _named(self, units: int | None) -> Any:
        """What the units of the output are called; a model's own names may be of another output."""
        own = self._called
        if self.class_names is None and own is not None and not callable(own):
            own = naming.listed(own)
        return naming.of_units(own, units)

    @property
    def by_row(self) -> bool:
        """Whether seed, baseline or what a target takes are given for each row, and belong to rows in their order."""
        given = self.baseline.value if isinstance(self.baseline, baselines.AtLayer) else self.baseline
        beside = isinstance(self.target, tuple) and callable(self.target[0]) and len(self.target) > 1
        return beside or any(np.ndim(value) > 0 for value in (self.seed, *tf.nest.flatten(given)))

    def about(self, target: Any) -> "Explainer":
        """The same question of another target."""
        other = copy.copy(self)
        other.target = target
        return other

    def anywhere(self) -> "Explainer":
        """The same question, on the device that TensorFlow chooses."""
        other = copy.copy(self)
        other._devices = ()
        return other

    def answers(
        self, posed: "Posed", leaves: list[np.ndarray], sides: list[np.ndarray], progress: bool = False
    ) -> Iterator[tuple[slice, dict[str, Any]]]:
        """What the program says of rows `leaves`, chunk by chunk: (which rows, its answer)."""
        rows = len(leaves[0])
        seeds = arguments.per_row("seed", self.seed, rows)
        size = self.batch_size or int(np.clip(CHUNK_ELEMENTS // max(leaf.size // rows for leaf in leaves), 1, 256))
        # What is watched moves: samples of a few rows fill a chunk as well as many rows do.
        step = max(1, min(size, rows) // 16) if progress else size
        step = min(step, -(-rows // max(1, len(self._devices))))
        bar = keras.utils.Progbar(rows, unit_name="row") if progress else None
        spans = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
        ask = functools.partial(self._asked, posed, leaves, sides, seeds, size)
        answers = spread(ask, spans, self._devices, self.model) if self._devices else map(ask, spans)
        for span, answer in zip(spans, answers, strict=True):
            yield span, answer
            if bar:
                bar.add(span.stop - span.start)

    def _asked(
        self,
        posed: "Posed",
        leaves: list[np.ndarray],
        sides: list[np.ndarray],
        seeds: np.ndarray,
        size: int,
        span: slice,
    ) -> dict[str, Any]:
        """What the program says of rows `span`, on the device that this is called on."""
        compiled = program(self.model, posed.structure, posed.question) if self._devices else posed.program
        given = [value if len(value) == 1 else value[span] for value in posed.fed] if compiled.fed else []
        try:
            answer = compiled.run(
                tuple(tf.convert_to_tensor(leaf[span]) for leaf in leaves),
                *(tf.constant(values[span]) for values in (posed.target, posed.against, seeds)),
                tf.constant(size, tf.int32),
                tuple(map(tf.convert_to_tensor, given)),
                tuple(tf.convert_to_tensor(side[span]) for side in sides),
                tuple(tf.convert_to_tensor(side[span]) for side in posed.aside),
            )
        except tf.errors.InvalidArgumentError as error:
            raise _failed(compiled, error.message) from error
        if compiled.calls and len(answer["score"]) != len(leaves[0][span]):
            raise _failed(compiled, f"it gave {len(answer['score'])} scores for {len(leaves[0][span])} rows")
        return answer

    def pose(self, structure: Any, leaves: list[np.ndarray], target: Any, held: Sequence[int] | None = None) -> "Posed":
        """The program for rows `leaves` of inputs `structure`, and what it is fed beside them.

        Args:
            held: numbers of the inputs of which nothing is explained; None: what the method cannot explain, and masks
                beside tokens.
        """
        structure = oriented(self.model, structure)
        if self.method.stepwise and slices.loops(self.model):
            sizes = iter(leaves)
            structure = tf.nest.map_structure(lambda leaf: leaf.shaped(next(sizes).shape), structure)
        described: list[entry.Leaf] = tf.nest.flatten(structure)
        asked = arguments.asked(self.model, self.output, target, len(leaves[0]), self._called)
        if isinstance(structure, dict) and isinstance(self.baseline, (list, tuple)):
            raise ValueError(f"x is a dict and baseline a list; name the inputs: {[leaf.name for leaf in described]}.")
        layer, which = self.layer if isinstance(self.layer, tuple) else (self.layer, None)
        if layer is None and self.method.picks_layer:
            layer = last_map(self.model, structure, asked.quantity)
        if layer is None and (self.method.switches or held is not None):
            flags = arguments.flags(self.baseline, described, leaves)
            structure = switched(self.model, structure, held, flags)
            described = tf.nest.flatten(structure)
            self._can_switch(described)
        if layer is None and not any(leaf.explained for leaf in described):
            layer = embedding(self.model, structure, leaves)
        channels = -1
        if layer is not None and slices.turned(self.model):
            channels = survey(self.model, structure).features.get(id(layer), -1)
        read = () if any(leaf.explained for leaf in described) else read_by(self.model, structure, layer)
        given = arguments.of_layer(self.baseline, layer)
        rule, fed, tokens = arguments.start(self.method, given, described, leaves, read)
        question = Question(self.method, asked.quantity, layer, rule, tokens, channels, which)
        with first(self._devices, self.model):
            compiled = program(self.model, structure, question)
        names = naming.listed(self._called)
        if compiled.units == 1 and set(names) == {0, 1}:
            if isinstance(target, str) and target == names[0]:
                raise ValueError(
                    f"target is {target!r}; the output has one unit, the score of {names[1]!r}: leave target= out."
                )
            asked = arguments.asked(self.model, self.output, target, len(leaves[0]), naming.of_units(names, 1))
        self._check_range(compiled, asked.target, asked.against)
        return Posed(
            compiled, asked.target, asked.against, fed, layer, described, channels, asked.aside, structure, question
        )

    def map(self, dataset: Iterable[Any], progress: bool | None = None) -> Iterator[Explanation]:
        """Explain a stream of batches, one `Explanation` each, holding one batch at a time.

        Args:
            dataset: a batched `tf.data.Dataset` (or any iterable) of x, or of (x, y) or (x, y, weight) tuples as Keras
                takes them, of which x is used. Several inputs come as a list or a dict.
            progress: show Keras' progress bar, in batches; by default as constructed.
        """
        shown = self.progress if progress is None else progress
        size = getattr(dataset, "cardinality", -1)  # a number, of a distributed data set
        size = int(size() if callable(size) else size)
        bar = keras.utils.Progbar(size if size >= 0 else None, unit_name="batch") if shown else None
        for batch in dataset:
            x = batch[0] if isinstance(batch, tuple) else batch
            yield self._answer(tf.nest.map_structure(entry.whole, x), self.target, progress=False)
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
        if compiled.units == 1 and ((against != NOTHING).any() or (codes == RUNNER_UP).any()):
            what = "Contrast" if (against != NOTHING).any() else "'runner_up'"
            raise ValueError(f"{what} needs at least two units, and the output has one; leave target= out.")

    def _address(self, layer: keras.Layer, program: Program) -> str:
        """By which a layer is found again, with the number of its call where there are several."""
        name, (call, calls) = slices.address(self.model, layer), program.call or (0, 1)
        return name if calls == 1 else f"{name}:{call}"

    def _can_switch(self, described: list[entry.Leaf]) -> None:
        """Raise ValueError where inputs are switched that the method cannot take."""
        names = [leaf.name for leaf in described if leaf.switched]
        if names and not self.method.switches:
            raise ValueError(
                f"{self.method.name} changes numbers by degrees, and inputs {names}, which were explained, hold none."
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
        held = tuple(i for i, leaf in enumerate(posed.leaves) if not leaf.explained)
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
            held=held,
            channels=channels if 1 in {*channels["attributions"], *inputs} else {},
            class_names=self._named(posed.program.units),
        )

    def outputs(self, x: Any) -> Any:
        """What the model says of x, as it emits it: an array [B, ...], or the nest of them."""
        structure, leaves = self._read(x)
        network = Network(self.model, structure)
        size = self.batch_size or 32
        parts = [
            network([tf.convert_to_tensor(leaf[start : start + size]) for leaf in leaves])
            for start in range(0, len(leaves[0]), size)
        ]
        return tf.nest.map_structure(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *parts)


def _failed(compiled: Program, message: str) -> ValueError:
    """What stopped a program while it ran, in words."""
    lines = (line.strip() for line in message.splitlines())
    reason = next((line for line in lines if line and not WHERE.match(line)), message)
    if compiled.calls:
        return ValueError(
            f"the callable target failed ({reason[:200]}). It is asked of more and of fewer rows than x has, so it "
            "must hold nothing that has a value for each row: pass that beside it, target=(function, array), and it is "
            "called as function(outputs, rows of the array)."
        )
    if "is not in [0," in message:
        found = re.search(r"\S+ = \S+ is not in \[[^)\]]*[)\]]", message)
        reason = found[0] if found else reason
        return ValueError(
            f"an index, of x or of the baseline, lies outside of what the model can look up ({reason[:200]}); a token "
            "as baseline must be of the vocabulary of each input that it is given for: baseline={name: token}."
        )
    return ValueError(f"the model failed ({reason[:300]}).")


def _warned(e: Explanation) -> Explanation:
    """Warn of what the explanation itself says against it."""
    for note in e.notes:
        warnings.warn(note, stacklevel=3)
    return e
