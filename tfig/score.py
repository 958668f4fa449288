"""The score that is explained, F(x) -> [B]: targets resolved once, logits and probabilities converted either way."""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
import tensorflow as tf

from tfig import slices
from tfig.baselines import Arrays
from tfig.ending import converted
from tfig.fingerprint import surroundings
from tfig.network import Leaves
from tfig.sizes import extent

PREDICTED, RUNNER_UP = -1, -2
NOTHING, AGAINST_PREDICTED = -1, -3
"""Codes in the integer vectors of a program: `target` may be PREDICTED or RUNNER_UP, `against` NOTHING, RUNNER_UP or
AGAINST_PREDICTED. Any other negative number is out of range."""

OK, TARGET_OUT_OF_RANGE, NOT_FINITE = 0, 1, 2
"""What a program says of each row in `status`."""

Class = int | np.ndarray | list[int] | Literal["predicted", "runner_up"]


@dataclasses.dataclass(frozen=True, eq=False)
class Contrast:
    """Why `a` rather than `b`: the score F_a(x) - F_b(x).

    Fields:
        a, b: a class index, `[B]` of them, ``"predicted"`` or ``"runner_up"`` (the classes of highest and second
            highest score on x itself).

    >>> tfig.explain(model, x, target=tfig.Contrast("predicted", "runner_up"), output="logits")
    """

    a: Class
    b: Class


