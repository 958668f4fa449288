"""Rules of layer-wise relevance propagation: how a linear layer's relevance is shared out among its inputs.

Each is a frozen value. With a_i the inputs, w_ij the weights and b_j the bias of z_j = sum{ a_i w_ij : i } + b_j, a
rule gives input i the share numerator_ij / denominator_j of R_j. The bias takes its share unless `bias` is False.
"""

import abc
import dataclasses
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

STABILISER = 1e-6
"""Added to denominators, with their sign; less where a row's denominators are all small: at most SMALL of the largest,
so that relevance does not depend on the unit of what it is propagated through."""

SMALL = 1e-5


class Linear(NamedTuple):
    """A linear map as a rule sees it, in float32.

    Fields:
        apply: (inputs, weights) -> outputs, without bias.
        weights: None for maps that have none (averages).
        bias: broadcastable to the outputs; 0 where there is none.
        scale: what the inputs were multiplied by just before, broadcastable to them.
        shift: what was added to them after that: the bias has it, and bounds of inputs are of inputs that have it.
    """

    apply: Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
    weights: tf.Tensor | None
    bias: tf.Tensor | float
    scale: tf.Tensor | float = 1.0
    shift: tf.Tensor | float = 0.0


class Share(NamedTuple):
    """apply(inputs, weights) * factor: what the inputs get of one unit of relevance, numerator over denominator."""

    inputs: tf.Tensor
    weights: tf.Tensor | None
    factor: tf.Tensor


class Rule(abc.ABC):
    """How relevance is shared out."""

    @abc.abstractmethod
    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """The shares of inputs x [N, ...]; together they are the rule."""


@dataclasses.dataclass(frozen=True)
class Epsilon(Rule):
    """a_i w_ij / (z_j + epsilon sign(z_j)), sign(0) = 1. With epsilon=0: LRP-0.

    The default epsilon only keeps zeros from dividing: in a row whose |z_j| are all below 0.1 it is 1e-5 of the
    largest. Any other epsilon is the number it is.

    Source: Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions, 2015, eq. 58.
    """

    epsilon: float = STABILISER
    bias: bool = True

    def __post_init__(self):
        _not_negative("epsilon", self.epsilon)

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """One."""
        z = linear.apply(x, linear.weights) + (linear.bias if self.bias else 0.0)
        return [Share(x, linear.weights, over(1.0, z, self.stable))]

    @property
    def stable(self) -> float | None:
        """What `over` is told."""
        return None if self.epsilon == STABILISER else self.epsilon


