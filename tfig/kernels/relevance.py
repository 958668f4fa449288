"""Layer-wise relevance propagation: what an operation's output was given is shared out among what it is computed of.

Affine operations of one call are one map z = A(x) + b. Inside it travels the coefficient c = R / z, by the plain slope;
where it leaves the map, an input's relevance is x c. So a layer is shared out as a whole however it is computed.
"""

import difflib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfig import anatomy
from tfig.anatomy import wide
from tfig.kernels.gradient import connected
from tfig.kernels.passage import Given, NoRule, back, ended, way
from tfig.kernels.plan import Chain, Plan
from tfig.network import Leaves
from tfig.problem import Problem, row_sum
from tfig.rules import Composite, Linear, Signal, over
from tfig.score import Score

RELEVANCE, COEFFICIENT = 0, 1


class Shares:
    """The book of a composite of rules.

    Fields:
        plan: what it makes of the passage.
        ends: the names of the softmaxes that are read as probabilities: relevance passes through them.
    """

    def __init__(self, plan: Plan, ends: set[str]):
        self.plan, self.ends, self.name = plan, ends, plan.name
        self.free, self.kinds, self.composite = plan.free, plan.kinds, plan.composite

    def back(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """By the kind of the operation."""
        what, free, (r, _) = self.kinds[op.name], self.free[op.name], above[0]
        chain = self.plan.chains.get(op.outputs[0].name)
        if chain is not None and not chain.plain:
            yield chain.source, RELEVANCE, self._shared(chain, r)
        elif self.plan.map(op) is not None:
            yield from self._mapped(op, above)
        elif what in ("moving", "maximum"):
            for i, value in zip(free, anatomy.pull(op, [one for one, _ in above], free), strict=True):
                yield op.inputs[i], RELEVANCE, value
        elif what in ("scale", "shift", "function"):
            source = self.plan.passage.source(op, free)
            yield source, RELEVANCE, anatomy.fit(r, source)
        elif what == "softmax" and op.type == "Softmax":
            yield op.inputs[0], RELEVANCE, self._softened(op, r)
        elif what == "product":
            yield from self._multiplied(op, free, r)
        else:
            raise NoRule

    def _mapped(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """One operation of an affine map."""
        mine = self.plan.map(op)
        epsilon = self.plan.epsilon(str(mine))
        coefficients = []
        for out, (r, c) in zip(op.outputs, above, strict=True):
            entered = None if r is None else over(r, wide(out), epsilon)
            coefficients.append(c if entered is None else entered if c is None else c + entered)
        free = self.free[op.name]
        for i, slope in zip(free, anatomy.pull(op, coefficients, free), strict=True):
            x = op.inputs[i]
            if self.plan.map(x.op) == mine:
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
        inputs, scales, shifts = self._scaled(chain)
        if shifts is not None:
            bias = bias + self._applied(chain, shifts, weights)
        shift = 0.0 if shifts is None else shifts
        rule = Linear(functools.partial(self._applied, chain), weights, bias, scales, shift)
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
        placed[anatomy.weights(chain.weights, chain.free)] = weights
        return placed

    def _slope(self, chain: Chain, one: Any, r: tf.Tensor) -> tf.Tensor:
        placed = self._placed(chain, one.inputs, one.weights)
        return anatomy.pull(chain.weights, [one.factor * r], [chain.free], placed)[0]

    def _folded(self, chain: Chain) -> tuple[tf.Tensor, Any]:
        """(weights, bias) of the weights with what follows them."""
        op, done = chain.weights, []
        weights = wide(op.inputs[anatomy.weights(op, chain.free)])
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
            if tf.is_tensor(b) and self.plan.of_channels(chain, one):
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


def relevance(problem: Problem, composite: Composite, name: str, start: Any) -> tuple[Leaves, tf.Tensor]:
    """(the relevance of each point, [N, ...] for each leaf; what of it did not arrive, [N]).

    Args:
        name: of the method, for errors.
        start: (values, dF/dvalues) -> the relevance of the values.
    """
    score = problem.score
    if not isinstance(score, Score):
        raise ValueError(f"{name} explains a score of a model, and this is none.")
    (nest, _), passage = problem.ways[0] or way(problem.rerule, score, problem.x)
    values = tf.nest.flatten(nest)
    held = [tf.stop_gradient(value) for value in values]
    slopes = gradients(score, tf.nest.pack_sequence_as(nest, held))
    begun = [start(value, slope) for value, slope in zip(held, slopes, strict=True)]
    plan = Plan(name, passage, composite)
    for key in (key for key, _ in composite.named if isinstance(key, str)):
        if key not in plan.layers:
            close = difflib.get_close_matches(key, plan.layers, 3) or sorted(plan.layers)[:8]
            raise ValueError(
                f"rules names {key!r}, which is no layer with weights on the way from the input to the output; "
                f"did you mean {', '.join(map(repr, close))}? Layers go by their own name, without a path."
            )
    given = back(
        passage, Shares(plan, ended(nest, passage)), zip(values, [RELEVANCE] * len(values), begun, strict=True)
    )
    found = [given[point.name][RELEVANCE] for point in passage.points]
    leaves = tuple(tf.cast(one, x.dtype) for one, x in zip(connected(found, problem.x), problem.x, strict=True))
    arrived = row_sum(leaves)
    return leaves, tf.cast(row_sum(tuple(begun)), arrived.dtype) - arrived


def gradients(score: Score, values: Any) -> list[tf.Tensor]:
    """dF/dvalues, a tensor for each leaf of `values`."""
    leaves = [tf.identity(leaf) for leaf in tf.nest.flatten(values)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        chosen = score.of(tf.nest.pack_sequence_as(values, leaves))
    return tape.gradient(chosen, leaves, unconnected_gradients="zero")
