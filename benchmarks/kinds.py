"""Which kinds of models go with which methods: a table, by asking.

Small models of each kind with random weights; of KerasHub where it is installed (``pip install tfig[benchmarks]``). A
cell is "yes" (finite, not zero everywhere), "at LAYER" where the method chose a layer by itself, or why it was refused.

Usage: kinds.py [KIND...]   (by default all)
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L
from propagation import PATCHES, TEXT, image, text

import tfig

METHODS: dict[str, Any] = {
    "gradient": tfig.Gradient(),
    "IG": tfig.IntegratedGradients(16),
    "occlusion": tfig.Occlusion(3, 3),
    "Shapley": tfig.ShapleySampling(2),
    "I-GOS": tfig.IGOS(4, 2, 2, search="settled"),
    "Grad-CAM": tfig.GradCAM(),
    "LRP": tfig.LRP("epsilon"),
    "DeepLIFT": tfig.DeepLIFT(),
}
RNG = np.random.default_rng(0)
PHOTOS = RNG.uniform(size=(2, 32, 32, 3)).astype("float32")
IDS = np.array([[3, 4, 5, 6, 0, 0], [7, 8, 9, 10, 11, 12]])

Kind = tuple[Any, Any, dict[str, Any]]
KINDS: dict[str, Callable[[], Kind]] = {}


def kind(name: str) -> Callable[[Callable[[], Kind]], Callable[[], Kind]]:
    """List a kind: a function that gives (model, x, arguments)."""

    def listed(make: Callable[[], Kind]) -> Callable[[], Kind]:
        KINDS[name] = make
        return make

    return listed


def convolutions(**settings: Any) -> keras.Model:
    """A small classifier of images."""
    x = keras.Input((32, 32, 3), **settings)
    h = L.Conv2D(8, 3, strides=2, activation="relu")(x)
    h = L.Conv2D(8, 3, strides=2, activation="relu")(h)
    return keras.Model(x, L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(h)))


class Subclassed(keras.Model):
    """A classifier that is a class."""

    def __init__(self):
        super().__init__()
        self.seen, self.pooled, self.top = L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(3)

    def call(self, x: Any) -> Any:
        """Logits."""
        return self.top(self.pooled(self.seen(x)))


@kind("images, functional")
def functional() -> Kind:
    """One input, one output."""
    return convolutions(), PHOTOS, {}


@kind("images, nested")
def nested() -> Kind:
    """A model as a layer."""
    x = keras.Input((32, 32, 3))
    return keras.Model(x, L.Dense(2)(convolutions()(L.Rescaling(2.0)(x)))), PHOTOS, {}


@kind("images, subclassed")
def subclassed() -> Kind:
    """A call of one's own."""
    model = Subclassed()
    model(PHOTOS)
    return model, PHOTOS, {}


@kind("images, augmented while training")
def augmented() -> Kind:
    """Random layers in front."""
    x = keras.Input((32, 32, 3))
    return keras.Model(x, convolutions()(L.RandomFlip()(L.RandomRotation(0.1)(x)))), PHOTOS, {}


