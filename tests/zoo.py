"""One small model of every kind that tfig must explain, with rows to explain."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, rows for it, and the arguments of `explain` that it needs."""

    build: Callable[[], keras.Model]
    x: Any
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    layer: str | None = None
    references: Any = None


def images(rows=3, size=8, channels=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (rows, size, size, channels)).astype("float32")


def table(rows=3, width=5, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype("float32")


def sequential():
    return keras.Sequential([
        keras.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu", name="conv"), L.GlobalAveragePooling2D(),
        L.Dense(4, activation="softmax"),
    ])  # fmt: skip


def skips():
    x = keras.Input((8, 8, 3))
    h = L.Conv2D(4, 3, padding="same", activation="relu", name="before")(x)
    y = L.Conv2D(4, 3, padding="same", name="conv")(h)
    y = keras.ops.relu(y + h)
    return keras.Model(x, L.Dense(4, activation="softmax")(L.GlobalMaxPooling2D()(y)))


def nested():
    x = keras.Input((8, 8, 3))
    inner = keras.Input((8, 8, 3))
    backbone = keras.Model(inner, L.Conv2D(4, 3, activation="relu", name="conv")(inner), name="backbone")
    return keras.Model(x, L.Dense(4, activation="softmax")(L.Flatten()(backbone(x))))


@keras.saving.register_keras_serializable("zoo")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(4, 3, activation="relu", name="conv")
        self.flat = L.Flatten()
        self.top = L.Dense(4, activation="softmax")

    def call(self, x):
        h = self.conv(x)
        return self.top(self.flat(h * keras.ops.sigmoid(h)))


def subclassed():
    model = Subclassed()
    model(images())
    return model


def shared():
    a = keras.Input((5,))
    dense = L.Dense(5, activation="tanh", name="conv")
    return keras.Model(a, L.Dense(4, activation="softmax")(dense(dense(a))))


def two_inputs():
    image, row = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="table")
    h = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", name="conv")(image))
    y = L.Dense(4, activation="softmax")(L.Concatenate()([h, L.Dense(3, activation="relu")(row)]))
    return keras.Model({"image": image, "table": row}, y)


def two_outputs():
    x = keras.Input((8, 8, 3))
    h = L.Flatten()(L.Conv2D(4, 3, activation="relu", name="conv")(x))
    return keras.Model(
        x, {"kind": L.Dense(4, activation="softmax", name="kind")(h), "size": L.Dense(1, name="size")(h)}
    )


def tokens():
    x = keras.Input((6,), dtype="int32")
    h = L.Embedding(20, 4, name="embedding")(x)
    return keras.Model(
        x, L.Dense(4, activation="softmax")(L.Flatten()(L.Conv1D(4, 2, activation="relu", name="conv")(h)))
    )


def normalised():
    return keras.Sequential([
        keras.Input((8, 8, 3)), L.Conv2D(4, 3, use_bias=False), L.BatchNormalization(), L.ReLU(name="conv"),
        L.Dropout(0.5), L.Flatten(), L.Dense(4), L.Softmax(),
    ])  # fmt: skip


def smooth():
    return keras.Sequential([
        keras.Input((5,)), L.Dense(8, activation="gelu"), L.LayerNormalization(),
        L.Dense(8, activation="silu", name="conv"), L.LeakyReLU(), L.Dense(4), L.Activation("softmax"),
    ])  # fmt: skip


def recurrent():
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            L.LSTM(5, return_sequences=True, name="conv"),
            L.LSTM(4),
            L.Dense(4, activation="softmax"),
        ]
    )


def attention():
    x = keras.Input((6, 8))
    h = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    h = L.LayerNormalization(name="conv")(x + h)
    return keras.Model(x, L.Dense(4, activation="softmax")(L.GlobalAveragePooling1D()(h)))


def half():
    policy = "mixed_float16"
    return keras.Sequential([
        keras.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu", name="conv", dtype=policy),
        L.GlobalAveragePooling2D(dtype=policy), L.Dense(4, dtype=policy), L.Activation("softmax", dtype="float32"),
    ])  # fmt: skip


def one_unit():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, activation="relu", name="conv"),
            L.Flatten(),
            L.Dense(1, activation="sigmoid"),
        ]
    )


def regression():
    return keras.Sequential([keras.Input((5,)), L.Dense(8, activation="tanh", name="conv"), L.Dense(1)])


def sequence(rows=3, steps=6, width=3):
    return np.random.default_rng(1).normal(size=(rows, steps, width)).astype("float32")


IDS = np.random.default_rng(2).integers(1, 20, (3, 6)).astype("int32")

ZOO = {
    "sequential": Case(sequential, images(), layer="conv"),
    "skips": Case(skips, images(), layer="conv"),
    "nested": Case(nested, images(), layer="conv"),
    "subclassed": Case(subclassed, images(), layer="conv"),
    "shared": Case(shared, table(), layer="conv"),
    "two_inputs": Case(two_inputs, {"image": images(), "table": table()}, layer="conv"),
    "two_outputs": Case(two_outputs, images(), {"target": ("kind", 2)}, layer="conv"),
    "tokens": Case(tokens, IDS, {"layer": "embedding"}, layer="conv"),
    "normalised": Case(normalised, images(), layer="conv"),
    "smooth": Case(smooth, table(), layer="conv"),
    "recurrent": Case(recurrent, sequence(), layer="conv"),
    "attention": Case(attention, sequence(width=8), layer="conv"),
    "half": Case(half, images(), layer="conv"),
    "one_unit": Case(one_unit, images(), layer="conv"),
    "regression": Case(regression, table(), layer="conv"),
}


def build(name: str) -> keras.Model:
    """The model, with weights that depend on nothing but its name."""
    keras.utils.set_random_seed(sum(map(ord, name)))
    model = ZOO[name].build()
    rng = np.random.default_rng(sum(map(ord, name)))
    for variable in model.variables:
        if "seed" not in variable.path:
            shape = tuple(variable.shape)
            values = (
                rng.uniform(0.5, 1.5, shape)
                if "variance" in variable.path or "gamma" in variable.path
                else rng.normal(size=shape) * (0.5 if len(shape) > 1 else 0.2)
            )
            variable.assign(values)
    return model
