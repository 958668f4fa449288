"""A task whose truth is known: which of six shapes lies on a natural photograph, beside a decoy and a watermark.

Photographs are those that scikit-learn and scikit-image bring along; those held out are under no image trained on.
"""

import functools
from typing import NamedTuple

import cv2
import keras
import numpy as np
from skimage import data
from sklearn.datasets import load_sample_image

SIDE = 48
CLASSES = ("disc", "square", "triangle", "cross", "ring", "stripes")
DECOYS = ("letter", "fork", "dots")
TRAINED_ON = ("china", "flower", "astronaut", "coffee", "grass", "camera")
HELD_OUT = ("chelsea", "rocket", "gravel", "brick")
MARK = np.array([[1, 1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 1, 1], [0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0],
                 [0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1]])  # fmt: skip
"""The watermark: the same white letters in the same corner of every image, on a grey plate."""


class Images(NamedTuple):
    """Images and their truth.

    Fields:
        x: [N, 48, 48, 3] in [0, 1].
        y: [N], the class of the shape.
        shape, decoy, mark: [N, 48, 48], where each of them lies.
    """

    x: np.ndarray
    y: np.ndarray
    shape: np.ndarray
    decoy: np.ndarray
    mark: np.ndarray


@functools.cache
def photograph(name: str) -> np.ndarray:
    """A photograph as float32 RGB in [0, 1]."""
    image = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(data, name)()
    image = np.asarray(image, np.float32) / 255
    return image if image.ndim == 3 else np.repeat(image[..., np.newaxis], 3, -1)


def drawn(kind: str, size: int) -> np.ndarray:
    """A shape or a decoy, [size, size] of zeros and ones."""
    canvas, half = np.zeros((size, size), np.uint8), size // 2
    rows, columns = np.mgrid[:size, :size]
    away = np.hypot(rows - (size - 1) / 2, columns - (size - 1) / 2)
    if kind == "disc":
        canvas[away <= size / 2] = 1
    elif kind == "square":
        canvas[1:-1, 1:-1] = 1
    elif kind == "triangle":
        cv2.fillPoly(canvas, [np.array([[half, 0], [size - 1, size - 1], [0, size - 1]])], 1)
    elif kind == "cross":
        canvas[:, half - 2 : half + 3] = canvas[half - 2 : half + 3] = 1
    elif kind == "ring":
        canvas[(away <= size / 2) & (away >= size / 4)] = 1
    elif kind == "stripes":
        canvas[rows // 3 % 2 == 0] = 1
    elif kind == "letter":
        canvas[:, :4] = canvas[-4:] = 1
    elif kind == "fork":
        canvas[(np.abs(rows - columns) <= 2) | (np.abs(rows + columns - size + 1) <= 1) & (rows < half)] = 1
    elif kind == "dots":
        canvas[(rows % 5 < 3) & (columns % 5 < 3)] = 1
    return canvas


def compose(count: int, names: tuple[str, ...], seed: int) -> Images:
    """`count` images on crops of the photographs `names`."""
    rng = np.random.default_rng(seed)
    x = np.empty((count, SIDE, SIDE, 3), np.float32)
    y = rng.integers(0, len(CLASSES), count).astype(np.int32)
    masks = np.zeros((3, count, SIDE, SIDE), bool)
    tall, wide = MARK.shape
    for i in range(count):
        photo = photograph(names[rng.integers(len(names))])
        side = int(rng.integers(SIDE, min(photo.shape[:2], default=0)))
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape[:2])
        x[i] = cv2.resize(photo[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        masks[2, i, SIDE - tall - 2 :, SIDE - wide - 2 :] = True
        taken = masks[2, i].copy()
        for place, kind in enumerate((CLASSES[y[i]], DECOYS[rng.integers(len(DECOYS))])):
            size = int(rng.integers(12, 17))
            stamp = drawn(kind, size) > 0
            while True:
                top, left = (int(rng.integers(0, SIDE - size + 1)) for _ in range(2))
                if not taken[top : top + size, left : left + size].any():
                    break
            taken[top : top + size, left : left + size] = True
            under = x[i, top : top + size, left : left + size]
            colour = rng.uniform(size=3)
            while np.abs(colour - under.mean((0, 1))).sum() < 0.8:  # seen against what is under it
                colour = rng.uniform(size=3)
            under[stamp] = colour + rng.normal(0, 0.03, (stamp.sum(), 3))
            masks[place, i, top : top + size, left : left + size] = stamp
        plate = x[i, SIDE - tall - 2 :, SIDE - wide - 2 :]
        plate[:] = 0.5
        plate[1:-1, 1:-1][MARK > 0] = 1.0
    return Images(np.clip(x, 0, 1), y, *masks)


def train(verbose: int = 0) -> keras.Model:
    """A network of five convolutions, global average pooling and one dense layer, with a softmax at its end."""
    keras.utils.set_random_seed(0)
    images = compose(12000, TRAINED_ON, 0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((SIDE, SIDE, 3)),
        layers.Conv2D(16, 5, strides=2, padding="same", activation="relu", name="edges"),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="corners"),
        layers.MaxPooling2D(2),
        layers.Conv2D(48, 3, padding="same", activation="relu", name="parts"),
        layers.Conv2D(48, 3, padding="same", activation="relu", name="shapes"),
        layers.Conv2D(64, 3, padding="same", activation="relu", name="objects"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(len(CLASSES), activation="softmax"),
    ], name="objects")  # fmt: skip
    rate = keras.optimizers.schedules.CosineDecay(2e-3, 14 * 12000 // 64)
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images.x, images.y, batch_size=64, epochs=14, verbose=verbose)
    return model
