"""What deletion costs beside the model evaluations it is made of: 50 steps over 32 images, MobileNetV2 at 96 pixels.

Each pair is timed side by side, in alternating order; the ratio is the median over pairs. Usage: metrics.py [PAIRS]
"""

import sys
import time

import keras
import numpy as np
import tensorflow as tf

import tfig

ROWS, STEPS, SIDE = 32, 50, 96


def main():
    """Print the ratio, with its quartiles."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(SIDE, SIDE, 3), classes=10)
    x = np.random.default_rng(0).uniform(-1, 1, (ROWS, SIDE, SIDE, 3)).astype("float32")
    e = tfig.explain(model, x, "gradient")
    points = len(tfig.metrics.deletion(e, steps=STEPS).fractions)
    raw = tf.function(lambda rows: model(rows, training=False))
    # As many rows at a time as deletion evaluates together.
    size = ROWS * max(1, min(256, tfig.api.CHUNK_ELEMENTS // x[0].size) // ROWS)
    rows = tf.constant(np.resize(x, (points * ROWS, SIDE, SIDE, 3)))
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]

    def evaluated():
        return [raw(chunk).numpy() for chunk in chunks]

    ways = {"raw": evaluated, "deletion": lambda: tfig.metrics.deletion(e, steps=STEPS)}
    evaluated()
    seconds = {name: [] for name in ways}
    for pair in range(int(sys.argv[1]) if len(sys.argv) > 1 else 9):
        for name in sorted(ways, reverse=pair % 2 == 0):
            begin = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - begin)
    ratios = np.array(seconds["deletion"]) / seconds["raw"]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"deletion, {STEPS} steps over {ROWS} images: {points * ROWS} evaluations, {size} at a time")
    print(f"{np.median(seconds['deletion']):.2f} s against {np.median(seconds['raw']):.2f} s of raw evaluations: "
          f"ratio {middle:.3f} (quartiles {low:.3f}, {high:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
