"""The way from points to what is computed of them, operation by operation; and the walk back along it by rules.

The model is called once, and nothing of it replaced: what was traced is read backwards, each operation by one rule.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import tensorflow as tf

from tfig import anatomy, slices
from tfig.graph import depending
from tfig.network import Leaves
from tfig.score import Score

REACH = 12
"""How many steps a function of each element is followed."""

Around = Callable[[slices.Handler], AbstractContextManager]

CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class NoRule(Exception):
    """There is no rule for an operation, or not for what it does here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of a layer without layers inside, or of a functional model's operation."""

    part: Any


@dataclasses.dataclass
class Passage:
    """What was computed of the points.

    Fields:
        operations: those that depend on the points, in the order of their making.
        varying: the names of their outputs and the points.
        sloped: those of them that are reached by way of numbers alone, not of choices or counts.
        owner: whose call made an operation, by its name.
    """

    points: Leaves
    operations: list[tf.Operation]
    owner: dict[str, Call]

    def __post_init__(self):
        made = (out for op in self.operations for out in op.outputs)
        self.varying = {one.name for one in (*self.points, *made)}
        self.sloped = {one.name for one in self.points}
        for op in self.operations:
            if self.free(op):
                self.sloped |= {out.name for out in op.outputs if out.dtype.is_floating or out.dtype.is_complex}

    @functools.cached_property
    def alone(self) -> dict[str, tf.Tensor]:
        """Of operations that join functions of each element of one tensor: that tensor, by the operation's name."""
        return _alone(self)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {op.name: i for i, op in enumerate(self.operations)}

    def part(self, op: tf.Operation) -> Any:
        """The layer or operation of the model by which it was made, or None."""
        return getattr(self.owner.get(op.name), "part", None)

    def kind(self, op: tf.Operation, free: Sequence[int]) -> str | None:
        """What it is (`anatomy.kind`), where the inputs `free` vary: a function, too, where it joins such."""
        return "function" if op.name in self.alone else anatomy.kind(op, free)

    def source(self, op: tf.Operation, free: Sequence[int]) -> tf.Tensor:
        """What a function is of."""
        return self.alone[op.name] if op.name in self.alone else op.inputs[free[0]]

    def free(self, op: tf.Operation) -> list[int]:
        """The inputs with a slope that depend on the points."""
        return [i for i, one in enumerate(op.inputs) if one.name in self.sloped]

    def chosen(self, op: tf.Operation) -> bool:
        """Whether it computes with numbers or indices that depend on the points by choices or counts."""
        return any(one.name in self.varying and one.name not in self.sloped for one in op.inputs)

    def called(self, op: tf.Operation) -> str:
        """The operation in words: type, layer, where in the source."""
        part = self.part(op)
        where = "outside any layer" if part is None else f"in {part.name!r} ({type(part).__name__})"
        frames = list(op.traceback)
        ours = [i for i, frame in enumerate(frames) if "/tfig/" in frame.filename]
        theirs = [
            frame for frame in frames[ours[-1] + 1 :]
            if not any(f"/{library}/" in frame.filename for library in ("tensorflow", "keras"))
        ]  # fmt: skip
        line = f", {theirs[-1].filename.rsplit('/', 1)[-1]}:{theirs[-1].lineno}" if theirs else ""
        return f"{op.type} ({op.name!r}, {where}{line})"

    def between(self, source: tf.Tensor, op: tf.Operation) -> list[tf.Operation]:
        """The operations that make the output of `op` of `source`, in the order of their making."""
        waiting, found = [op], {}
        while waiting:
            one = waiting.pop()
            found[one.name] = one
            waiting += [
                t.op for t in one.inputs if t.name in self.varying and t.name != source.name and t.op.name not in found
            ]
        return sorted(found.values(), key=lambda one: self._places[one.name])


def _alone(passage: Passage) -> dict[str, tf.Tensor]:
    near: dict[str, tuple[tf.Tensor, ...]] = {}
    joined: dict[str, tf.Tensor] = {}
    for op in passage.operations:
        if op.type not in anatomy.ALONE or (op.type in anatomy.SUMS and _bias(op, passage)):
            continue
        if op.type == "IdentityN":
            for given, out in zip(op.inputs, op.outputs, strict=True):
                near[out.name] = (given, *near.get(given.name, ()))[:REACH]
            continue
        known = [one for one in op.inputs if one.name in passage.varying]
        (first, *rest) = [(one, *near.get(one.name, ())) for one in known]
        names = [{one.name for one in chain} for chain in rest]
        out = op.outputs[0]
        if not rest:
            near[out.name] = first[:REACH]
            continue
        common = next((one for one in first if all(one.name in chain for chain in names)), None)
        if common is not None and common.dtype.is_floating and _alike(common, out):
            joined[op.name] = common
            near[out.name] = (common, *near.get(common.name, ()))[:REACH]
    return joined


