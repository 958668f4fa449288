"""explain() and Explainer: from the user's arguments to a call of a program."""

import dataclasses
import difflib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import baselines, network, slices
from tfig.explanation import Explanation
from tfig.kernels.gradient import Unconnected
from tfig.methods import REGISTRY
from tfig.methods.checks import whole
from tfig.problem import Method
from tfig.program import Program, Question, program
from tfig.score import AGAINST_PREDICTED, NOTHING, PREDICTED, RUNNER_UP, Contrast, Quantity

CHUNK_ELEMENTS = 2**22
"""Input elements evaluated together where no batch_size is given: 27 images of 224 x 224 x 3."""


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """What `tfig.methods` says of a method.

    Fields:
        summary: what it is.
        reference: the paper.
        complete: whether attributions sum to F(x) - F(x').
        stochastic: whether it draws noise from the seed.
        baseline: name of its default baseline; None where it has none.
        needs: what it asks of the caller beyond a model and x.
    """

    summary: str
    reference: str
    complete: bool
    stochastic: bool
    baseline: str | None
    needs: str


def methods() -> dict[str, MethodInfo]:
    """Every method by name: what it is, its paper, whether it is complete, what it needs."""
    return {name: _info(method) for name, method in REGISTRY.items()}


def _info(kind: type[Method]) -> MethodInfo:
    method = kind()
    summary = (kind.__doc__ or "").strip().splitlines()[0]
    return MethodInfo(
        summary, method.reference, method.complete, method.stochastic, method.default_baseline, method.needs
    )


