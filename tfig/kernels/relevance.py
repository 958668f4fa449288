"""Layer-wise relevance propagation: what an operation's output was given is shared out among what it is computed of.

Affine operations of one call are one map z = A(x) + b. Inside it travels the coefficient c = R / z, by the plain slope;
where it leaves the map, an input's relevance is x c. So a layer is shared out as a whole however it is computed.
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfig import anatomy
from tfig.anatomy import wide
from tfig.kernels.gradient import connected
from tfig.kernels.passage import Given, NoRule, Passage, along, back
from tfig.network import Leaves
from tfig.problem import Problem, row_sum
from tfig.rules import Composite, Epsilon, Linear, Rule, Signal, over
from tfig.score import Score

RELEVANCE, COEFFICIENT = 0, 1

NORMALISER, GATE, ATTENTION = "normaliser", "gate", "attention"

TAGS = {
    "Rsqrt": NORMALISER, "Reciprocal": NORMALISER, "Inv": NORMALISER, "Softmax": ATTENTION, "Sigmoid": GATE,
    "Relu6": GATE, "ClipByValue": GATE,
}  # fmt: skip
"""Of what a factor is made that says how much of the other passes."""

NORMALISING = (keras.layers.BatchNormalization, keras.layers.Normalization)

PASSING = {"moving", "scale", "shift"}


@dataclasses.dataclass(frozen=True)
class Chain:
    """A map by weights, with what scales and shifts just before and behind it.

    Fields:
        source: what goes in.
        before, after: operations between the source and the weights, and behind them.
        weights: the operation that has them.
        free: which of its inputs varies.
        rule: how it is shared out.
        whole: whether it is more than one call's: folded.
    """

    source: tf.Tensor
    before: tuple[tf.Operation, ...]
    weights: tf.Operation
    free: int
    rule: Rule
    after: tuple[tf.Operation, ...] = ()
    folded: bool = False

    @property
    def plain(self) -> bool:
        """Whether the coefficients of its call say the same."""
        return isinstance(self.rule, Epsilon) and self.rule.bias and not self.folded


class Shares:
    """The book of a composite of rules.

    Args:
        ends: the names of the softmaxes that are read as probabilities: relevance passes through them.
    """

    def __init__(self, name: str, passage: Passage, composite: Composite, ends: set[str]):
        self.name, self.passage, self.composite, self.ends = name, passage, composite, ends
        self.free: dict[str, list[int]] = {}
        self.kinds: dict[str, str | None] = {}
        self.chains: dict[str, Chain] = {}
        self.epsilons: dict[str, float | None] = {}
        self.layers: set[str] = set()
        self._tags: dict[str, str] = {}
        self._before: dict[str, tuple[tf.Tensor, tuple[tf.Operation, ...]]] = {}
        self._weighted: set[str] = set()
        self._maps: dict[str, str] = {}
        self._mixing: set[str] = set()
        for op in passage.operations:
            self._look(op)
        self._mixing = {self._map(name) for name in self._mixing}
        self.epsilons = {self._map(name): value for name, value in self.epsilons.items() if name in self._maps}

    def _look(self, op: tf.Operation) -> None:
        """Take down what an operation is; those before it have been looked at."""
        free = self.passage.free(op)
        self._tag(op, free)
        held = set() if op.name in self.passage.alone else self._held(op, free)
        free = [i for i in free if i not in held]
        what = "function" if op.name in self.passage.alone else anatomy.kind(op, free)
        self.free[op.name], self.kinds[op.name] = free, what
        behind = any(op.inputs[i].name in self._weighted for i in free)
        known = not any(one.name in self.passage.sloped for i, one in enumerate(op.inputs) if i not in free)
        if what == "weighing" and known:
            self._weigh(op, free[0], not behind)
        elif len(free) == 1 and len(op.outputs) == 1 and what in PASSING and known:
            self._chain(op, op.inputs[free[0]], str(what))
        if behind or what == "weighing":
            self._weighted |= {out.name for out in op.outputs}
        chained = self.chains.get(op.outputs[0].name)
        if what in ("moving", "mixing", "shift", "sum", "scale", "weighing") and (chained is None or chained.plain):
            self._join(op, free, str(what))

    def _tag(self, op: tf.Operation, free: list[int]) -> None:
        tag = TAGS.get(op.type)
        if tag is None and len(free) == 1 and op.type in anatomy.MOVING | anatomy.SUMS | anatomy.SCALINGS:
            tag = self._tags.get(op.inputs[free[0]].name)
        if tag is not None:
            self._tags.update({out.name: tag for out in op.outputs})

    def _held(self, op: tf.Operation, free: list[int]) -> set[int]:
        """The factors that are taken for constants."""
        if not free or op.type not in anatomy.SCALINGS | anatomy.PRODUCTS or len(op.inputs) < 2:
            return set()
        if len(free) == 1:  # a gate of a signal that is there in every row, though it does not vary
            gate, signal = op.inputs[free[0]], op.inputs[1 - free[0]]
            still = isinstance(self.composite.products, Signal) and not signal.shape.is_fully_defined()
            return {free[0]} if still and self._tags.get(gate.name) == GATE else set()
        if op.type in anatomy.QUOTIENTS:
            return {1}
        tags = [self._tags.get(op.inputs[i].name) for i in free]
        if NORMALISER in tags:
            return {free[tags.index(NORMALISER)]}
        rule = self.composite.attention if op.type in anatomy.PRODUCTS else self.composite.products
        if not isinstance(rule, Signal):
            return set()
        gates = [i for i, tag in zip(free, tags, strict=True) if tag in (ATTENTION, GATE)]
        sizes = [op.inputs[i].shape[1:].num_elements() or 0 for i in free]
        if len(gates) == 2:  # the one that is spread over the other
            gates = [] if sizes[0] == sizes[1] else [free[sizes.index(min(sizes))]]
        return set(gates)

    def _weigh(self, op: tf.Operation, free: int, first: bool) -> None:
        x, call = op.inputs[free], self.passage.owner.get(op.name)
        part = None if call is None else call.part
        self.layers.add(getattr(part, "name", ""))
        rule = self.composite.rule(part, op.type in anatomy.CONVOLUTIONS, first)
        source, before = self._before.get(x.name, (x, ()))
        scaled = any(self.kinds[one.name] != "moving" for one in before)
        before, source = (before, source) if scaled else ((), x)
        self.chains[op.outputs[0].name] = Chain(source, before, op, free, rule, folded=scaled)
        if isinstance(rule, Epsilon):
            self.epsilons[op.name] = rule.stable

    def _chain(self, op: tf.Operation, x: tf.Tensor, what: str) -> None:
        """Lengthen what ends at x."""
        out, chain = op.outputs[0], self.chains.get(x.name)
        if chain is not None:
            own = self.passage.owner.get(op.name) is self.passage.owner.get(chain.weights.name) is not None
            idle = what == "moving" and out.shape.as_list() == x.shape.as_list()
            joins = own or (
                self.composite.fold and (what != "moving" or (idle and op.type in ("Identity", "Cast", "Pad")))
            )
            if joins and (what != "scale" or self._of_channels(chain, op)):
                folded = chain.folded or not own
                self.chains[out.name] = dataclasses.replace(chain, after=(*chain.after, op), folded=folded)
            elif joins and isinstance(getattr(self.passage.owner.get(op.name), "part", None), NORMALISING):
                names = [self.passage.owner[one.name].part.name for one in (op, chain.weights)]
                raise ValueError(
                    f"{self.name} folds {names[0]!r} into {names[1]!r} before it, and it scales another axis than its "
                    "channels; explain a layer behind it (layer=), or use a gradient or path method."
                )
        elif self.composite.fold:
            source, before = self._before.get(x.name, (x, ()))
            self._before[out.name] = source, (*before, op)

    def _of_channels(self, chain: Chain, op: tf.Operation) -> bool:
        """Whether what an operation behind weights computes with is one number, or one for each of their channels."""
        if op.type == "BiasAdd" or op.type in anatomy.NORMALISATIONS:
            return True
        axis = anatomy.channel(chain.weights, op)
        width = chain.weights.outputs[0].shape[anatomy.channel(chain.weights, chain.weights)]
        for i, one in enumerate(op.inputs):
            sizes = {back: one.shape[back] for back in range(-len(one.shape), 0) if one.shape[back] != 1}
            if i not in self.free[op.name] and sizes not in ({}, {axis: width}):
                return False
        return True

    def _join(self, op: tf.Operation, free: list[int], what: str) -> None:
        """Make an affine operation one with those before it of the same call."""
        self._maps[op.name] = op.name
        owner = self.passage.owner.get(op.name)
        for i in free:
            before = op.inputs[i].op.name
            if before in self._maps and self.passage.owner.get(before) is owner:
                self._maps[self._map(before)] = self._map(op.name)
        shifting = what == "shift" and not self.composite.fold
        if what in ("mixing", "sum", "weighing") or (shifting and not self._one(op, free)):
            self._mixing.add(op.name)

    @staticmethod
    def _one(op: tf.Operation, free: list[int]) -> bool:
        """Whether one number is added."""
        return all(one.shape.rank == 0 for i, one in enumerate(op.inputs) if i not in free)

    def _map(self, name: str) -> str:
        """The map that an affine operation belongs to."""
        while self._maps[name] != name:
            name = self._maps[name]
        return name

    def back(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """By the kind of the operation."""
        what, free, (r, _) = self.kinds[op.name], self.free[op.name], above[0]
        chain = self.chains.get(op.outputs[0].name)
        if op.name in self.passage.alone:
            yield self.passage.alone[op.name], RELEVANCE, r
        elif chain is not None and not chain.plain:
            yield chain.source, RELEVANCE, self._shared(chain, r)
        elif op.name in self._maps and self._map(op.name) in self._mixing:
            yield from self._mapped(op, above)
        elif what in ("moving", "maximum"):
            for i, value in zip(free, anatomy.pull(op, [one for one, _ in above], free), strict=True):
                yield op.inputs[i], RELEVANCE, value
        elif what in ("scale", "shift", "function"):
            yield op.inputs[free[0]], RELEVANCE, anatomy.fit(r, op.inputs[free[0]])
        elif what == "softmax" and op.type == "Softmax":
            yield op.inputs[0], RELEVANCE, self._softened(op, r)
        elif what == "product":
            yield from self._multiplied(op, free, r)
        else:
            raise NoRule

    def _mapped(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """One operation of an affine map."""
        mine = self._map(op.name)
        epsilon = self.epsilons.get(mine, self.composite.epsilon)
        coefficients = []
        for out, (r, c) in zip(op.outputs, above, strict=True):
            entered = None if r is None else over(r, wide(out), epsilon)
            coefficients.append(c if entered is None else entered if c is None else c + entered)
        free = self.free[op.name]
        for i, slope in zip(free, anatomy.pull(op, coefficients, free), strict=True):
            x = op.inputs[i]
            if x.op.name in self._maps and self._map(x.op.name) == mine:
                yield x, COEFFICIENT, slope
            else:
                yield x, RELEVANCE, wide(x) * slope

    def _multiplied(
        self, op: tf.Operation, free: list[int], r: tf.Tensor
    ) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """Both factors alike."""
        factors = [op.inputs[i] for i in free]
        if op.type in anatomy.PRODUCTS:
            slopes = anatomy.pull(op, [over(r, 2 * wide(op.outputs[0]), self.composite.epsilon)], free)
            yield from ((x, RELEVANCE, wide(x) * slope) for x, slope in zip(factors, slopes, strict=True))
        elif op.type == "SquaredDifference":
            a, b = map(wide, factors)
            c = over(r, a - b, self.composite.epsilon)
            yield factors[0], RELEVANCE, anatomy.fit(a * c, a)
            yield factors[1], RELEVANCE, anatomy.fit(-b * c, b)
        else:
            yield from ((x, RELEVANCE, anatomy.fit(r / 2, x)) for x in factors)

    def _softened(self, op: tf.Operation, r: tf.Tensor) -> tf.Tensor:
        """Through probabilities as they are; through attention by the Taylor expansion of a softmax."""
        if op.name in self.ends or isinstance(self.composite.attention, Signal):
            return r
        x, p = wide(op.inputs[0]), wide(op.outputs[0])
        return tf.math.multiply_no_nan(x, r - p * tf.reduce_sum(r, -1, keepdims=True))

    def _shared(self, chain: Chain, r: tf.Tensor) -> tf.Tensor:
        """A map by weights, as its rule shares it out."""
        weights, bias = self._folded(chain)
        r = self._moved_back(chain.after, r)
        inputs, scales = wide(chain.source), tf.ones([], wide(chain.source).dtype)
        if chain.before:
            inputs, scales, shifts = self._scaled(chain)
            if shifts is not None:
                bias = bias + self._applied(chain, shifts, weights)
        rule = Linear(functools.partial(self._applied, chain), weights, bias, scales)
        found = tf.add_n([one.inputs * self._slope(chain, one, r) for one in chain.rule.shares(inputs, rule)])
        for op in reversed(chain.before):
            if self.kinds[op.name] == "moving":
                (found,) = anatomy.pull(op, [found], self.free[op.name])
            else:
                found = anatomy.fit(found, op.inputs[self.free[op.name][0]])
        return found

    def _applied(self, chain: Chain, inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return anatomy.replay(chain.weights, self._placed(chain, inputs, weights))[0]

    @staticmethod
    def _placed(chain: Chain, inputs: tf.Tensor, weights: tf.Tensor) -> list[tf.Tensor]:
        placed = list(chain.weights.inputs)
        placed[chain.free] = inputs
        placed[1 - chain.free if chain.weights.type in anatomy.PRODUCTS else 1] = weights
        return placed

    def _slope(self, chain: Chain, one: Any, r: tf.Tensor) -> tf.Tensor:
        placed = self._placed(chain, one.inputs, one.weights)
        return anatomy.pull(chain.weights, [one.factor * r], [chain.free], placed)[0]

    def _folded(self, chain: Chain) -> tuple[tf.Tensor, Any]:
        """(weights, bias) of the weights with what follows them."""
        op, done = chain.weights, []
        weights = wide(op.inputs[1 - chain.free if op.type in anatomy.PRODUCTS else 1])
        axis = anatomy.channel(op, op)
        bias: Any = tf.zeros([], weights.dtype)

        def placed(value: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(value, [-1])
            return flat if axis == -1 else tf.reshape(flat, [-1, *[1] * (-axis - 1)])

        for one in chain.after:
            done.append(one)
            if self.kinds[one.name] == "moving":
                continue
            k, b = anatomy.affine(one, self.free[one.name][0])
            if tf.is_tensor(k):
                weights, bias = weights * anatomy.outwards(op, tf.reshape(k, [-1])), bias * placed(k)
            else:
                weights, bias = weights * k, bias * k
            if tf.is_tensor(b) and self._of_channels(chain, one):
                bias = bias + placed(b)
            elif tf.is_tensor(b):
                bias = bias + self._moved_back(done, tf.zeros_like(wide(one.outputs[0])) + b)
        return weights, bias

    def _moved_back(self, operations: Sequence[tf.Operation], value: tf.Tensor) -> tf.Tensor:
        """What the first of them is given, where they only move."""
        for op in reversed(operations):
            if self.kinds[op.name] == "moving":
                (value,) = anatomy.pull(op, [value], self.free[op.name])
        return value

    def _scaled(self, chain: Chain) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """(the source scaled and moved, its scale, its shift or None) as the weights see it."""
        inputs = wide(chain.source)
        scale, shift = tf.ones_like(inputs), None
        for op in chain.before:
            free = self.free[op.name]
            if self.kinds[op.name] != "moving":
                k, b = anatomy.affine(op, free[0])
                inputs, scale = inputs * k, scale * k
                shift = None if shift is None else shift * k
                if not isinstance(b, float):
                    shift = tf.zeros_like(inputs) + b if shift is None else shift + b
                continue
            others = [wide(one) for one in op.inputs]

            def moved(value: tf.Tensor, op=op, others=others, at=free[0]) -> tf.Tensor:
                return anatomy.replay(op, [value if i == at else one for i, one in enumerate(others)])[0]

            inputs, scale = moved(inputs), moved(scale)
            shift = None if shift is None else moved(shift)
        return inputs, scale, shift


def ended(values: Any, passage: Passage) -> set[str]:
    """The names of the softmaxes that values are read from."""
    found = set()
    for leaf in tf.nest.flatten(values):
        op = leaf.op
        while op.type in anatomy.MOVING and op.inputs and op.outputs[0].name in passage.varying:
            op = op.inputs[0].op
        if op.type == "Softmax":
            found.add(op.name)
    return found


def relevance(problem: Problem, composite: Composite, name: str, start: Any) -> tuple[Leaves, tf.Tensor]:
    """(the relevance of each point, [N, ...] for each leaf; what biases and stabilisers absorbed, [N]).

    Args:
        name: of the method, for errors.
        start: (values, dF/dvalues) -> the relevance of the values.
    """
    score = problem.score
    if not isinstance(score, Score):
        raise ValueError(f"{name} explains a score of a model, and this is none.")
    points = tuple(map(tf.identity, problem.x))
    nest, passage = along(problem, points, lambda: score.quantity.read(score.outputs(points, score.context), points)[0])
    values = tf.nest.flatten(nest)
    held = [tf.stop_gradient(value) for value in values]
    slopes = gradients(score, tf.nest.pack_sequence_as(nest, held))
    begun = [start(value, slope) for value, slope in zip(held, slopes, strict=True)]
    book = Shares(name, passage, composite, ended(nest, passage))
    for key in (key for key, _ in composite.named if isinstance(key, str)):
        if key not in book.layers:
            close = difflib.get_close_matches(key, book.layers, 3) or sorted(book.layers)[:8]
            raise ValueError(
                f"rules names {key!r}, which is no layer with weights on the way from the input to the output; "
                f"did you mean {', '.join(map(repr, close))}? Layers go by their own name, without a path."
            )
    given = back(passage, book, zip(values, [RELEVANCE] * len(values), begun, strict=True))
    found = [given[point.name][RELEVANCE] for point in passage.points]
    leaves = tuple(tf.cast(one, x.dtype) for one, x in zip(connected(found, problem.x), problem.x, strict=True))
    absorbed = row_sum(tuple(map(wide, begun))) - row_sum(tuple(map(wide, leaves)))
    return leaves, absorbed


def gradients(score: Score, values: Any) -> list[tf.Tensor]:
    """dF/dvalues, a tensor for each leaf of `values`."""
    leaves = [tf.identity(leaf) for leaf in tf.nest.flatten(values)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        chosen = score.choose(score.summary(tf.nest.pack_sequence_as(values, leaves)))
    return tape.gradient(chosen, leaves, unconnected_gradients="zero")
