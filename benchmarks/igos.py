"""Deletion and insertion of gradient, IG, SmoothGrad and I-GOS on 50 held-out digits.

Every map is averaged down to the mask's cells; cells are replaced by the blurred digit (deletion), or restored on it
(insertion), from the highest down, through a mask enlarged as I-GOS enlarges it; the areas are trapezoidal means of the
predicted class's probability. Usage: igos.py [RESOLUTION ...]
"""

import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

import tfig
from tfig.kernels.mask import Canvas

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))
import digits

ROWS, POINTS = 50, 64


def areas(model, x: np.ndarray, blurred: np.ndarray, target: np.ndarray, maps: np.ndarray, side: int):
    """(deletion, insertion) of each row."""
    cells = tf.image.resize(maps, (side, side), method="area").numpy().reshape(len(x), -1)
    rank = np.argsort(np.argsort(-cells, 1, kind="stable"), 1)
    found = []
    for inserting in (False, True):
        scores = []
        for count in np.linspace(0, side * side, POINTS + 1).round():
            chosen = (rank < count).reshape(-1, side, side, 1).astype(np.float32)
            mask = Canvas(0, 2).enlarge(tf.constant(chosen if inserting else 1 - chosen), tf.constant(x)).numpy()
            outputs = np.array(model(blurred + mask * (x - blurred), training=False))
            scores.append(outputs[np.arange(len(x)), target])
        found.append(np.trapezoid(scores, axis=0) / POINTS)
    return found


def main() -> None:
    """Print a table for each resolution."""
    model = digits.train()
    x = digits.load()[2][:ROWS]
    blurred = tfig.baselines.Blur()(tf.constant(x), None).numpy()
    for side in [int(text) for text in sys.argv[1:]] or [8, 16, 28]:
        print(f"\nmask of {side} x {side} cells, {ROWS} digits: mean +- standard error")
        print(f"{'':<24}{'deletion':>16}{'insertion':>16}{'difference':>16}{'s an image':>12}")
        for name, method in {
            "gradient": tfig.Gradient(),
            "IG, 50 steps": tfig.IntegratedGradients(50),
            "SmoothGrad": tfig.SmoothGrad(),
            "I-GOS": tfig.IGOS(resolution=side),
            f"I-GOS, tv {20 * (side / 28) ** 2:.2g}": tfig.IGOS(resolution=side, tv=20 * (side / 28) ** 2),
        }.items():
            explainer = tfig.Explainer(model, method, output="probabilities", baseline="blur")
            explainer(x[:1])
            start = time.perf_counter()
            e = explainer(x)
            seconds = (time.perf_counter() - start) / ROWS
            deletion, insertion = areas(model, x, blurred, e.target, e.attributions, side)
            shown = "".join(
                f"{f'{v.mean():.3f} +- {v.std() / ROWS**0.5:.3f}':>16}"
                for v in (deletion, insertion, insertion - deletion)
            )
            moved = f"  masks that change the score: {e.trace['moved'].mean():.0%}" if "moved" in e.trace else ""
            print(f"{name:<24}{shown}{seconds:>12.3f}{moved}", flush=True)


if __name__ == "__main__":
    main()
