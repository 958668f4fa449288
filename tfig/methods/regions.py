"""XRAI: regions of an image ranked by integrated gradients."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.baselines import Arrays
from tfig.entry import Leaf
from tfig.kernels import path, regions
from tfig.methods.checks import whole
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace

SCALES = (50, 100, 150, 250, 500, 1200)
"""Of Felzenszwalb's segmentation: from fine to coarse."""


@dataclasses.dataclass(frozen=True)
class XRAI(Method):
    """Integrated gradients from each row's darkest and brightest value, summed up by regions and ranked by density.

    The largest channel of the mean of both maps; then, of segments that may overlap, the one whose positions not yet
    taken have the highest mean is added at each turn, and its positions get that mean.

    Fields:
        steps: gradient evaluations per row and baseline.
        min_pixels: segments that would add fewer are passed over.
        segments: a map [H, W], maps [H, W, K], or a function image [H, W, C] -> map or maps, called outside the
            program; None: Felzenszwalb's segmentation at six scales, by scikit-image.

    Raises ImportError without segments and scikit-image.

    >>> tfig.explain(model, x, tfig.XRAI(segments=skimage.segmentation.slic))
    """

    steps: int = 100
    min_pixels: int = 50
    segments: Any = None

    cost = "2 steps gradients"
    gradients = "anywhere"
    gives = "a value for each position, all channels at once: [B, H, W, 1]"
    name = "xrai"
    reference = "Kapishnikov et al., XRAI: Better Attributions Through Regions, 2019, arXiv:1906.02825"
    needs = "one image [B, H, W, C]; segments= or scikit-image"

    def __post_init__(self):
        whole("steps", self.steps, 1)
        whole("min_pixels", self.min_pixels, 1)
        if self.segments is None or callable(self.segments) or isinstance(self.segments, Arrays):
            return
        given = np.asarray(self.segments)
        if given.dtype.kind not in "iu" or given.ndim not in (2, 3) or given.min() < 0:
            raise ValueError(
                f"segments is {given.dtype} {list(given.shape)}; pass a map [H, W] or maps [H, W, K] from 0."
            )
        object.__setattr__(self, "segments", Arrays(_deep(given)))

    @property
    def parameters(self) -> dict[str, object]:
        """The hyper-parameters, segments in words."""
        kind = (
            "felzenszwalb" if self.segments is None else "a map" if isinstance(self.segments, Arrays) else "a function"
        )
        return {"steps": self.steps, "min_pixels": self.min_pixels, "segments": kind}

    def side_specs(self, leaves: Sequence[Leaf]) -> list[tf.TensorSpec]:
        """The maps of each row, of a function."""
        if isinstance(self.segments, Arrays):
            return []
        return [tf.TensorSpec([None, *leaf.shape[1:-1], None], tf.int32) for leaf in leaves if len(leaf.shape) == 4]

    def sides(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The segments of each row, of a function."""
        if isinstance(self.segments, Arrays):
            return []
        cut = self.segments or _felzenszwalb
        return [np.stack([_deep(np.asarray(cut(row))) for row in leaf]) for leaf in x if leaf.ndim == 4]

    def like(self, problem: Problem) -> Leaves:
        """One channel."""
        return tuple(leaf[..., :1] for leaf in problem.x)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The ranking."""
        if len(problem.x) != 1 or len(problem.x[0].shape) != 4 or problem.source is not None:
            raise ValueError("xrai explains one image [B, H, W, C] at the model's input; the question is another.")
        (x,) = problem.x
        size = x.shape[1:3].num_elements()
        if size is not None and size < 10 * self.min_pixels:
            raise ValueError(
                f"min_pixels is {self.min_pixels}, and the image has {size}: there could not be ten regions; lower it."
            )
        maps = []
        for end in (tf.reduce_min, tf.reduce_max):
            flat = tf.zeros_like(x) + end(x, [1, 2, 3], keepdims=True)
            nodes = path.fixed("midpoint", [self.steps])(0)
            maps.append(path.integrate(problem.replace(baseline=(flat,)), self.steps, nodes)[0])
        attribution = tf.reduce_max((maps[0] + maps[1]) / 2, -1)
        if isinstance(self.segments, Arrays):
            positions = list(self.segments.values.shape[:2])
            if not x.shape[1:3].is_compatible_with(positions):
                raise ValueError(f"segments is a map {positions}, and the positions are {x.shape[1:3].as_list()}.")
            given = tf.constant(self.segments.values)[tf.newaxis]
            shape = tf.concat([tf.shape(x)[:3], tf.shape(given)[3:]], 0)
            segments = tf.broadcast_to(given, shape)
        else:
            segments = problem.sides[0]
        return (regions.rank(attribution, segments, self.min_pixels)[..., tf.newaxis],), {}


def _deep(maps: np.ndarray) -> np.ndarray:
    """Maps [H, W, K] from 0, of one [H, W] or several."""
    return ((maps - maps.min()) if maps.ndim == 3 else (maps - maps.min())[..., np.newaxis]).astype(np.int32)


def _felzenszwalb(image: np.ndarray) -> np.ndarray:
    """Segmentations of an image at all scales, [H, W, K]."""
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise ImportError("xrai needs segments=, or scikit-image: pip install scikit-image") from error
    spread = (image - image.min()) / max(float(image.max() - image.min()), 1e-12)
    return np.stack([felzenszwalb(spread, scale=s, sigma=0.8, min_size=150, channel_axis=-1) for s in SCALES], -1)
