"""Complexity: how many positions does one have to look at?"""

import numpy as np

from tfig.explanation import Explanation
from tfig.metrics import probe
from tfig.metrics.facts import metric


@metric(
    better="higher",
    range="0 (all alike) to 1 - 1/M (one of M positions)",
    cost="none",
    reference="Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training, 2020, "
    "arXiv:1810.06583",
)
def sparseness(e: Explanation) -> np.ndarray:
    """The Gini index of the magnitudes a of positions: sum{ (2 i - M - 1) a_(i) } / (M sum{ a }), a_(i) rising.

    Returns:
        [B]; 0 where all are zero.
    """
    values = np.sort(np.abs(probe.flat(probe.maps(e))), 1)
    count, whole = values.shape[1], values.sum(1)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return (values * weights).sum(1) / (count * np.where(whole > 0, whole, 1))


@metric(
    better="lower",
    range="0 (one position) to log M (all alike)",
    cost="none",
    reference="Bhatt, Weller & Moura, Evaluating and Aggregating Feature-based Model Explanations, 2020, "
    "arXiv:2005.00631",
)
def complexity(e: Explanation) -> np.ndarray:
    """The entropy of the magnitudes of positions, as shares p of their sum: -sum{ p log p }.

    Returns:
        [B]; log M where all are zero.
    """
    values = np.abs(probe.flat(probe.maps(e)))
    whole = values.sum(1, keepdims=True)
    shares = np.where(whole > 0, values / np.where(whole > 0, whole, 1), 1 / values.shape[1])
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
