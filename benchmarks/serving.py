"""Load on the embedded server: latency of a one-row question against the in-process call, and 1, 4 and 16 clients.

Usage: serving.py [SECONDS]   (by default 30 for each number of clients)

The server runs in a process of its own; so do the clients, each asking one question after the other. Latency is taken
of MobileNetV2 and of a network so small that what gRPC and Python add is most of it; load is of the small one.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers as L

STEPS = 64
SIDES = {"small": 64, "mobilenet": 96}


def mobilenet():
    """MobileNetV2, random weights."""
    keras.utils.set_random_seed(0)
    side = SIDES["mobilenet"]
    return keras.applications.MobileNetV2((side, side, 3), weights=None)


def small():
    """A small residual image classifier; the explanation of a row takes some ten milliseconds."""
    keras.utils.set_random_seed(0)
    x = keras.Input((SIDES["small"], SIDES["small"], 3), name="image")
    h = L.Conv2D(16, 3, strides=2, activation="relu", padding="same")(x)
    h = h + L.Conv2D(16, 3, activation="relu", padding="same")(h)
    h = L.Conv2D(32, 3, strides=2, activation="relu", padding="same")(h)
    return keras.Model(x, L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(h)))


def row(name):
    """An image for a network."""
    return np.random.default_rng(0).uniform(size=(1, SIDES[name], SIDES[name], 3)).astype("float32")


def ask(address, seconds, found):
    """One client: as many questions as fit, the latency of each; and every answer checked."""
    import tfig

    x = row("small")
    latencies, wrong = [], 0
    with tfig.serving.Client(address, "small", retries=0) as client:
        expected = client.explain(x).attributions
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            try:
                wrong += not np.array_equal(client.explain(x).attributions, expected)
            except tfig.serving.ServingError as error:
                print(error, file=sys.stderr)
                wrong += 1
            latencies.append(time.perf_counter() - begin)
    found.put((latencies, wrong))


def load(address, clients, seconds):
    """Latencies of all questions of several clients, and how many went wrong."""
    spawn = multiprocessing.get_context("spawn")
    found = spawn.Queue()
    processes = [spawn.Process(target=ask, args=(address, seconds, found)) for _ in range(clients)]
    for process in processes:
        process.start()
    answers = [found.get() for _ in processes]
    for process in processes:
        process.join()
    return np.concatenate([latencies for latencies, _ in answers]), sum(wrong for _, wrong in answers)


def compare(name, explainer, address):
    """Latency of a row in process and served, in turn, so that what else the machine does meets both alike."""
    import tfig

    x, turns = row(name), 200 if name == "small" else 60
    local, served = [], []
    with tfig.serving.Client(address, name) as client:
        for question in (explainer, client.explain):
            for _ in range(5):
                question(x)
        for _ in range(turns):
            for question, times in ((explainer, local), (client.explain, served)):
                begin = time.perf_counter()
                question(x)
                times.append(time.perf_counter() - begin)
    here, there = (1000 * float(np.median(times)) for times in (local, served))
    print(
        f"{name}, one row of {SIDES[name]} x {SIDES[name]} x 3, IG with {STEPS} steps: in process p50 "
        f"{here:.1f} ms, over gRPC {there:.1f} ms: {there - here:.1f} ms more, ratio {there / here:.3f}",
        flush=True,
    )


def main():
    import tfig

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    method = tfig.IntegratedGradients(steps=STEPS)
    models = {"mobilenet": mobilenet(), "small": small()}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            tfig.export(model, Path(folder) / name, {"explain": method})
        code = "import sys, tfig_command; sys.exit(tfig_command.main())"
        directories = [str(Path(folder) / name) for name in models]
        command = [sys.executable, "-c", code, "serve", *directories, "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        address = server.stdout.readline().split(" on ")[1].split(";")[0]
        try:
            for name, model in models.items():
                compare(name, tfig.Explainer(model, method), address)
            for clients in (1, 4, 16):
                latencies, wrong = load(address, clients, seconds)
                p50, p95, p99 = (1000 * np.quantile(latencies, q) for q in (0.5, 0.95, 0.99))
                print(
                    f"small, {clients:2d} client(s), {seconds:.0f} s: {len(latencies)} answers, "
                    f"{len(latencies) / seconds:.1f} a second, p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, "
                    f"{wrong} wrong or lost",
                    flush=True,
                )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
