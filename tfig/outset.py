"""What a program reads of a model before it poses its problem: F at x and, of a path, at x' and in between."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfig import slices
from tfig.kernels import path
from tfig.kernels.passage import way
from tfig.network import Cut, Leaves, Network
from tfig.problem import Method, Problem
from tfig.readings import Readings, draws
from tfig.score import Score


class Seen(NamedTuple):
    """What was read.

    Fields:
        values: of the outputs, place below place: x, and of a path x' and those between.
        places: how many.
        features: of the layer that is cut at, of x.
        ways: back from F(x) and from F(x'), where a method follows them.
        end: how the outputs end.
        drawn: whether the model drew random numbers.
    """

    values: Any
    places: int
    features: Leaves
    ways: tuple[Any, Any]
    end: str
    drawn: bool

    def scores(self, score: Score, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor | None]:
        """(F at x, at x', between them [B, P]); None where nothing was read."""
        found = _repeated(score, rows, self.places).of(self.values)
        if self.places == 1:
            return found, None, None
        between = tf.transpose(tf.reshape(found[2 * rows :], [self.places - 2, -1])) if self.places > 2 else None
        return found[:rows], found[rows : 2 * rows], between


def read(network: Network, cut: Cut | None, method: Method, score: Score, begun: Problem) -> Seen:
    """What a method has to know of x, of the baseline that it begins with, and of what lies between.

    All of a path is read in one pass or one loop: each further one is another copy of the model.
    """
    look = _Look(score)
    if cut is not None:

        def observed() -> tuple[tuple[Leaves, Any], str]:
            features, outputs = cut.observed(network.merge(begun.x, score.context))
            values, end = score.quantity.read(outputs, begun.x)
            return (features, values), end

        features, values = look(observed)
        return look.seen(values, 1, features)
    whole = begun.baseline and method.default_baseline
    ends = (begun.x, begun.baseline) if whole else (begun.x,)
    if method.follows and score.scale == 1:

        def there() -> tuple[tuple, str]:
            found = tuple(way(functools.partial(slices.rerule, network.model()), score, leaves) for leaves in ends)
            return found, found[0][0][1]

        ways = look(there)
        return look.seen(_below([values for (values, _), _ in ways]), len(ends), ways=(*ways, None)[:2])
    if whole and method.places and score.quantity.function is None:
        places, like = (1.0, 0.0, *method.places), tf.TensorSpec([None, None], network.dtype)

        def at(score: Score, points: Leaves) -> tf.Tensor:
            return tf.cast(look(lambda: score.read(points)), like.dtype)

        found = path.along(begun, places, like, at)
        return look.seen(tf.concat(tf.unstack(found, axis=1), 0), len(places))
    return look.seen(look(lambda: _repeated(score, begun.rows, len(ends)).read(_below(ends))), len(ends))


class _Look:
    """Reads, and notes how the outputs end and whether the model drew."""

    def __init__(self, score: Score):
        self.shared, self.end, self.drawn = score.shared, "", False

    def __call__(self, reading: Callable[[], tuple[Any, str]]) -> Any:
        graph = tf.compat.v1.get_default_graph()
        begin = len(graph.get_operations())
        found, self.end = reading()
        self.drawn |= draws(graph.get_operations()[begin:]) or (isinstance(self.shared, Readings) and self.shared.draw)
        return found

    def seen(self, values: Any, places: int, features: Leaves = (), ways: tuple[Any, Any] = (None, None)) -> Seen:
        return Seen(values, places, features, ways, self.end, self.drawn)


def _repeated(score: Score, rows: tf.Tensor, times: int) -> Score:
    """The score of all its rows several times over."""
    return score if times == 1 else score.take(tf.tile(tf.range(rows), [times]))


def _below(places: Sequence[Any]) -> Any:
    """Tensors [B, ...] of several places, one below another."""
    return tf.nest.map_structure(lambda *parts: parts[0] if len(parts) == 1 else tf.concat(parts, 0), *places)
