"""Axioms: what any sound attribution must keep."""

import dataclasses
import warnings
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfig.api import Explainer
from tfig.explanation import Explanation
from tfig.kernels import coalition
from tfig.kernels.expectation import fork, total, uniform
from tfig.methods.checks import at_least, whole
from tfig.metrics import probe
from tfig.metrics.facts import metric
from tfig.network import Leaves
from tfig.problem import Problem, Trace
from tfig.sizes import beyond_rows


@metric(
    better="lower",
    range="0 to infinity",
    cost="1",
    reference="Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, 2017, arXiv:1703.01365",
)
def completeness(e: Explanation, *, baseline: Any = None, model: Any = None) -> np.ndarray:
    """|sum{ phi } - (F(x) - F(x'))| / |F(x) - F(x')|: what the sum misses, as a share of the difference.

    Args:
        baseline: x', by default the explanation's own, else zeros.
        model: as in `tfig.metrics.deletion`.

    Returns:
        [B]; undivided where the difference is zero.
    """
    sums = probe.flat(probe.parts(e)).sum(1)
    if baseline is None and "delta" in e.trace:  # a path that ends elsewhere, as blurred images do
        difference = sums - e.trace["delta"]
    elif baseline is None and e.baseline_score is not None:
        difference = e.score.astype(np.float64) - e.baseline_score
    else:
        found = probe.measure(e, _Nothing(), [], model=model, baseline=probe.OWN if baseline is None else baseline)
        difference = found["score"].astype(np.float64) - found["baseline_score"]
    size = np.abs(difference)
    return np.abs(sums - difference) / np.where(size > 0, size, 1)


@dataclasses.dataclass(frozen=True)
class _Nothing(probe.Probe):
    switches: ClassVar[bool] = True

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The scores at x and at the baseline are all there is to know."""
        return (), {}


@dataclasses.dataclass(frozen=True)
class _Redrawn(probe.Probe):
    samples: int

    stochastic: ClassVar[bool] = True

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """mean |F(x with a position redrawn within the row's range) - F(x)| for each position, [B, M]."""
        clean = problem.at_x
        count = tf.add_n(coalition.counts(problem))

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
            place = sample // self.samples
            redrawn = tf.one_hot(place, count, on_value=True, off_value=False)
            leaves = []
            for i, (mask, x) in enumerate(zip(coalition.apart(p, redrawn), p.x, strict=True)):
                here = coalition.channelled(x, mask)
                axes = beyond_rows(x)
                low, high = (reduce(x, axes, keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
                drawn = uniform(fork(p.seed, tf.fill(tf.shape(sample), -2 - i)), sample, x)
                leaves.append(tf.where(here, low + (high - low) * drawn, x))
            moved = tf.abs(p.score(tuple(leaves)) - tf.gather(clean, row)) / self.samples
            return tf.where(redrawn, moved[:, tf.newaxis], tf.zeros([], moved.dtype))

        blank = tf.zeros([problem.rows, count], clean.dtype)
        return (), {"moved": total(problem, count * self.samples, blank, term)}


@metric(
    better="lower",
    range="0 to 1",
    cost="samples for each position",
    reference="Nguyen & Martinez, On Quantitative Aspects of Model Interpretability, 2020, arXiv:2007.07584",
)
def non_sensitivity(
    e: Explanation, *, samples: int = 10, threshold: float = 1e-5, output: str | None = None, seed: Any = 0,
    model: Any = None,
) -> np.ndarray:  # fmt: skip
    """The share of positions that have attribution though F ignores them, or none though F does not.

    Whether F ignores a position is seen by drawing it anew, uniformly within its row's range. The paper counts
    positions; here their share is given.

    Args:
        samples: draws for each position.
        threshold: what counts as nothing, as a share of the row's largest magnitude.
        output, model: as in `tfig.metrics.deletion`.
        seed: of the draws, as in `tfig.explain`.

    Returns:
        [B].
    """
    whole("samples", samples, 1)
    at_least("threshold", threshold, 0)
    found = probe.measure(e, _Redrawn(samples), [], model=model, output=output, seed=seed)["moved"]
    silent, ignored = (_nothing(values, threshold) for values in (probe.flat(probe.maps(e)), found))
    return (silent != ignored).mean(1)


def _nothing(values: np.ndarray, threshold: float) -> np.ndarray:
    return np.abs(values) <= threshold * np.abs(values).max(1, keepdims=True)


@metric(
    better="lower",
    range="0 to infinity",
    cost="1 explanation",
    reference="Kindermans et al., The (Un)reliability of Saliency Methods, 2019, arXiv:1711.00867",
)
def input_invariance(e: Explanation, *, shift: float = 1.0, model: Any = None) -> np.ndarray:
    """|phi'(x + shift) - phi(x)| / |phi(x)|, phi' explaining the model that takes the shift away again.

    The two models do the same, so a sound explanation of them is the same. A method with a baseline fails where its
    baseline does not shift along: integrated gradients from black does, from the row's own mean does not.

    Args:
        shift: added to every float input, in its own unit.
        model: as in `tfig.metrics.max_sensitivity`.

    Returns:
        [B]; NaN where phi(x) is zero everywhere.

    Raises:
        ValueError: the model is none of Keras' with declared inputs, or the explanation is at a layer chosen by name.
    """
    explainer = probe.again(e, model)
    original = explainer.model
    if not isinstance(original, keras.Model):
        raise ValueError(
            f"input_invariance builds a Keras model around a Keras model, and got {type(original).__name__}."
        )
    if not any(np.asarray(leaf).dtype.kind == "f" for leaf in tf.nest.flatten(probe.rows(e))):
        raise ValueError("input_invariance shifts x, and there is nothing float in it to shift.")

    def entry(leaf: Any) -> Any:
        return keras.Input(np.shape(leaf)[1:], dtype=np.asarray(leaf).dtype.name)

    inputs = tf.nest.map_structure(entry, probe.rows(e))
    back = tf.nest.map_structure(
        lambda one: keras.layers.Rescaling(1.0, -shift)(one) if "float" in one.dtype else one, inputs
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of inputs that are not named as the dict's keys
        shifted = keras.Model(inputs, original(back))
    moved = tf.nest.map_structure(
        lambda leaf: leaf + np.asarray(shift, leaf.dtype) if leaf.dtype.kind == "f" else leaf,
        tf.nest.map_structure(np.asarray, probe.rows(e)),
    )
    other = Explainer(
        shifted, explainer.method, target=explainer.target, output=explainer.output, layer=explainer.layer,
        baseline=explainer.baseline, batch_size=explainer.batch_size, seed=explainer.seed,
    )  # fmt: skip
    there = probe.flat(probe.parts(probe.quietly(other, moved)))
    here = probe.flat(probe.parts(e))
    size = np.linalg.norm(here, axis=1)
    return np.where(size > 0, np.linalg.norm(there - here, axis=1) / np.where(size > 0, size, 1), np.nan)
