"""Propagation on whole networks: what adds up, what is lost to biases, what the first call and the next ones cost.

keras.applications with random weights, transformers of KerasHub (skipped where keras_hub is not installed), and a
transformer of 12 blocks of width 256. Of the logit of each row's own class: the worst |convergence delta| of DeepLIFT
and of IG with 64 midpoints over |F(x) - F(x')|, from a baseline of noise; of LRP by three composites the median of
|absorbed| / |F|; seconds of the first call over those of the first plain compiled gradient, and of the next over the
next, at two rows.

Usage: propagation.py [NAME...]   (by default all)
"""

import functools
import statistics
import sys
import time
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfig

SIZES = {
    "ResNet50": 64, "ResNet50V2": 64, "MobileNet": 64, "MobileNetV2": 64, "MobileNetV3Small": 64, "EfficientNetB0": 64,
    "EfficientNetV2B0": 64, "DenseNet121": 64, "VGG16": 64, "Xception": 72, "InceptionV3": 80, "NASNetMobile": 64,
    "ConvNeXtTiny": 64,
}  # fmt: skip
SMALL = {"num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
TEXT = {"vocabulary_size": 50, "num_heads": 2, "max_sequence_length": 16, **SMALL}
HEADS = {"num_query_heads": 4, "num_key_value_heads": 2}
PATCHES = {"image_shape": (32, 32, 3), "patch_size": 8, "num_heads": 2, "num_layers": 2, "hidden_dim": 16}
RNG = np.random.default_rng(0)


def application(name: str) -> tuple[keras.Model, Any, str | None]:
    """A network of keras.applications, its images, no layer."""
    side = SIZES[name]
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(side, side, 3), classes=5, classifier_activation=None
    )
    return model, RNG.uniform(0, 255, (2, side, side, 3)).astype("float32"), None


def text(name: str, layer: str, **settings: Any) -> tuple[keras.Model, Any, str]:
    """A transformer of KerasHub over tokens, read at its last one, and its embedding."""
    import keras_hub

    backbone = getattr(keras_hub.models, f"{name}Backbone")(**settings)
    outputs = backbone.output["sequence_output"] if isinstance(backbone.output, dict) else backbone.output
    x = {"token_ids": RNG.integers(1, 50, (2, 8)), "padding_mask": np.ones((2, 8), "int32")}
    if "segment_ids" in backbone.input:
        x["segment_ids"] = np.zeros((2, 8), "int32")
    return keras.Model(backbone.input, keras.layers.Dense(3)(outputs[:, -1])), x, layer


def image(name: str, **settings: Any) -> tuple[keras.Model, Any, None]:
    """A network of KerasHub over images of 32 x 32."""
    import keras_hub

    backbone = getattr(keras_hub.models, f"{name}Backbone")(**settings)
    h = keras.layers.Reshape((-1, backbone.output.shape[-1]))(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(h)))
    return model, RNG.uniform(size=(2, 32, 32, 3)).astype("float32"), None


def transformer() -> tuple[keras.Model, Any, None]:
    """12 blocks of width 256 over 32 steps."""
    steps = keras.Input((32, 16))
    h = keras.layers.Dense(256)(steps)
    for _ in range(12):
        a = keras.layers.LayerNormalization()(h)
        h = h + keras.layers.MultiHeadAttention(8, 32)(a, a)
        b = keras.layers.Dense(1024, activation="gelu")(keras.layers.LayerNormalization()(h))
        h = h + keras.layers.Dense(256)(b)
    model = keras.Model(steps, keras.layers.Dense(5)(keras.ops.mean(keras.layers.LayerNormalization()(h), 1)))
    return model, RNG.normal(size=(2, 32, 16)).astype("float32"), None


