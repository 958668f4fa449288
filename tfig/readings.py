"""What is read of a model, its outputs and their gradient, traced once for all programs that ask."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfig.kernels.gradient import differentiate
from tfig.memory import Store, recalled, remembered, store
from tfig.network import Leaves, Network
from tfig.score import Quantity, Score
from tfig.tracing import part, place, traced

RANDOM = ("Random", "StatelessRandom", "Multinomial", "Truncated", "ParameterizedTruncated")
"""How the names of operations begin that draw."""

SHARING = tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 21)
"""Whether programs share traces of the model. Older versions optimise what is inside a function apart from what calls
it, in a session otherwise than in process, so that served answers would differ from local ones in their last bits."""

What = Callable[[Score, Leaves], Any]
"""(a score, points) -> tensors."""


class Readings:
    """What is read of a model, traced once for all its programs, which call it; its gradient, too, is built once.

    Attributes:
        differentiated: the quantity whose gradient is asked for too: one trace is of both.
        place: behind which call of a layer, () for the whole model.
        draw: whether the model drew random numbers in what was read.
    """

    def __init__(self, network: Network, differentiated: Quantity | None, place: tuple = ()):
        self.network, self.differentiated, self.place, self.draw = network, differentiated, place, False

    def read(self, score: Score, points: Leaves) -> tuple[Any, str]:
        """(what is read off the outputs at `points`, how these end)."""
        asked = score.quantity == self.differentiated and score.quantity.function is None
        both = self._of(_differentiate, score, points, new=asked)
        if both is not None:
            with tf.init_scope():
                outputs = both.outputs
            return outputs(*points, *score.context), both.end
        reading = self._of(_read, dataclasses.replace(score, quantity=score.quantity.held), points)
        return reading.run(*points, *score.context), reading.end

    def differentiate(self, score: Score, points: Leaves) -> tuple[tf.Tensor, Leaves]:
        """(F, its gradient with respect to each leaf), so that a program has nothing of the model to differentiate."""
        reading = self._of(_differentiate, score, points)
        score.require(reading.end)
        value, *gradients = reading.run(*points, *score.context, score.weights)
        return value, tuple(gradients)

    def _of(self, what: What, score: Score, points: Leaves, new: bool = True) -> Any:
        """The trace of `what`; where it is not to be a new one and there is none, None."""
        specs = tuple(tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype) for leaf in (*points, *score.context))
        if what is _differentiate:
            specs += (tf.TensorSpec([None, None], score.dtype),)

        def question() -> tuple:
            return *self.place, what, score.quantity, score.scale, len(points), specs, *key(self.network)

        model, reading = self.network.model(), None
        with tf.init_scope():  # apart from the program that asks first
            if new:
                reading = remembered(_readings, model, question, lambda: _Reading(what, score, len(points), specs))
            else:
                reading = recalled(_readings, model, question)
        self.draw |= reading is not None and reading.draws
        return reading


class _Reading:
    """What is made of a score at points, as a function of these, of what is held and of the outputs' weights.

    Attributes:
        run: the function.
        end: how the model's outputs end.
        draws: whether the model draws.
    """

    def __init__(self, what: What, score: Score, explained: int, specs: tuple[tf.TensorSpec, ...]):
        self._inputs = last = explained + len(score.context)
        self._first = first = _First()
        bare = dataclasses.replace(score, context=(), weights=None, aside=(), shared=first)  # which holds no tensors

        def body(*leaves: tf.Tensor) -> Any:
            weights = leaves[last] if len(leaves) > last else None
            asked = dataclasses.replace(bare, context=leaves[explained:last], weights=weights)
            return what(asked, leaves[:explained])

        self.run, self.end = traced(body, specs), first.end
        self.draws = draws(self.run.graph.get_operations())

    @functools.cached_property
    def outputs(self) -> Any:
        """The function of points and of what is held that gives the outputs, where `run` gives their gradient."""
        made = part(self.run, self._first.definition, self._inputs, self._first.found)
        self._first.definition = None  # as large as the model's graph; kept until then, for whoever interrupts
        return made


def _read(score: Score, points: Leaves) -> Any:
    return score.read(points)[0]


def _differentiate(score: Score, points: Leaves) -> Leaves:
    value, gradients = differentiate(score, points)
    return value, *gradients


class _First:
    """What is read first while a function is traced, whatever it ends with: who calls the function will ask.

    Attributes:
        found: what was read.
        end: how the model's outputs end.
        definition: the graph by then, before a gradient that changes its loops; None: there will be none.
    """

    def __init__(self):
        self.found: Any = None
        self.end, self.definition = "", None

    def read(self, score: Score, points: Leaves) -> tuple[Any, str]:
        """As `Score.read`."""
        found, end = dataclasses.replace(score, shared=None).read(points)
        if self.found is None:
            self.found, self.end = found, end
            if score.weights is not None:
                self.definition = tf.compat.v1.get_default_graph().as_graph_def()
        return found, score.end

    def differentiate(self, score: Score, points: Leaves) -> None:
        """Nothing is known of the gradient."""


def draws(operations: Sequence[tf.Operation]) -> bool:
    """Whether any of these operations draws random numbers."""
    return any(op.type.startswith(RANDOM) for op in operations)


def key(network: Network) -> tuple:
    """A network by value: its inputs, which function of an object it is, and where it is asked."""
    named = str(tf.nest.map_structure(lambda leaf: leaf.name, network.structure))
    return tuple(network.leaves), named, getattr(network.model(), "__func__", None), place()


_readings: Store["_Reading"] = store()
