"""What a composite of rules makes of a passage, before any relevance flows.

Which operations are one affine map, which factors are taken for constants, and which scalings and shifts fold into
which weights.
"""

import dataclasses

import keras
import tensorflow as tf

from tfig import anatomy
from tfig.kernels.passage import Passage
from tfig.rules import Composite, Epsilon, Rule, Signal

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
        folded: whether it is more than one call's.
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


class Plan:
    """The operations of a passage as a composite sees them.

    Attributes:
        free: of each operation the inputs that are given relevance, by its name.
        kinds: what it is (`anatomy.kind`), these given.
        chains: of tensors that weights make, how; by name.
        layers: the names of what has weights.

    Raises:
        ValueError: a normalisation would be folded that scales another axis than the channels.
    """

    def __init__(self, name: str, passage: Passage, composite: Composite):
        self.name, self.passage, self.composite = name, passage, composite
        self.free: dict[str, list[int]] = {}
        self.kinds: dict[str, str | None] = {}
        self.chains: dict[str, Chain] = {}
        self.layers: set[str] = set()
        self._epsilons: dict[str, float | None] = {}
        self._tags: dict[str, str] = {}
        self._before: dict[str, tuple[tf.Tensor, tuple[tf.Operation, ...]]] = {}
        self._weighted: set[str] = set()
        self._maps: dict[str, str] = {}
        self._mixing: set[str] = set()
        for op in passage.operations:
            self._look(op)
        self._mixing = {self._map(name) for name in self._mixing}
        self._epsilons = {self._map(name): value for name, value in self._epsilons.items() if name in self._maps}

    def _look(self, op: tf.Operation) -> None:
        """Take down what an operation is; those before it have been looked at."""
        free = self.passage.free(op)
        self._tag(op, free)
        held = set() if op.name in self.passage.alone else self._held(op, free)
        free = [i for i in free if i not in held]
        what = self.passage.kind(op, free)
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
        tag = NORMALISER if _divides(op, free) else TAGS.get(op.type)
        if tag is None and len(free) == 1 and op.type in anatomy.MOVING | anatomy.SUMS | anatomy.SCALINGS:
            tag = self._tags.get(op.inputs[free[0]].name)
        if tag is not None:
            self._tags.update({out.name: tag for out in op.outputs})

    def _held(self, op: tf.Operation, free: list[int]) -> set[int]:
        """The factors that are taken for constants: divisors and gates, in a recurrent cell those of no state too."""
        if not free or op.type not in anatomy.SCALINGS | anatomy.PRODUCTS or len(op.inputs) < 2:
            return set()
        if len(free) == 1:
            cell = hasattr(self.passage.part(op), "state_size")
            gate = isinstance(self.composite.products, Signal) and self._tags.get(op.inputs[free[0]].name) == GATE
            return {free[0]} if cell and gate and (op.inputs[1 - free[0]].shape.rank or 0) > 1 else set()
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
        x, part = op.inputs[free], self.passage.part(op)
        self.layers.add(getattr(part, "name", ""))
        rule = self.composite.rule(part, op.type in anatomy.CONVOLUTIONS, first)
        source, before = self._before.get(x.name, (x, ()))
        scaled = any(self.kinds[one.name] != "moving" for one in before)
        before, source = (before, source) if scaled else ((), x)
        self.chains[op.outputs[0].name] = Chain(source, before, op, free, rule, folded=scaled)
        if isinstance(rule, Epsilon):
            self._epsilons[op.name] = rule.stable

    def _chain(self, op: tf.Operation, x: tf.Tensor, what: str) -> None:
        """Lengthen what ends at x."""
        out, chain = op.outputs[0], self.chains.get(x.name)
        if chain is not None:
            own = self.passage.owner.get(op.name) is self.passage.owner.get(chain.weights.name) is not None
            idle = what == "moving" and out.shape.as_list() == x.shape.as_list()
            joins = own or (
                self.composite.fold and (what != "moving" or (idle and op.type in ("Identity", "Cast", "Pad")))
            )
            scalable = anatomy.scalable(chain.weights, chain.free)
            if joins and (what != "scale" or (scalable and self.of_channels(chain, op))):
                folded = chain.folded or not own
                self.chains[out.name] = dataclasses.replace(chain, after=(*chain.after, op), folded=folded)
            elif joins and scalable and isinstance(self.passage.part(op), NORMALISING):
                names = [getattr(self.passage.part(one), "name", one.name) for one in (op, chain.weights)]
                raise ValueError(
                    f"{self.name} folds {names[0]!r} into {names[1]!r} before it, and it scales another axis than its "
                    "channels; explain a layer behind it (layer=), or use a gradient or path method."
                )
        elif self.composite.fold:
            source, before = self._before.get(x.name, (x, ()))
            self._before[out.name] = source, (*before, op)

    def of_channels(self, chain: Chain, op: tf.Operation) -> bool:
        """Whether what an operation behind weights computes with is one number, or one for each of their channels."""
        if any(one.type == "Transpose" for one in chain.after):
            return False
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
            self._maps[name] = name = self._maps[self._maps[name]]
        return name

    def map(self, op: tf.Operation) -> str | None:
        """The map of several operations that one is part of; None: it is none."""
        found = self._map(op.name) if op.name in self._maps else None
        return found if found in self._mixing else None

    def epsilon(self, mapped: str) -> float | None:
        """The stabiliser of a map."""
        return self._epsilons.get(mapped, self.composite.epsilon)


def _divides(op: tf.Operation, free: list[int]) -> bool:
    """Whether an operation is an inverse: of a quotient, or a power below zero."""
    if op.type == "Pow":
        power = tf.get_static_value(op.inputs[1])
        return free == [0] and power is not None and bool((power < 0).all())
    return op.type in anatomy.QUOTIENTS and free == [1]
