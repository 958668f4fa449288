"""Methods that read one gradient."""

import dataclasses

from tfig.kernels.gradient import gradient_at_x
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace


@dataclasses.dataclass(frozen=True)
class Gradient(Method):
    """The gradient of the score, signed.

    dF(x)/dx[i], in the shape of x. The answer to "what would an infinitesimal change do", not "what did it contribute".

    >>> tfig.explain(model, x, tfig.Gradient())
    """

    cost = "1 gradient"
    gradients = "x"
    name = "gradient"
    slope = True
    reference = "Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, 2013, arXiv:1312.6034"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One gradient."""
        return gradient_at_x(problem), {}


@dataclasses.dataclass(frozen=True)
class GradientXInput(Method):
    """The gradient times the input.

    x[i] dF(x)/dx[i]. At a layer: gradient times activation. Sums to F(x) on networks of linear and ReLU layers
    without bias.

    >>> tfig.explain(model, x, tfig.GradientXInput())
    """

    cost = "1 gradient"
    gradients = "x"
    name = "gradient_x_input"
    principles = "2"
    reference = "Shrikumar et al., Not Just a Black Box, 2016, arXiv:1605.01713"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """One gradient, times x."""
        gradients, _ = Gradient().attribute(problem)
        return tuple(x * g for x, g in zip(problem.x, gradients, strict=True)), {}
