"""The unit of compilation and of export: tensors -> a dict of batch-major tensors."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfig import outset, slices
from tfig.baselines import AtLayer, Baseline, Boundary, Dataset, Noise
from tfig.kernels import boundary, path
from tfig.kernels.expectation import fork, normal, over_references, total, uniform
from tfig.memory import Store, remembered, store
from tfig.network import Cut, Leaves, Network
from tfig.problem import Method, Problem, Source, per_row, row_sum
from tfig.readings import SHARING, Readings, key
from tfig.score import NOT_FINITE, OK, TARGET_OUT_OF_RANGE, Quantity, Score, margin, resolve
from tfig.sizes import beyond_rows, extent
from tfig.tracing import traced

GRADIENT_SCALE = 2.0**8
"""What gradients are multiplied by inside a float16 model, whose smallest number is 6e-8 and largest 65504."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked, as far as it shapes the computation; two equal questions share a program.

    Fields:
        method: how to attribute.
        quantity: what is read off the outputs.
        layer: where the question is posed, None for the input.
        call: which of the layer's calls, from 0, or from the last, -1; None: by the layer's kind (`tfig.network.Cut`).
        channels: the axis of channels of the layer's outputs, -1 or 1.
        baseline: a rule for each explained input, a data set, a search, a rule at the layer; None: no baseline.
            Arrays are not part of it: they are fed, and a row of NaN means the rule. What is no float has none.
        tokens: a baseline given as a whole integer input, to be mapped to the layer.
    """

    method: Method
    quantity: Quantity
    layer: keras.Layer | None
    baseline: tuple[Baseline | None, ...] | Dataset | Boundary | AtLayer | None
    tokens: Any = None
    channels: int = -1
    call: int | None = None

    @property
    def key(self) -> tuple:
        """The question by value, holding neither layers nor functions alive."""
        return self.method, self.quantity.key, id(self.layer), self.baseline, self.tokens, self.channels, self.call


class Program:
    """One question to one model, compiled.

    Attributes:
        run: (x leaves, target [B], against [B], seed [B], chunk [], baseline leaves, sides, aside) -> the dict below.
        units: number of classes, None where unknown or not by class.
        fed: whether baselines are fed, a leaf for each explained input.
        calls: whether the score is a function of the user's.
        call: which of the calls of its layer is explained, from 0, and how many there are; None at the input.

    The dict: `attributions` (a tuple), `target`, `against`, `score`, `baseline_score`, `convergence_delta`, `status`
    and `trace` (a dict), each [B, ...]; quantities the method does not have are absent.
    """

    def __init__(self, network: Network, question: Question):
        specs = [leaf.spec for leaf in network.leaves]
        rows = tf.TensorSpec([None], tf.int32)
        self.units: int | None = None
        self.fed = isinstance(question.baseline, tuple)
        self.calls = question.quantity.function is not None
        baselines = [leaf.spec for leaf in network.explained if self.fed]
        sides = question.method.side_specs([leaf.inner for leaf in network.explained])
        aside = tuple(tf.TensorSpec([None, *shape], dtype) for shape, dtype in question.quantity.aside)
        signature = (tuple(specs), rows, rows, rows, tf.TensorSpec([], tf.int32), tuple(baselines), tuple(sides), aside)
        build = _Build(network, question)
        try:
            self.run = traced(build.answer, signature)
        except LookupError as error:
            if type(error) is not LookupError:  # of a mapping or a sequence
                raise
            raise ValueError(
                f"an operation of the model has no gradient ({str(error).split(' In general')[0]}). A SavedModel has "
                "the gradients that a model defines itself (swish has one) only where they were saved with it; explain "
                "the model that it was made of, or pass a method that sees scores alone, as occlusion and RISE do."
            ) from error
        self.units = build.units
        self.call = None if build.cut is None else (build.cut.call, build.cut.calls)


class _Build:
    """The body of a program, run once, while it is traced."""

    def __init__(self, network: Network, question: Question):
        self.network, self.question, method = network, question, question.method
        where = question.layer, question.channels, question.call
        self.cut = None if where[0] is None else Cut(network, where[0], *where[1:])
        # A gradient at x, or the way back, is taken of F(x) as it is known: shared, the model would be called again.
        once = method.follows or (method.gradients == "x" and question.quantity.function is None)
        asked = question.quantity if self.cut is None and method.gradients else None
        self.readings = None if not SHARING or (once and self.cut is None) else Readings(network, asked)
        self.units: int | None = None
        given = question.baseline.rule if isinstance(question.baseline, AtLayer) else question.baseline
        arrays = given if isinstance(given, Dataset) else question.tokens
        # Captured as tensors, not spelled out in the graph: references may be many.
        self.arrays = () if arrays is None else tuple(tf.constant(leaf) for leaf in tf.nest.flatten(arrays.values))

    def answer(self, x, target, against, seed, chunk, fed, sides, aside):
        """The computation, from the user's leaves to the answer."""
        network, method = self.network, self.question.method
        points, constants = network.split(x)
        points = network.inner(points)
        fed = network.inner(fed)
        known = [_finite(leaf) for leaf in points if leaf.dtype.is_floating]
        finite = functools.reduce(tf.logical_and, known) if known else tf.ones_like(seed, tf.bool)
        points = tuple(tf.where(per_row(finite, leaf), leaf, 0) if leaf.dtype.is_floating else leaf for leaf in points)
        plain = Score(
            lambda p, held: network(network.merge(p, held)), self.question.quantity, "", None, constants,
            aside, network.dtype, GRADIENT_SCALE if network.half else 1.0, self.readings,
        )  # fmt: skip
        seeds = tf.stack([seed, tf.zeros_like(seed)], -1)
        start = self.start(points, seeds, fed)
        begun = Problem(plain, points, start, seeds, chunk, dtype=network.dtype)
        rows = begun.rows
        seen = outset.read(network, self.cut, method, plain, begun)
        valid, weights = tf.ones_like(finite), None
        if self.question.quantity.function is None:
            self.units = seen.values.shape[-1]
            target, against, valid = resolve(seen.values[:rows], target, against)
            hot = functools.partial(tf.one_hot, depth=extent(seen.values, -1), dtype=network.dtype)
            weights = hot(target) - hot(against)

        plain = dataclasses.replace(plain, end=seen.end, weights=weights)
        score, base, between = seen.scores(plain, rows)
        problem, crossing = self.pose(plain, seen, begun)
        of_problem = not problem.references and not (method.needs_layer and problem.source is not None)
        if base is None and method.places and of_problem:
            scores = path.scores(problem, (0.0, *method.places))
            base, between = scores[:, 0], scores[:, 1:]
        elif base is None and method.default_baseline is not None:
            base = self.baseline_score(plain, problem, points, score)
        attributions, trace = method.attribute(
            problem.replace(sides=sides, ends=(score, base if of_problem else None), between=between, ways=seen.ways)
        )
        attributions = tuple(
            tf.where(points[i] == 0, tf.zeros([], leaf.dtype), leaf) if i in problem.padded else leaf
            for i, leaf in enumerate(attributions)
        )
        if seen.drawn:
            trace = {**trace, "drawn": tf.ones_like(finite)}
        ok = finite & valid
        explained = ok
        if crossing is not None:
            trace = {**trace, "boundary_found": crossing.found, "boundary_distance": crossing.distance}
            explained = ok & crossing.found

        def shown(leaf: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
            return tf.where(per_row(rows, leaf), leaf, float("nan"))

        result = {"score": shown(score, ok)}
        if base is not None:
            result["baseline_score"] = shown(base, explained)
            if method.complete and (not method.needs_layer or _is_cut(problem)):
                result["convergence_delta"] = shown(row_sum(attributions) - (score - base), explained)
        if self.question.quantity.function is None:
            result["target"] = tf.where(ok, target, -1)
            result["against"] = tf.where(ok, against, -1)
        status = tf.where(finite, tf.where(valid, OK, TARGET_OUT_OF_RANGE), NOT_FINITE)
        whose = network if self.cut is None or method.of_input else self.cut
        maps = tuple(shown(leaf, explained) for leaf in whose.outer(attributions))
        return {**result, "attributions": maps, "status": tf.cast(status, tf.int32), "trace": trace}

    def start(self, points, seeds, fed) -> Leaves:
        """The baseline of each explained input, by its rule or as it was fed; () where it is found otherwise."""
        network, rules = self.network, self.question.baseline
        if not isinstance(rules, tuple):
            return ()
        found = _apply(rules, points, seeds, [leaf.name for leaf in network.explained])
        return tuple(
            _fed(given, rule) if leaf.floating else _switched(given, value, leaf.padded)
            for given, rule, value, leaf in zip(fed, found, points, network.explained, strict=True)
        )

    def pose(self, plain: Score, seen: outset.Seen, begun: Problem) -> tuple[Problem, boundary.Crossing | None]:
        """The problem, at the input or at the layer, with its baseline."""
        question, network = self.question, self.network
        points, base, seeds, chunk = begun.x, begun.baseline, begun.seed, begun.chunk
        rerule = functools.partial(slices.rerule, network.model())
        crossing = None
        at_layer = question.baseline.rule if isinstance(question.baseline, AtLayer) else None
        references: Leaves = ()
        if isinstance(question.baseline, Boundary) and points:
            crossing = _search(question.baseline, plain, seen.values, points)
            base = crossing.points
        elif isinstance(question.baseline, Dataset):
            references = network.inner(self.arrays) if points else self.arrays
        cut = self.cut
        if cut is None:
            padded = tuple(i for i, leaf in enumerate(network.explained) if leaf.padded)
            return Problem(
                plain, points, base, seeds, chunk, references, rerule=rerule, dtype=network.dtype, padded=padded
            ), crossing

        x, everything = seen.features, network.merge(points, plain.context)
        asked = question.quantity if question.method.gradients else None
        behind = plain.shared and Readings(network, asked, (id(question.layer), question.channels, cut.call))
        score = dataclasses.replace(plain, outputs=cut.outputs, context=everything, shared=behind)
        source = Source(
            points,
            base,
            plain.context,
            features=lambda p, held: cut.features(network.merge(p, held)),
            at=lambda held_score, p, held: held_score.given(network.merge(p, held)),
            space="layer" if at_layer is not None else "input" if points else "tokens",
        )
        if question.tokens is not None:
            pairs = zip(self.arrays, plain.context, strict=True)
            base = tuple(tf.broadcast_to(t, tf.shape(x)) if t.shape.num_elements() else x for t, x in pairs)
        if isinstance(question.baseline, Boundary) and not points:
            crossing = _search(question.baseline, score, seen.values, x)
            return Problem(score, x, crossing.points, seeds, chunk, (), source, rerule, dtype=network.dtype), crossing
        if at_layer is not None:
            if isinstance(at_layer, Dataset):
                references = cut.inner(self.arrays)
            elif isinstance(at_layer, Baseline):
                base = _apply((at_layer,) * len(x), x, seeds, [cut.layer.name] * len(x))
            else:
                base = cut.inner(
                    tuple(
                        tf.broadcast_to(tf.cast(value, leaf.dtype), tf.shape(leaf))
                        for value, leaf in zip(tf.nest.flatten(at_layer.values), cut.outer(x), strict=True)
                    )
                )
        elif base:
            base = source.place(base)
        return Problem(score, x, base, seeds, chunk, references, source, rerule, dtype=network.dtype), crossing

    def baseline_score(self, plain: Score, problem: Problem, points: Leaves, score: tf.Tensor) -> tf.Tensor:
        """F at the baseline, [B]; over references, its mean."""
        source = problem.source
        if problem.references and source is None and not plain.context and not plain.aside:
            # Without anything else in a row, the outputs at a reference are the same for every row.
            count = tf.shape(problem.references[0])[0]
            one = problem.take(tf.zeros([1], tf.int32))
            like = plain.summary(plain.values(one.x))

            def outputs(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
                return plain.summary(plain.values(p.at_reference(sample).baseline))

            mean = total(one, count, like, outputs) / tf.cast(count, like.dtype)
            return plain.choose(tf.repeat(mean, problem.rows, 0))
        like = tf.zeros_like(score)
        if self.question.method.needs_layer and source is not None:
            outer = Problem(plain, points, source.baseline, problem.seed, problem.chunk, problem.references)
            return over_references(outer, like, lambda p: p.score(p.baseline))
        return over_references(problem, like, lambda p: p.score(p.baseline))


def _finite(leaf: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(leaf), beyond_rows(leaf))


def _fed(given: tf.Tensor, rule: tf.Tensor) -> tf.Tensor:
    """The fed baseline, and the rule's in rows of NaN."""
    absent = tf.reduce_any(tf.math.is_nan(given), beyond_rows(given), keepdims=True)
    return tf.where(absent, rule, given)


def _switched(given: tf.Tensor, x: tf.Tensor, padded: bool) -> tf.Tensor:
    """The fed baseline of what is no float; padding stays."""
    full = tf.broadcast_to(given, tf.shape(x))
    return tf.where(x == 0, x, full) if padded else full


def _apply(rules: tuple[Baseline | None, ...], x: Leaves, seeds: tf.Tensor, names: list[str]) -> Leaves:
    """Each rule on its leaf; None leaves it."""
    leaves = []
    for i, (rule, leaf, name) in enumerate(zip(rules, x, names, strict=True)):
        if rule is None:
            leaves.append(leaf)
            continue
        if rule.spatial and len(leaf.shape) < 3:
            raise ValueError(
                f"baseline {type(rule).__name__} needs spatial axes, [B, H, W, C] or [B, T, C], and {name!r} has shape "
                f"{leaf.shape.as_list()}; pass another baseline."
            )

        def draw(kind: Callable[..., tf.Tensor], like: tf.Tensor, stream: int = -2 - i) -> tf.Tensor:
            none = tf.zeros_like(seeds[:, 0])
            return kind(fork(seeds, none + stream), none, like)

        leaves.append(rule(leaf, Noise(functools.partial(draw, normal), functools.partial(draw, uniform))))
    return tuple(leaves)


def _search(rule: Boundary, score: Score, values: Any, x: Leaves) -> boundary.Crossing:
    """The boundary of the class predicted by what was read at x."""
    return boundary.search(margin(score, values), x, rule.radii, rule.steps)


def _is_cut(problem: Problem) -> bool:
    """Whether all paths from the explained inputs to the score pass through the layer."""
    source = problem.cut
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(source.x)
        value = source.at(problem.score, source.x, source.constants)(tuple(map(tf.stop_gradient, problem.x)))
    return all(gradient is None for gradient in tape.gradient(value, source.x))


_programs: Store[Program] = store()


def program(model: Any, structure: Any, question: Question) -> Program:
    """The compiled program of a question to a model, from the cache if it has been asked before."""
    network = Network(model, structure)

    def asked() -> tuple:
        return *question.key, *key(network)

    return remembered(_programs, model, asked, lambda: Program(network, question))