SEGMENTS = {
    "depths": [1, 1], "hidden_dims": [8, 16], "num_layers": 2, "blockwise_num_heads": [1, 1],
    "blockwise_sr_ratios": [2, 1], "max_drop_path_rate": 0.1, "patch_sizes": [7, 3], "strides": [4, 2],
    "layerwise_depths": [1, 1], "layerwise_num_heads": [1, 1], "layerwise_sr_ratios": [2, 1],
    "layerwise_patch_sizes": [7, 3], "layerwise_strides": [4, 2],
}  # fmt: skip
NETWORKS = {
    **{name: functools.partial(application, name) for name in SIZES},
    "transformer of 12": transformer,
    "BERT": functools.partial(text, "Bert", "embeddings_add", **TEXT),
    "DistilBERT": functools.partial(text, "DistilBert", "token_and_position_embedding", **TEXT),
    "RoBERTa": functools.partial(text, "Roberta", "embeddings", **TEXT),
    "GPT-2": functools.partial(text, "GPT2", "embeddings_add", **TEXT),
    "Llama": functools.partial(text, "Llama", "token_embedding", vocabulary_size=50, **HEADS, **SMALL),
    "Gemma": functools.partial(text, "Gemma", "token_embedding", vocabulary_size=50, head_dim=4, **HEADS, **SMALL),
    "ViT": functools.partial(image, "ViT", mlp_dim=32, **PATCHES),
    "DeiT": functools.partial(image, "DeiT", intermediate_dim=32, **PATCHES),
    "Swin": functools.partial(
        image, "SwinTransformer", image_shape=(32, 32, 3), patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(2, 2),
        window_size=4,
    ),
    "SegFormer's": functools.partial(image, "MiT", image_shape=(32, 32, 3), **SEGMENTS),
}  # fmt: skip


def settled(model: keras.Model, x: Any) -> None:
    """Give a network of random weights biases, and the statistics of some rows to normalise by."""
    for variable in model.variables:
        if variable.path.endswith(("bias", "beta")):
            variable.assign(RNG.normal(0, 0.05, variable.shape))
    norms = [one for one in model._flatten_layers() if isinstance(one, keras.layers.BatchNormalization)]
    if norms:
        for one in norms:
            one.momentum = 0.0
        model(np.concatenate([x, RNG.uniform(0, 255, (14, *x.shape[1:])).astype("float32")]), training=True)


def timed(ask, x) -> tuple[Any, float, float]:
    """(an answer, seconds of the first call, of the next ones)."""
    begin = time.perf_counter()
    answer = ask(x)
    first, later = time.perf_counter() - begin, []
    for _ in range(5):
        begin = time.perf_counter()
        ask(x)
        later.append(time.perf_counter() - begin)
    return answer, first, statistics.median(later)


def plain(model: keras.Model, layer: str | None, x: Any):
    """The plain compiled gradient of the first logit; at the input, or of what tfig calls the gradient at a layer."""
    if layer is not None:
        return tfig.Explainer(model, "gradient", layer=layer, target=0)

    @tf.function
    def gradient(points):
        with tf.GradientTape() as tape:
            tape.watch(points)
            score = model(points, training=False)[:, 0]
        return tape.gradient(score, points)

    return lambda leaves: gradient(tf.constant(leaves)).numpy()


METHODS = {
    "epsilon_plus": tfig.LRP(), "attnlrp": tfig.LRP("attnlrp"), "signal_take_all": tfig.LRP("signal_take_all"),
    "deeplift": tfig.DeepLIFT(), "ig": tfig.IntegratedGradients(64),
}  # fmt: skip


def main() -> None:
    """Ask them all, and print a line for each network."""
    warnings.simplefilter("ignore")
    print(f"{'':<20}{'absorbed by LRP':>42}{'delta':>28}{'first call over a gradient':>42}{'next':>42}")
    shown = ("epsilon_plus", "attnlrp", "deeplift")
    columns = ["epsilon_plus", "attnlrp", "signal", "deeplift", "ig", *shown, *shown]
    print(" " * 20 + "".join(f"{one:>{14}}" for one in columns))
    for name in sys.argv[1:] or NETWORKS:
        keras.utils.set_random_seed(0)
        try:
            model, x, layer = NETWORKS[name]()
        except ImportError:
            print(f"{name:<20}keras_hub is not installed")
            continue
        settled(model, x)
        _, first, later = timed(plain(model, layer, x), x)
        found = {}
        for key, method in METHODS.items():
            baseline = "uniform" if method.complete else None
            explainer = tfig.Explainer(model, method, layer=layer, baseline=baseline)
            found[key] = timed(explainer, x)
        absorbed = [
            np.median(np.abs(found[key][0].trace["absorbed"] / found[key][0].score)) for key in list(METHODS)[:3]
        ]
        deltas = [
            np.abs(e.convergence_delta / (e.score - e.baseline_score)).max()
            for e in (found[key][0] for key in ("deeplift", "ig"))
        ]
        ratios = [found[key][1] / first for key in shown] + [found[key][2] / later for key in shown]
        print(
            f"{name:<20}" + "".join(f"{one:>14.2g}" for one in absorbed) + "".join(f"{one:>14.1e}" for one in deltas)
            + "".join(f"{one:>14.1f}" for one in ratios), flush=True,
        )  # fmt: skip
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