@dataclasses.dataclass(frozen=True)
class Gamma(Rule):
    """Like epsilon, with w_ij + gamma w_ij+ in place of w_ij: positive contributions are favoured.

    Generalised to inputs and outputs of either sign: where z_j > 0, contributions that raise z_j are favoured, else
    those that lower it.

    Source: Montavon et al., Layer-Wise Relevance Propagation: An Overview, 2019; generalised as in Andeol et al., 2021,
    and Zennit (Anders et al., 2021, arXiv:2106.13200).
    """

    gamma: float = 0.25
    bias: bool = True

    def __post_init__(self):
        _not_negative("gamma", self.gamma)

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """Positive and negative inputs, where the output is positive and where it is negative."""
        w, b = linear.weights, linear.bias if self.bias else 0.0
        if w is None:
            return Epsilon().shares(x, linear)
        up, down = w + self.gamma * tf.maximum(w, 0.0), w + self.gamma * tf.minimum(w, 0.0)
        z = linear.apply(x, w) + b
        plus, minus = tf.maximum(x, 0.0), tf.minimum(x, 0.0)
        raised = linear.apply(plus, up) + linear.apply(minus, down) + b + self.gamma * _part(b, tf.maximum)
        lowered = linear.apply(plus, down) + linear.apply(minus, up) + b + self.gamma * _part(b, tf.minimum)
        positive = over(tf.cast(z > 0, z.dtype), raised)
        negative = over(tf.cast(z < 0, z.dtype), lowered)
        return [
            Share(plus, up, positive), Share(minus, down, positive),
            Share(plus, down, negative), Share(minus, up, negative),
        ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AlphaBeta(Rule):
    """alpha z_ij+ / z_j+ - beta z_ij- / z_j-, alpha - beta = 1, of the positive and negative parts of a_i w_ij.

    Source: Bach et al., 2015, eq. 60.
    """

    alpha: float = 2.0
    beta: float = 1.0
    bias: bool = True

    def __post_init__(self):
        if abs(self.alpha - self.beta - 1) > 1e-6 or self.beta < 0:
            raise ValueError(f"alpha is {self.alpha!r} and beta {self.beta!r}; alpha - beta must be 1, and beta >= 0.")

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """Two that raise the output, two that lower it."""
        w, b = linear.weights, linear.bias if self.bias else 0.0
        plus, minus = tf.maximum(x, 0.0), tf.minimum(x, 0.0)
        if w is None:
            return Epsilon().shares(x, linear)
        up, down = tf.maximum(w, 0.0), tf.minimum(w, 0.0)
        raising = over(self.alpha, linear.apply(plus, up) + linear.apply(minus, down) + _part(b, tf.maximum))
        shares = [Share(plus, up, raising), Share(minus, down, raising)]
        if self.beta:
            lowering = over(-self.beta, linear.apply(plus, down) + linear.apply(minus, up) + _part(b, tf.minimum))
            shares += [Share(plus, down, lowering), Share(minus, up, lowering)]
        return shares


@dataclasses.dataclass(frozen=True)
class ZPlus(Rule):
    """z_ij+ / z_j+: what raises the output shares all of it (alpha 1, beta 0).

    Source: Montavon et al., Explaining nonlinear classification decisions with deep Taylor decomposition, 2017.
    """

    bias: bool = True

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """Two that raise the output."""
        return AlphaBeta(1.0, 0.0, self.bias).shares(x, linear)


@dataclasses.dataclass(frozen=True)
class ZBox(Rule):
    """(a_i w_ij - l_i w_ij+ - h_i w_ij-) / their sum over i, for inputs between l and h: the first layer's pixels.

    Fields:
        low, high: the smallest and largest input there can be; each row's own range, where None. Of the layer's own
            inputs: behind a Rescaling or a normalisation, of what these make of the model's.

    Source: Montavon et al., 2017.
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self):
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"low is {self.low!r} and high {self.high!r}; low must be below high.")

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """Of the input, and of both bounds."""
        w = linear.weights
        if w is None:
            return Epsilon().shares(x, linear)
        axes = range(1, len(x.shape))
        least = tf.reduce_min(x, axes, keepdims=True) if self.low is None else self.low - linear.shift
        most = tf.reduce_max(x, axes, keepdims=True) if self.high is None else self.high - linear.shift
        low, high = tf.zeros_like(x) + least, tf.zeros_like(x) + most
        parts = [(x, w, 1.0), (low, tf.maximum(w, 0.0), -1.0), (high, tf.minimum(w, 0.0), -1.0)]
        z = tf.add_n([sign * linear.apply(inputs, weights) for inputs, weights, sign in parts])
        return [Share(inputs, weights, over(sign, z)) for inputs, weights, sign in parts]


@dataclasses.dataclass(frozen=True)
class WSquare(Rule):
    """w_ij**2 / sum{ w_ij**2 : i }: by the weights alone, those of a scaling folded into them.

    Source: Montavon et al., 2017.
    """

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """One, of ones."""
        squares = None if linear.weights is None else tf.square(linear.weights)
        scales = tf.square(tf.ones_like(x) * linear.scale)
        return [Share(scales, squares, over(1.0, linear.apply(scales, squares), 0.0))]


@dataclasses.dataclass(frozen=True)
class Flat(Rule):
    """1 / sum{ 1 : i }: to all inputs alike.

    Source: Lapuschkin et al., Unmasking Clever Hans predictors, 2019.
    """

    def shares(self, x: tf.Tensor, linear: Linear) -> list[Share]:
        """One, of ones."""
        ones, weights = tf.ones_like(x), None if linear.weights is None else tf.ones_like(linear.weights)
        return [Share(ones, weights, over(1.0, linear.apply(ones, weights), 0.0))]


def _part(bias: Any, end: Callable[..., tf.Tensor]) -> Any:
    """What of a bias is positive, or negative; of none, none."""
    return bias if isinstance(bias, float) else end(bias, 0.0)


def _not_negative(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value >= 0:
        raise ValueError(f"{name} is {value!r}; it must be a number, and at least 0.")


def over(numerator: tf.Tensor | float, denominator: tf.Tensor, epsilon: float | None = None) -> tf.Tensor:
    """numerator / (denominator + epsilon sign(denominator)), sign(0) = 1; 0 / 0 = 0. None: the stabiliser."""
    if epsilon is None:
        largest = tf.reduce_max(tf.abs(denominator), range(1, len(denominator.shape)), keepdims=True)
        small = tf.minimum(SMALL * largest, STABILISER)
    else:
        small = tf.cast(epsilon, denominator.dtype)
    stable = denominator + tf.where(denominator >= 0, small, -small)
    return tf.math.divide_no_nan(tf.zeros_like(denominator) + numerator, stable)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Of two tensors that are multiplied, half to each; through a softmax x[i] (R[i] - p[i] sum{ R }), its Taylor term.

    Of z = sum{ a[j] b[j] : j } each term's a and b are given a[j] b[j] / (2 z) R.

    Source: Achtibat et al., AttnLRP, 2024, arXiv:2402.05602, Propositions 3.1 and 3.3.
    """


@dataclasses.dataclass(frozen=True)
class Signal:
    """Of two tensors that are multiplied, all to the one that is no gate; attention weights are constants.

    A gate is what comes from a sigmoid or a softmax, whatever scales or moves it. Where neither is one, half to each.

    Source: Arras et al., Explaining and Interpreting LSTMs, 2019, arXiv:1909.12114 (signal-take-all); Ali et al., XAI
    for Transformers, 2022, arXiv:2202.07304 (attention).
    """


@dataclasses.dataclass(frozen=True)
class Composite:
    """Which rule holds where.

    Fields:
        dense, convolution: of what has weights, by its operation.
        first: of the first that has weights; None: as the others.
        named: (layer name or class, rule) pairs, which go before: names first, then the first class a layer is of.
        products: of what is multiplied element by element, a gate and its signal.
        attention: of products of matrices that both depend on the input, and the softmax before them.
        fold: batch normalisation is folded into the layer before it, or behind it; otherwise it is shared out itself.
        epsilon: of sums and averages; None: only keeps zeros from dividing.

    Where a factor normalises (x divided by its own deviation or length), the divisor is taken for a constant.

    >>> tfig.LRP(tfig.rules.Composite(dense=tfig.rules.Epsilon(), convolution=tfig.rules.Gamma(0.1), fold=False))
    """

    dense: Rule = Epsilon()
    convolution: Rule = Epsilon()
    first: Rule | None = None
    named: tuple[tuple[Any, Rule], ...] = ()
    products: Uniform | Signal = Signal()
    attention: Uniform | Signal = Signal()
    fold: bool = True
    epsilon: float | None = None

    def rule(self, part: Any, convolution: bool, first: bool) -> Rule:
        """The rule of what has weights, in a layer or operation `part`, or in none."""
        own = [rule for key, rule in self.named if isinstance(key, str) and key == getattr(part, "name", None)]
        own += [rule for key, rule in self.named if isinstance(key, type) and isinstance(part, key)]
        if own:
            return own[0]
        if first and self.first is not None:
            return self.first
        return self.convolution if convolution else self.dense
