"""Relevance passed back through a network, layer by layer, by rules in place of derivatives.

Each layer's call is replaced, while the program is traced, by a surrogate of the same value whose gradient is the rule;
the tape does the rest. What is called outside any layer is looked for afterwards: a rule is never silently a gradient.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import anatomy, ending
from tfig.anatomy import wide
from tfig.graph import ancestors, behind, depending
from tfig.kernels.gradient import connected
from tfig.network import Leaves
from tfig.problem import Problem, per_row
from tfig.rules import Epsilon, Linear, Rule, over, share
from tfig.score import Score
from tfig.slices import linear_part

hold = tf.stop_gradient


class NoRule(Exception):
    """There is no rule for what the message names."""


class Book(abc.ABC):
    """How each kind of part passes back what it is given: (part, its call, its inputs) -> a surrogate of its output."""

    name: str

    @abc.abstractmethod
    def linear(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor, first: bool) -> tf.Tensor:
        """A layer with weights, without its activation; `first`: no other stands before it."""

    @abc.abstractmethod
    def affine(
        self, part: Any, call: Callable[..., Any], x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor
    ) -> tf.Tensor:
        """What scales and shifts each channel."""

    @abc.abstractmethod
    def average(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
        """A layer that averages."""

    @abc.abstractmethod
    def activation(self, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """An activation, element by element or along the last axis."""

    @abc.abstractmethod
    def maximum(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
        """Max pooling."""

    @abc.abstractmethod
    def sum(self, part: Any, call: Callable[..., Any], args: tuple, sees: Callable[[Any], bool]) -> tf.Tensor:
        """A sum, difference or mean of tensors; `sees` tells those that depend on the points."""

    def routing(self, part: Any, call: Callable[..., Any], args: tuple, sees: Callable[[Any], bool]) -> Any:
        """What only moves values; `sees` tells tensors that depend on the points."""
        return call(*args)


class Reader:
    """Calls the parts of a model through a book, and knows which operations of the graph were covered by it."""

    def __init__(self, book: Book, points: Leaves):
        self.book, self.points = book, points
        self.refused: list[str] = []
        self.covered: set[str] = set()
        self.weighted: set[str] = set()

    def __call__(self, part: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The surrogate of a part's output; a part that does not see the points is called as it is.

        A part without a rule is called as it is, too, and kept in `refused`: Keras would wrap an error raised in here.
        """
        graph = tf.compat.v1.get_default_graph()
        begin = len(graph.get_operations())
        inputs = [leaf for leaf in tf.nest.flatten((args, kwargs)) if tf.is_tensor(leaf)]
        what, seen = anatomy.kind(part, args), self.sees(inputs)
        try:
            if what is None and seen:
                raise NoRule(f"{part.name!r} ({type(part).__name__})")
            output = self._called(what, part, call, args, kwargs) if seen else call(*args, **kwargs)
        except NoRule as missing:
            self.refused.append(str(missing))
            output = call(*args, **kwargs)
        made = {operation.name for operation in graph.get_operations()[begin:]}
        self.covered |= made
        if what == "linear":
            self.weighted |= made
        return output

    def _called(self, what: str | None, part: Any, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        def sees(one: Any) -> bool:
            return tf.is_tensor(one) and self.sees([one])

        book, x = self.book, args[0] if args else None
        if what == "affine":
            place = next(i for i, one in enumerate(args) if sees(one))
            return book.affine(
                part,
                lambda z: call(*args[:place], z, *args[place + 1 :], **kwargs),
                args[place],
                *anatomy.affine(part, args, args[place]),
            )
        if what == "routing":
            return x if anatomy.leaves_all(part) else book.routing(part, lambda *a: call(*a, **kwargs), args, sees)
        if what == "sum":
            terms = summands(part, args)
            nothing = len(terms) == 2 and tf.is_tensor(terms[0][1]) and _nothing(terms[1][1])
            return terms[0][1] if nothing else book.sum(part, call, args, sees)
        if what == "activation":
            return self._activated(part, lambda z: call(z, *args[1:], **kwargs), x)
        if what != "linear":
            return getattr(book, str(what))(part, lambda z: call(z, **kwargs), x)
        kept: list[Any] = []

        def before(z: tf.Tensor) -> tf.Tensor:
            value, activation = linear_part(part, call, z, **kwargs)
            kept[:] = [activation]
            return value

        z = book.linear(part, before, x, not self.sees_weights(x))
        return z if kept[0] is None else self._activated(part, kept[0], z)

    def _activated(self, part: Any, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        graph = tf.compat.v1.get_default_graph()
        begin = len(graph.get_operations())
        function(x)
        made = depending(graph.get_operations()[begin:], [x])
        mixing = [op.type for op in made if op.type not in anatomy.ELEMENTWISE]
        if mixing not in ([], ["Softmax"], ["Reshape", "Softmax", "Reshape"]):
            named = getattr(getattr(part, "activation", None), "__name__", type(part).__name__)
            raise NoRule(f"{part.name!r}, whose activation {named!r} is not element by element ({mixing[0]})")
        return self.book.activation(function, x)

    def sees(self, tensors: list[tf.Tensor]) -> bool:
        """Whether any of the tensors depends on the points."""
        targets = {id(point) for point in self.points}
        return behind(tensors, lambda tensor: id(tensor) in targets)

    def sees_weights(self, tensor: tf.Tensor) -> bool:
        """Whether a layer with weights stands between the points and this tensor."""
        return behind([tensor], lambda one: one.op.name in self.weighted)

    def audit(self, outputs: Any) -> None:
        """Look for arithmetic between the points and the outputs that no layer did.

        Raises:
            ValueError: naming it; or the first layer without a rule.
        """
        advice = "explain a layer behind it (layer=), or use a gradient or path method."
        if self.refused:
            raise ValueError(f"{self.book.name} has no rule for {self.refused[0]}; {advice}")
        needed = ancestors(tf.nest.flatten(outputs))
        made = [op for op in tf.compat.v1.get_default_graph().get_operations() if op.name in needed]
        for operation in depending(made, self.points):
            floating = any(tensor.dtype.is_floating for tensor in operation.outputs)
            if floating and operation.name not in self.covered and operation.type not in anatomy.ROUTING_TYPES:
                raise ValueError(
                    f"{self.book.name} has no rule for {operation.type} ({operation.name!r}), which the model computes "
                    f"outside any layer; write it as a Keras layer (keras.layers.Add, Activation, ...), {advice}"
                )


def _nothing(value: Any) -> bool:
    """Whether a summand is known to be zero."""
    known = tf.get_static_value(value) if tf.is_tensor(value) else value
    return known is not None and not np.any(known)


def read(problem: Problem, score: Score, points: Leaves, book: Book) -> Any:
    """The values that `score` reads off the model at `points`, as surrogates by the book."""
    reader = Reader(book, points)
    quantity = score.quantity
    soften = quantity.output == "probabilities" and score.end == "open" and quantity.function is None
    if soften:
        quantity = dataclasses.replace(quantity, output=None)
    with problem.rerule(reader):
        values, _ = quantity.read(score.outputs(points, score.context), points)
    reader.audit(values)
    if soften:
        values = book.activation(tf.nn.sigmoid if values.shape[-1] == 1 else tf.nn.softmax, values)
    return values


def gradients(score: Score, values: Any) -> list[tf.Tensor]:
    """dF/dvalues, a tensor for each leaf of `values`."""
    leaves = [tf.identity(leaf) for leaf in tf.nest.flatten(values)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        chosen = score.choose(score.summary(tf.nest.pack_sequence_as(values, leaves)))
    return tape.gradient(chosen, leaves, unconnected_gradients="zero")


@dataclasses.dataclass
class Shares(Book):
    """Layer-wise relevance propagation.

    Fields:
        name: of the method, for errors.
        rule: (layer, whether it is the first with weights) -> its rule.
        epsilon: of sums and averages; None: the stabiliser.
    """

    name: str
    rule: Callable[[keras.Layer, bool], Rule]
    epsilon: float | None = None

    def __post_init__(self):
        # What neighbours fold into: id of an output -> (the output, what made it). The output keeps the id its own.
        self.linears: dict[int, tuple[tf.Tensor, keras.Layer, tf.Tensor, Linear, Rule]] = {}
        self.scalings: dict[int, tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]] = {}

    def linear(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor, first: bool) -> tf.Tensor:
        """The rule, stage by stage; a scaling just before it belongs to the inputs, its shift to the bias."""
        y, rule, inputs = call(x), self.rule(layer, first), wide(x)
        *before, last = anatomy.stages(layer)
        if id(x) in self.scalings:
            _, source, scale, shift = self.scalings[id(x)]
            shifts = tf.zeros_like(inputs) + shift
            inputs = _valued(hold(wide(source)) * scale, wide(source) - hold(wide(source)))
            head = (before or [last])[0]
            head = head._replace(bias=head.bias + head.apply(shifts, head.weights), scale=scale)
            before, last = ([head, *before[1:]], last) if before else ([], head)
        for part in before:
            inputs = _valued(part.apply(inputs, part.weights) + part.bias, share(inputs, part, rule))
        z = _valued(y, share(inputs, last, rule))
        self.linears[id(z)] = z, layer, inputs, last, rule
        return z

    def affine(
        self, part: Any, call: Callable[..., Any], x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor
    ) -> tf.Tensor:
        """Folded into the linear layer just before it, or into one just behind; alone, relevance passes through it."""
        y, layer = call(x), part
        if id(x) in self.linears:
            _, maker, inputs, own, rule = self.linears[id(x)]
            if isinstance(layer, keras.Layer) and not anatomy.per_channel(maker, scale, len(x.shape)):
                raise ValueError(
                    f"{self.name} folds {layer.name!r} into {maker.name!r} before it, and it scales another axis "
                    "than its channels; explain a layer behind it (layer=), or use a gradient or path method."
                )
            weights = own.weights * anatomy.outwards(maker, scale)
            folded = Linear(own.apply, weights, own.bias * scale + shift, own.scale)
            z = _valued(y, share(inputs, folded, rule))
            self.linears[id(z)] = z, maker, inputs, folded, rule
            return z
        z = _valued(y, x - hold(x))
        _, source, before, moved = self.scalings.get(id(x), (x, x, tf.ones_like(scale), tf.zeros_like(shift)))
        self.scalings[id(z)] = z, source, before * scale, moved * scale + shift
        return z

    def average(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
        """In proportion to what each contributes."""
        rule = Epsilon() if self.epsilon is None else Epsilon(self.epsilon)
        return _valued(call(x), share(wide(x), Linear(lambda a, _: call(a), None, 0.0), rule))

    def activation(self, function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
        """Passed through."""
        y = function(x)
        return opened(_valued(y, x - hold(x)), y)

    def maximum(self, layer: keras.Layer, call: Callable[..., Any], x: tf.Tensor) -> tf.Tensor:
        """The winner takes all."""
        return call(x)

    def routing(self, part: Any, call: Callable[..., Any], args: tuple, sees: Callable[[Any], bool]) -> Any:
        """What only moves values; a scaling just before it is moved along, to what it may fold into."""
        moved = call(*args)
        if len(args) == 1 and id(args[0]) in self.scalings and tf.is_tensor(moved) and moved is not args[0]:
            _, source, scale, shift = self.scalings[id(args[0])]
            ones = tf.ones_like(source)
            self.scalings[id(moved)] = moved, call(source), call(ones * scale), call(ones * shift)
        return moved

    def sum(self, part: Any, call: Callable[..., Any], args: tuple, sees: Callable[[Any], bool]) -> tf.Tensor:
        """In proportion to the summands."""
        y = call(*args)
        terms = summands(part, args)
        shares = [
            hold(over(sign * wide(one), wide(y), self.epsilon)) * wide(one - hold(one))
            for sign, one in terms
            if tf.is_tensor(one)
        ]
        return _valued(y, tf.add_n([tf.zeros_like(wide(y)) + one for one in shares]))


def opened(value: tf.Tensor, natural: tf.Tensor) -> tf.Tensor:
    """A surrogate behind which a softmax or sigmoid can still be opened."""
    return ending.stand_in(value, natural) if natural.op.type in ("Softmax", "Sigmoid") else value


def summands(part: Any, args: tuple) -> list[tuple[float, Any]]:
    """The (sign, tensor) pairs that a sum, difference or mean adds up."""
    tensors = list(args[0]) if isinstance(args[0], (list, tuple)) else list(args)
    if type(part).__name__ == "Subtract":
        return [(1.0, tensors[0]), (-1.0, tensors[1])]
    share_of = 1 / len(tensors) if type(part).__name__ == "Average" else 1.0
    return [(share_of, tensor) for tensor in tensors]


def _valued(y: tf.Tensor, passed: tf.Tensor) -> tf.Tensor:
    """`y`, exactly, with the gradient of `passed`."""
    return hold(y) + tf.cast(passed - hold(passed), y.dtype)


def relevance(
    problem: Problem,
    rule: Callable[[keras.Layer, bool], Rule],
    name: str,
    start: Callable,
    epsilon: float | None = None,
) -> Leaves:
    """The relevance of each point, [N, ...] for each leaf.

    Args:
        rule: (layer, whether it is the first with weights) -> its rule.
        name: of the method, for errors.
        start: (values, dF/dvalues) -> the relevance of the values.
        epsilon: of sums and averages; None: the stabiliser.
    """
    score, points = problem.score, problem.x
    if not isinstance(score, Score):
        raise ValueError(f"{name} explains a score of a model, and this is none.")
    # float16 would lose the relevance of single pixels, and overflow by that of large scores: rules are linear in it.
    scale = score.scale
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(points)
        nest = read(problem, score, points, Shares(name, rule, epsilon))
        values = [scale * value for value in tf.nest.flatten(nest)]
    held = [hold(value) for value in tf.nest.flatten(nest)]
    slopes = gradients(score, tf.nest.pack_sequence_as(nest, held))
    begun = [start(value, slope) for value, slope in zip(held, slopes, strict=True)]
    if scale == 1:
        return connected(tape.gradient(values, points, output_gradients=begun), points)
    largest = [tf.reduce_max(tf.abs(one), range(1, len(one.shape))) for one in begun]
    unit = tf.add_n([tf.cast(one, tf.float32) for one in largest])
    unit = tf.where(unit > 0, unit, 1)
    found = tape.gradient(values, points, output_gradients=[one / per_row(unit, one) for one in begun])
    return tuple(per_row(unit, leaf) * leaf / scale for leaf in connected(found, points))
