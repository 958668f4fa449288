"""Random small networks, and the same network said in other ways."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers as L

ACTIVATIONS = ("relu", "tanh", "softplus", "leaky_relu", "relu6")
HEADS = ("flatten", "average", "maximum")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A network of images [size, size - 1, channels] with three outputs, and three rows for it."""

    size: int
    channels: int
    blocks: tuple[tuple[str, Any], ...]
    head: str
    seed: int

    @property
    def x(self):
        rng = np.random.default_rng(self.seed)
        return rng.uniform(-1, 1, (3, self.size, self.size - 1, self.channels)).astype("float32")


def blocks():
    conv = st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from(ACTIVATIONS))
    return st.lists(
        st.one_of(
            st.tuples(st.just("conv"), conv),
            st.tuples(st.just("depthwise"), st.integers(2, 3)),
            st.tuples(st.just("norm"), st.none()),
            st.tuples(st.just("max"), st.none()),
            st.tuples(st.just("mean"), st.none()),
            st.tuples(st.just("skip"), st.sampled_from(ACTIVATIONS)),
        ),
        max_size=3,
    )


def plans():
    """A convolution, then anything, then a head."""
    first = st.tuples(st.just("conv"), st.tuples(st.integers(2, 4), st.integers(1, 3), st.sampled_from(ACTIVATIONS)))
    return st.builds(
        lambda size, channels, start, rest, head, seed: Plan(size, channels, (start, *rest), head, seed),
        st.integers(6, 9), st.integers(1, 4), first, blocks(), st.sampled_from(HEADS), st.integers(0, 10**6),
    )  # fmt: skip


def build(
    plan: Plan,
    *,
    first: bool = False,
    dtype: str | None = None,
    inert: dict[int, Callable[[Any], Any]] | None = None,
    scale: float = 1.0,
    order: Any = None,
    bias: float = 0.0,
) -> keras.Model:
    """The network of a plan.

    Args:
        first: channels before positions.
        dtype: of everything in it.
        inert: what is put behind the input (0) and behind each block (1...).
        scale: of the input, which the first weights take back.
        order: of the input's channels, which the first weights take back.
        bias: added to every output.
    """
    rng = np.random.default_rng(plan.seed)
    named = {"data_format": "channels_first" if first else "channels_last", "dtype": dtype}
    shape = (plan.size, plan.size - 1, plan.channels)
    x = keras.Input((shape[2], *shape[:2]) if first else shape, dtype=dtype or "float32")
    axis, inert = 1 if first else -1, inert or {}
    h = inert.get(0, lambda z: z)(x)
    weights = []

    def normal(*sizes):
        return rng.normal(size=sizes) / np.sqrt(max(1, np.prod(sizes[:-1]))) * 1.5

    for number, (kind, given) in enumerate(plan.blocks):
        width = h.shape[axis]
        if kind == "conv":
            units, kernel, activation = given
            h = L.Conv2D(units, kernel, padding="same", activation=activation, **named)(h)
            weights += [normal(kernel, kernel, width, units), rng.normal(size=units) * 0.2]
        elif kind == "depthwise":
            h = L.DepthwiseConv2D(given, padding="same", **named)(h)
            weights += [normal(given, given, width, 1), rng.normal(size=width) * 0.2]
        elif kind == "norm":
            h = L.BatchNormalization(axis=axis, dtype=dtype)(h)
            weights += [rng.uniform(0.5, 1.5, width), rng.normal(size=width) * 0.2, rng.normal(size=width) * 0.2]
            weights += [rng.uniform(0.5, 1.5, width)]
        elif kind in ("max", "mean"):
            h = (L.MaxPooling2D if kind == "max" else L.AveragePooling2D)(2, padding="same", **named)(h)
        else:
            inner = L.Conv2D(width, 3, padding="same", **named)(h)
            h = L.Activation(given, dtype=dtype)(L.Add(dtype=dtype)([inner, h]))
            weights += [normal(3, 3, width, width), rng.normal(size=width) * 0.2]
        h = inert.get(number + 1, lambda z: z)(h)
    if plan.head == "flatten":
        h = L.Flatten(dtype=dtype)(L.Permute((2, 3, 1), dtype=dtype)(h) if first else h)
    else:
        h = (L.GlobalAveragePooling2D if plan.head == "average" else L.GlobalMaxPooling2D)(**named)(h)
    weights += [normal(h.shape[-1], 3), rng.normal(size=3) * 0.2 + bias]
    model = keras.Model(x, L.Dense(3, dtype=dtype)(h))
    weights[0] = weights[0][:, :, order if order is not None else slice(None)] / scale
    model.set_weights(weights)
    return model
