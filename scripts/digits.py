"""The demo's task: scikit-learn's handwritten digits, enlarged to 32 x 32, and a small network trained on them."""

import cv2
import keras
import numpy as np
from sklearn.datasets import load_digits

SIDE = 32
HELD_OUT = 360


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x, y) to train on and (x, y) held out; x [N, 32, 32, 1] in [0, 1]. No digit is in both."""
    digits = load_digits()
    enlarged = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for image in digits.images]
    x = np.clip(np.stack(enlarged)[..., np.newaxis] / 16, 0, 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], digits.target[order].astype(np.int32)
    return x[:-HELD_OUT], y[:-HELD_OUT], x[-HELD_OUT:], y[-HELD_OUT:]


def train(verbose: int = 0) -> keras.Model:
    """A network of three convolutions and two dense layers, with a softmax at its end."""
    keras.utils.set_random_seed(0)
    x, y, _, _ = load()
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((SIDE, SIDE, 1)),
        layers.Conv2D(12, 5, strides=2, padding="same", activation="relu", name="edges"),
        layers.Conv2D(24, 3, strides=2, padding="same", activation="relu", name="strokes"),
        layers.Conv2D(24, 3, padding="same", activation="relu", name="parts"),
        layers.Flatten(),
        layers.Dropout(0.3),
        layers.Dense(48, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ], name="digits")  # fmt: skip
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=15, verbose=verbose)
    return model
