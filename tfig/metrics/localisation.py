"""Localisation: does the attribution lie where the truth is known to lie?"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfig.explanation import Explanation
from tfig.metrics import probe
from tfig.metrics.facts import metric

ARRAS = "Arras, Osman & Samek, CLEVR-XAI, 2022, arXiv:2003.07258"


def _inside(mask: Any, leaves: list[np.ndarray]) -> np.ndarray:
    """The masks of all leaves, bool [B, M].

    Raises:
        ValueError: they do not fit the maps, or a row has nothing inside.
    """
    masks = [np.asarray(one) for one in tf.nest.flatten(mask)]
    masks = [one[..., 0] if one.ndim == leaf.ndim + 1 and one.shape[-1] == 1 else one
             for one, leaf in zip(masks, leaves, strict=False)]  # fmt: skip
    fits = len(masks) == len(leaves) and all(
        one.shape in (leaf.shape, leaf.shape[1:]) for one, leaf in zip(masks, leaves, strict=True)
    )
    if not fits:
        raise ValueError(
            f"the mask has shape {[list(one.shape) for one in masks]}, and the maps are "
            f"{[list(leaf.shape) for leaf in leaves]}; pass one of [B, ...] or [...] for each."
        )
    inside = probe.flat([np.broadcast_to(one, leaf.shape) for one, leaf in zip(masks, leaves, strict=True)]) != 0
    if not inside.any(1).all():
        raise ValueError(f"the mask of row {int(np.argmin(inside.any(1)))} is empty: nothing could lie in it.")
    return inside


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
        mask: [B, H, W] or [H, W] (positions of x as in ``e.heatmap()``), not zero where the truth is; widen it for a
            tolerance. For several inputs, the nest of x.

    Returns:
        [B], 0.0 or 1.0. Where several positions are highest, the share of them inside.
    """
    leaves = probe.maps(e)
    inside, values = _inside(mask, leaves), probe.flat(leaves)
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
    leaves = probe.maps(e)
    inside, values = _inside(mask, leaves), np.maximum(probe.flat(leaves), 0)
    whole = values.sum(1)
    return (values * inside).sum(1) / np.where(whole > 0, whole, 1)


@metric(better="higher", range="0 to 1", cost="none", reference=ARRAS, needs_mask=True)
def relevance_rank(e: Explanation, mask: Any) -> np.ndarray:
    """The share of the K highest attributions that lies in the mask, K being its size.

    Args:
        mask: as in `pointing_game`.

    Returns:
        [B].
    """
    leaves = probe.maps(e)
    inside = _inside(mask, leaves)
    places, _ = probe.places(e)
    size = inside.sum(1)
    first = probe.flat(places) < size[:, np.newaxis]
    return (first & inside).sum(1) / size
