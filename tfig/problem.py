"""What a method is given, and what a method is."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import tensorflow as tf

from tfig import slices
from tfig.entry import Leaf
from tfig.network import Leaves
from tfig.sizes import beyond_rows, extent

Trace = dict[str, tf.Tensor]
"""Per-row diagnostics of a method, [B, ...] each, by name."""


Gradients = Literal["x", "anywhere"] | None
"""Where a method takes gradients of the score: at x alone, anywhere, or nowhere."""


class RowScore(Protocol):
    """F: points -> [N], for N rows that can be picked out and repeated."""

    def __call__(self, points: Leaves) -> tf.Tensor:
        """F at `points`, [N]."""

    def take(self, rows: tf.Tensor) -> "RowScore":
        """The score of the rows with these indices."""

    def given(self, context: Leaves) -> "RowScore":
        """The score of the same rows with everything that is not explained at `context`."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The question as it stands at the model's input, for a problem posed at a layer.

    Fields:
        x, baseline: explained leaves at the input, [B, ...]; no baseline, (), where it was given at the layer.
        constants: leaves held constant, [B, ...].
        features: (explained leaves, constants) -> the layer's outputs.
        at: (score, explained leaves, constants) -> the score with everything around the layer computed at those.
        space: where baselines are given: "input", "tokens" (all of an integer input) or "layer".
    """

    x: Leaves
    baseline: Leaves
    constants: Leaves
    features: Callable[[Leaves, Leaves], Leaves]
    at: Callable[[RowScore, Leaves, Leaves], RowScore]
    space: str = "input"

    def place(self, baseline: Leaves) -> Leaves:
        """A baseline, given in `space`, at the layer."""
        if self.space == "layer":
            return baseline
        if self.space == "tokens":
            return self.features((), baseline)
        return self.features(baseline, self.constants)

    def take(self, rows: tf.Tensor) -> "Source":
        """The source of the rows with these indices."""
        return dataclasses.replace(
            self, x=_take(self.x, rows), baseline=_take(self.baseline, rows), constants=_take(self.constants, rows)
        )


@dataclasses.dataclass(frozen=True)
class Problem:
    """Everything a method may look at.

    Fields:
        score: F, points -> [B].
        x: the leaves explained, [B, ...] each: the model's float inputs, or a layer's output.
        baseline: where paths start and what masks reveal, [B, ...] each; () for methods that need none.
        seed: [B, 2] int32; a row's noise is a function of its seed and the sample's index, of nothing else.
        chunk: scalar int32, how many rows the model may evaluate together.
        references: a data set to take expectations over, [R, ...] each, where baselines are given; or ().
        source: at a layer, the question at the model's input.
        sides: what `Method.sides` computed of x outside the program, [B, ...] each.
        dtype: of scores, and of maps over what is no float.
        padded: numbers of the leaves in which 0 is padding, which stays as it is.
        ends: F at x and at the baseline, [B] each, as far as they have been computed.
        between: F between them at `Method.places`, [B, P], if it has been computed.
        ways: how what is read there came from them, as far as it has been followed (`tfig.kernels.passage.way`).
        rerule: handler -> a context in which the model's layers are called through it (see `tfig.slices.rerule`).
    """

    score: RowScore
    x: Leaves
    baseline: Leaves
    seed: tf.Tensor
    chunk: tf.Tensor
    references: Leaves = ()
    source: Source | None = None
    rerule: Callable[[slices.Handler], AbstractContextManager] = slices.nothing
    sides: Leaves = ()
    dtype: tf.DType = tf.float32
    padded: tuple[int, ...] = ()
    ends: tuple[tf.Tensor | None, tf.Tensor | None] = (None, None)
    between: tf.Tensor | None = None
    ways: tuple[Any, Any] = (None, None)

    @property
    def at_x(self) -> tf.Tensor:
        """F(x), [B]."""
        return self.score(self.x) if self.ends[0] is None else self.ends[0]

    @property
    def at_baseline(self) -> tf.Tensor:
        """F(x'), [B]."""
        return self.score(self.baseline) if self.ends[1] is None else self.ends[1]

    @property
    def cut(self) -> Source:
        """The question at the model's input, for methods that are defined only at a layer.

        Raises:
            ValueError: the problem is posed at the input.
        """
        if self.source is None:
            raise ValueError("this method is defined at a layer; pass layer=.")
        return self.source

    @property
    def rows(self) -> tf.Tensor:
        """B, a scalar."""
        return extent(self.seed, 0)

    def take(self, rows: tf.Tensor) -> "Problem":
        """The problem of the rows with these indices, which may repeat."""
        return dataclasses.replace(
            self,
            score=self.score.take(rows),
            x=_take(self.x, rows),
            baseline=_take(self.baseline, rows),
            seed=tf.gather(self.seed, rows),
            sides=_take(self.sides, rows),
            source=self.source.take(rows) if self.source else None,
            ends=(_rows(self.ends[0], rows), _rows(self.ends[1], rows)),
            between=_rows(self.between, rows),
            ways=(None, None),
        )

    def at_reference(self, which: tf.Tensor) -> "Problem":
        """The problem of each row from one reference, by its index: [B] -> a problem with a baseline."""
        leaves = tuple(tf.gather(leaf, which) for leaf in self.references)
        if self.source is None:
            return self.replace(baseline=leaves, references=())
        source = dataclasses.replace(self.source, baseline=leaves if self.source.space == "input" else ())
        return self.replace(baseline=source.place(leaves), references=(), source=source)

    def replace(self, **fields) -> "Problem":
        """The same problem with other fields."""
        for name in ("ends", "ways"):
            at_x, at_baseline = (None if "score" in fields else one for one in getattr(self, name))
            known = (None if "x" in fields else at_x, None if "baseline" in fields else at_baseline)
            fields.setdefault(name, known)
        if fields.keys() & {"score", "x", "baseline"}:
            fields.setdefault("between", None)
        return dataclasses.replace(self, **fields)


def per_row(values: tf.Tensor, leaf: tf.Tensor) -> tf.Tensor:
    """`values` [N] shaped [N, 1, ...] to be multiplied into `leaf` [N, ...]; booleans stay what they are."""
    known = values if values.dtype == tf.bool else tf.cast(values, leaf.dtype)
    return tf.reshape(known, [-1] + [1] * (len(leaf.shape) - 1))


def row_sum(leaves: Leaves) -> tf.Tensor:
    """sum over everything but rows, of all leaves together: [N]."""
    sums = [tf.reduce_sum(leaf, beyond_rows(leaf)) for leaf in leaves]
    return sums[0] if len(sums) == 1 else tf.add_n(sums)


def _rows(values: tf.Tensor | None, rows: tf.Tensor) -> tf.Tensor | None:
    return None if values is None else tf.gather(values, rows)


def _take(leaves: Leaves, rows: tf.Tensor) -> Leaves:
    return tuple(tf.gather(leaf, rows) for leaf in leaves)


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """A way to attribute a score: a frozen value of hyper-parameters that knows no model.

    Two equal methods share one compiled program. Subclasses are final; they are composed by fields (SmoothGrad around
    an inner method), not by inheritance.

    Class attributes:
        name: the string that stands for it.
        reference: the paper it is taken from.
        complete: whether attributions sum to F(x) - F(baseline), up to the reported `convergence_delta`.
        stochastic: whether it draws noise from the seed.
        takes_references: whether it averages over a data set of baselines.
        needs_layer: whether it is defined only at a layer.
        picks_layer: whether, given none, it takes the last feature map with spatial axes.
        follows: whether it follows how F came from x, and from the baseline where it has one, operation by operation.
        stepwise: whether loops over time are unrolled for it, so that a program is for one number of steps.
        of_input: whether, posed at a layer, it attributes to the input all the same.
        switches: whether x is only ever put together of parts of itself and of baselines, so that integers, strings and
            booleans can be explained too, and are.
        slope: whether attributions are slopes, per unit of x, rather than shares of the score.
        gradients: where it takes gradients of the score: "x", at x alone; "anywhere"; None: nowhere, or in its own way.
        default_baseline: name of its default baseline, "dataset" where references must be given; None where it has
            no baseline.
        needs: what it asks of the caller beyond a model and x, in words.
        gives: what attributions have an entry for, where it is not each of x or of the layer's output.
        cost: evaluations of the model for each row, in words and by the names of its hyper-parameters.
        principles: which of three principles it keeps in how it gives out the Taylor expansion of F at its baseline, as
            derived here: "1" nothing left out, "2" nothing to variables outside an effect, "3" each effect given out
            once and completely; None where nothing was derived (Deng et al., 2024, arXiv:2303.01506).
    """

    name: ClassVar[str]
    reference: ClassVar[str]
    complete: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    takes_references: ClassVar[bool] = False
    needs_layer: ClassVar[bool] = False
    picks_layer: ClassVar[bool] = False
    follows: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    of_input: ClassVar[bool] = False
    switches: ClassVar[bool] = False
    slope: ClassVar[bool] = False
    gradients: ClassVar[Gradients] = None
    default_baseline: ClassVar[str | None] = None
    needs: ClassVar[str] = ""
    gives: ClassVar[str] = "an entry for each of x, or of the layer's output"
    cost: ClassVar[str]
    principles: ClassVar[str | None] = None

    @classmethod
    def default(cls) -> "Method":
        """What the method's name stands for: with the defaults of its fields, where it does not say otherwise."""
        return cls()

    @property
    def parameters(self) -> dict[str, object]:
        """The hyper-parameters by name; an inner method as a dict with its name under "method"."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: {"method": value.name, **value.parameters} if isinstance(value, Method) else value
            for name, value in values.items()
        }

    def side_specs(self, leaves: Sequence[Leaf]) -> list[tf.TensorSpec]:
        """What `sides` gives for inputs `leaves`, [None, ...] each."""
        return []

    def sides(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What is computed of the explained inputs in Python, outside the program, for each row."""
        return []

    @property
    def places(self) -> tuple[float, ...]:
        """Where between x' and x, from 0 to 1, F is asked for: read along with both ends, in one loop."""
        return ()

    def like(self, problem: Problem) -> Leaves:
        """Tensors in the shape of the attributions."""
        return problem.x

    @abc.abstractmethod
    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """Attributions, [B, ...] for each leaf of ``problem.x``, and per-row diagnostics."""
