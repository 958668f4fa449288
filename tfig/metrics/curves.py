"""Faithfulness along a ranking: does the score fall as what matters most is taken away?"""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfig.baselines import Blur
from tfig.explanation import Explanation
from tfig.kernels import coalition
from tfig.methods.checks import one_of, whole
from tfig.metrics import probe
from tfig.metrics.facts import metric
from tfig.network import Leaves
from tfig.problem import Problem, Trace

PROTOCOLS = ("rise", "igos")


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """Scores along a ranking.

    Fields:
        fractions: [K], of the positions that were changed.
        scores: [B, K], F there.
        area: [B], the number a table shows.
    """

    fractions: np.ndarray
    scores: np.ndarray
    area: np.ndarray

    @property
    def value(self) -> np.ndarray:
        """The area, [B]."""
        return self.area


@dataclasses.dataclass(frozen=True)
class _Ranking(probe.Probe):
    counts: tuple[int, ...]

    switches: ClassVar[bool] = True

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """F with the first positions of the order at the baseline."""
        return (), {"scores": coalition.along(problem, tf.constant(self.counts, tf.int32))}


def _scores(e: Explanation, places: list[np.ndarray], counts: np.ndarray, **asked: Any) -> np.ndarray:
    return probe.measure(e, _Ranking(tuple(map(int, counts))), places, **asked)["scores"]


def _counts(protocol: str, positions: int, steps: int) -> np.ndarray:
    """How many positions are changed at each point of the curve."""
    one_of("protocol", protocol, PROTOCOLS)
    whole("steps", steps, 1)
    step = -(-positions // steps) if protocol == "rise" else max(1, positions // steps)
    counts = np.minimum(np.arange(0, positions + step, step), positions)
    return counts if protocol == "rise" else counts[1:]


def _curve(protocol: str, counts: np.ndarray, scores: np.ndarray) -> Curve:
    """ "rise": the trapezoidal mean of equally spaced points; "igos": each score weighed by the positions before it."""
    if protocol == "rise":
        area = (scores.sum(1) - scores[:, 0] / 2 - scores[:, -1] / 2) / (len(counts) - 1)
    else:
        area = (scores * np.diff(counts, prepend=0)).sum(1) / counts[-1]
    return Curve(counts / counts[-1], scores, area)


def _absent(e: Explanation, protocol: str, inserting: bool, given: Any) -> Any:
    """What a protocol shows in place of what is not there; on inputs without spatial axes zeros."""
    if given is not None:
        return given
    if not probe.spatial(e) or (protocol == "rise" and not inserting):
        return "zeros"
    return Blur(11, 5.0) if protocol == "rise" else Blur(51, 50.0)


@metric(
    better="lower",
    range="that of F: 0 to 1 for probabilities",
    cost="steps + 1",
    reference="Petsiuk, Das & Saenko, RISE, 2018, arXiv:1806.07421; Khorram, Lawson & Li, iGOS++, 2021, "
    "arXiv:2012.15783",
)
def deletion(
    e: Explanation, *, protocol: str = "rise", steps: int = 50, baseline: Any = None, output: str | None = None,
    model: Any = None,
) -> Curve:  # fmt: skip
    """F as positions are replaced by the baseline, from the highest attribution down, and the area under it.

    All channels of a position go together; of equal attributions the first goes first. Two protocols, whose numbers
    are not comparable:

        "rise": ceil(M / steps) of M positions a step; zeros in their place; trapezoidal mean of all points.
        "igos": max(1, M // steps) a step; the blurred image (51 taps, 50 pixels) in their place; the mean of scores
            after each step, weighed by its positions. The authors' code adds the last, smaller step without its
            score; here it has it.

    An explanation at a layer is measured there: the layer's units are replaced. Class activation maps of an image are
    enlarged, and measured on its pixels. Both papers read probabilities: pass output="probabilities" where logits were
    explained.

    Args:
        protocol, steps: see above.
        baseline: as in `tfig.explain`, in place of the protocol's; inputs without spatial axes have zeros.
        output: "logits" or "probabilities"; by default what was explained.
        model: for explanations that were loaded or served: the model, or a `tfig.Explainer`.

    Returns:
        a `Curve`; ``area`` is [B].
    """
    places, count = probe.places(e)
    counts = _counts(protocol, count, steps)
    start = _absent(e, protocol, False, baseline)
    return _curve(protocol, counts, _scores(e, places, counts, model=model, baseline=start, output=output))


@metric(
    better="higher",
    range="that of F: 0 to 1 for probabilities",
    cost="steps + 1",
    reference="Petsiuk, Das & Saenko, RISE, 2018, arXiv:1806.07421; Khorram, Lawson & Li, iGOS++, 2021, "
    "arXiv:2012.15783",
)
def insertion(
    e: Explanation, *, protocol: str = "rise", steps: int = 50, baseline: Any = None, output: str | None = None,
    model: Any = None,
) -> Curve:  # fmt: skip
    """F as positions are brought back onto the baseline, from the highest attribution down, and the area under it.

    As `deletion`, but "rise" starts from a blur of 11 taps and 5 pixels.

    Args:
        protocol, steps, baseline, output, model: as in `deletion`.

    Returns:
        a `Curve`; ``area`` is [B].
    """
    places, count = probe.places(e)
    counts = _counts(protocol, count, steps)
    last_first = [count - 1 - place for place in places]
    start = _absent(e, protocol, True, baseline)
    return _curve(protocol, counts, _scores(e, last_first, count - counts, model=model, baseline=start, output=output))


@metric(
    better="higher",
    range="that of differences of F",
    cost="steps + 1",
    reference="Bach et al., 2015; Samek et al., Evaluating the Visualization of What a Deep Neural Network Has "
    "Learned, 2017, arXiv:1509.06321",
)
def pixel_flipping(
    e: Explanation, *, steps: int = 50, order: str = "most", baseline: Any = None, output: str | None = None,
    model: Any = None,
) -> Curve:  # fmt: skip
    """The mean fall of F as positions are flipped to the baseline: mean{ F(x) - F(x after k steps) : k = 0...K }.

    Args:
        steps: ceil(M / steps) of M positions are flipped in each.
        order: "most" relevant first (higher is better), or "least" (then lower is).
        baseline: what they are flipped to; by default the explanation's own, else zeros.
        output, model: as in `deletion`.

    Returns:
        a `Curve` of F; ``area`` [B] is the area over it.
    """
    one_of("order", order, ("most", "least"))
    places, count = probe.places(e)
    counts = _counts("rise", count, steps)
    if order == "least":
        places = [count - 1 - place for place in places]
    start = probe.OWN if baseline is None else baseline
    scores = _scores(e, places, counts, model=model, baseline=start, output=output)
    return Curve(counts / count, scores, (scores[:, :1] - scores).mean(1))
