"""Randomisation: does the explanation depend on what the model learned, and on the class it is asked about?"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import arguments, entry, slices
from tfig.explanation import Explanation
from tfig.methods.checks import one_of
from tfig.metrics import probe
from tfig.metrics.facts import metric
from tfig.survey import survey

FLAGGED = 0.5
"""A mean rank correlation with the maps of a randomised model above which a method hardly looks at the weights."""


@dataclasses.dataclass(frozen=True, eq=False)
class Randomisation:
    """How alike maps stay as the model forgets.

    Fields:
        layers: [L], names of the layers in the order in which they were randomised, from the output to the input.
        rank_correlation: [L, B], Spearman's, of positions.
        ssim: [L, B], structural similarity of maps over images; None where they are none.
    """

    layers: list[str]
    rank_correlation: np.ndarray
    ssim: np.ndarray | None

    @property
    def value(self) -> np.ndarray:
        """The rank correlation, mean over layers: [B]."""
        return self.rank_correlation.mean(0)

    @property
    def flagged(self) -> bool:
        """Whether maps hardly notice: mean rank correlation over layers and rows above 0.5."""
        return bool(self.value.mean() > FLAGGED)


@metric(
    better="lower",
    range="-1 to 1",
    cost="1 explanation for each layer with weights",
    reference="Adebayo et al., Sanity Checks for Saliency Maps, 2018, arXiv:1810.03292",
)
def model_randomisation(e: Explanation, *, mode: str = "cascading", seed: int = 0, model: Any = None) -> Randomisation:
    """How alike explanations of the same class stay as layers' weights are drawn anew, from the output down.

    Layers on which neither score nor map depend (other heads, those below the layer explained) are left out.

    Each array is drawn from the normal distribution of its own mean and deviation, so that activations keep their
    scale; an array that is constant (biases of zero, a normalisation as it began) is drawn with deviation 0.1. Moving
    statistics stay. The weights are changed in the model itself and put back bitwise, also after an error: nobody
    else should use it meanwhile.

    Args:
        mode: "cascading", each layer on top of those above it, or "independent", each alone.
        seed: of the weights.
        model: as in `tfig.metrics.max_sensitivity`.

    Returns:
        a `Randomisation`; ``value`` [B] is the mean rank correlation over layers.

    Raises:
        ValueError: the model is none of Keras', or has no weights.
    """
    one_of("mode", mode, ("cascading", "independent"))
    explainer = probe.again(e, model)
    groups = _groups(explainer.model, probe.rows(e))
    rng, here, found, names, last = np.random.default_rng(seed), probe.maps(e), [], [], e
    with kept([variable for _, group in groups for variable in group]):
        for name, group in groups:
            before = [variable.numpy() for variable in group]
            for variable, value in zip(group, before, strict=True):
                spread = value.std() if value.std() > 0 else 0.1
                variable.assign(rng.normal(value.mean(), spread, value.shape).astype(value.dtype))
            there = probe.quietly(explainer, probe.rows(e))
            if not _unreached(last, there):
                names.append(name)
                found.append(_alike(here, probe.maps(there)))
            last = there if mode == "cascading" else e
            if mode == "independent":
                for variable, value in zip(group, before, strict=True):
                    variable.assign(value)
    if not found:
        raise ValueError("neither score nor map depend on the weights of any layer.")
    ranks, likeness = zip(*found, strict=True)
    return Randomisation(names, np.stack(ranks), None if likeness[0] is None else np.stack(likeness))


def _unreached(before: Explanation, after: Explanation) -> bool:
    """Whether new weights changed nothing at all, as those of another head, or below the layer explained, do not."""
    pairs = zip(probe.maps(before), probe.maps(after), strict=True)
    return np.array_equal(before.score, after.score) and all(np.array_equal(a, b) for a, b in pairs)


def _groups(model: Any, x: Any) -> list[tuple[str, list[Any]]]:
    """(name, weights) of each layer that has any, from the output to the input."""
    if not isinstance(model, keras.Layer):
        raise ValueError(f"model_randomisation draws a Keras model's weights anew, and {type(model).__name__} is none.")
    structure, _ = entry.read(model, x)
    called = [layer for layer in (one() for one in survey(model, structure).called) if layer is not None]
    taken: set[int] = set()
    groups = []
    # What belongs to a layer with layers inside comes last.
    for layer in [*reversed(called), *slices.layers(model), model]:
        own = [v for v in layer.variables if id(v) not in taken and _learned(v)]
        if own:
            taken.update(map(id, own))
            groups.append((layer.name, own))
    if not groups:
        raise ValueError(f"model {model.name!r} has no weights to draw anew.")
    return groups


def _learned(variable: Any) -> bool:
    return "float" in str(variable.dtype) and not variable.name.startswith(("moving_", "seed"))


@contextlib.contextmanager
def kept(variables: list[Any]) -> Iterator[None]:
    """Put the variables back as they were."""
    before = [(variable, variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _alike(here: list[np.ndarray], there: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """(rank correlation [B], structural similarity [B] or None) of maps."""
    ranks = rank_correlation(probe.flat(here), probe.flat(there))
    images = [pair for pair in zip(here, there, strict=True) if pair[0].ndim == 3 and min(pair[0].shape[1:]) > 1]
    return ranks, np.mean([similarity(a, b) for a, b in images], 0) if images else None


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of rows [B, M], equals sharing their mean rank: [B]; 1 of equal rows, 0 where one is
    constant."""
    x, y = (_ranks(values) for values in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    size = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return np.where((a == b).all(1), 1.0, (x * y).sum(1) / np.where(size > 0, size, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(values.shape)
    for row, found in zip(values, ranks, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        found[:] = (ends - (counts - 1) / 2)[inverse.reshape(-1)]
    return ranks


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of maps [B, H, W], each over its largest magnitude, by `tf.image.ssim`: [B].

    Windows are Gaussian, of 11 taps and 1.5 pixels, or as many as the map has; Wang et al., 2004.
    """
    scaled = []
    for maps in (a, b):
        top = np.abs(maps).max((1, 2), keepdims=True)
        scaled.append((maps / np.where(top > 0, top, 1))[..., np.newaxis].astype(np.float32))
    return tf.image.ssim(*scaled, max_val=2.0, filter_size=min(11, *a.shape[1:])).numpy().astype(np.float64)


@metric(
    better="lower",
    range="-1 to 1",
    cost="1 explanation",
    reference="Sixt, Granz & Landgraf, When Explanations Lie, 2020, arXiv:1912.09818",
)
def random_logit(e: Explanation, *, similarity: str = "rank", seed: Any = 0, model: Any = None) -> np.ndarray:
    """How alike the explanations of the target and of another class, drawn at random, are.

    Of a `tfig.Contrast`, the first class is drawn anew, and explained alone.

    Args:
        similarity: "rank", Spearman's correlation of positions, or "ssim", the structural similarity of maps.
        seed: of the classes, as in `tfig.explain`.
        model: as in `tfig.metrics.max_sensitivity`.

    Returns:
        [B].

    Raises:
        ValueError: the question is not of one class among several, or "ssim" of what is no image.
    """
    one_of("similarity", similarity, ("rank", "ssim"))
    explainer = probe.again(e, model)
    structure, leaves = entry.read(explainer.model, probe.rows(e))
    units = explainer.pose(structure, leaves, explainer.target).program.units
    if e.target is None or units is None or units < 2:
        raise ValueError("random_logit compares classes, and the explanation is of a model or target without several.")
    keys = arguments.per_row("seed", seed, len(e))
    draws = [np.random.default_rng(int(key) & 0xFFFFFFFF).integers(1, units) for key in keys]
    others = ((e.target + np.array(draws)) % units).astype(np.int32)
    head = explainer.target[0] if isinstance(explainer.target, tuple) else None
    there = probe.quietly(explainer.about(others if head is None else (head, others)), probe.rows(e))
    ranks, likeness = _alike(probe.maps(e), probe.maps(there))
    if similarity == "rank":
        return ranks
    if likeness is None:
        raise ValueError("structural similarity is of maps over images, and these are none; use similarity='rank'.")
    return likeness
