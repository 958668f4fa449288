"""What the first map costs: seconds of a first call less its second, over the first plain compiled gradient.

Each method in a process of its own, so that nothing is shared but within one question; then eight methods one after
another in one process, as `compare` asks them: each over itself alone. Two random rows.

Usage: first.py [NAME...]   (networks of keras.applications, or "transformer"; by default six)
"""

import json
import subprocess
import sys
import time
from typing import Any

NETWORKS = (
    "MobileNetV2", "ResNet50", "EfficientNetV2B0", "DenseNet121", "ConvNeXtTiny", "transformer"
)  # fmt: skip
METHODS = {
    "gradient": "tfig.Gradient()",
    "integrated_gradients": "tfig.IntegratedGradients()",
    "IG, midpoints": "tfig.IntegratedGradients(rule='midpoint')",
    "IG, to a tolerance": "tfig.IntegratedGradients(tolerance=0.01)",
    "smoothgrad": "tfig.SmoothGrad()",
    "grad_cam": "tfig.GradCAM()",
    "occlusion": "tfig.Occlusion(32, 32)",
    "rise": "tfig.RISE(samples=64)",
    "igos": "tfig.IGOS(iterations=2, steps=2, search='settled')",
    "guided_ig": "tfig.GuidedIG(steps=8)",
    "boundary_ig": "tfig.BoundaryIG(steps=8)",
    "lrp": "tfig.LRP('epsilon')",
    "deeplift": "tfig.DeepLIFT()",
}
POLYMORPHIC = "plain, any rows"
"""The plain gradient, compiled for any number of rows, as tfig's programs are, in place of two."""
SERIES = ("integrated_gradients", "smoothgrad", "gradient", "grad_cam", "occlusion", "igos", "lrp", "deeplift")
SIDE = 96


def network(name: str) -> tuple[Any, Any]:
    """A network with random weights, and two rows."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(0)
    if name == "transformer":
        from propagation import transformer

        model, x, _ = transformer()
        return model, x
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3), classifier_activation=None)
    return model, np.random.default_rng(0).uniform(size=(2, SIDE, SIDE, 3)).astype("float32")


def measure(name: str, methods: list[str]) -> dict[str, Any]:
    """Seconds of the first plain gradient, and of each method's first call less its second, in this process."""
    import tensorflow as tf

    import tfig

    model, x = network(name)

    @tf.function(autograph=False)
    def plain(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_max(model(x, training=False), -1)
        return tape.gradient(score, x)

    def seconds(call: Any, rows: Any) -> float:
        begin = time.perf_counter()
        call(rows)
        return time.perf_counter() - begin

    def first(call: Any, rows: Any) -> float:
        return seconds(call, rows) - seconds(call, rows)

    tensor = tf.constant(x)
    found: dict[str, Any] = {"raw": first(plain, tensor)}
    any_rows = tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
    for method in methods:
        if method == POLYMORPHIC:
            found[method] = first(tf.function(plain.python_function, [any_rows], autograph=False), tensor)
            continue
        try:
            found[method] = first(tfig.Explainer(model, eval(METHODS[method], {"tfig": tfig})), x)
        except ValueError as error:
            found[method] = str(error).split(";")[0][:60]
    return found


def apart(name: str, methods: list[str]) -> dict[str, Any]:
    """The same, in a fresh process."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", name, *methods]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def main(names: list[str]) -> None:
    """The table of each network."""
    for name in names:
        print(f"{name}: first call less the second, over the first plain gradient; (seconds of that gradient)")
        alone = {}
        for method in (POLYMORPHIC, *METHODS):
            found = apart(name, [method])
            alone[method] = found[method]
            shown = f"{found[method] / found['raw']:5.2f}" if isinstance(found[method], float) else found[method]
            print(f"    {method:22} {shown}   ({found['raw']:.1f} s)", flush=True)
        series = apart(name, list(SERIES))
        known = [method for method in SERIES if isinstance(series[method], float)]
        whole, single = sum(series[method] for method in known), sum(alone[method] for method in known)
        print(
            f"    {len(known)} methods in one process {whole / series['raw']:5.2f}, {whole / single:.2f} of them alone:"
        )
        print("        " + ", ".join(f"{method} {series[method] / alone[method]:.2f}" for method in known))
        first, *others = known
        shares = ", ".join(f"{method} {series[method] / series[first]:.2f}" for method in others)
        print(f"        those after {first}, over it: {shares}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3:])))
    else:
        main(sys.argv[1:] or list(NETWORKS))
