"""What it costs to export a model that explains itself, over the model's own export: seconds, and megabytes on disk.

ResNet50 (random weights, 96 x 96) with one explanation, with four, and with their warm-up requests. Then how a small
network's warm-up grows with the number of its explanations, each set as a server would play it, with their pictures and
without.

Usage: export.py [NETWORK]   (of keras.applications)
"""

import itertools
import pathlib
import shutil
import sys
import tempfile
import time
import warnings

import keras
import numpy as np

import tfig
from serving import small
from tfig.serving import sizing

FOUR = {
    "ig": tfig.IntegratedGradients(),
    "smoothgrad": tfig.SmoothGrad(),
    "igos": tfig.IGOS(search="settled"),
    "lrp": tfig.LRP("epsilon_plus"),
}


def size(folder: pathlib.Path, name: str = "*") -> float:
    """Megabytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob(name) if path.is_file()) / 1e6


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    name = sys.argv[1] if len(sys.argv) > 1 else "ResNet50"
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3))
    place = pathlib.Path(tempfile.mkdtemp())
    begin = time.perf_counter()
    model.export(place / "own", verbose=False)
    plain = time.perf_counter() - begin
    weights, whole = size(place / "own", "variables.data*"), size(place / "own")
    print(f"{name}: its own export {plain:.1f} s, {whole:.1f} MB, of which {weights:.1f} weights")
    for label, explanations, warmup in (
        ("one explanation, no warm-up requests", {"ig": FOUR["ig"]}, False),
        ("four explanations, no warm-up requests", FOUR, False),
        ("four explanations, tried and warmed up", FOUR, True),
    ):
        begin = time.perf_counter()
        folder = tfig.export(model, place / "explaining", explanations, warmup=warmup)
        took = time.perf_counter() - begin
        print(
            f"    {label:40} {took:6.1f} s ({took / plain:.1f} times), {size(folder):.1f} MB "
            f"({size(folder, 'variables.data*') / weights:.3f} times the weights, "
            f"{size(folder) - size(folder, 'variables.data*'):.1f} MB beside them)",
            flush=True,
        )
        shutil.rmtree(folder)
    several(place)
    shutil.rmtree(place)


def several(place: pathlib.Path) -> None:
    """Print the warm-up of a small network by how many explanations it has, over their first calls in process."""
    x = np.random.default_rng(0).uniform(size=(1, 64, 64, 3)).astype("float32")
    for count, pictures in itertools.product((1, 3, 9, 27), (True, False)):
        explanations = {f"ig_{i}": tfig.IntegratedGradients(8 + i) for i in range(count)}
        model = small()
        begin = time.perf_counter()
        for method in explanations.values():
            tfig.explain(model, x, method)
        called = time.perf_counter() - begin
        folder = tfig.export(model, place / "several", explanations, warmup=x, pictures=pictures)
        measured = sizing.measure(folder)
        print(
            f"    {count:2} explanations{'' if pictures else ', numbers alone':15}: first calls {called:5.1f} s, "
            f"warm-up {measured.seconds:5.1f} s "
            f"({measured.seconds / called:.1f} times), {measured.seconds / count:.2f} s each",
            flush=True,
        )
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
