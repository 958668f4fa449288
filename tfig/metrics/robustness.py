"""Robustness: does the explanation stay where x hardly moves?"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfig import arguments
from tfig.explanation import Explanation
from tfig.layout import moved
from tfig.methods.checks import at_least, whole
from tfig.metrics import probe
from tfig.metrics.facts import metric

COST = "samples explanations"
YEH = "Yeh et al., On the (In)fidelity and Sensitivity of Explanations, 2019, arXiv:1901.09392"


def _moves(e: Explanation, radius: float, samples: int, perturbation: Any, seed: Any) -> list[list[np.ndarray]]:
    """Perturbed inputs, for each sample a list of leaves."""
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(probe.rows(e))]
    moving = [i for i, leaf in enumerate(leaves) if leaf.dtype.kind == "f"]
    if not moving:
        raise ValueError("robustness moves x, and there is nothing float in it to move.")
    if perturbation is not None:
        given = [np.asarray(one, np.float32) for one in tf.nest.flatten(perturbation)]
        if [one.shape[1:] for one in given] != [leaves[i].shape for i in moving]:
            raise ValueError(
                f"perturbation has shapes {[list(one.shape) for one in given]}; it must be [S, B, ...] with x's "
                f"{[list(leaves[i].shape) for i in moving]}."
            )
    else:
        whole("samples", samples, 1)
        at_least("radius", radius, 0)
        seeds = arguments.per_row("seed", seed, len(e))
        given = []
        axes = e.channels.get("x", (-1,) * len(leaves))
        for i in moving:
            leaf = moved(leaves[i], axes[i])
            reach = radius * (leaf.reshape(len(leaf), -1).max(1) - leaf.reshape(len(leaf), -1).min(1))
            draws = [
                np.random.default_rng([i, int(key) & 0xFFFFFFFF]).uniform(-1, 1, (samples, *leaf.shape[1:])) * far
                for key, far in zip(seeds, reach, strict=True)
            ]
            given.append(np.stack([moved(one, axes[i], back=True) for one in np.stack(draws, 1)]).astype(np.float32))
    found = []
    for sample in range(len(given[0])):
        fresh = dict(zip(moving, (one[sample] for one in given), strict=True))
        found.append([leaf + fresh[i] if i in fresh else leaf for i, leaf in enumerate(leaves)])
    return found


def _changes(
    e: Explanation, radius: float, samples: int, perturbation: Any, seed: Any, model: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(|phi(y) - phi(x)|, |y - x|, |phi(x)|): [S, B], [S, B], [B], in L2."""
    explainer = probe.again(e, model)
    here, leaves = probe.flat(probe.parts(e)), tf.nest.flatten(probe.rows(e))
    changes, distances = [], []
    for y in _moves(e, radius, samples, perturbation, seed):
        there = probe.quietly(explainer, tf.nest.pack_sequence_as(probe.rows(e), y))
        changes.append(np.linalg.norm(probe.flat(probe.parts(there)) - here, axis=1))
        steps = [np.asarray(a, np.float64) - b for a, b in zip(y, leaves, strict=True) if a.dtype.kind == "f"]
        distances.append(np.linalg.norm(probe.flat(steps), axis=1))
    return np.stack(changes), np.stack(distances), np.linalg.norm(here, axis=1)


def _share(changes: np.ndarray, size: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """changes / size; NaN where nothing was moved, as in a constant row, and where there is no map to change."""
    return np.where((distances > 0).all(0) & (size > 0), changes / np.where(size > 0, size, 1), np.nan)


@metric(better="lower", range="0 to infinity", cost=COST, reference=YEH)
def max_sensitivity(
    e: Explanation, *, radius: float = 0.02, samples: int = 10, perturbation: Any = None, seed: Any = 0,
    model: Any = None,
) -> np.ndarray:  # fmt: skip
    """max{ |phi(y) - phi(x)| / |phi(x)| : y around x }, of the same target, from the same seed and baseline.

    A lower bound of the maximum over the ball: it is drawn from, not searched.

    Args:
        radius: of the ball in the largest norm, as a share of each row's max - min; y are uniform in it. Where features
            have scales of their own (tables), pass `perturbation`.
        samples: y drawn for each row.
        perturbation: arrays y - x, [S, B, ...] in the nest of x's float inputs, in place of these.
        seed: of the perturbations, as in `tfig.explain`.
        model: for explanations that were loaded or served: the model, or a `tfig.Explainer`.

    Returns:
        [B]; NaN where phi(x) is zero everywhere, and where x is constant and so was not moved.
    """
    changes, distances, size = _changes(e, radius, samples, perturbation, seed, model)
    return _share(changes.max(0), size, distances)


@metric(better="lower", range="0 to infinity", cost=COST, reference=YEH)
def avg_sensitivity(
    e: Explanation, *, radius: float = 0.02, samples: int = 10, perturbation: Any = None, seed: Any = 0,
    model: Any = None,
) -> np.ndarray:  # fmt: skip
    """mean{ |phi(y) - phi(x)| / |phi(x)| : y around x }; otherwise `max_sensitivity`.

    Args:
        radius, samples, perturbation, seed, model: as in `max_sensitivity`.

    Returns:
        [B].
    """
    changes, distances, size = _changes(e, radius, samples, perturbation, seed, model)
    return _share(changes.mean(0), size, distances)


@metric(
    better="lower",
    range="0 to infinity",
    cost=COST,
    reference="Alvarez-Melis & Jaakkola, On the Robustness of Interpretability Methods, 2018, arXiv:1806.08049",
)
def local_lipschitz(
    e: Explanation, *, radius: float = 0.02, samples: int = 10, perturbation: Any = None, seed: Any = 0,
    model: Any = None,
) -> np.ndarray:  # fmt: skip
    """max{ |phi(y) - phi(x)| / |y - x| : y around x }, an estimate from below of the local Lipschitz constant.

    Its unit is that of the attributions over that of x: compare methods of one scale only.

    Args:
        radius, samples, perturbation, seed, model: as in `max_sensitivity`.

    Returns:
        [B].
    """
    changes, distances, size = _changes(e, radius, samples, perturbation, seed, model)
    steepest = (changes / np.where(distances > 0, distances, 1)).max(0)
    return _share(steepest, np.where(size > 0, 1.0, 0.0), distances)
