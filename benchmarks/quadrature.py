"""What each quadrature rule costs to reach an error: integrated gradients from zeros, of the predicted class.

Three networks: the demo's (digits), the one whose truth is known (shapes; see truth.py), and the face detector that the
package mtcnn ships, on faces of scikit-image; what is not installed is left out. Relative L2 error against 4096
midpoints. Cost in gradient evaluations a row; a forward pass by which nodes are placed counts as a third.

Usage: quadrature.py [digits|shapes|faces ...]
"""

import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

import tfig
from tfig.kernels.path import PARTS

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))

RULES = ("adaptive", "midpoint", "gauss_legendre", "trapezoid", "left")
STEPS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384)
ROWS, FACES = 24, 6


def digits() -> tuple[Any, np.ndarray, Any]:
    """The demo's network."""
    import digits as task

    return task.train(), task.load()[2][:ROWS], None


def shapes() -> tuple[Any, np.ndarray, Any]:
    """The network of the known truth."""
    import objects as task

    return task.train(), task.compose(ROWS, task.HELD_OUT, 1).x, None


def faces() -> tuple[Any, np.ndarray, Any]:
    """MTCNN's output network, and whether there is a face."""
    from mtcnn.network.onet import ONet
    from mtcnn.utils.tensorflow import load_weights
    from skimage.data import lfw_subset

    model = ONet()
    model.build()
    model.set_weights(load_weights("onet.lz4"))
    grey = [cv2.resize(image.astype(np.float32), (48, 48), interpolation=cv2.INTER_CUBIC) for image in lfw_subset()]
    x = (np.stack(grey[:FACES])[..., np.newaxis].repeat(3, -1) * 255 - 127.5) / 128
    return model, x.astype(np.float32), (2, 1)


NETWORKS: dict[str, tuple[Callable[[], tuple[Any, np.ndarray, Any]], tuple[str, ...]]] = {
    "digits": (digits, ("sklearn",)),
    "shapes": (shapes, ("sklearn", "skimage")),
    "faces": (faces, ("mtcnn", "joblib", "lz4", "skimage")),
}


def table(name: str, model: Any, x: np.ndarray, target: Any, output: str) -> None:
    """Print the errors, and what an error costs."""

    def found(steps: int, rule: str) -> np.ndarray:
        method = tfig.IntegratedGradients(steps, rule)
        return tfig.explain(model, x, method, target=target, output=output).attributions

    exact = found(4096, "midpoint")
    print(f"\n{name}, {output}: relative L2 error by steps")
    print(f"{'steps':>8}" + "".join(f"{rule:>16}" for rule in RULES))
    errors: dict[str, dict[int, float]] = {rule: {} for rule in RULES}
    for steps in STEPS:
        for rule in RULES:
            errors[rule][steps] = float(np.linalg.norm(found(steps, rule) - exact) / np.linalg.norm(exact))
        print(f"{steps:>8}" + "".join(f"{errors[rule][steps]:>16.4f}" for rule in RULES), flush=True)
        if all(one[steps] <= 0.005 for one in errors.values()):
            break
    for goal in (0.02, 0.01):
        costs = {}
        for rule in ("midpoint", "adaptive"):
            # From where on it stays below: an error that dips once was lucky.
            above = [steps for steps, one in errors[rule].items() if one > goal]
            reached = [steps for steps in errors[rule] if steps > max(above, default=0)]
            costs[rule] = min(reached, default=float("nan")) + ((PARTS - 1) / 3 if rule == "adaptive" else 0)
        print(
            f"to {goal:.0%}: midpoint {costs['midpoint']:.0f}, adaptive {costs['adaptive']:.0f} with its passes, "
            f"ratio {costs['adaptive'] / costs['midpoint']:.2f}"
        )


def main(names: list[str]) -> None:
    """Print the tables."""
    for name in names:
        make, needs = NETWORKS[name]
        missing = [one for one in needs if importlib.util.find_spec(one) is None]
        if missing:
            print(f"\n{name}: left out, {', '.join(missing)} is not installed")
            continue
        model, x, target = make()
        for output in ("probabilities", "logits"):
            table(name, model, x, target, output)


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
