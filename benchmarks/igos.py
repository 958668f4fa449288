"""Mask methods, as their papers search and as their names do, beside IG and occlusion, on seven tasks.

The objective is I-GOS' own, l1 1 and tv 20 on 28 x 28 cells, in probabilities or logits as explained, and in units of
|F(x) - F(x')|, F(x) at 0, with no credit below -1.5. For insertion and deletion every map is averaged down to 28 x 28
cells; cells are replaced by the blurred image (deletion), or restored on it (insertion), from the highest down, through
a mask enlarged as I-GOS enlarges it; the areas are means of the explained class's probability. Figures are means +-
standard errors over confident images (p > 0.5). Usage: igos.py [TASK ...]
"""

import functools
import pathlib
import sys
import time
import warnings

import cv2
import keras
import numpy as np
import tensorflow as tf

import tfig
from tfig import metrics
from tfig.kernels.mask import Canvas, Objective

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))
import digits
import objects

ROWS, POINTS, CELLS, SIDE = 32, 64, 28, 224
METHODS = {
    "IG, 50 steps": tfig.IntegratedGradients(50),
    "occlusion": None,
    "I-GOS, paper": tfig.IGOS(),
    "I-GOS": "igos",
    "iGOS++, paper": tfig.IGOSPlusPlus(),
    "iGOS++": "igos_plus_plus",
    "perturbation, paper": tfig.MeaningfulPerturbation(),
    "perturbation": "meaningful_perturbation",
}


on_digits, on_photographs = functools.cache(digits.train), functools.cache(objects.train)


def large() -> keras.Model:
    """MobileNetV2 trained on the shapes, 224 x 224; kept in build/, for training takes minutes."""
    kept = pathlib.Path(__file__).parents[1] / "build" / "large.keras"
    if kept.exists():
        return keras.models.load_model(kept)
    keras.utils.set_random_seed(0)
    images = objects.compose(5000, objects.TRAINED_ON, 0)
    base = keras.applications.MobileNetV2((SIDE, SIDE, 3), 0.35, include_top=False, weights=None, pooling="avg")
    for layer in base.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, keras.layers.Dense(len(objects.CLASSES), activation="softmax")(base(inputs)))
    rate = keras.optimizers.schedules.CosineDecay(3e-3, 4 * 5000 // 32)
    model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")
    data = tf.data.Dataset.from_tensor_slices((images.x, images.y)).shuffle(5000, seed=0).batch(32)
    model.fit(data.map(lambda x, y: (tf.image.resize(x, (SIDE, SIDE)), y)), epochs=4, verbose=0)
    kept.parent.mkdir(exist_ok=True)
    model.save(kept)
    return model


def ranged(model: keras.Model, low: float, high: float) -> keras.Model:
    """The same model of inputs in [low, high]."""
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, model(keras.layers.Rescaling(1 / (high - low), -low / (high - low))(inputs)))


def tasks() -> dict:
    """Of each task what makes it: (model, images, where the shapes lie or None, what is explained)."""
    shapes = objects.compose(4 * ROWS, objects.HELD_OUT, 1)

    def on_shapes(model, output="probabilities", low=0, high=1):
        return model, low + (high - low) * shapes.x, shapes.shape, output

    def enlarged():
        x = np.stack([cv2.resize(image, (SIDE, SIDE)) for image in shapes.x])
        shape = np.stack([cv2.resize(one.astype(np.uint8), (SIDE, SIDE), interpolation=0) > 0 for one in shapes.shape])
        return large(), x, shape, "probabilities"

    return {
        "digits": lambda: (on_digits(), digits.load()[2], None, "probabilities"),
        "digits, logits": lambda: (on_digits(), digits.load()[2], None, "logits"),
        "shapes": lambda: on_shapes(on_photographs()),
        "shapes, logits": lambda: on_shapes(on_photographs(), "logits"),
        "shapes in [-1, 1]": lambda: on_shapes(ranged(on_photographs(), -1, 1), low=-1),
        "shapes in [0, 255]": lambda: on_shapes(ranged(on_photographs(), 0, 255), high=255),
        "shapes of 224 x 224": enlarged,
    }


