"""Methods that integrate gradients along paths that are no straight line, or from a baseline of their own."""

import dataclasses

from tfig.kernels import walk
from tfig.kernels.path import RULES
from tfig.methods.checks import one_of, whole
from tfig.methods.path import IntegratedGradients
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace


@dataclasses.dataclass(frozen=True)
class GuidedIG(Method):
    """Integrated gradients along a walk that moves the coordinates with small gradients first, around noisy regions.

    sum{ gradient * step } over a walk from x' to x, at each step the `fraction` of coordinates with the smallest
    |gradient|, none farther than `max_dist` from the straight line. Sums to F(x) - F(x') up to quadrature.

    Fields:
        steps: gradient evaluations per row.
        fraction: of the coordinates that move at a time.
        max_dist: how far, as a share of the way, a coordinate may be from the straight line.

    >>> tfig.explain(model, x, "guided_ig", baseline="black")
    """

    steps: int = 200
    fraction: float = 0.25
    max_dist: float = 0.02

    cost = "steps gradients"
    gradients = "anywhere"
    name = "guided_ig"
    reference = "Kapishnikov et al., Guided Integrated Gradients, 2021, arXiv:2106.09788"
    complete = True
    default_baseline = "zeros"

    def __post_init__(self):
        whole("steps", self.steps, 1)
        if not 0 < self.fraction <= 1 or not 0 <= self.max_dist <= 1:
            raise ValueError(
                f"fraction is {self.fraction!r} and max_dist {self.max_dist!r}; they must lie between 0 and 1."
            )

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The walk."""
        return walk.guided(problem, self.steps, self.fraction, self.max_dist), {}


@dataclasses.dataclass(frozen=True)
class BlurIG(Method):
    """The gradient integrated while x comes into focus: no baseline but a blur, no artefacts of a foreign colour.

    integral{ dF/dL(s) dL(s)/ds : s = max_sigma...0 }, L(s) the image under a Gaussian blur of s pixels, zero beyond its
    borders. Sums to F(x) - F(L(max_sigma)) up to quadrature; what is missing is ``trace["delta"]``, [B].

    Fields:
        steps: gradient evaluations per row.
        max_sigma: deviation of the strongest blur, in pixels.

    >>> tfig.explain(model, x, "blur_ig")
    """

    steps: int = 100
    max_sigma: float = 50.0

    cost = "steps gradients"
    gradients = "anywhere"
    name = "blur_ig"
    reference = "Xu, Venugopalan & Sundararajan, Attribution in Scale and Space, 2020, arXiv:2004.03383"
    needs = "x with spatial axes"

    def __post_init__(self):
        whole("steps", self.steps, 1)
        if not self.max_sigma > 0:
            raise ValueError(f"max_sigma is {self.max_sigma!r}; it must be positive.")

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The integral."""
        if all(len(leaf.shape) < 3 for leaf in problem.x):
            shapes = [leaf.shape.as_list() for leaf in problem.x]
            raise ValueError(f"blur_ig needs spatial axes, [B, H, W, C] or [B, T, C], and x is {shapes}.")
        found, missing = walk.focus(problem, self.steps, self.max_sigma)
        return found, {"delta": missing}


@dataclasses.dataclass(frozen=True)
class BoundaryIG(Method):
    """Integrated gradients from the nearest point found across the decision boundary (`tfig.baselines.Boundary`).

    Fields:
        steps, rule: as in `IntegratedGradients`.

    Rows for which no boundary is found are NaN, with ``trace["boundary_found"]`` False and a warning.

    >>> tfig.explain(model, x, "boundary_ig", output="logits")
    """

    steps: int = 64
    rule: str = "adaptive"

    cost = "steps gradients, 7 forward passes, and those of the search for the boundary"
    gradients = "anywhere"
    name = "boundary_ig"
    reference = (
        "Wang, Fredrikson & Datta, Robust Models Are More Interpretable Because Attributions Look Normal, 2021, "
        "arXiv:2103.11257"
    )
    complete = True
    default_baseline = "boundary"
    needs = "a classifier"

    def __post_init__(self):
        one_of("rule", self.rule, RULES)
        whole("steps", self.steps, 2 if self.rule == "trapezoid" else 1)

    @property
    def places(self) -> tuple[float, ...]:
        """As integrated gradients."""
        return IntegratedGradients(self.steps, self.rule).places

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """As integrated gradients."""
        return IntegratedGradients(self.steps, self.rule).attribute(problem)
