"""Methods that average another method over noise on x."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.entry import Leaf
from tfig.kernels.expectation import over_noise
from tfig.methods.checks import at_least, whole
from tfig.methods.gradient import Gradient
from tfig.network import Leaves
from tfig.problem import Gradients, Method, Problem, Trace


def _inners(name: str) -> Any:
    """An attribute of the inner method."""
    return property(lambda self: getattr(self.inner, name), doc="As the inner method.")


@dataclasses.dataclass(frozen=True)
class _Noisy(Method):
    """An inner method under noise on x: what SmoothGrad, SquareGrad and VarGrad share."""

    inner: Method = Gradient()
    samples: int = 50
    noise: float = 0.15

    cost = "samples times the inner method"
    stochastic = True

    def __post_init__(self):
        whole("samples", self.samples, 1)
        at_least("noise", self.noise, 0)
        if not isinstance(self.inner, Method):
            raise ValueError(f"inner is {self.inner!r}; pass a method object, e.g. tfig.IntegratedGradients(steps=32).")

    needs_layer = _inners("needs_layer")
    takes_references = _inners("takes_references")
    stepwise = _inners("stepwise")
    needs = _inners("needs")
    default_baseline = _inners("default_baseline")
    picks_layer = _inners("picks_layer")
    slope = _inners("slope")
    of_input = _inners("of_input")

    @property
    def gradients(self) -> Gradients:  # type: ignore[override]
        """At x and around it, if the inner method takes any."""
        return self.inner.gradients and "anywhere"

    def side_specs(self, leaves: Sequence[Leaf]) -> list[tf.TensorSpec]:
        """As the inner method."""
        return self.inner.side_specs(leaves)

    def sides(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As the inner method, of x without noise."""
        return self.inner.sides(x)

    def like(self, problem: Problem) -> Leaves:
        """As the inner method."""
        return self.inner.like(problem)

    def mean(self, problem: Problem, read: Callable[[Leaves, tf.Tensor], Any], like: Any) -> Any:
        """The mean over samples of read(inner attributions, rows), shaped like `like`."""

        def term(p: Problem, row: tf.Tensor) -> Any:
            return read(self.inner.attribute(p)[0], row)

        return over_noise(problem, self.samples, self.noise, like, term, self.inner.needs_layer)


@dataclasses.dataclass(frozen=True)
class SmoothGrad(_Noisy):
    """The mean of a method over noise on x.

    mean{ inner(x + noise (max x - min x) e[s]) : s = 0...samples-1 }, e standard normal.

    Fields:
        inner: the method averaged; any.
        samples: number of noise draws.
        noise: standard deviation of the noise, as a share of each row's max - min.

    >>> tfig.explain(model, x, tfig.SmoothGrad(tfig.IntegratedGradients(steps=32), samples=20), seed=0)
    """

    name = "smoothgrad"
    reference = "Smilkov et al., SmoothGrad: removing noise by adding noise, 2017, arXiv:1706.03825"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean."""
        return self.mean(problem, lambda leaves, row: leaves, self.like(problem)), {}


@dataclasses.dataclass(frozen=True)
class SquareGrad(_Noisy):
    """The mean of the square of a method over noise on x (SmoothGrad squared); unsigned.

    mean{ inner(x + noise (max x - min x) e[s])**2 : s = 0...samples-1 }. Fields as `SmoothGrad`.

    >>> tfig.explain(model, x, tfig.SquareGrad(samples=50), seed=0)
    """

    name = "squaregrad"
    reference = (
        "Hooker et al., A Benchmark for Interpretability Methods in Deep Neural Networks, 2019, arXiv:1806.10758"
    )

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The mean of squares."""
        return self.mean(problem, lambda leaves, row: tuple(map(tf.square, leaves)), self.like(problem)), {}


@dataclasses.dataclass(frozen=True)
class VarGrad(_Noisy):
    """The variance of a method over noise on x; unsigned.

    mean{ (inner(x + noise (max x - min x) e[s]) - mean)**2 : s = 0...samples-1 }, over n, not n - 1. Fields as
    `SmoothGrad`. Deviations are taken from the attributions of x itself, so a constant gradient has variance 0 and not
    a rounding residue.

    >>> tfig.explain(model, x, tfig.VarGrad(samples=50), seed=0)
    """

    name = "vargrad"
    reference = "Adebayo et al., Sanity Checks for Saliency Maps, 2018, arXiv:1810.03292"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """E[d**2] - E[d]**2 with d the deviation from the clean attributions."""
        clean, _ = self.inner.attribute(problem)

        def deviations(leaves: Leaves, row: tf.Tensor) -> tuple[Leaves, Leaves]:
            first = tuple(leaf - tf.gather(centre, row) for leaf, centre in zip(leaves, clean, strict=True))
            return first, tuple(map(tf.square, first))

        like = self.like(problem)
        first, second = self.mean(problem, deviations, (like, like))
        return tuple(b - tf.square(a) for a, b in zip(first, second, strict=True)), {}
