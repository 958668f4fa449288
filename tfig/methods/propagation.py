"""Methods that pass relevance back by rules."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfig.kernels.difference import Differences, contributions
from tfig.kernels.expectation import over_references
from tfig.kernels.rectified import overridden
from tfig.kernels.relevance import relevance
from tfig.kernels.reveal import Revealed
from tfig.methods.checks import one_of
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace
from tfig.rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, Rule, Uniform, WSquare, ZBox, ZPlus

COMPOSITES: dict[str, Composite] = {
    "epsilon": Composite(),
    "epsilon_plus": Composite(convolution=ZPlus()),
    "epsilon_plus_flat": Composite(convolution=ZPlus(), first=Flat()),
    "epsilon_gamma_box": Composite(convolution=Gamma(), first=ZBox()),
    "alpha2_beta1": Composite(convolution=AlphaBeta()),
    "alpha2_beta1_flat": Composite(convolution=AlphaBeta(), first=Flat()),
    "attnlrp": Composite(products=Uniform(), attention=Uniform(), fold=False),
    "cp_lrp": Composite(products=Uniform(), fold=False),
    "signal_take_all": Composite(fold=False),
}
"""Rules by name: what is common where."""


@dataclasses.dataclass(frozen=True)
class LRP(Method):
    """Layer-wise relevance propagation: the score, shared out operation by operation among what each is computed of.

    R_i = sum{ numerator_ij / denominator_j R_j : j }, by a rule for what has weights (see `tfig.rules`). Relevance
    passes through functions of each element and a final softmax; goes to the winner of a maximum; is shared by sums,
    averages and normalisations in proportion; batch normalisation is folded into the layer before it, or behind it.
    Products and attention follow the composite.

    Fields:
        rules: "epsilon", "epsilon_plus" (convolutions z+), "epsilon_plus_flat" (the first layer flat),
            "epsilon_gamma_box" (convolutions gamma, the first layer z-box), "alpha2_beta1", "alpha2_beta1_flat";
            "attnlrp" and "cp_lrp" for transformers, "signal_take_all" for gates and recurrence; one rule for all that
            has weights; a mapping of layer names (their own, without a path) and layer classes to rules, others
            epsilon; or a `tfig.rules.Composite`.
        start: "score" (relevance F at the output, so the map sums to F but for what is absorbed) or "one".

    `trace["absorbed"]`, [B], is what did not arrive, but went to biases, shifts, stabilisers or a softmax:
    sum(attributions) + absorbed is what relevance started with.

    Raises ValueError for an operation that has no rule, naming it, its layer and its line.

    >>> tfig.explain(model, x, tfig.LRP("attnlrp"), output="logits")
    >>> tfig.explain(model, x, tfig.LRP({"conv1": tfig.rules.ZBox(0, 1), keras.layers.Dense: tfig.rules.Epsilon(0.25)}))
    """

    rules: Any = "epsilon_plus"
    start: str = "score"

    cost = "1 pass, and 1 way back with several products a layer"
    name = "lrp"
    follows = stepwise = True
    principles = "23"
    reference = (
        "Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
        "Propagation, 2015; composites as Montavon et al., Layer-Wise Relevance Propagation: An Overview, 2019; "
        "Achtibat et al., AttnLRP, 2024, arXiv:2402.05602; Ali et al., XAI for Transformers, 2022, arXiv:2202.07304; "
        "Arras et al., Explaining and Interpreting LSTMs, 2019, arXiv:1909.12114"
    )
    needs = "a Keras model of operations that have rules"

    def __post_init__(self):
        one_of("start", self.start, ("score", "one"))
        if isinstance(self.rules, Mapping):
            object.__setattr__(self, "rules", tuple(self.rules.items()))
        if isinstance(self.rules, str):
            one_of("rules", self.rules, tuple(COMPOSITES))
        elif isinstance(self.rules, tuple):
            for key, rule in self.rules:
                layered = isinstance(key, str) or (isinstance(key, type) and issubclass(key, keras.Layer))
                if not layered or not isinstance(rule, Rule):
                    raise ValueError(
                        f"rules maps {key!r} to {rule!r}; it must map layer names or classes to tfig.rules objects."
                    )
        elif not isinstance(self.rules, (Rule, Composite)):
            raise ValueError(
                f"rules is {self.rules!r}; pass one of {', '.join(map(repr, COMPOSITES))}, a tfig.rules object, or a "
                "mapping of layer names or classes to them."
            )

    @property
    def composite(self) -> Composite:
        """The rules as a composite."""
        if isinstance(self.rules, str):
            return COMPOSITES[self.rules]
        if isinstance(self.rules, Composite):
            return self.rules
        if isinstance(self.rules, Rule):
            # One rule for all is the rule of sums, too: LRP-0 is gradient times input through them.
            zero = isinstance(self.rules, Epsilon) and not self.rules.epsilon
            return Composite(self.rules, self.rules, epsilon=0.0 if zero else None)
        return Composite(named=self.rules)

    @property
    def parameters(self) -> dict[str, object]:
        """The rules in words, and where relevance starts."""
        if isinstance(self.rules, str):
            return {"rules": self.rules, "start": self.start}
        if isinstance(self.rules, (Rule, Composite)):
            return {"rules": repr(self.rules), "start": self.start}
        shown = {key if isinstance(key, str) else key.__name__: repr(rule) for key, rule in self.rules}
        return {"rules": shown, "start": self.start}

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The relevance.

        Raises:
            ValueError: the mapping names a layer that has no weights, or that there is not.
        """

        def start(value: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
            return slope if self.start == "one" else value * slope

        found, absorbed = relevance(problem, self.composite, self.name, start)
        return found, {"absorbed": absorbed}


@dataclasses.dataclass(frozen=True)
class DeepTaylor(Method):
    """Deep Taylor decomposition: the z+ rule, bounds of pixels at the first layer, for networks of ReLUs.

    LRP by z+ without biases; the first layer by z-box, if `low` and `high` are given, else by w**2. Starts with
    max(F, 0). Every attribution is zero or positive.

    Fields:
        low, high: the smallest and largest value that the first layer with weights can be given, e.g. 0 and 1; behind
            a Rescaling, of what it makes of the input.

    >>> tfig.explain(model, x, tfig.DeepTaylor(low=0, high=1), output="logits")
    """

    low: float | None = None
    high: float | None = None

    cost = "1 pass, and 1 way back with several products a layer"
    name = "deep_taylor"
    follows = stepwise = True
    principles = "13"
    reference = "Montavon et al., Explaining nonlinear classification decisions with deep Taylor decomposition, 2017"
    needs = "a Keras model of operations that have rules"

    def __post_init__(self):
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low is {self.low!r} and high {self.high!r}; give both, for pixels, or neither.")
        ZBox(self.low, self.high)  # the same bounds

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The relevance."""
        first = WSquare() if self.low is None else ZBox(self.low, self.high)
        inner = ZPlus(bias=False)

        def start(value: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
            return tf.maximum(value * slope, 0.0)

        return relevance(problem, Composite(inner, inner, first), self.name, start)[0], {}


@dataclasses.dataclass(frozen=True)
class DeepLIFT(Method):
    """The difference of the score from that of a baseline, carried back by multipliers.

    multiplier * (x[i] - x'[i]), the multiplier of a unit being the difference of its output over that of its input
    ("rescale"), or, on dense layers, over the positive and the negative part of it apart, each added first and last and
    averaged ("reveal_cancel"; convolutions keep rescale, as the authors advise). Max pooling by cross-maxima. A final
    softmax, where probabilities are explained, counts logits by their distance from their mean.
    sum(attributions) == F(x) - F(x'), up to rounding. Over ``baseline=tfig.baselines.Dataset(references)`` averaged.

    Fields:
        rule: "rescale" or "reveal_cancel".

    Raises ValueError for an operation that has no rule, naming it, its layer and its line.

    >>> tfig.explain(model, x, tfig.DeepLIFT("reveal_cancel"), output="logits", baseline=0.0)
    """

    rule: str = "rescale"

    cost = "2 passes, and 1 way back"
    name = "deeplift"
    follows = stepwise = True
    principles = "123"
    reference = (
        "Shrikumar, Greenside & Kundaje, Learning Important Features Through Propagating Activation Differences, 2017, "
        "arXiv:1704.02685"
    )
    complete = True
    takes_references = True
    default_baseline = "zeros"
    needs = "a Keras model of operations that have rules"

    def __post_init__(self):
        one_of("rule", self.rule, ("rescale", "reveal_cancel"))

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The contributions."""
        rule = Revealed if self.rule == "reveal_cancel" else Differences
        return over_references(problem, problem.x, lambda p: contributions(p, rule, self.name)), {}


@dataclasses.dataclass(frozen=True)
class DeepSHAP(Method):
    """DeepLIFT's rescale rule, averaged over a data set of baselines: approximate Shapley values.

    mean{ DeepLIFT from x' : x' in references }. Sums to F(x) - mean F(x').

    >>> tfig.explain(model, x, tfig.DeepSHAP(), output="logits", baseline=tfig.baselines.Dataset(references))
    """

    cost = "a pass and a way back for each reference"
    name = "deepshap"
    stepwise = True
    principles = "123"
    reference = "Lundberg & Lee, A Unified Approach to Interpreting Model Predictions, 2017, arXiv:1705.07874"
    complete = True
    takes_references = True
    default_baseline = "dataset"
    needs = "baseline=tfig.baselines.Dataset(references), a Keras model of operations that have rules"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean."""
        return over_references(problem, problem.x, lambda p: contributions(p, Differences, self.name)), {}


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient, of which each ReLU passes back only what is positive and what it let through.

    It is known to show the input more than the model: randomising the weights hardly changes it (Adebayo et al. 2018).

    Raises ValueError for a model without ReLUs, where it would be the plain gradient.

    >>> tfig.explain(model, x, "guided_backprop", output="logits")
    """

    cost = "1 gradient"
    name = "guided_backprop"
    slope = True
    reference = "Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2014, arXiv:1412.6806"
    needs = "a model with ReLUs"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The gradient of the overridden graph."""
        return overridden(problem.score, problem.x, "guided", self.name), {}


@dataclasses.dataclass(frozen=True)
class Deconvnet(Method):
    """The gradient, of which each ReLU passes back what is positive, whatever it let through.

    It hardly depends on the class (Adebayo et al. 2018).

    Raises ValueError for a model without ReLUs, where it would be the plain gradient.

    >>> tfig.explain(model, x, "deconvnet", output="logits")
    """

    cost = "1 gradient"
    name = "deconvnet"
    slope = True
    reference = "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, arXiv:1311.2901"
    needs = "a model with ReLUs"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The gradient of the overridden graph."""
        return overridden(problem.score, problem.x, "deconv", self.name), {}