def method_named(method: str | Method) -> Method:
    """The method object that a name stands for, with the paper's defaults; a method object as it is.

    Raises:
        ValueError: unknown name, with close matches.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, type) and issubclass(method, Method):
        return method()
    if not isinstance(method, str) or method not in REGISTRY:
        word = str(method).lower()
        initials = [name for name in REGISTRY if "".join(part[0] for part in name.split("_")) == word]
        close = initials or difflib.get_close_matches(word, REGISTRY, 3, 0.4) or list(REGISTRY)
        raise ValueError(f"no method is named {method!r}; did you mean {' or '.join(map(repr, close))}?")
    return REGISTRY[method]()


def explain(
    model: Any,
    x: Any,
    method: str | Method = "integrated_gradients",
    *,
    target: Any = None,
    output: str | None = None,
    layer: str | keras.Layer | None = None,
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
        layer: name, path (``backbone/conv5``) or layer whose output is explained in place of x; of a layer called
            several times, the last output.
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
    weights' identity, activations, flags or numbers, or of what a callable reads from outside, compiles a new one.

    >>> e = tfig.explain(model, x, "igos", target=3, output="probabilities", baseline="blur")
    >>> e.heatmap().shape
    (8, 224, 224)
    """
    explainer = Explainer(
        model, method, target=target, output=output, layer=layer, baseline=baseline, batch_size=batch_size, seed=seed,
        progress=progress,
    )  # fmt: skip
    return explainer(x)


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
        layer: str | keras.Layer | None = None,
        baseline: Any = None,
        batch_size: int | None = None,
        seed: int | np.ndarray = 0,
        progress: bool = False,
    ):
        if not callable(model) and network.serving_signature(model) is None:
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
        self.layer = None if layer is None else slices.find(model, layer)
        if self.method.needs_layer and layer is None:
            raise ValueError(f"{self.method.name} is defined at a layer; pass layer=.")
        if isinstance(self.baseline, baselines.AtLayer) and layer is None:
            raise ValueError("baseline=AtLayer(...) lies in the space of a layer; pass layer=.")
        if batch_size is not None:
            whole("batch_size", batch_size)
        self.batch_size, self.progress = batch_size, progress

    def __call__(self, x: Any, target: Any = None) -> Explanation:
        """Explain `x`; `target` takes the place of the one given at construction."""
        if isinstance(x, list) and x and all(np.isscalar(leaf) for leaf in tf.nest.flatten(x)):
            x = np.asarray(x)
        structure, leaves = network.read(self.model, x)
        rows = len(leaves[0])
        described: list[network.Leaf] = tf.nest.flatten(structure)
        quantity, codes, against = self._target(self.target if target is None else target, rows)
        if isinstance(x, dict) and isinstance(self.baseline, (list, tuple)):
            raise ValueError(f"x is a dict and baseline a list; name the inputs: {[leaf.name for leaf in described]}.")
        rule, fed, tokens = self._baseline(described, leaves)
        question = Question(self.method, quantity, self.layer, rule, tokens)
        try:
            compiled = program(self.model, structure, question)
        except Unconnected as error:
            raise self._nothing_float(described) or error from None
        self._check_range(compiled, codes, against)
        seeds = _per_row("seed", self.seed, rows)
        size = self.batch_size or int(np.clip(CHUNK_ELEMENTS // max(leaf[0].size for leaf in leaves), 1, 256))
        starts = range(0, rows, size)
        bar = keras.utils.Progbar(len(starts), unit_name="chunk") if self.progress else None
        parts = []
        for start in starts:
            span = slice(start, start + size)
            given = [value if len(value) == 1 else value[span] for value in fed] if compiled.fed else []
            answer = compiled.run(
                tuple(tf.convert_to_tensor(leaf[span]) for leaf in leaves),
                *(tf.constant(values[span]) for values in (codes, against, seeds)),
                tf.constant(size, tf.int32),
                tuple(map(tf.convert_to_tensor, given)),
            )
            parts.append(self._explanation(answer, structure, [leaf[span] for leaf in leaves]))
            if bar:
                bar.add(1)
        return _warned(Explanation.concatenate(parts))

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
        quiet = Explainer.__new__(Explainer)
        quiet.__dict__.update(self.__dict__, progress=False)
        for batch in dataset:
            yield quiet(batch[0] if isinstance(batch, tuple) else batch)
            if bar:
                bar.add(1)

    def _target(self, target: Any, rows: int) -> tuple[Quantity, np.ndarray, np.ndarray]:
        """(what is read off the outputs, class codes [B], codes of the class against [B])."""
        head = None
        if isinstance(target, tuple):
            if len(target) != 2:
                raise ValueError(
                    f"target is {target!r}; a tuple means (output, target). For F_a - F_b pass tfig.Contrast(a, b)."
                )
            head, target = target
            names = getattr(self.model, "output_names", ())
            if (
                isinstance(head, str)
                and head in names
                and isinstance(getattr(self.model, "output", None), (list, tuple))
            ):
                head = names.index(head)
        none, words = np.full(rows, NOTHING, np.int32), {"predicted": PREDICTED, "runner_up": RUNNER_UP}
        if isinstance(target, Contrast):
            chosen = _classes("Contrast.a", target.a, rows, words)
            other = _classes("Contrast.b", target.b, rows, {"predicted": AGAINST_PREDICTED, "runner_up": RUNNER_UP})
            return Quantity(self.output, head), chosen, other
        if callable(target):
            return Quantity(self.output, head, target), none, none
        chosen = _classes("target", "predicted" if target is None else target, rows, words)
        return Quantity(self.output, head), chosen, none

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

    def _nothing_float(self, described: list[network.Leaf]) -> ValueError | None:
        """The error for models whose inputs are all integers."""
        if any(leaf.explained for leaf in described) or self.layer is not None:
            return None
        embeddings = [layer.name for layer in slices.layers(self.model) if isinstance(layer, keras.layers.Embedding)]
        kinds = ", ".join(f"{leaf.name!r} is {leaf.dtype}" for leaf in described)
        pass_this = f"layer={embeddings[0]!r}" if embeddings else "layer= with the first layer of float output"
        others = f" (embedding layers: {', '.join(map(repr, embeddings))})" if embeddings else ""
        return ValueError(
            f"nothing to attribute to: {kinds}, and only float inputs are explained; pass {pass_this}{others}."
        )

    def _baseline(self, described: list[network.Leaf], leaves: list[np.ndarray]) -> tuple[Any, list[np.ndarray], Any]:
        """(the rule of the question, arrays to feed for each explained input, a token baseline)."""
        method, given = self.method, self.baseline
        floats = [(leaf, value) for leaf, value in zip(described, leaves, strict=True) if leaf.explained]
        if method.default_baseline is None:
            return None, [], None
        if given is None and method.default_baseline == "dataset":
            raise ValueError(f"{method.name} needs references; pass baseline=tfig.baselines.Dataset(references).")
        if isinstance(given, baselines.Dataset):
            if not method.takes_references:
                raise ValueError(f"{method.name} takes one baseline a row, not a Dataset; pass e.g. baseline='blur'.")
            inputs = floats or list(zip(described, leaves, strict=True))
            return baselines.Dataset(_references(given, inputs)), [], None
        if isinstance(given, (baselines.Boundary, baselines.AtLayer)):
            return given, [], None
        if not floats:
            name = method.default_baseline if given is None else given
            # A number with a fraction, like a name, is no token.
            if isinstance(name, (str, baselines.Baseline, float, np.floating)):
                return baselines.AtLayer(name), [], None
            parts = _each(given, described)
            arrays = [
                baselines.fit(leaf.name, part, value)
                for leaf, part, value in zip(described, parts, leaves, strict=True)
            ]
            return None, [], baselines.Arrays(arrays)
        rules, fed = [], []
        for (leaf, value), part in zip(floats, _each(given, [leaf for leaf, _ in floats], described), strict=True):
            flat = method.default_baseline == "blur" and value.ndim < 3
            rule = (
                baselines.named("zeros" if flat else method.default_baseline) if part is None else baselines.named(part)
            )
            ruled = isinstance(rule, baselines.Baseline)
            if ruled and rule == baselines.NAMES["white"] and (value.max() > 1 or value.min() < 0):
                raise ValueError(
                    f"baseline 'white' means 1.0, and {leaf.name!r} runs from {value.min():g} to {value.max():g}; "
                    "pass the number that is white here."
                )
            rules.append(rule if ruled else baselines.NAMES["zeros"])
            fed.append(
                np.full((1, *value.shape[1:]), np.nan, value.dtype) if ruled else baselines.fit(leaf.name, part, value)
            )
        return tuple(rules), fed, None

    def _explanation(self, answer: dict[str, Any], structure: Any, leaves: list[np.ndarray]) -> Explanation:
        found = tf.nest.map_structure(lambda tensor: tensor.numpy(), answer)
        maps = list(found["attributions"])
        x = tf.nest.pack_sequence_as(structure, leaves)
        if self.layer is not None:
            attributions = maps[0] if len(maps) == 1 else maps
        else:
            described, rest = tf.nest.flatten(structure), iter(maps)
            filled = [
                next(rest) if leaf.explained else np.zeros(value.shape, np.float32)
                for leaf, value in zip(described, leaves, strict=True)
            ]
            attributions = tf.nest.pack_sequence_as(structure, filled)
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
            layer=None if self.layer is None else self.layer.name,
            output=self.output,
            trace=trace,
            x=x,
        )


def _each(given: Any, explained: list[network.Leaf], described: list[network.Leaf] | None = None) -> list[Any]:
    """What was given as baseline, for each explained input."""
    names = [leaf.name for leaf in explained]
    everything = [leaf.name for leaf in described or explained]
    if isinstance(given, dict):
        unknown = set(given) - set(everything)
        if unknown:
            raise ValueError(f"baseline names inputs {sorted(unknown)}; the explained inputs are {names}.")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)) and len(everything) > 1:
        if len(given) == len(everything):
            return [part for part, name in zip(given, everything, strict=True) if name in names]
        if len(given) != len(names):
            raise ValueError(f"baseline has {len(given)} entries, and the explained inputs are {names}.")
        return list(given)
    if isinstance(given, (list, tuple)):
        given = np.asarray(given)
    if len(names) > 1 and np.ndim(given):
        raise ValueError(
            f"baseline is one array, and there are {len(names)} explained inputs {names}; pass a nest like x."
        )
    return [given] * len(names)


