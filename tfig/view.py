"""Heat maps, overlays and what they show, as arrays: for people to look at."""

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from tfig import picture

if TYPE_CHECKING:
    from tfig.explanation import Explanation

WARM, COLD = picture.WARM, picture.COLD


def heatmap(attributions: Any, x: Any) -> Any:
    """Channels summed; maps over an image or sequence brought to its spatial size. Nests are mapped leaf by leaf."""
    if isinstance(attributions, dict):
        return {name: heatmap(leaf, x[name] if isinstance(x, dict) else None) for name, leaf in attributions.items()}
    if isinstance(attributions, (list, tuple)):
        inputs = x if isinstance(x, (list, tuple)) else [None] * len(attributions)
        return [heatmap(leaf, value) for leaf, value in zip(attributions, inputs, strict=True)]
    if attributions.ndim < 3:
        return attributions
    over_image = isinstance(x, np.ndarray) and x.ndim == 4 and attributions.ndim == 4
    larger = over_image and attributions.shape[:3] != x.shape[:3]
    return picture.heatmap(attributions, x.shape[1:3] if larger else None).numpy()


def enlarged(maps: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Maps [B, ..., C] brought to `sizes` along their positions, linearly between the middles of cells."""
    for axis, new in enumerate(sizes, 1):
        old = maps.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(maps.ndim)]).astype(maps.dtype)
        maps = np.take(maps, low, axis) * (1 - share) + np.take(maps, np.minimum(low + 1, old - 1), axis) * share
    return maps


def full(e: "Explanation") -> float | None:
    """The value shown in full colour: 1 for masks, which have a scale of their own; None: each map's own."""
    return 1.0 if "mask" in e.trace else None


def scale(map_: np.ndarray, top: float | None = None) -> float:
    """The value shown in full colour: `top`, or the 99th percentile of a map's magnitude; 1 of nothing but zeros."""
    return float(picture.full(map_[np.newaxis])[0]) if top is None else top


def strength(map_: np.ndarray, top: float | None = None) -> np.ndarray:
    """A map scaled to [-1, 1] by `top`, or the 99th percentile of its magnitude; all zeros stay zeros."""
    return picture.strength(map_[np.newaxis], top)[0].numpy()


def png(rgb: np.ndarray) -> bytes:
    """A picture [H, W, 3], uint8, as the bytes of a PNG file."""
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def pixels(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] or [H, W] of any range as uint8 RGB [H, W, 3]: as `tfig.picture.pixels`."""
    image = np.asarray(image)
    return picture.pixels((image if image.ndim == 3 else image[..., np.newaxis])[np.newaxis])[0].numpy()


def paint(map_: np.ndarray, image: np.ndarray, alpha: float, top: float | None = None) -> np.ndarray:
    """One map [h, w], enlarged to its image [H, W, C], painted over it: uint8 RGB [H, W, 3]."""
    maps = picture.heatmap(map_[np.newaxis, ..., np.newaxis].astype(np.float32), image.shape[:2])
    return picture.paint(maps, np.asarray(image)[np.newaxis], alpha, top)[0].numpy()


def named(nest: Any) -> dict[str, Any]:
    """The leaves of a nest by name: keys of a dict, positions of a list, "" for a single array."""
    if isinstance(nest, dict):
        return {str(name): leaf for name, leaf in nest.items()}
    return {str(i): leaf for i, leaf in enumerate(nest)} if isinstance(nest, (list, tuple)) else {"": nest}


def overlay(maps: Any, images: Any, alpha: float, top: float | None = None) -> np.ndarray:
    """Maps [B, H, W] over images [B, H, W, C] or one [H, W, C] for all, uint8 RGB [B, H, W, 3].

    Of nests, the first map of an image is shown.

    Raises:
        ValueError: not images, or of another size.
    """
    found = [(name, leaf) for name, leaf in named(maps).items() if leaf.ndim == 3]
    over = named(images).get(found[0][0]) if found and isinstance(images, (dict, list, tuple)) else images
    over = None if over is None else np.asarray(over)
    if not found or over is None or over.ndim not in (3, 4):
        shapes = {name: list(leaf.shape) for name, leaf in named(maps).items()}
        given = None if over is None else list(over.shape)
        raise ValueError(
            f"an overlay needs maps [B, H, W] and images [B, H, W, C]; got maps {shapes} and images {given}."
        )
    rows = found[0][1]
    over = np.broadcast_to(over, (len(rows), *over.shape)) if over.ndim == 3 else over
    if len(over) != len(rows):
        raise ValueError(f"there are {len(rows)} maps and {len(over)} images.")
    return np.stack([paint(row, image, alpha, top) for row, image in zip(rows, over, strict=True)])
