"""What a job costs over `Explainer.map` in one process, and that it ends with the rows of `explain` whatever is killed.

20,000 rows of 8 x 8 digits by integrated gradients. Or what the parts of a job of 224 x 224 images take here (reading,
gradients, writing, bytes), and what a million would.

Usage: batch.py [ROWS]
       batch.py parts
"""

import contextlib
import io
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import cv2
import keras
import numpy as np
from sklearn.datasets import load_digits

import tfig
from tfig.cli import main

WAYS = {
    "--workers 2": ["--workers", "2"],
    "DirectRunner, 2 processes": [
        "--runner", "DirectRunner", "--runner-option=--direct_num_workers=2",
        "--runner-option=--direct_running_mode=multi_processing",
    ],
}  # fmt: skip
START = [sys.executable, "-c", "import sys, tfig_command; sys.exit(tfig_command.main())", "batch"]


def digits(rows: int) -> np.ndarray:
    """A trained network of digits, and as many of them; written to files here."""
    keras.utils.set_random_seed(0)
    known = load_digits()
    x = (known.images[..., np.newaxis] / 16).astype("float32")
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.Conv2D(16, 3, padding="same", activation="relu"), layers.Flatten(), layers.Dense(10, "softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, known.target, epochs=5, verbose=0)
    model.save("digits.keras")
    many = np.resize(x, (rows, 8, 8, 1))
    np.save("rows.npy", many)
    return many


def steady(place: str) -> float:
    """Rows a second from the first file to the last."""
    files = sorted(pathlib.Path(place).glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    behind = sum(len(e) for path in files[1:] for e in tfig.read(path))
    return behind / (files[-1].stat().st_mtime - files[0].stat().st_mtime)


def started(out: str, *options: str) -> subprocess.Popen:
    """A job."""
    command = [*START, "digits.keras", "rows.npy", "-o", out, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def inside(out: str) -> float:
    """Rows a second of a job in this process, without its start."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        main(["batch", "digits.keras", "rows.npy", "-o", out])
    return float(re.search(r"([\d,.]+) rows a second", said.getvalue())[1].replace(",", ""))


def ended(job: subprocess.Popen) -> str:
    """What it said."""
    said = job.communicate()[0]
    assert job.returncode == 0, said
    return said


def killed(job: subprocess.Popen, out: str, half: int) -> bool:
    """Kill a worker of a job when half of its files are there."""
    while len(list(pathlib.Path(out).glob("*.parquet"))) < half:
        assert job.poll() is None
        time.sleep(0.02)
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
            parent = int((path.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if (b"spawn_main" in line or b"sdk_worker_main" in line) and parent in {job.pid, *children(job.pid)}:
            os.kill(int(path.parent.name), signal.SIGKILL)
            return True
    return False


def children(pid: int) -> set[int]:
    """Of a process."""
    return set(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def furthest(e: tfig.Explanation, expected: tfig.Explanation) -> float:
    """How far maps and scores are from others, over the largest."""
    return max(
        np.abs(one - other).max() / np.abs(other).max()
        for one, other in ((e.attributions, expected.attributions), (e.score, expected.score))
    )


def throughput(rows: int) -> None:
    """The table of ways."""
    x = digits(rows)
    explainer = tfig.Explainer(keras.models.load_model("digits.keras", compile=False))
    batches = [x[start : start + 256] for start in range(0, rows, 256)]
    list(explainer.map(batches[:2]))
    expected = tfig.Explanation.concatenate(list(explainer.map(batches)))

    def alone() -> float:
        begin = time.perf_counter()
        for _ in explainer.map(batches):
            pass
        return rows / (time.perf_counter() - begin)

    ratios = []
    for turn in range(4):
        before, here, after = alone(), inside(f"here{turn}"), alone()
        ratios.append(2 * here / (before + after))
    found = tfig.Explanation.concatenate(list(tfig.read("here0")))
    print(
        f"{rows:,} rows of digits by integrated gradients; Explainer.map: {after:,.0f} rows a second. Over it, measured"
    )
    print("before and after each:")
    print(
        f"    in the same process        {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); off by "
        f"{furthest(found, expected):.1g} of the largest",
        flush=True,
    )
    before = after
    for name, options in WAYS.items():
        out = "".join(filter(str.isalnum, name))
        said = ended(started(out, *options))
        after = alone()
        reference = (before + after) / 2
        whole = float(re.search(r"([\d,.]+) rows a second", said)[1].replace(",", ""))
        found = tfig.Explanation.concatenate(list(tfig.read(out)))
        held = re.search(r"at most (.+) ->", said)[1]
        print(
            f"    {name:26} {steady(out) / reference:.2f} ({whole / reference:.2f} with its start); off by "
            f"{furthest(found, expected):.1g} of the largest; {held}",
            flush=True,
        )
        before = after
    print("A worker killed when half of the files were there:")
    for name, options in WAYS.items():
        out = "killed" + "".join(filter(str.isalnum, name))
        job = started(out, *options)
        done = killed(job, out, (rows // 1000) // 2)
        said = ended(job).splitlines()[0]
        found = tfig.Explanation.concatenate(list(tfig.read(out)))
        assert done and found.trace["id"].tolist() == [f"rows.npy:{i}" for i in range(rows)]
        print(f"    {name:26} {said}; each once, off by {furthest(found, expected):.1g}", flush=True)
    few = started("few", "--rows-per-file", "100")
    while len(list(pathlib.Path("few").glob("*.parquet"))) < 5:
        time.sleep(0.02)
    os.kill(few.pid, signal.SIGKILL)
    few.wait()
    there = ended(started("few", "--rows-per-file", "100")).splitlines()
    found = tfig.Explanation.concatenate(list(tfig.read("few")))
    print(f"All killed, and started again: {there[0]}; then {there[1]}; off by {furthest(found, expected):.1g}")


def parts() -> None:
    """Seconds and bytes of the parts of a job of photographs."""
    rng = np.random.default_rng(0)
    pathlib.Path("images").mkdir()
    for i in range(32):
        smooth = cv2.resize(rng.integers(0, 256, (12, 16, 3), "uint8"), (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f"images/{i}.jpg", smooth)
    keras.utils.set_random_seed(0)
    keras.applications.MobileNetV2(weights=None).save("mobilenet.keras")
    from tfig import entry
    from tfig.batch.rows import Reading
    from tfig.batch.sources import opened

    model = keras.models.load_model("mobilenet.keras", compile=False)
    source = opened(["images"], Reading(list(entry.declared(model).values())))
    begin = time.perf_counter()
    x = np.stack([row.value for row in source.read(0, len(source))])
    reading = (time.perf_counter() - begin) / 32
    print(f"Images of 640 x 480, MobileNetV2 at 224 x 224: reading {1e3 * reading:.1f} ms each")
    explainer = tfig.Explainer(model)
    explainer(x[:1])
    begin = time.perf_counter()
    e = explainer(x[:8])
    took = (time.perf_counter() - begin) / 8
    print(f"    integrated gradients, 64 points: {took:.2f} s each, {1e3 * took / 65:.1f} ms a gradient")
    from tfig.batch import table

    ways = [("attributions", None), ("attributions", "float16"), *(("heatmap", d) for d in (None, "float16", "int8"))]
    writing = {}
    for kept, dtype in [*ways, ("picture", None)]:
        header = table.Header.of(e, kept, dtype)
        begin = time.perf_counter()
        table.write(pathlib.Path("one.parquet"), list(table.rows(e, list("abcdefgh"), header)), header)
        seconds, size = (time.perf_counter() - begin) / 8, pathlib.Path("one.parquet").stat().st_size / 8
        print(
            f"    {kept:12} {dtype or 'as computed':11} {size / 1e3:6.1f} kB, written in {1e3 * seconds:.1f} ms each; "
            f"a million {size / 1e3:4.0f} GB, {seconds * 1e6 / 3600:.1f} h"
        )
        writing[kept, dtype] = seconds
    print("A million such images, hours by the milliseconds of a gradient (measured here; reckoned for other devices):")
    print("    ms a gradient          1 device   8 of one machine   8 machines of 8   what the machine waits for, of 8")
    hours = 1e6 / 3600
    for ms in (1e3 * took / 65, 5.0, 2.0, 0.5, 0.25):
        gradients = 65 * ms / 1e3
        each = {"reading": reading, "writing": writing["attributions", None], "gradients": gradients / 8}
        slowest = max(each, key=lambda part: each[part])
        cut = max(reading, writing["heatmap", "float16"], gradients / 8)
        print(
            f"    {ms:13.2f} {gradients * hours:17.1f} {each[slowest] * hours:18.1f} {each[slowest] * hours / 8:17.2f}"
            f"   {slowest}; with heat maps as float16 {cut * hours:.1f} h"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        parts() if sys.argv[1:] == ["parts"] else throughput(int(sys.argv[1]) if len(sys.argv) > 1 else 20000)