@kind("images, mixed float16")
def mixed() -> Kind:
    """Half precision inside."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return convolutions(), PHOTOS, {}
    finally:
        keras.config.set_dtype_policy("float32")


@kind("whole pixels, uint8")
def pixels() -> Kind:
    """Images as integers."""
    x = keras.Input((32, 32, 3), dtype="uint8")
    return keras.Model(x, convolutions()(L.Rescaling(1 / 255)(x))), (255 * PHOTOS).astype("uint8"), {}


@kind("segmentation, one pixel's class")
def segmentation() -> Kind:
    """A small U-Net."""
    x = keras.Input((32, 32, 3))
    a = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(8, 3, padding="same", activation="relu")(L.MaxPooling2D()(a))
    h = L.Concatenate()([a, L.UpSampling2D()(b)])
    return keras.Model(x, L.Conv2D(3, 1)(h)), PHOTOS, {"target": tfig.At("predicted", (16, 16))}


@kind("detector, one box's class")
def detector() -> Kind:
    """Boxes and classes."""
    x = keras.Input((32, 32, 3))
    h = L.Flatten()(L.Conv2D(8, 3, strides=4, activation="relu")(x))
    outputs = {"boxes": L.Reshape((5, 4))(L.Dense(20)(h)), "classes": L.Reshape((5, 3))(L.Dense(15)(h))}
    return keras.Model(x, outputs), PHOTOS, {"target": ("classes", tfig.At("predicted", 0))}


@kind("two images, shared layers")
def siamese() -> Kind:
    """How like two images are."""
    a, b, shared = keras.Input((32, 32, 3), name="a"), keras.Input((32, 32, 3), name="b"), convolutions()
    return keras.Model([a, b], L.Dense(1)(L.Multiply()([shared(a), shared(b)]))), [PHOTOS, PHOTOS[::-1]], {}


@kind("image and table")
def two_inputs() -> Kind:
    """Two kinds of inputs."""
    a, b = keras.Input((32, 32, 3), name="image"), keras.Input((4,), name="facts")
    model = keras.Model({"image": a, "facts": b}, L.Dense(3)(L.Concatenate()([convolutions()(a), L.Dense(4)(b)])))
    return model, {"image": PHOTOS, "facts": RNG.normal(size=(2, 4)).astype("float32")}, {}


@kind("series, recurrent with a mask")
def recurrent() -> Kind:
    """An LSTM that skips padding."""
    x = keras.Input((8, 3))
    rows = RNG.normal(size=(2, 8, 3)).astype("float32")
    rows[0, 5:] = 0
    return keras.Model(x, L.Dense(3)(L.LSTM(6)(L.Masking()(x)))), rows, {}


@kind("volumes")
def volumes() -> Kind:
    """Three dimensions."""
    x = keras.Input((8, 8, 8, 1))
    h = L.Flatten()(L.Conv3D(4, 3, activation="relu")(x))
    return keras.Model(x, L.Dense(3)(h)), RNG.uniform(size=(2, 8, 8, 8, 1)).astype("float32"), {}


@kind("table, numbers and categories")
def table() -> Kind:
    """A one-hot of words beside numbers."""
    num, colour = keras.Input((3,), name="num"), keras.Input((1,), dtype="string", name="colour")
    one_hot = L.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")(colour)
    h = L.Dense(6, activation="relu")(L.Concatenate()([num, one_hot]))
    x = {"num": RNG.normal(size=(2, 3)).astype("float32"), "colour": np.array([["red"], ["green"]])}
    return keras.Model({"num": num, "colour": colour}, L.Dense(2)(h)), x, {}


@kind("texts, strings to words")
def strings() -> Kind:
    """Raw text in."""
    words = L.TextVectorization(output_sequence_length=6)
    words.adapt(["a good film", "a bad film", "what a film"])
    x = keras.Input((1,), dtype="string")
    h = L.GlobalAveragePooling1D()(L.Embedding(12, 4, name="words")(words(x)))
    return keras.Model(x, L.Dense(2)(h)), np.array([["a good film"], ["what a bad film"]]), {}


@kind("tokens, embedding and attention")
def tokens() -> Kind:
    """A small encoder."""
    x = keras.Input((6,), dtype="int32")
    h = L.Embedding(20, 8, name="words")(x)
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 4)(h, h))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling1D()(h))), IDS, {}


@kind("graph, features and adjacency")
def graph() -> Kind:
    """Two rounds of message passing."""
    x, a = keras.Input((5, 4), name="nodes"), keras.Input((5, 5), name="edges")
    h = L.Dense(6, activation="relu")(keras.ops.matmul(a, x))
    h = L.Dense(6, activation="relu")(keras.ops.matmul(a, h))
    edges = (RNG.uniform(size=(2, 5, 5)) < 0.5).astype("float32")
    model = keras.Model([x, a], L.Dense(2)(L.GlobalAveragePooling1D()(h)))
    return model, [RNG.normal(size=(2, 5, 4)).astype("float32"), edges], {}


@kind("low-rank adapted (LoRA)")
def lora() -> Kind:
    """Dense layers with adapters."""
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu"), L.Dense(3)])
    model.layers[0].enable_lora(2)
    return model, RNG.normal(size=(2, 6)).astype("float32"), {}


@kind("quantised, int8")
def quantised() -> Kind:
    """Dense layers of eight bits."""
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu"), L.Dense(3)])
    model.quantize("int8")
    return model, RNG.normal(size=(2, 6)).astype("float32"), {}


@kind("a function")
def function() -> Kind:
    """No Keras at all."""
    weights = tf.constant(RNG.normal(size=(6, 3)), tf.float32)
    return lambda x: tf.nn.softmax(x @ weights), RNG.normal(size=(2, 6)).astype("float32"), {}


@kind("a loaded SavedModel")
def saved() -> Kind:
    """Without source."""
    import tempfile

    folder = tempfile.mkdtemp()
    convolutions().export(folder, verbose=False)
    return tf.saved_model.load(folder), PHOTOS, {}


for name, settings in {
    "Bert": {"vocabulary_size": 50, "num_heads": 2, "max_sequence_length": 16, "num_segments": 2},
    "DistilBert": TEXT,
    "GPT2": TEXT,
}.items():

    def hub_text(name: str = name, settings: dict[str, Any] = settings) -> Kind:
        """A transformer of KerasHub."""
        small = {"num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
        model, x, _ = text(name, "token_embedding", **{**small, **settings})
        return model, x, {}

    KINDS[f"KerasHub's {name}"] = hub_text


@kind("KerasHub's ViT")
def hub_vit() -> Kind:
    """A transformer over patches."""
    return *image("ViT", **PATCHES, mlp_dim=32)[:2], {}


def asked(model: Any, x: Any, method: Any, arguments: dict[str, Any]) -> str:
    """What came of a question, in a few words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            e = tfig.explain(model, x, method, **arguments)
    except ValueError as error:
        return "no: " + " ".join(str(error).split()).split(";")[0][:150]
    except Exception as error:
        return f"FAILED: {type(error).__name__}"
    leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(e.attributions)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        return "NaN"
    if not any(leaf.any() for leaf in leaves):
        return "zero"
    return "yes" if e.layer is None else f"at {e.layer.split('/')[-1]}"


def main(names: list[str]) -> None:
    """The table, and below it why what was refused was."""
    print(f"{'':34}" + "".join(f"{method:>12}" for method in METHODS))
    reasons: dict[str, list[str]] = {}
    for name in names:
        keras.utils.set_random_seed(0)
        try:
            model, x, arguments = KINDS[name]()
        except ImportError as error:
            print(f"{name:34}  ({error})")
            continue
        cells = {method: asked(model, x, how, arguments) for method, how in METHODS.items()}
        shown = {}
        for method, cell in cells.items():
            if cell.startswith("no: "):
                reasons.setdefault(cell[4:], []).append(f"{method} of {name}")
            shown[method] = "no" if cell.startswith("no: ") else "at a layer" if cell.startswith("at ") else cell
        print(f"{name:34}" + "".join(f"{cell:>12}" for cell in shown.values()), flush=True)
        places = sorted({cell for cell in cells.values() if cell.startswith("at ")})
        if places:
            print(f"{'':34}  ({', '.join(places)})")
    print("\nno, because:")
    for reason, whose in reasons.items():
        print(f"* {reason}\n    {', '.join(whose)}")


if __name__ == "__main__":
    main(sys.argv[1:] or list(KINDS))
