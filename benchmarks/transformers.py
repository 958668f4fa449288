"""Which method to believe on transformers: tokens by a planted rule, and shapes on photographs seen by a small ViT.

Tokens: of 16, two are cues; the class is the first cue's, moved on by the second one's. Both must be found, whatever
the other 14 are. Photographs: the task of `scripts/objects.py`, by a ViT of 36 tokens. Figures are means +- standard
errors over rows that are classified rightly: the share of the positive attribution on the truth; how many of the
strongest places (two tokens; as many pixels as the shape has) are in it; how often the strongest is; of images
insertion - deletion.

Usage: transformers.py [tokens|shapes] [METHOD...]   (by default both and all)
       transformers.py baselines
"""

import pathlib
import sys
import time
import warnings
from typing import Any

import keras
import numpy as np

import tfig
from tfig import metrics

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))
import objects

ROWS = 48
L = keras.layers

SHARED = {
    "gradient": "gradient", "gradient_x_input": "gradient_x_input", "integrated_gradients": "integrated_gradients",
    "expected_gradients": "expected_gradients", "smoothgrad": "smoothgrad", "guided_ig": "guided_ig",
    "lrp": "lrp", "lrp attnlrp": tfig.LRP("attnlrp"), "lrp cp_lrp": tfig.LRP("cp_lrp"),
    "lrp attnlrp, eps 0.01": tfig.LRP(tfig.rules.Composite(
        tfig.rules.Epsilon(0.01), tfig.rules.Epsilon(0.01), products=tfig.rules.Uniform(),
        attention=tfig.rules.Uniform(), fold=False, epsilon=0.01,
    )),
    "deep_taylor": "deep_taylor", "deeplift": "deeplift", "deepshap": "deepshap",
}  # fmt: skip
TOKENS = {
    **SHARED, "occlusion": tfig.Occlusion(window=1, strides=1),
    "shapley_sampling": tfig.ShapleySampling(samples=20, segments=16),
    "kernel_shap": tfig.KernelSHAP(samples=1024, segments=16), "lime": tfig.LIME(samples=1000, segments=16),
    "grad_cam": "grad_cam", "layer_cam": "layer_cam", "attention_rollout": "attention_rollout",
    "gradient_weighted_attention": "gradient_weighted_attention",
}  # fmt: skip
SHAPES = {
    **SHARED, "occlusion": tfig.Occlusion(window=6, strides=3), "rise": tfig.RISE(samples=1000),
    "kernel_shap": tfig.KernelSHAP(samples=2048, segments=12), "lime": tfig.LIME(samples=1000, segments=12),
    "igos": "igos", "igos_plus_plus": "igos_plus_plus", "meaningful_perturbation": "meaningful_perturbation",
    "grad_cam": "grad_cam", "layer_cam": "layer_cam", "attention_rollout": "attention_rollout",
    "gradient_weighted_attention": "gradient_weighted_attention",
}  # fmt: skip
OF_TOKENS = ("grad_cam", "layer_cam", "attention_rollout", "gradient_weighted_attention")
BY_PROBABILITY = ("rise", "igos", "igos_plus_plus", "meaningful_perturbation")


