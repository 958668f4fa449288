"""What methods say of small networks whose answer is known in closed form. Usage: networks.py"""

import warnings

import keras
import numpy as np

import tfig

NOT_ASKED = ("conductance", "internal_influence", "boundary_ig")
"""Those of units, and of a classifier's decision."""


def layers(*arrays, relu):
    """A network of dense layers of given (weights, bias), ReLUs after those marked."""
    model = keras.Sequential([keras.Input((np.shape(arrays[0][0])[0],))])
    for (weights, bias), on in zip(arrays, relu, strict=True):
        model.add(keras.layers.Dense(np.shape(weights)[1], activation="relu" if on else None))
        model.layers[-1].set_weights([np.array(weights, "float32"), np.array(bias, "float32")])
    return model


def hand_set():
    """By name: (network, row, what each input is worth from zeros, which is Shapley's answer)."""
    one = [[1.0], [1.0]]
    return {
        "sum 3a - 2b": (layers(([[3.0], [-2.0]], [0.0]), relu=[False]), [1.0, 1.0], [3.0, -2.0]),
        # a - relu(a - b)
        "min(a, b)": (layers(([[1.0, 1.0], [0.0, -1.0]], [0.0, 0.0]), ([[1.0], [-1.0]], [0.0]), relu=[True, False]),
                      [1.0, 1.0], [0.5, 0.5]),
        # 1 - relu(1 - a - b): one would do
        "saturated min(1, a + b)": (layers(([[-1.0], [-1.0]], [1.0]), ([[-1.0]], [1.0]), relu=[True, False]),
                                    [1.0, 1.0], [0.5, 0.5]),
        "relu(a + b - 1)": (layers((one, [-1.0]), ([[1.0]], [0.0]), relu=[True, False]), [1.0, 1.0], [0.5, 0.5]),
        "ignored b": (layers(([[2.0], [0.0]], [0.0]), ([[1.0]], [0.0]), relu=[True, False]), [1.0, 1.0], [2.0, 0.0]),
    }  # fmt: skip


def main():
    """Print the table."""
    warnings.simplefilter("ignore")
    cases = hand_set()
    print("# Hand-set networks\n\nPrinted by `benchmarks/networks.py`: what methods say two inputs of 1 are worth, "
          "compared with zeros; the first line is the truth, and what agrees with it to 0.05 is bold.\n")  # fmt: skip
    print("| | " + " | ".join(cases) + " |\n|---|" + "---|" * len(cases))
    print("| **truth** | " + " | ".join(f"{a:.3g}, {b:.3g}" for _, _, (a, b) in cases.values()) + " |")
    small = {"lime": tfig.LIME(alpha=0.0), "igos": tfig.IGOS(noise=0.0), "igos_plus_plus": tfig.IGOSPlusPlus(noise=0.0)}
    asked = {name: small.get(name, name) for name in tfig.methods() if name not in NOT_ASKED}
    asked["deeplift, reveal_cancel"] = tfig.DeepLIFT("reveal_cancel")
    for name, method in asked.items():
        cells = []
        for model, row, truth in cases.values():
            needed = name in tfig.methods() and tfig.methods()[name].baseline == "dataset"
            baseline = tfig.baselines.Dataset(np.zeros((1, 2))) if needed else None
            try:
                e = tfig.explain(model, np.array([row]), method, baseline=baseline)
            except ValueError:
                cells.append("")
                continue
            shown = ", ".join(f"{value:.2g}" if abs(value) > 5e-3 else "0" for value in e.attributions[0])
            cells.append(f"**{shown}**" if np.abs(e.attributions[0] - truth).max() < 0.05 else shown)
        if any(cells):
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