def area(model, x, blurred, target, maps, inserting: bool) -> np.ndarray:
    """Insertion or deletion of each row."""
    cells = tf.image.resize(maps, (CELLS, CELLS), method="area").numpy().reshape(len(x), -1)
    rank = np.argsort(np.argsort(-cells, 1, kind="stable"), 1)
    scores = []
    for count in np.linspace(0, CELLS**2, POINTS + 1).round():
        chosen = (rank < count).reshape(-1, CELLS, CELLS, 1).astype(np.float32)
        mask = Canvas(0, 2).enlarge(tf.constant(chosen if inserting else 1 - chosen), tf.constant(x)).numpy()
        outputs = model.predict(blurred + mask * (x - blurred), verbose=0)
        scores.append(outputs[np.arange(len(x)), target])
    return np.trapezoid(scores, axis=0) / POINTS


def reached(e: tfig.Explanation, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(I-GOS' objective, the same in units) of the masks of an explanation, under which the score is `after`."""
    mask = tf.constant(e.trace["mask"])
    cost = Objective(None, Canvas(0, 2), 20.0, 2.0, CELLS)  # type: ignore[arg-type]
    penalty = cost.penalty(mask, 1.0).numpy()
    unit = np.abs(e.score - e.baseline_score)
    return penalty + after, penalty + np.maximum((after - e.score) / unit, -1.5)


def shown(values: np.ndarray) -> str:
    """Mean +- standard error."""
    return f"{f'{values.mean():.3f} +- {values.std() / len(values) ** 0.5:.3f}':>18}"


def compare(name: str, model: keras.Model, x: np.ndarray, shape: np.ndarray | None, output: str) -> None:
    """Print a task's table."""
    sure = np.flatnonzero(model.predict(x, verbose=0).max(1) > 0.5)[: 24 if x.shape[1] == SIDE else ROWS]
    x, shape = x[sure].astype(np.float32), None if shape is None else shape[sure]
    blurred = tfig.baselines.Blur()(tf.constant(x), None).numpy()
    print(f"\n{name}: {len(x)} images, {output}")
    print(f"{'':<20}{'moved':>8}{'below':>8}{'objective':>18}{'in units':>18}{'insertion-deletion':>20}"
          f"{'on the shape':>18}{'pointing':>18}{'s an image':>12}")  # fmt: skip
    for label, method in METHODS.items():
        if label == "iGOS++, paper" and name != "digits":
            continue  # it takes most of the time
        window = max(x.shape[1] // 6, 1)
        chosen = method or tfig.Occlusion(window=window, strides=max(window // 3, 1))
        explainer = tfig.Explainer(model, chosen, output=output, baseline="blur")
        explainer(x[:1])
        start = time.perf_counter()
        e = explainer(x)
        seconds = (time.perf_counter() - start) / len(x)
        maps = e.heatmap()[..., np.newaxis]
        row = f"{label:<20}"
        if "mask" in e.trace:
            under = (1 - e.attributions) * x + e.attributions * blurred
            after = tfig.explain(model, under, "gradient", target=e.target, output=output).score
            objective, units = reached(e, after)
            row += f"{e.trace['moved'].mean():>8.0%}{(units < 0).mean():>8.0%}{shown(objective)}{shown(units)}"
        else:
            row += " " * 52
        row += "  " + shown(np.subtract(*(area(model, x, blurred, e.target, maps, way) for way in (True, False))))
        if shape is not None:
            row += shown(metrics.relevance_mass(e, shape)) + shown(metrics.pointing_game(e, shape).astype(float))
        else:
            row += " " * 36
        print(f"{row}{seconds:>12.3f}", flush=True)


def main() -> None:
    """Print a table for each task."""
    warnings.simplefilter("ignore")
    for name, task in tasks().items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            compare(name, *task())


if __name__ == "__main__":
    main()