def blocks(h: Any, count: int, width: int, last: str) -> Any:
    """Pre-norm transformer blocks; the output of the last is named."""
    for i in range(count):
        a = L.LayerNormalization()(h)
        h = L.Add()([h, L.MultiHeadAttention(4, width // 4)(a, a)])
        b = L.Dense(2 * width, activation="gelu")(L.LayerNormalization()(h))
        h = L.Add(name=last if i == count - 1 else None)([h, L.Dense(width)(b)])
    return L.LayerNormalization()(h)


class Positions(keras.Layer):
    """Adds an embedding of each place."""

    def build(self, shape: tuple) -> None:
        """One vector a place."""
        self.table = self.add_weight(name="table", shape=shape[1:], initializer="random_normal")

    def call(self, x: Any) -> Any:
        """The sum."""
        return x + self.table


def planted(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [N, 16], classes [N], truth [N, 16]): cues 1 to 4 and 5 to 6 among fillers from 7 to 31."""
    rng = np.random.default_rng(seed)
    x, truth = rng.integers(7, 32, (count, 16)), np.zeros((count, 16))
    places = np.stack([rng.permutation(16)[:2] for _ in range(count)])
    cue, turn, row = rng.integers(0, 4, count), rng.integers(0, 2, count), np.arange(count)
    x[row, places[:, 0]], x[row, places[:, 1]] = 1 + cue, 5 + turn
    truth[row, places[:, 0]] = truth[row, places[:, 1]] = 1
    return x, (cue + turn) % 4, truth


def fit(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Train it."""
    steps = epochs * len(x) // 64
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, 64, epochs, verbose=0)


def scored(maps: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """What positive attributions [N, ...] lie on a truth [N, ...]."""
    maps, truth = (one.reshape(len(maps), -1) for one in (maps, truth))
    positive = np.maximum(maps, 0)
    order = np.argsort(-maps, 1, kind="stable")
    sizes = truth.sum(1).astype(int)
    inside = [truth[i, order[i, : sizes[i]]].mean() for i in range(len(maps))]
    return {
        "share on the truth": (positive * truth).sum(1) / np.maximum(positive.sum(1), 1e-30),
        "strongest in it": np.array(inside), "pointing": truth[np.arange(len(maps)), order[:, 0]],
    }  # fmt: skip


def shown(name: str, found: dict[str, np.ndarray], seconds: float) -> None:
    """Print a line."""
    cells = "".join(f"{one.mean():>15.3f} +- {one.std(ddof=1) / len(one) ** 0.5:.3f}" for one in found.values())
    print(f"{name:<28}{cells}{seconds:>12.2f}", flush=True)


def header(title: str, columns: list[str]) -> None:
    """Print what follows."""
    print(f"\n{title}\n{'':<28}" + "".join(f"{one:>24}" for one in columns) + f"{'s a row':>12}")


def tokens(names: list[str]) -> None:
    """The table of the planted rule."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((16,), dtype="int32")
    h = Positions(name="tokens")(L.Embedding(32, 32)(ids))
    model = keras.Model(ids, L.Dense(4)(L.GlobalAveragePooling1D()(blocks(h, 2, 32, "last"))))
    fit(model, *planted(30000, 0)[:2], 12)
    x, y, truth = planted(2000, 1)
    right = model.predict(x, verbose=0).argmax(1) == y
    rows, seen = x[right][:ROWS], truth[right][:ROWS]
    header(f"Tokens: {right.mean():.1%} of 2,000 held out are right; two of 16 are the truth",
           ["share on the truth", "strongest in it", "pointing"])  # fmt: skip
    references = tfig.baselines.Dataset(planted(32, 2)[0])
    for name in names or TOKENS:
        method = TOKENS[name]
        # From another text, not from zeros, which a normalisation cannot tell from anything.
        info = tfig.methods()[method if isinstance(method, str) else method.name]
        baseline = references if info.baseline == "dataset" or name in ("deeplift",) else None
        if info.baseline == "zeros" and baseline is None:
            baseline = planted(1, 3)[0]
        begin = time.perf_counter()
        e = tfig.explain(model, rows, method, output=None, layer="tokens", baseline=baseline)
        shown(name, scored(e.attributions.sum(-1), seen), (time.perf_counter() - begin) / ROWS)


def vit() -> keras.Model:
    """A convolutional stem, 36 tokens, three blocks."""
    image = keras.Input((objects.SIDE, objects.SIDE, 3))
    h = image
    for width, size in ((32, 3), (48, 3), (64, 2)):
        h = L.Conv2D(width, size, 2, padding="same", activation=None if width == 64 else "relu")(h)
    h = Positions(name="tokens")(L.Reshape((36, 64))(h))
    return keras.Model(image, L.Dense(len(objects.CLASSES))(L.GlobalAveragePooling1D()(blocks(h, 3, 64, "last"))))


def shapes(names: list[str]) -> None:
    """The table of the shapes."""
    keras.utils.set_random_seed(0)
    model, train = vit(), objects.compose(16000, objects.TRAINED_ON, 0)
    fit(model, train.x, train.y, 16)
    held = objects.compose(1000, objects.HELD_OUT, 1)
    right = model.predict(held.x, verbose=0).argmax(1) == held.y
    x, truth = held.x[right][:ROWS], held.shape[right][:ROWS]
    columns = ["share on the truth", "strongest in it", "pointing", "insertion - deletion"]
    header(f"Shapes: {right.mean():.1%} of 1,000 held out are right; a shape covers {truth.mean():.1%}", columns)
    references = tfig.baselines.Dataset(train.x[:16])
    for name in names or SHAPES:
        method = SHAPES[name]
        info = tfig.methods()[method if isinstance(method, str) else method.name]
        layer = "last" if name.endswith("_cam") else "tokens" if name in OF_TOKENS else None
        begin = time.perf_counter()
        e = tfig.explain(
            model, x, method, layer=layer, output="probabilities" if name in BY_PROBABILITY else "logits",
            baseline=references if info.baseline == "dataset" else None,
        )  # fmt: skip
        took = (time.perf_counter() - begin) / ROWS
        read = {"protocol": "rise", "output": "probabilities"}
        area = metrics.insertion(e, **read).area - metrics.deletion(e, **read).area
        shown(name, {**scored(e.heatmap(), truth), "area": area}, took)


def baselines() -> None:
    """Integrated gradients of tokens from each baseline, without and with a normalisation behind the embedding."""
    for normalised in (False, True):
        keras.utils.set_random_seed(0)
        x, y, _ = planted(20000, 0)
        ids = keras.Input((16,), dtype="int32")
        h = Positions()(L.Embedding(32, 32, name="words")(ids))
        h = L.LayerNormalization()(h) if normalised else h
        model = keras.Model(ids, L.Dense(4)(L.GlobalAveragePooling1D()(blocks(h, 2, 32, "last"))))
        fit(model, x, y, 6)
        rows, classes, truth = planted(200, 1)
        right = model.predict(rows, verbose=0).argmax(1) == classes
        rows, truth = rows[right][:ROWS], truth[right][:ROWS]
        behind = "LayerNormalization" if normalised else "no normalisation"
        columns = [*scored(np.ones((1, 2)), np.ones((1, 2))), "|delta| / |F - F'|"]
        header(f"Integrated gradients of tokens by their baseline, {behind} behind", columns)
        given = {
            "zeros": None, "vocabulary": "vocabulary", "mean of the row": tfig.baselines.AtLayer("mean"), "token 0": 0,
            "a frequent token": 7, "8 other texts": tfig.baselines.Dataset(x[:8]),
        }  # fmt: skip
        for name, baseline in given.items():
            begin = time.perf_counter()
            e = tfig.explain(model, rows, layer="words", baseline=baseline)
            marks = scored(e.attributions.sum(-1), truth)
            marks["delta"] = np.abs(e.convergence_delta) / np.abs(e.score - e.baseline_score)
            shown(name, marks, (time.perf_counter() - begin) / len(rows))


def main() -> None:
    """Print the tables."""
    warnings.simplefilter("ignore")
    if sys.argv[1:] == ["baselines"]:
        baselines()
        return
    arguments = sys.argv[1:]
    for name, table in (("tokens", tokens), ("shapes", shapes)):
        if not arguments or arguments[0] not in ("tokens", "shapes") or arguments[0] == name:
            table([one for one in arguments if one not in ("tokens", "shapes")])


if __name__ == "__main__":
    main()
