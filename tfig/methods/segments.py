"""Segments: which positions of x are present or absent together."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.baselines import Arrays
from tfig.entry import Leaf
from tfig.kernels import coalition
from tfig.kernels.coalition import Features
from tfig.kernels.expectation import fork, uniform
from tfig.methods.checks import whole
from tfig.network import Leaves
from tfig.problem import Method, Problem
from tfig.sizes import beyond_rows

GRID = 8
"""Segments along each spatial axis of an image or a volume where none are given."""

STEPS = 512
"""Segments of a sequence where none are given, at most: as many as KernelSHAP's 2048 coalitions tell apart."""


@dataclasses.dataclass(frozen=True)
class Segmented(Method):
    """What methods over segments share: what a feature is.

    `segments`: None, each feature of [B, F], each step of [B, T, C] (or 512 segments of a longer one), and a grid of 8
    along each spatial axis of what has more; an int, the grid's size; a map [H, W] of whole numbers from 0; or a
    function image [H, W, C] -> map, called outside the program, for each row. Numbers that no position has are passed
    over: segments are numbered through.
    """

    segments: Any = dataclasses.field(default=None, kw_only=True)

    gives = "a value for each position, all channels at once: [B, ..., 1], of tables [B, F]"
    default_baseline = "zeros"
    switches = True

    def __post_init__(self):
        given = self.segments
        if given is None or callable(given) or isinstance(given, Arrays):
            return
        if np.ndim(given) == 0:
            whole("segments", given, 1)
            return
        segments = np.asarray(given)
        if segments.dtype.kind not in "iu" or segments.min() < 0:
            raise ValueError(
                f"segments is an array of {segments.dtype} from {segments.min()}; it must be whole numbers from 0."
            )
        object.__setattr__(self, "segments", Arrays(_numbered(segments)))

    @property
    def parameters(self) -> dict[str, object]:
        """The hyper-parameters; segments in words, where they are no number."""
        found = super().parameters
        if not (found["segments"] is None or isinstance(found["segments"], int)):
            found["segments"] = "a function" if callable(self.segments) else "a map"
        return found

    def side_specs(self, leaves: Sequence[Leaf]) -> list[tf.TensorSpec]:
        """A map for each image, of a function that gives them."""
        if not callable(self.segments):
            return []
        return [tf.TensorSpec([None, *leaf.shape[1:-1]], tf.int32) for leaf in leaves if len(leaf.shape) > 2]

    def sides(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The maps of each row, of a function that gives them."""
        if not callable(self.segments):
            return []
        maps = []
        for leaf in x:
            if leaf.ndim < 3:
                continue
            found = np.stack([np.asarray(self.segments(row)) for row in leaf])
            if found.shape != leaf.shape[:-1] or found.dtype.kind not in "iu":
                raise ValueError(
                    f"segments gave {found.dtype} {list(found.shape[1:])} for a row {list(leaf.shape[1:])}; it must "
                    f"give a map of whole numbers, {list(leaf.shape[1:-1])}."
                )
            maps.append(np.stack([_numbered(row) for row in found]))
        return maps

    def like(self, problem: Problem) -> Leaves:
        """Maps over positions."""
        return coalition.like(problem)

    def features(self, problem: Problem) -> Features:
        """The features of a problem's leaves, counted through."""
        if callable(self.segments) and problem.source is not None:
            raise ValueError(
                "segments by a function are of the image, and layer= explains a layer; pass a grid's size."
            )
        index: list[tf.Tensor] = []
        known: int | None = 0
        before, fed = tf.zeros([1], tf.int32), iter(problem.sides)
        for leaf in problem.x:
            sides, shape = coalition.positions(leaf), leaf.shape[1:].as_list()
            static = shape if len(leaf.shape) == 2 else shape[:-1]
            numbers = len(leaf.shape) == 2 and (leaf.dtype.is_floating or not isinstance(self.segments, int))
            if numbers and not isinstance(self.segments, Arrays):
                one, size = tf.range(sides[0])[tf.newaxis], static[0]
            elif isinstance(self.segments, Arrays):
                given = self.segments.values
                if list(given.shape) != static:
                    raise ValueError(f"segments is a map {list(given.shape)}, and the positions are {static}.")
                one, size = tf.constant(given[np.newaxis]), int(given.max()) + 1
            elif callable(self.segments):
                one, size = next(fed), None
            else:
                cells = (STEPS if len(sides) == 1 else GRID) if self.segments is None else self.segments
                one, size = _grid(sides, static, cells)
            one = one + tf.reshape(before, [-1, *[1] * len(sides)])
            index.append(one)
            before = 1 + tf.reduce_max(one, beyond_rows(one))
            known = None if known is None or size is None else known + size
        return Features(tuple(index), tf.reduce_max(before) if known is None else tf.constant(known), known)


def _numbered(segments: np.ndarray) -> np.ndarray:
    """Segments numbered through from 0: numbers that no position has are no segments."""
    return np.unique(segments, return_inverse=True)[1].reshape(segments.shape).astype(np.int32)


def _grid(sides: list[tf.Tensor], static: list[int | None], cells: int) -> tuple[tf.Tensor, int | None]:
    """(index, number if known) of a grid of `cells` along each axis, at most its positions."""
    index = tf.zeros([1] * (len(sides) + 1), tf.int32)
    known: int | None = 1
    for axis, side in enumerate(sides):
        along = tf.minimum(cells, side)
        place = tf.range(side) * along // side
        shape = [1, *[1] * axis, -1, *[1] * (len(sides) - axis - 1)]
        index = index * along + tf.reshape(place, shape)
        length = static[axis]
        known = None if known is None or length is None else known * min(cells, length)
    return index, known


def marginal(method: Segmented, problem: Problem, samples: int) -> Leaves:
    """F(x) - mean F(x with a feature drawn from the references), at every position of the feature."""
    features = method.features(problem)
    repeated = dataclasses.replace(features, count=features.count * samples, known=None)

    def without(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
        feature = sample // samples
        q = p.at_reference(drawn(p, sample, tf.zeros([tf.shape(sample)[0], 1]))[:, 0])
        return coalition.mix(q, features, row, 1 - tf.one_hot(feature, features.count))

    losses = coalition.one_left_out(problem, repeated, without)
    means = tf.reduce_mean(tf.reshape(losses, [problem.rows, features.count, samples]), -1)
    return features.spread(means, problem)


def drawn(p: Problem, sample: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Indices of references, drawn in the shape of `like` [N, ...]."""
    count = tf.shape(p.references[0])[0]
    draw = uniform(fork(p.seed, tf.zeros_like(sample)), sample, like) * tf.cast(count, tf.float32)
    return tf.minimum(tf.cast(draw, tf.int32), count - 1)