def _references(given: baselines.Dataset, inputs: list[tuple[network.Leaf, np.ndarray]]) -> list[np.ndarray]:
    """The references of each input, checked and in its dtype."""
    values = given.values
    parts = [values[leaf.name] for leaf, _ in inputs] if isinstance(values, dict) else tf.nest.flatten(values)
    if len(parts) != len(inputs):
        raise ValueError(
            f"Dataset holds {len(parts)} arrays, and the explained inputs are {[leaf.name for leaf, _ in inputs]}."
        )
    for (leaf, value), part in zip(inputs, parts, strict=True):
        if part.shape[1:] != value.shape[1:]:
            raise ValueError(
                f"references of {leaf.name!r} have shape {list(part.shape)}; they must be [R, ...] like x, "
                f"{['R', *value.shape[1:]]}."
            )
    return [part.astype(value.dtype) for (_, value), part in zip(inputs, parts, strict=True)]


def _per_row(name: str, value: Any, rows: int) -> np.ndarray:
    """An int, or one for each row, as int32 [rows]."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {value!r}; it must be an int or one int per row.")
    if array.ndim > 1 or (array.ndim == 1 and len(array) != rows):
        raise ValueError(f"{name} has shape {list(array.shape)}, and x has {rows} rows; pass an int or one per row.")
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"{name} does not fit into 32 bits: {value!r}.")
    return np.broadcast_to(array, (rows,)).astype(np.int32)


def _classes(name: str, value: Any, rows: int, words: dict[str, int]) -> np.ndarray:
    """Class codes [rows] of an int, ints, or one of `words`."""
    if isinstance(value, str):
        if value not in words:
            raise ValueError(f"{name} is {value!r}; words are {' and '.join(map(repr, words))}.")
        return np.full(rows, words[value], np.int32)
    classes = _per_row(name, value, rows)
    if (classes < 0).any():
        raise ValueError(f"{name} {int(classes.min())} is negative; classes count from 0.")
    return classes


def _warned(e: Explanation) -> Explanation:
    """Warn of what the explanation itself says against it."""
    for note in e.notes:
        warnings.warn(note, stacklevel=3)
    return e
