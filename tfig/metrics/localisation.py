"""Localisation: does the attribution lie where the truth is known to lie?"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfig import view
from tfig.explanation import Explanation
from tfig.metrics import probe
from tfig.metrics.facts import metric

ARRAS = "Arras, Osman & Samek, CLEVR-XAI, 2022, arXiv:2003.07258"


def _located(e: Explanation, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """(attributions, whether they lie inside the masks), [B, M] each, of all leaves.

    Maps of a layer are enlarged to the image, as `Explanation.heatmap` does, where the masks are of that size.

    Raises:
        ValueError: they do not fit the maps, are negative or NaN, or a row has nothing inside.
    """
    masks = [np.asarray(one) for one in tf.nest.flatten(mask)]
    inputs, leaves = tf.nest.flatten(e.x), probe.maps(e)
    if len(masks) == len(inputs) > len(leaves):  # of whole numbers nothing is explained
        masks = [one for i, one in enumerate(masks) if i not in e.held]
    for maps in (leaves, [view.heatmap(leaf, e.channels_last("x")) for leaf in probe.parts(e)]):
        fitted = [_fitted(one, leaf) for one, leaf in zip(masks, maps, strict=False)]
        found = [np.broadcast_to(one, leaf.shape) for one, leaf in zip(fitted, maps, strict=False) if one is not None]
        if len(masks) == len(maps) == len(found):
            inside = probe.flat(found)
            if not (inside >= 0).all():
                raise ValueError("the mask holds NaN or negative values; pass zeros and ones.")
            if not inside.any(1).all():
                raise ValueError(f"the mask of row {int(np.argmin(inside.any(1)))} is empty: nothing could lie in it.")
            return probe.flat(maps), inside > 0
    raise ValueError(
        f"the mask has shape {[list(one.shape) for one in masks]}, and the maps are {[list(m.shape) for m in leaves]}; "
        "pass one of [B, ...] or [...] for each."
    )


def _fitted(mask: np.ndarray, leaf: np.ndarray) -> np.ndarray | None:
    """The mask, without a channel of its own; None where it does not fit."""
    for one in (mask, mask[..., 0] if mask.ndim and mask.shape[-1] == 1 else mask):
        if one.shape in (leaf.shape, leaf.shape[1:]):
            return one
    return None


@metric(
    better="higher",
    range="0 or 1",
    cost="none",
    reference="Zhang et al., Top-down Neural Attention by Excitation Backprop, 2018, arXiv:1608.00507",
    needs_mask=True,
)
def pointing_game(e: Explanation, mask: Any) -> np.ndarray:
    """Whether the position of the highest attribution lies in the mask.

    Args:
        mask: [B, H, W] or [H, W], zero or positive, positive where the truth is: positions of x as in
            ``e.heatmap()``, or of the layer explained; widen it for a tolerance. For several inputs, the nest of x.

    Returns:
        [B], 0.0 or 1.0. Where several positions are highest, the share of them inside.
    """
    values, inside = _located(e, mask)
    highest = values == values.max(1, keepdims=True)
    return (highest & inside).sum(1) / highest.sum(1)


@metric(better="higher", range="0 to 1", cost="none", reference=ARRAS, needs_mask=True)
def relevance_mass(e: Explanation, mask: Any) -> np.ndarray:
    """The share of the positive attribution that lies in the mask: sum{ R+ inside } / sum{ R+ }.

    Args:
        mask: as in `pointing_game`.

    Returns:
        [B]; 0 where nothing is positive.
    """
    values, inside = _located(e, mask)
    values = np.maximum(values, 0)
    whole = values.sum(1)
    return (values * inside).sum(1) / np.where(whole > 0, whole, 1)


@metric(better="higher", range="0 to 1", cost="none", reference=ARRAS, needs_mask=True)
def relevance_rank(e: Explanation, mask: Any) -> np.ndarray:
    """The share of the K highest attributions that lies in the mask, K being its size.

    Args:
        mask: as in `pointing_game`.

    Returns:
        [B]; NaN where all are alike, and none is highest.
    """
    values, inside = _located(e, mask)
    size = inside.sum(1)
    first = probe.order(values) < size[:, np.newaxis]
    return np.where(np.ptp(values, 1) > 0, (first & inside).sum(1) / size, np.nan)
