"""Every method against a truth that is known: a shape on a photograph, beside a decoy and a watermark.

Usage: truth.py [--rows N] [METHOD...]   (by default 48 rows and all methods: docs/figures/truth.md)
"""

import argparse
import dataclasses
import functools
import pathlib
import sys
import time
import warnings

import numpy as np
import tensorflow as tf

import tfig
from tfig import metrics
from tfig.kernels.expectation import normal
from tfig.problem import Method

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))
import objects

FEW = 12
"""Rows on which costly metrics (robustness, randomisation: many explanations each) are evaluated."""
CELLS = np.add.outer(np.arange(objects.SIDE) // 4 * 12, np.arange(objects.SIDE) // 4)
# Masks and random masks are weighed against a score between 0 and 1; the others explain the logit.
BY_PROBABILITY = {
    "rise": tfig.RISE(samples=1000),
    **{name: name for name in ("igos", "igos_plus_plus", "meaningful_perturbation")},
}
BY_LOGIT = {
    "occlusion": tfig.Occlusion(window=6, strides=3),
    "feature_ablation": tfig.FeatureAblation(segments=12),
    "prediction_difference": tfig.PredictionDifference(samples=4, segments=12),
    "shapley_sampling": tfig.ShapleySampling(samples=10, segments=12),
    "kernel_shap": tfig.KernelSHAP(samples=2048, segments=12),
    "lime": tfig.LIME(samples=1000, segments=12),
    "qii": tfig.QII(samples=4, segments=12),
    "xrai": tfig.XRAI(min_pixels=4, segments=CELLS),
}
OF_UNITS = ("conductance", "internal_influence")


class Random(Method):
    """Normal noise, anew for every image: what any method must beat."""

    name, reference = "random", ""
    stochastic = True

    def attribute(self, problem):
        """Noise, seeded by the image."""
        key = tf.cast(tf.reduce_sum(problem.x[0], range(1, 4)) * 1e4, tf.int32)
        seed = tf.stack([key, problem.seed[:, 0]], -1)
        return (normal(seed, tf.zeros_like(key), problem.x[0][..., :1]),), {}

    def like(self, problem):
        """One channel."""
        return (problem.x[0][..., :1],)


def asked(names):
    """(methods on logits, methods on probabilities) by name."""
    logits = {name: BY_LOGIT.get(name, name) for name in tfig.methods() if name not in (*BY_PROBABILITY, *OF_UNITS)}
    logits["random"] = Random()
    both = logits, BY_PROBABILITY
    return [{name: method for name, method in group.items() if not names or name in names} for group in both]


def difference(e, protocol):
    """Insertion minus deletion of the probability."""
    read = {"protocol": protocol, "output": "probabilities"}
    return metrics.insertion(e, **read).area - metrics.deletion(e, **read).area


def evaluated(model, x, methods, measured, references, masks=None):
    """The evaluations of each group, as one; methods that need references get them."""
    parts = []
    for output, group in zip(("logits", "probabilities"), methods, strict=True):
        need = [name for name in group if name in tfig.methods() and tfig.methods()[name].baseline == "dataset"]
        for chosen, baseline in ((need, references), ([name for name in group if name not in need], None)):
            some = {name: group[name] for name in chosen}
            if some:
                parts.append(tfig.evaluate(model, x, some, measured, masks, output=output, baseline=baseline))
                print(f"{', '.join(some)}: {time.perf_counter() - BEGIN:.0f} s", file=sys.stderr, flush=True)
    merged = [{key: value for part in parts for key, value in getattr(part, field).items()}
              for field in ("values", "curves", "refused")]  # fmt: skip
    order = [name for name in [*tfig.methods(), "random"] if name in merged[0]]
    by_order = ({name: values[name] for name in order} for values in merged[:2])
    return tfig.Evaluation(*by_order, parts[0].better, merged[2])


def photographs(names, rows):
    """The tables of the task on photographs."""
    begin = time.perf_counter()
    model = objects.train()
    took = time.perf_counter() - begin
    held = objects.compose(1000, objects.HELD_OUT, 1)
    right = model.predict(held.x, verbose=0).argmax(1) == held.y
    print(f"Trained in {took:.0f} s; {right.mean():.1%} of 1,000 held-out images are classified rightly. Of these, "
          f"{rows} are explained ({FEW} for robustness and randomisation).\n")  # fmt: skip
    x, shape, decoy, mark = (values[right][:rows] for values in (held.x, held.shape, held.decoy, held.mark))
    train = objects.compose(2000, objects.TRAINED_ON, 0).x
    methods, references = asked(names), tfig.baselines.Dataset(train[:16])
    found = evaluated(model, x, methods, {
        "on the shape": lambda e: metrics.relevance_mass(e, shape),
        "on the decoy": lambda e: metrics.relevance_mass(e, decoy),
        "on the mark": lambda e: metrics.relevance_mass(e, mark),
        "pointing game": lambda e: metrics.pointing_game(e, shape),
        "first K on it": lambda e: metrics.relevance_rank(e, shape),
        "insertion - deletion (igos)": functools.partial(difference, protocol="igos"),
        "insertion - deletion (rise)": functools.partial(difference, protocol="rise"),
        "sensitivity_n": functools.partial(metrics.sensitivity_n, output="probabilities", baseline="blur"),
        "infidelity": functools.partial(
            metrics.infidelity, normalize=True, output="probabilities", samples=200, noise=0.05
        ),
        "random_logit": metrics.random_logit,
        "sparseness": metrics.sparseness,
    }, references)  # fmt: skip
    better = {name: way or ("lower" if name in ("on the decoy", "on the mark") else "higher")
              for name, way in found.better.items()}  # fmt: skip
    columns = list(better)
    print("## Where the attribution lies\n\nShares of the positive attribution; the shape covers "
          f"{shape.mean():.1%} of an image, the decoy {decoy.mean():.1%}, the mark {mark.mean():.1%}.\n")  # fmt: skip
    print(dataclasses.replace(found, better={name: better[name] for name in columns[:5]}).to_markdown(), flush=True)
    print("## Whether the model agrees\n\nOf probabilities; sensitivity-n against a blur; infidelity, normalised, of "
          "noise of 0.05.\n")  # fmt: skip
    print(dataclasses.replace(found, better={name: better[name] for name in columns[5:]}).to_markdown(), flush=True)
    costly = evaluated(model, x[:FEW], methods, {
        "max_sensitivity": functools.partial(metrics.max_sensitivity, samples=4),
        "model_randomisation": metrics.model_randomisation,
    }, references)  # fmt: skip
    print(f"## Whether it is stable, and depends on the weights\n\nOn {FEW} images.\n")
    print(costly.to_markdown(), flush=True)
    watermark(model, x, mark, methods, train)
    for table in (found, costly):
        for (method, metric), why in table.refused.items():
            print(f"* {method}{f', {metric}' if metric else ''}: {why}")


def watermark(model, x, mark, methods, train):
    """The share of |attribution| on the mark, from black and from the data's mode."""
    print("## The watermark\n\nThe share of the magnitude on the mark, which every image bears, by methods with a "
          "baseline: from zeros, and from the mode of the training images, which bears it too.\n")  # fmt: skip
    print("| | from zeros | from the mode |\n|---|---|---|")
    mode = tfig.baselines.Mode(train)
    for output, group in zip(("logits", "probabilities"), methods, strict=True):
        for name, method in group.items():
            if name == "random" or tfig.methods()[name].baseline in (None, "dataset", "boundary"):
                continue
            cells = []
            for baseline in (0, mode):
                e = tfig.explain(model, x[:FEW], method, output=output, baseline=baseline)
                maps = np.abs(e.heatmap())
                share = (maps * mark[:FEW]).sum((1, 2)) / np.maximum(maps.sum((1, 2)), 1e-30)
                cells.append(f"{share.mean():.2%}")
            print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)
    print()


BEGIN = time.perf_counter()


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--rows", type=int, default=48)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print("# Methods against a known truth\n\nPrinted by `benchmarks/truth.py`; means over images with 95 % bootstrap "
          "intervals; bold: the best, and those whose interval reaches it.\n")  # fmt: skip
    photographs(options.methods, options.rows)


if __name__ == "__main__":
    main()