@dataclasses.dataclass(frozen=True, eq=False)
class At:
    """A class at one place, for outputs with positions: [B, H, W, C] of a segmentation, [B, T, C], [B, K, C] of boxes.

    Fields:
        target: what it is of, as in `tfig.explain`: a class, `[B]` of them, "predicted" there, or a `Contrast`.
        where: the indices of a position, (h, w) or t; a region [H, W] of zeros and ones (or weights), over which
            outputs are averaged; None: the mean over all positions.

    >>> tfig.explain(segmenter, x, target=tfig.At(3, (120, 80)), output="logits")
    >>> tfig.explain(detector, x, target=("classes", tfig.At("predicted", 0)))
    """

    target: "Class | Contrast | None" = None
    where: int | tuple[int, ...] | np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What is read off a model's outputs, as far as it is known before any row is seen.

    Fields:
        output: None (what the model emits), "logits" or "probabilities".
        head: name or index of the output explained, for a model with several.
        function: outputs -> [B], in place of a class.
        aside: shapes and dtypes of what the function takes beside the outputs, a row for each row: ((...), dtype).
        where: at which place of the outputs: indices, a region, or () for the mean over all; None: they have none.
        independent: whether logits stand for classes of which each is so or not: a sigmoid each, and no softmax.
    """

    output: str | None = None
    head: str | int | None = None
    function: Callable[..., tf.Tensor] | None = None
    aside: tuple[tuple[tuple[int, ...], str], ...] = ()
    where: tuple[int, ...] | Arrays | None = None
    independent: bool = False

    @property
    def held(self) -> "Quantity":
        """What is read whatever the function makes of it, holding no function alive."""
        return self if self.function is None else dataclasses.replace(self, function=tf.identity, aside=())

    @property
    def key(self) -> tuple:
        """The quantity by value, holding no function alive."""
        weak = None if self.function is None else weakref.ref(self.function)
        return self.output, self.head, weak, surroundings(self.function), self.aside, self.where, self.independent

    def read(self, outputs: Any, points: Leaves = ()) -> tuple[Any, str]:
        """(the outputs asked for, how the model's own outputs end, as far back as `points`).

        Without `function` the first is a float tensor [B, units].

        Raises:
            ValueError: several outputs and none chosen, no such output, a rank that has no classes, or a
                conversion that the end of the model does not allow.
        """
        if self.head is not None:
            outputs = _head(outputs, self.head)
        if self.function is not None:
            read = [converted(leaf, self.output, points, self.independent) for leaf in tf.nest.flatten(outputs)]
            return tf.nest.pack_sequence_as(outputs, [value for value, _ in read]), "/".join(end for _, end in read)
        leaves = tf.nest.flatten(outputs)
        if len(leaves) > 1:
            names = sorted(outputs) if isinstance(outputs, dict) else list(range(len(leaves)))
            raise ValueError(
                f"the model has {len(leaves)} outputs {names}; say which to explain: target=({names[0]!r}, class), "
                "or pass a callable outputs -> [B]."
            )
        values, end = converted(leaves[0], self.output, points, self.independent)
        if self.where is not None:
            values = _placed(values, self.where)
        if values.shape.rank == 1:
            values = values[:, tf.newaxis]
        if values.shape.rank != 2:
            axes = (values.shape.rank or 2) - 2
            place = "0" if axes == 1 else str((0,) * axes)
            example = f"tfig.At('predicted', {place})"
            raise ValueError(
                f"the model's output has shape {_shown(values)}, a score at each place; say of which: "
                f"target={example if self.head is None else f'({self.head!r}, {example})'}, a region in place of "
                f"{place}, or a callable outputs -> [B]."
            )
        return values, end


class Shared(Protocol):
    """Traces of a model that programs share."""

    def read(self, score: "Score", points: Leaves) -> tuple[Any, str]:
        """As `Score.read`."""

    def differentiate(self, score: "Score", points: Leaves) -> tuple[tf.Tensor, Leaves] | None:
        """(F, its gradient with respect to each leaf); None where it is not known."""


@dataclasses.dataclass(frozen=True)
class Score:
    """F: points (a tuple of leaves, [N, ...] each) -> [N], for the N rows whose targets and context it holds.

    Fields:
        outputs: (points, context) -> the model's outputs.
        quantity: what is read off them.
        end: how the model's outputs end when nothing is replaced; a cut must not hide it.
        weights: [N, units], what each output is multiplied by in F: 1 for the class explained, -1 for the class
            subtracted; None for a callable target.
        aside: what a callable target takes beside the outputs, [N, ...] each.
        context: leaves [N, ...] that stay at the input: constants, and everything around a cut.
        dtype: of F: that of the explained points.
        scale: factor by which gradients are larger inside the model than outside, a power of two, so that those of a
            float16 model do not vanish.
        shared: traces that programs share; None: there are none.
    """

    outputs: Callable[[Leaves, Leaves], Any]
    quantity: Quantity
    end: str
    weights: tf.Tensor | None
    context: Leaves
    aside: Leaves = ()
    dtype: tf.DType = tf.float32
    scale: float = 1.0
    shared: Shared | None = None

    def read(self, points: Leaves) -> tuple[Any, str]:
        """(what is read off the outputs at `points`, how these end)."""
        if self.shared is None or slices.changed():
            return self.quantity.read(self.outputs(points, self.context), points)
        return self.shared.read(self, points)

    def differentiated(self, points: Leaves) -> tuple[tf.Tensor, Leaves] | None:
        """(F at `points`, its gradient) by a trace that programs share; None where there is none."""
        if self.shared is None or self.weights is None or slices.changed():
            return None
        return self.shared.differentiate(self, points)

    def values(self, points: Leaves) -> Any:
        """The outputs read at `points`."""
        if self.scale != 1:
            points = tuple(_with_gradient(leaf, 1 / self.scale) if leaf.dtype.is_floating else leaf for leaf in points)
        values, end = self.read(points)
        self.require(end)
        if self.scale == 1:
            return values
        return tf.nest.map_structure(lambda value: _with_gradient(value, self.scale), values)

    def require(self, end: str) -> None:
        """Check that outputs which are converted end as those of the whole model do."""
        if self.quantity.output is not None and end != self.end:
            raise ValueError(
                f"output={self.quantity.output!r} needs the model's final {self.end}, which lies before the layer "
                "explained; pass output=None or an earlier layer."
            )

    def __call__(self, points: Leaves) -> tf.Tensor:
        """F at `points`, [N]."""
        return self.of(self.values(points))

    def of(self, values: Any) -> tf.Tensor:
        """F of what was read, [N]."""
        return self.choose(self.summary(values))

    def summary(self, values: Any) -> tf.Tensor:
        """What is averaged over references, without regard to targets: [N, units], or [N] for a callable target."""
        found = values if self.quantity.function is None else apply(self.quantity.function, values, *self.aside)
        return tf.cast(found, self.dtype)

    def choose(self, summary: tf.Tensor) -> tf.Tensor:
        """F from a summary: its target's entry, [N]; other classes' infinities do not spoil it."""
        if self.weights is None:
            return summary
        self.weights.set_shape(summary.shape)  # which a trace for any model does not know before
        # A kept axis is spread again by one operation backwards, where one that is gone takes a dozen.
        return tf.squeeze(tf.reduce_sum(tf.math.multiply_no_nan(summary, self.weights), -1, keepdims=True), -1)

    @property
    def logits(self) -> "Score":
        """The score by logits, where a softmax or sigmoid can be opened: their gradient does not vanish."""
        if self.end not in ("Softmax", "Sigmoid") or self.quantity.function is not None:
            return self
        return dataclasses.replace(self, quantity=dataclasses.replace(self.quantity, output="logits"))

    def unscaled(self) -> "Score":
        """The score with its gradients as they are."""
        return dataclasses.replace(self, scale=1.0)

    def given(self, context: Leaves) -> "Score":
        """The score of the same rows with another context."""
        return dataclasses.replace(self, context=context)

    def take(self, rows: tf.Tensor) -> "Score":
        """The score of the rows with these indices, which may repeat: the one place where targets are tiled."""
        return dataclasses.replace(
            self,
            weights=None if self.weights is None else tf.gather(self.weights, rows),
            context=tuple(tf.gather(leaf, rows) for leaf in self.context),
            aside=tuple(tf.gather(leaf, rows) for leaf in self.aside),
        )


@dataclasses.dataclass(frozen=True)
class Margin:
    """How clearly points are still classified like x: positive on x's side of the decision boundary, 0 on it, [N].

    Several units: score of the class minus the best other one. One unit behind a sigmoid: its logit, signed.
    """

    score: Score
    label: tf.Tensor

    def __call__(self, points: Leaves) -> tf.Tensor:
        """The margin at `points`, [N]."""
        values = self.score.values(points)
        if values.shape[-1] == 1:
            side = tf.cast(2 * self.label - 1, values.dtype)
            return side * values[:, 0]
        own = tf.one_hot(self.label, extent(values, -1), on_value=True, off_value=False)
        others = tf.where(own, tf.constant(-np.inf, values.dtype), values)
        value = tf.reduce_sum(tf.where(own, values, tf.zeros([], values.dtype)), -1)
        return value - tf.reduce_max(others, -1)

    @property
    def scale(self) -> float:
        """As the score's."""
        return self.score.scale

    @property
    def apart(self) -> "Margin":
        """The margin by a trace of its own: what differentiates a call does so by the model's weights as well."""
        return dataclasses.replace(self, score=dataclasses.replace(self.score, shared=None))

    def unscaled(self) -> "Margin":
        """The margin with its gradients as they are."""
        return dataclasses.replace(self, score=self.score.unscaled())

    def given(self, context: Leaves) -> "Margin":
        """The margin of the same rows with another context."""
        return dataclasses.replace(self, score=self.score.given(context))

    def take(self, rows: tf.Tensor) -> "Margin":
        """The margin of the rows with these indices."""
        return dataclasses.replace(self, score=self.score.take(rows), label=tf.gather(self.label, rows))


def margin(score: Score, values: Any) -> Margin:
    """The margin by which rows whose outputs are `values` are classified as they are.

    By the logits, where a softmax or sigmoid can be opened: their gradient does not vanish.

    Raises:
        ValueError: the outputs have no decision boundary (regression, a callable target).
    """
    if score.quantity.function is not None:
        raise ValueError("baseline='boundary' needs classes, and a callable target has none; pass another baseline.")
    if values.shape[-1] != 1:
        return Margin(score.logits, tf.argmax(values, -1, tf.int32))
    if score.end != "Sigmoid":
        raise ValueError(
            "baseline='boundary' needs a classifier, and a single output without a sigmoid is a regression; "
            "pass another baseline."
        )
    threshold = 0.0 if score.quantity.output == "logits" else 0.5
    return Margin(score.logits, tf.cast(values[:, 0] > threshold, tf.int32))


def resolve(values: tf.Tensor, target: tf.Tensor, against: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Targets for rows whose outputs are `values` [B, units].

    Returns:
        target [B] and against [B] (NOTHING: none) as class indices, and ok [B]: whether they are in range.
        Rows out of range get class 0.
    """
    units = extent(values, -1)
    order = tf.math.top_k(values, tf.minimum(2, units)).indices
    best, second = order[:, 0], order[:, -1]
    target = tf.where(target == PREDICTED, best, tf.where(target == RUNNER_UP, second, target))
    other = tf.where(against == AGAINST_PREDICTED, best, tf.where(against == RUNNER_UP, second, against))
    ok = (target >= 0) & (target < units) & (other >= NOTHING) & (other < units)
    return tf.where(ok, target, 0), tf.where(ok, other, NOTHING), ok


def apply(function: Callable[..., tf.Tensor], outputs: Any, *aside: tf.Tensor) -> tf.Tensor:
    """The user's callable target, checked to give one number a row; floats beside the outputs come in their dtype."""
    own = next((leaf.dtype for leaf in tf.nest.flatten(outputs) if leaf.dtype.is_floating), tf.float32)
    aside = tuple(tf.cast(one, own) if one.dtype.is_floating else one for one in aside)
    try:
        score = tf.convert_to_tensor(function(outputs, *aside))
    except Exception as error:  # whatever the user's function raises
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"the callable target failed on TensorFlow tensors ({type(error).__name__}: {reason}); it is called as "
            f"function(outputs{', array' * len(aside)}) and must be made of TensorFlow operations, which NumPy, int() "
            "and if are not."
        ) from error
    if score.shape.rank != 1:
        raise ValueError(f"the callable target gave shape {_shown(score)}; it must give one score per row, [B].")
    return score


def _with_gradient(value: tf.Tensor, factor: float) -> tf.Tensor:
    """`value`, exactly, with `factor` times its gradient."""
    held = tf.stop_gradient(value)
    return held + factor * (value - held)


def _placed(values: tf.Tensor, where: tuple[int, ...] | Arrays) -> tf.Tensor:
    """Outputs [B, ..., C] at a place, [B, C]."""
    shape = values.shape.as_list()
    sides = shape[1:-1]
    if not sides:
        raise ValueError(
            f"target is a tfig.At, and the model's output, {_shown(values)}, has no positions to choose from."
        )
    if isinstance(where, Arrays):
        if list(where.values.shape) != sides:
            raise ValueError(f"At(where=) is a region {list(where.values.shape)}, and the positions are {sides}.")
        weights = tf.constant(where.values / where.values.sum(), values.dtype)[..., tf.newaxis]
        return tf.reduce_sum(values * weights, list(range(1, len(shape) - 1)))
    if not where:
        return tf.reduce_mean(values, list(range(1, len(shape) - 1)))
    if len(where) != len(sides):
        raise ValueError(f"At(where={where}) has {len(where)} indices, and the positions are {sides}.")
    if any(size is not None and not -size <= one < size for one, size in zip(where, sides, strict=True)):
        raise ValueError(f"At(where={where}) lies outside of the positions, {sides}.")
    return values[(slice(None), *where)]


def _head(outputs: Any, head: str | int) -> Any:
    names = (
        sorted(outputs)
        if isinstance(outputs, dict)
        else list(range(len(outputs)))
        if isinstance(outputs, (list, tuple))
        else []
    )
    if head not in names:
        raise ValueError(f"the model has no output {head!r}; it has {names or 'a single output, which needs no name'}.")
    return outputs[head]


def _shown(tensor: tf.Tensor) -> list[int | None]:
    return tensor.shape.as_list() if tensor.shape.rank is not None else []
