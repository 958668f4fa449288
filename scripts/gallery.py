"""Explain two handwritten digits by every method: one labelled picture of all, and one of each for its page.

Usage: gallery.py   (writes docs/methods.png and docs/methods/NAME.png)
"""

import pathlib

import digits
import numpy as np

import tfig

# Masks and random masks are weighed against a score between 0 and 1; the others explain the logit.
SEGMENTS = np.add.outer(np.arange(digits.SIDE) // 4 * 8, np.arange(digits.SIDE) // 4)
BY_PROBABILITY = {
    "rise": tfig.RISE(samples=4000),
    **{name: name for name in ("igos", "igos_plus_plus", "meaningful_perturbation")},
}
NEED_REFERENCES = ("expected_gradients", "deepshap", "prediction_difference", "qii")
ELSEWHERE = ("conductance", "internal_influence", "cam", "attention_rollout", "gradient_weighted_attention")


def main() -> None:
    """Train, explain, draw."""
    model = digits.train()
    train, _, x, y = digits.load()
    rows = np.array([int(np.flatnonzero(y == digit)[0]) for digit in (4, 9)])
    references = tfig.baselines.Dataset(train[:16])
    found = {}
    for name in tfig.methods():
        if name in ELSEWHERE:  # of units or tokens, not of pixels; and cam needs another network
            continue
        method = BY_PROBABILITY.get(name, tfig.XRAI(min_pixels=4, segments=SEGMENTS) if name == "xrai" else name)
        output = "probabilities" if name in BY_PROBABILITY else "logits"
        baseline = references if name in NEED_REFERENCES else None
        found[name] = tfig.explain(model, x[rows], method, output=output, baseline=baseline)
        print(f"{name}: {found[name]!r}")
    docs = pathlib.Path(__file__).parents[1] / "docs"
    (docs / "methods").mkdir(exist_ok=True)
    for name, e in found.items():
        e.plot(docs / "methods" / f"{name}.png")
    figure = tfig.Comparison(found, {}).plot(docs / "methods.png")
    print(f"{len(found)} methods, {len(figure.axes)} panels")


if __name__ == "__main__":
    main()
