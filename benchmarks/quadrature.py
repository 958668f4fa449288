"""What each quadrature rule costs to reach an error, on the demo's trained digits network.

Relative L2 error of integrated gradients of the predicted probability against 4096 midpoints, 64 held-out digits. Cost
in gradient evaluations a row; a probing forward pass counts as a third.
"""

import pathlib
import sys

import numpy as np

import tfig
from tfig.kernels.path import PROBES

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))
import digits

RULES = ("midpoint", "adaptive", "gauss_legendre", "trapezoid", "left")


def main() -> None:
    """Print the tables."""
    model = digits.train()
    x = digits.load()[2][:64]
    for output in ("probabilities", "logits"):

        def found(steps: int, rule: str, output: str = output) -> np.ndarray:
            method = tfig.IntegratedGradients(steps, rule)
            return tfig.explain(model, x, method, output=output, batch_size=512).attributions

        exact = found(4096, "midpoint")
        print(f"\n{output}: relative L2 error by steps")
        print(f"{'steps':>8}" + "".join(f"{rule:>16}" for rule in RULES))
        errors: dict[str, dict[int, float]] = {rule: {} for rule in RULES}
        for steps in (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96, 128):
            for rule in RULES:
                errors[rule][steps] = float(np.linalg.norm(found(steps, rule) - exact) / np.linalg.norm(exact))
            print(f"{steps:>8}" + "".join(f"{errors[rule][steps]:>16.4f}" for rule in RULES), flush=True)
        for goal in (0.02, 0.01):
            costs = {}
            for rule in ("midpoint", "adaptive"):
                reached = [steps for steps, error in errors[rule].items() if error <= goal]
                costs[rule] = min(reached) + (PROBES / 3 if rule == "adaptive" else 0) if reached else float("nan")
            print(
                f"to {goal:.0%}: midpoint {costs['midpoint']:.0f}, adaptive {costs['adaptive']:.0f} with its probes, "
                f"ratio {costs['adaptive'] / costs['midpoint']:.2f}"
            )


if __name__ == "__main__":
    main()