def _alike(a: tf.Tensor, b: tf.Tensor) -> bool:
    """Whether two tensors have the same known shape."""
    return None not in (a.shape.rank, b.shape.rank) and a.shape.as_list() == b.shape.as_list()


def _bias(op: tf.Operation, passage: Passage) -> bool:
    """Whether something is added that is not one number: that is a bias rather than a function of each element."""
    return any(one.name not in passage.varying and one.shape.rank != 0 for one in op.inputs)


def along(rerule: Around, points: Leaves, compute: Callable[[], Any]) -> tuple[Any, Passage]:
    """(what `compute` gives, how it came from `points`); `rerule` has the calls of layers go through a handler."""
    graph = tf.compat.v1.get_default_graph()
    owner: dict[str, Call] = {}
    begin = len(graph.get_operations())

    def record(part: Any, call: Any, *args: Any, **kwargs: Any) -> Any:
        before = len(graph.get_operations())
        output = call(*args, **kwargs)
        mine = Call(part)
        for op in graph.get_operations()[before:]:
            owner.setdefault(op.name, mine)
        return output

    with rerule(record):
        result = compute()
    operations: list[Any] = []
    for op in depending(graph.get_operations()[begin:], points):
        operations += _opened(op, owner)
    return result, Passage(points, depending(operations, points), owner)


def way(rerule: Around, score: Score, x: Leaves) -> tuple[Any, Passage]:
    """((what is read off the outputs at x, how these end), how that came from x)."""
    points = tuple(map(tf.identity, x))
    return along(rerule, points, lambda: score.read(points))


def further(passage: Passage, compute: Callable[[], Any]) -> tuple[Any, Passage]:
    """(what `compute` gives of what is on a passage, the passage to there)."""
    graph = tf.compat.v1.get_default_graph()
    begin = len(graph.get_operations())
    result = compute()
    before = [*passage.points, *(out for op in passage.operations for out in op.outputs)]
    more = depending(graph.get_operations()[begin:], before)
    return result, Passage(passage.points, [*passage.operations, *more], passage.owner)


class Answer:
    """A call of a function, as what hands on the values that were computed in its place."""

    type = "IdentityN"

    def __init__(self, call: tf.Operation, values: Sequence[tf.Tensor]):
        self.name, self.traceback = call.name, call.traceback
        self.inputs, self.outputs = list(values), call.outputs


def _opened(op: tf.Operation, owner: dict[str, Call]) -> list[Any]:
    """The operation; or, of a call of a function, what is inside it, made here, and its answer."""
    graph = tf.compat.v1.get_default_graph()
    body = getattr(graph._get_function(op.get_attr("f").name), "graph", None) if op.type in CALLS else None
    if body is None:
        return [op]
    known = dict(zip((one.name for one in body.inputs), op.inputs, strict=True))
    begin = len(graph.get_operations())
    for inner in body.get_operations():
        if inner.outputs and inner.outputs[0].name not in known:
            made = anatomy.replay(inner, [known[one.name] for one in inner.inputs])
            known.update({old.name: new for old, new in zip(inner.outputs, made, strict=True)})
    opened: list[Any] = []
    for one in graph.get_operations()[begin:]:
        if op.name in owner:
            owner[one.name] = owner[op.name]
        opened += _opened(one, owner)
    return [*opened, Answer(op, [known[one.name] for one in body.outputs])]


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


Given = list[tf.Tensor | None]
"""What a tensor was given, in as many parts as the book keeps apart."""


class Book(Protocol):
    """How each operation passes back what its outputs were given."""

    name: str

    def back(self, op: tf.Operation, above: Sequence[Given]) -> Iterator[tuple[tf.Tensor, int, tf.Tensor]]:
        """(tensor before an operation, which part, what it is given), where its outputs were given `above`.

        Raises:
            NoRule: it has none.
        """


def back(passage: Passage, book: Book, begun: Iterable[tuple[tf.Tensor, int, tf.Tensor]]) -> dict[str, Given]:
    """What the points are given, by name, where `begun` is given to tensors behind them.

    Raises:
        ValueError: an operation on the way has no rule.
    """
    given: dict[str, Given] = {}

    def give(found: Iterable[tuple[tf.Tensor, int, tf.Tensor]]) -> None:
        for tensor, part, value in found:
            if tensor.name in passage.sloped:
                parts = given.setdefault(tensor.name, [None, None])
                parts[part] = value if parts[part] is None else parts[part] + value

    give(begun)
    for op in reversed(passage.operations):
        above = [given.get(out.name, [None, None]) for out in op.outputs]
        if any(one is not None for parts in above for one in parts):
            try:
                if slices.quantised(passage.part(op)):
                    raise NoRule(f"{passage.called(op)}, which is quantised")
                give(book.back(op, above))
            except NoRule as missing:
                named = str(missing) or passage.called(op)
                raise ValueError(
                    f"{book.name} has no rule for {named}; explain a layer behind it (layer=), or use a gradient or "
                    "path method."
                ) from None
    return {point.name: given.get(point.name, [None, None]) for point in passage.points}
