"""Methods that integrate gradients along a path."""

import dataclasses

import tensorflow as tf

from tfig.kernels import path
from tfig.kernels.expectation import golden_pairs, over_references, total
from tfig.kernels.gradient import value_and_gradient
from tfig.methods.checks import at_least, one_of, whole
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace


@dataclasses.dataclass(frozen=True)
class IntegratedGradients(Method):
    """The gradient integrated along the line from a baseline x' to x.

    (x[i] - x'[i]) * integral{ dF(x' + a (x - x'))/dx[i] : a = 0...1 }. sum(attributions) == F(x) - F(x') up to
    quadrature; what is missing is `convergence_delta`. Over ``baseline=tfig.baselines.Dataset(references)`` the
    attributions are averaged.

    Fields:
        steps: gradient evaluations per row.
        rule: "adaptive" (nodes placed where the score changes, which seven forward passes tell: far better where a
            probability saturates, and as good as any other elsewhere), "midpoint", "trapezoid", "left", "right", or
            "gauss_legendre" (best on smooth networks).
        tolerance: refine each row until |convergence_delta| <= tolerance * |F(x) - F(x')| (but at least
            1e-6 max(1, |F(x)|)), doubling the steps; None: exactly `steps`. What was reached is in ``trace``: `steps`
            and `converged`, [B] each.
        max_steps: where refinement ends.

    >>> tfig.explain(model, x, tfig.IntegratedGradients(tolerance=0.01))
    """

    steps: int = 64
    rule: str = "adaptive"
    tolerance: float | None = None
    max_steps: int = 1024

    cost = "steps gradients and 7 forward passes (none by a fixed rule); with references, as many for each"
    gradients = "anywhere"
    name = "integrated_gradients"
    principles = "123"
    reference = "Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, 2017, arXiv:1703.01365"
    complete = True
    takes_references = True
    default_baseline = "zeros"

    def __post_init__(self):
        one_of("rule", self.rule, path.RULES)
        whole("steps", self.steps, 2 if self.rule == "trapezoid" else 1)
        if self.tolerance is not None:
            at_least("tolerance", self.tolerance, 0)
            whole("max_steps", self.max_steps, self.steps)

    @property
    def places(self) -> tuple[float, ...]:
        """Where adaptive nodes probe."""
        return path.EDGES if self.rule == "adaptive" else ()

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The integral, refined if a tolerance is set."""
        counts = [self.steps]
        while self.tolerance is not None and counts[-1] < self.max_steps:
            counts.append(min(2 * counts[-1], self.max_steps))
        zeros = tf.zeros([problem.rows])

        def one(p: Problem) -> tuple[Leaves, Trace]:
            nodes = path.adaptive(p, counts) if self.rule == "adaptive" else path.fixed(self.rule, counts)
            if self.tolerance is None:
                return path.integrate(p, self.steps, nodes(0)), {}
            refined = path.refine(p, counts, nodes, self.tolerance)
            return refined.attributions, {"steps": refined.steps, "converged": refined.converged}

        like = (problem.x, {} if self.tolerance is None else {"steps": zeros, "converged": zeros})
        attributions, trace = over_references(problem, like, one)
        if "converged" in trace:
            trace["converged"] = tf.cast(trace["converged"], tf.float32) > 1 - 1e-6
        return attributions, trace


@dataclasses.dataclass(frozen=True)
class ExpectedGradients(Method):
    """Integrated gradients in expectation over a data set of baselines and over the path, by sampling both at once.

    E{ (x[i] - x'[i]) dF(x' + a (x - x'))/dx[i] : x' ~ references, a ~ U(0, 1) }. Sums to F(x) - E F(x') in
    expectation; the rest is `convergence_delta`. Samples (x', a) are a randomly shifted golden-ratio lattice: unbiased
    as independent draws are, with less variance.

    Fields:
        samples: gradient evaluations per row.

    >>> tfig.explain(model, x, tfig.ExpectedGradients(samples=200), baseline=tfig.baselines.Dataset(references))
    """

    samples: int = 64

    cost = "samples gradients"
    gradients = "anywhere"
    name = "expected_gradients"
    principles = "123"
    reference = (
        "Erion et al., Improving performance of deep learning models with axiomatic priors, 2021, arXiv:1906.10670"
    )
    complete = True
    takes_references = True
    stochastic = True
    needs = "baseline=tfig.baselines.Dataset(references)"
    default_baseline = "dataset"

    def __post_init__(self):
        whole("samples", self.samples, 1)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean over samples."""

        if not problem.references:
            raise ValueError("expected_gradients needs references: pass baseline=tfig.baselines.Dataset(references).")
        count = tf.shape(problem.references[0])[0]
        pairs = golden_pairs(problem.seed, self.samples)

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
            alpha, which = pairs(sample, row)
            start = p.at_reference(tf.cast(which * tf.cast(count, tf.float32), tf.int32)).baseline
            _, gradients = value_and_gradient(p.score, path.line(start, p.x, alpha))
            return tuple(g * (x - b) / self.samples for g, x, b in zip(gradients, p.x, start, strict=True))

        return total(problem, self.samples, problem.x, term), {}


@dataclasses.dataclass(frozen=True)
class Conductance(Method):
    """How much of the score flows through each unit of a layer as the input moves from a baseline x' to x.

    integral{ dF/dy[j] dy[j]/da : a = 0...1 }, y the layer's output at x' + a (x - x'), by the gradient at the middle
    of each step times the change of y over it. Sums to F(x) - F(x') at every layer that all paths pass through; at
    others `convergence_delta` is None.

    Fields:
        steps: gradient evaluations per row.

    >>> tfig.explain(model, x, tfig.Conductance(), layer="conv5")
    """

    steps: int = 64

    cost = "steps gradients at the layer, each with two passes up to it"
    gradients = "anywhere"
    name = "conductance"
    reference = (
        "Dhamdhere, Sundararajan & Yan, How Important Is a Neuron?, 2018, arXiv:1805.12233; "
        "computed as Shrikumar, Su & Kundaje, 2018, arXiv:1807.09946"
    )
    complete = True
    takes_references = True
    needs_layer = True
    needs = "layer="
    default_baseline = "zeros"

    def __post_init__(self):
        whole("steps", self.steps, 1)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The sum over steps."""
        return over_references(problem, problem.x, lambda p: path.conductance(p, self.steps)), {}


@dataclasses.dataclass(frozen=True)
class InternalInfluence(Method):
    """The gradient with respect to a layer's output, averaged while the input moves from a baseline x' to x.

    mean{ dF/dy[j] at x' + a (x - x') : a = midpoints of 0...1 }, y the layer's output: influence over the linear
    distribution of interest.

    Fields:
        steps: gradient evaluations per row.
        multiply_by_activation: give influence times y(x) instead.

    >>> tfig.explain(model, x, tfig.InternalInfluence(), layer="conv5")
    """

    steps: int = 64
    multiply_by_activation: bool = False

    cost = "steps gradients at the layer, each with a pass up to it"
    gradients = "anywhere"
    name = "internal_influence"
    reference = "Leino et al., Influence-Directed Explanations for Deep Convolutional Networks, 2018, arXiv:1802.03788"
    takes_references = True
    needs_layer = True
    needs = "layer="
    default_baseline = "zeros"

    def __post_init__(self):
        whole("steps", self.steps, 1)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean over midpoints."""

        def mean(q: Problem) -> Leaves:
            def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> Leaves:
                _, gradients = path.layer_gradient(p, (tf.cast(sample, tf.float32) + 0.5) / self.steps)
                return tuple(g / self.steps for g in gradients)

            return total(q, self.steps, q.x, term)

        influence = over_references(problem, problem.x, mean)
        if self.multiply_by_activation:
            influence = tuple(g * y for g, y in zip(influence, problem.x, strict=True))
        return influence, {}
