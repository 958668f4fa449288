"""Time and memory against the limit: the raw compiled gradient of MobileNetV2 (224 x 224, random weights).

Raw and method are timed in turns, because the machine's speed drifts; each ratio is the median over turns of
time(method) / (evaluations x time of one raw row at its best batch size). Usage: speed.py [TURNS]
"""

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


def over_raw(label: str, explainer, x: np.ndarray, gradient, forward, slopes: list, scores: list, turns: int) -> None:
    """Print the ratio of a mask search to its own evaluations: gradients and scores of so many rows each."""
    batches = {size: tf.constant(images(size)) for size in {*slopes, *scores}}

    def evaluate():
        for size in slopes:
            gradient(batches[size])
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


def blocks(count: int, rows: int) -> list[int]:
    """The chunks in which `count` samples of each row are evaluated."""
    chunk = max(27 // rows, 1)
    return [min(chunk, count - start) * rows for start in range(0, count, chunk)]


def compare_igos(gradient, forward, network: keras.Model, rows: int, turns: int) -> None:
    """Both searches of I-GOS over the raw cost of their own evaluations, at the batch sizes at which they make them."""
    method, x = tfig.IGOS(), images(rows)
    explainer = tfig.Explainer(network, method, output="probabilities", baseline="blur")
    sizes = explainer(x).trace["step_sizes"]
    attempts = 1 + np.round(np.log(sizes / method.initial_step) / np.log(method.shrink)).astype(int)
    searching = [int((one > j).sum()) for one in attempts.T for j in range(one.max())]
    slopes = blocks(method.steps, rows) * method.iterations
    over_raw("I-GOS, 15 x 20", explainer, x, gradient, forward, slopes, [rows] * 2 + searching, turns)

    explainer = tfig.Explainer(network, "igos", output="probabilities", baseline="blur")
    explainer(x)
    # Scores of x and x', of six masks to begin with, of eight to choose from.
    scores = [rows] * 2 + blocks(6, rows) + blocks(8, rows)
    slopes = blocks(explainer.method.steps, rows) + [rows] * explainer.method.iterations
    over_raw("I-GOS, settled", explainer, x, gradient, forward, slopes, scores, turns)


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
            (f"integrated gradients, {STEPS} steps", tfig.IntegratedGradients(STEPS)),
            (f"SmoothGrad, {STEPS} samples", tfig.SmoothGrad(samples=STEPS)),
        ]:
            explainer = tfig.Explainer(network, method, output="probabilities", target=0)
            compare(name, gradient, batch, explainer, x, STEPS, turns)
    for rows in (1, 8):
        compare_igos(gradient, forward, network, rows, max(1, turns // 2))


if __name__ == "__main__":
    main()
