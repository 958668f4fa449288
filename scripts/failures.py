"""Draw known failures of methods on images whose truth is known: the picture docs/choosing.md shows.

Usage: failures.py [PNG]   (by default docs/failures.png)
"""

import sys
import warnings

import numpy as np
import objects
from matplotlib.figure import Figure

import tfig
from tfig.metrics.randomisation import kept

LETTERS = "abcd"
GREY = 0.6


def scene(shapes, seed=3):
    """One photograph with shapes (kind, size, top, left, colour): x [1, 48, 48, 3] and where they lie [1, 48, 48]."""
    plain = objects.compose(1, ("rocket",), seed)
    x, mask = np.full_like(plain.x, GREY), np.zeros_like(plain.mark)
    rng = np.random.default_rng(seed)
    x += rng.normal(0, 0.03, x.shape)
    corner = plain.mark[0]
    x[0][corner] = plain.x[0][corner]
    for kind, size, top, left, colour in shapes:
        stamp = objects.drawn(kind, size) > 0
        x[0, top : top + size, left : left + size][stamp] = colour
        mask[0, top : top + size, left : left + size] |= stamp
    return np.clip(x, 0, 1).astype(np.float32), mask, plain.mark


def share(e, mask):
    """The share of the magnitude of a map that lies in a mask."""
    maps = np.abs(e.heatmap())
    return float((maps * mask).sum() / max(maps.sum(), 1e-30))


def rows(model, train):
    """(title, x, [(label, explanation, share)]) of each failure."""
    x, mask, _ = scene([("disc", 14, 3, 3, (0.9, 0.2, 0.1)), ("disc", 14, 22, 30, (0.1, 0.3, 0.9))])
    asked = {"gradient": "gradient", "occlusion": tfig.Occlusion(16, 2), "IG": "integrated_gradients",
             "I-GOS": "igos"}  # fmt: skip
    cells = [(name, tfig.explain(model, x, method, target=0, output="probabilities", baseline=GREY), mask)
             for name, method in asked.items()]  # fmt: skip
    yield "Saturation: either disc would do. What is taken away one at a time is not missed.", x, cells

    x, mask, _ = scene([("square", 16, 12, 16, (0.0, 0.0, 0.0))])
    asked = {"IG from black": "black", "IG from white": "white", "IG from the mean": "mean", "IG from a blur": "blur"}
    cells = [(name, tfig.explain(model, x, "integrated_gradients", target=1, output="logits", baseline=baseline), mask)
             for name, baseline in asked.items()]  # fmt: skip
    yield "A black square: from a black baseline it is nothing that could be explained.", x, cells

    held = objects.compose(40, ("chelsea",), 5)
    x, mask = held.x[7:8], held.shape[7:8]
    cells = [(f"{name}, trained", tfig.explain(model, x, name, output="logits", target=held.y[7:8]), mask)
             for name in ("guided_backprop", "gradient")]  # fmt: skip
    weights = [variable for layer in model.layers[2:] for variable in layer.variables]
    with kept(weights):
        rng = np.random.default_rng(0)
        for variable in weights:
            value = variable.numpy()
            variable.assign(rng.normal(value.mean(), max(value.std(), 0.1), value.shape))
        cells += [(f"{name}, random", tfig.explain(model, x, name, output="logits", target=held.y[7:8]), mask)
                  for name in ("guided_backprop", "gradient")]  # fmt: skip
    cells = [cells[i] for i in (0, 2, 1, 3)]
    yield "Edges: guided backpropagation draws them, whether the network has learned anything or not.", x, cells

    x, _, mark = scene([("triangle", 15, 8, 12, (0.9, 0.8, 0.1))])
    asked = {"IG from black": 0, "IG from the mode": tfig.baselines.Mode(train),
             "IG from a training image": train[:1],
             "IG over 32 of them": tfig.baselines.Dataset(train[:32])}  # fmt: skip
    cells = [(name, tfig.explain(model, x, "integrated_gradients", target=2, output="logits", baseline=baseline), mark)
             for name, baseline in asked.items()]  # fmt: skip
    yield "A watermark on every image: it is no evidence, where the baseline bears it too.", x, cells


def main():
    """Train, explain, draw, print the shares."""
    warnings.simplefilter("ignore")
    model, train = objects.train(), objects.compose(2000, objects.TRAINED_ON, 0).x
    figure = Figure(figsize=(10.5, 9.6), layout="constrained")
    parts = figure.subfigures(4, 1)
    for part, letter, (title, x, cells) in zip(parts, LETTERS, rows(model, train), strict=True):
        part.suptitle(f"({letter}) {title}", fontsize=10, x=0.01, ha="left")
        axes = part.subplots(1, 5)
        axes[0].imshow(x[0])
        axes[0].set_title(f"p = {cells[0][1].score[0]:.2f}" if letter == "a" else "x", fontsize=8)
        for one, (label, e, mask) in zip(axes[1:], cells, strict=True):
            one.imshow(e.overlay(alpha=0.9)[0])
            where = "mark" if letter == "d" else "shapes" if letter == "a" else "shape"
            said = f"{share(e, mask):.1%} on the {where}"
            if letter == "a":
                said += f", at most {np.abs(e.heatmap()).max():.1g}"
            one.set_title(f"{label}\n{said}", fontsize=8)
            print(f"({letter}) {label}: {said}")
        for one in axes:
            one.set_axis_off()
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "docs/failures.png", dpi=110)


if __name__ == "__main__":
    main()
