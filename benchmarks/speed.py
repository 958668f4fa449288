"""Time and memory against the limit: the raw compiled gradient of MobileNetV2 (224 x 224, random weights).

Raw and method are timed in turns, because the machine's speed drifts; each ratio is the median over turns of
time(method) / (evaluations x time of one raw row at its best batch size). Usage: speed.py [TURNS]
"""

import collections
import multiprocessing
import resource
import statistics
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import tfig

STEPS = 50
BATCHES = (8, 16, 32)


def model() -> keras.Model:
    """The network under test."""
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2(weights=None)


def images(rows: int) -> np.ndarray:
    """Rows in the model's range."""
    return np.random.default_rng(0).uniform(-1, 1, (rows, 224, 224, 3)).astype(np.float32)


def raw_functions(network: keras.Model):
    """(gradient of a class probability, forward pass), as plain as compiled TensorFlow can be."""
    spec = [tf.TensorSpec([None, 224, 224, 3])]

    @tf.function(input_signature=spec)
    def gradient(x):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            score = network(x, training=False)[:, 0]
        return tape.gradient(score, x)

    @tf.function(input_signature=spec)
    def forward(x):
        return network(x, training=False)[:, 0]

    return gradient, forward


def seconds(function, *arguments) -> float:
    """Wall time of one call, to the last result."""
    start = time.perf_counter()
    result = function(*arguments)
    if isinstance(result, tf.Tensor):
        result.numpy()
    return time.perf_counter() - start


def best_row(function, turns: int = 3) -> tuple[float, int]:
    """(seconds a row, batch size) at the best batch size."""
    found = []
    for batch in BATCHES:
        x = tf.constant(images(batch))
        function(x)
        found.append((statistics.median(seconds(function, x) for _ in range(turns)) / batch, batch))
    return min(found)


def compare(name: str, gradient, batch: int, explainer, x: np.ndarray, evaluations: int, turns: int) -> None:
    """Print the ratio of a method to its raw evaluations, timed in turns."""
    block = tf.constant(images(batch))
    explainer(x)
    ratios, times = [], []
    for _ in range(turns):
        before = seconds(gradient, block)
        taken = seconds(explainer, x)
        after = seconds(gradient, block)
        ratios.append(taken / (evaluations * len(x) * (before + after) / 2 / batch))
        times.append(taken)
    print(
        f"{name:<34} {len(x)} image(s): {statistics.median(times):6.2f} s, ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def evaluations(network: keras.Model, method, x: np.ndarray, **asked) -> tuple[list[int], list[int]]:
    """(rows of each gradient, rows of each forward pass without one) that a method asks for, counted in a run."""
    forward, backward = [], []

    @tf.custom_gradient
    def counted(x):
        def passed(into: list):
            def see(value):
                into.append(len(value))
                return value

            # Without state, or what nobody asks for would be counted.
            return lambda value: tf.ensure_shape(tf.numpy_function(see, [value], tf.float32, stateful=False), x.shape)

        return passed(forward)(x), passed(backward)

    inputs = keras.Input(x.shape[1:])
    watched = keras.Model(inputs, network(keras.layers.Lambda(counted, output_shape=x.shape[1:])(inputs)))
    tfig.explain(watched, x, method, **asked)
    scores = collections.Counter(forward) - collections.Counter(backward)
    return backward, list(scores.elements())


def over_raw(label: str, network: keras.Model, method, x: np.ndarray, raw, turns: int, **asked) -> None:
    """Print the ratio of a method to its own evaluations: gradients and scores of as many rows each."""
    gradient, forward = raw
    slopes, scores = evaluations(network, method, x, **asked)
    explainer = tfig.Explainer(network, method, **asked)
    explainer(x)
    batches = {size: tf.constant(images(size)) for size in {*slopes, *scores}}

    def evaluate():
        for size in slopes:
            value = gradient(batches[size])
        for size in scores:
            value = forward(batches[size])
        return value

    evaluate()
    ratios = [seconds(explainer, x) / ((seconds(evaluate) + seconds(evaluate)) / 2) for _ in range(turns)]
    print(
        f"{label:<34} {len(x)} image(s): {sum(slopes)} gradients and {sum(scores)} forward passes, "
        f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
        flush=True,
    )


def peak(steps: int, queue) -> None:
    """Put the peak memory of a process that does one IG with `steps` steps, in MB."""
    network = model()
    tfig.explain(network, images(2), tfig.IntegratedGradients(steps))
    queue.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print every figure."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    context = multiprocessing.get_context("spawn")
    peaks = []
    for steps in (50, 200):
        queue = context.Queue()
        process = context.Process(target=peak, args=(steps, queue))
        process.start()
        peaks.append(queue.get())
        process.join()
    print(
        f"peak memory of IG: {peaks[0]:.0f} MB with 50 steps, {peaks[1]:.0f} MB with 200, "
        f"ratio {peaks[1] / peaks[0]:.3f}"
    )

    network = model()
    gradient, forward = raw_functions(network)
    row, batch = best_row(gradient)
    print(f"raw gradient: {row * 1e3:.2f} ms a row at its best batch size, {batch}")
    for rows in (1, 8):
        x = images(rows)
        for name, method in [
            (f"integrated gradients, {STEPS} midpoints", tfig.IntegratedGradients(STEPS, rule="midpoint")),
            (f"SmoothGrad, {STEPS} samples", tfig.SmoothGrad(samples=STEPS)),
        ]:
            explainer = tfig.Explainer(network, method, output="probabilities", target=0)
            compare(name, gradient, batch, explainer, x, STEPS, turns)
    for rows in (1, 8):
        for name, method, asked in [
            ("gradient", "gradient", {}),
            (f"integrated gradients, {STEPS} steps", tfig.IntegratedGradients(STEPS), {}),
            (f"guided IG, {STEPS} steps", tfig.GuidedIG(STEPS), {}),
            (f"boundary IG, {STEPS} steps", tfig.BoundaryIG(STEPS), {}),
            ("I-GOS, 15 x 20", tfig.IGOS(), {"baseline": "blur"}),
            ("I-GOS, settled", "igos", {"baseline": "blur"}),
        ]:
            over_raw(
                name, network, method, images(rows), (gradient, forward), max(1, turns // 2), output="probabilities",
                **asked,
            )  # fmt: skip


if __name__ == "__main__":
    main()
