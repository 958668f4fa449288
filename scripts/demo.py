"""Train a small network on handwritten digits, explain held-out digits, draw the comparison the README shows; then
export the network with its explanations, serve it, and ask for them over gRPC from a second process.

Usage: demo.py [DIRECTORY]   (by default demo/)
"""

import subprocess
import sys
import time
from pathlib import Path

import digits
import numpy as np
from matplotlib.figure import Figure

import tfig
from tfig import view

METHODS = {
    "gradient": tfig.Gradient(),
    "integrated gradients": tfig.IntegratedGradients(rule="adaptive", tolerance=0.01),
    "SmoothGrad of IG": tfig.SmoothGrad(tfig.IntegratedGradients(steps=16), samples=20),
    "I-GOS": "igos",
}


def main() -> None:
    """Do the whole of it, timing each step."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    model = digits.train()
    model.save(folder / "digits.keras")
    _, _, x, y = digits.load()
    probabilities = model.predict(x, verbose=0)
    accuracy = float((probabilities.argmax(1) == y).mean())
    print(f"trained in {time.perf_counter() - start:.0f} s; {accuracy:.1%} of {len(y)} held-out digits are right")

    ordered = np.sort(probabilities, 1)
    doubtful = np.argsort(ordered[:, -1] - ordered[:, -2])[:2]
    clear = [int(np.flatnonzero((y == digit) & (probabilities.argmax(1) == y))[0]) for digit in (4, 9)]
    chosen = np.array([*clear, *doubtful])
    found = {}
    for name, method in METHODS.items():
        begin = time.perf_counter()
        found[name] = tfig.explain(model, x[chosen], method, output="probabilities", seed=0)
        print(f"{name}: {found[name]!r}, {time.perf_counter() - begin:.1f} s with compilation")

    puzzle = chosen[-2:-1]
    contrast = tfig.Contrast("predicted", "runner_up")
    sure = tfig.IntegratedGradients(tolerance=0.01)
    why = tfig.explain(model, x[puzzle], sure, target=contrast, output="logits")
    inside = tfig.explain(model, x[puzzle], target=contrast, output="logits", layer="parts")
    draw(x[chosen], y[chosen], probabilities[chosen], found, x[puzzle], why, inside).savefig(
        folder / "digits.png", dpi=110
    )
    print(f"wrote {folder / 'digits.keras'} and {folder / 'digits.png'} after {time.perf_counter() - start:.0f} s")
    served(model, x[chosen], folder)
    print(f"done after {time.perf_counter() - start:.0f} s")
    if accuracy <= 0.95:
        sys.exit("the network is right on too few held-out digits to be worth explaining")


def served(model, x, folder: Path) -> None:
    """Export, serve, ask from another process, and compare with the local maps."""
    explanations = {"explain": METHODS["integrated gradients"], "igos": METHODS["I-GOS"]}
    version = tfig.export(model, folder / "models" / "digits", explanations, output="probabilities")
    np.save(folder / "asked.npy", x)
    with tfig.serving.serve(version.parent, port=0) as server:
        ask = [sys.executable, Path(__file__).with_name("ask.py"), f"127.0.0.1:{server.port}", "digits"]
        subprocess.run([*ask, folder / "asked.npy", folder], check=True)
    for name, method in explanations.items():
        local = tfig.explain(model, x, method, output="probabilities").attributions
        remote = tfig.Explanation.load(folder / f"{name}.npz").attributions
        if not np.array_equal(local, remote):
            sys.exit(f"the served maps of {name!r} differ from the local ones by {np.abs(local - remote).max():.2g}")
    print(f"served by gRPC from {version}: {len(explanations)} x {len(x)} maps, bitwise equal to the local ones")


def draw(images, truth, probabilities, found, puzzle, why, inside) -> Figure:
    """One row for each digit, one column for each method; below, one digit's contrast at the input and at a layer."""
    rows, columns = len(images) + 1, len(found) + 1
    figure = Figure(figsize=(1.75 * columns, 1.8 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns)
    for row in axes:
        for one in row:
            one.set_axis_off()
    for i, image in enumerate(images):
        said = int(probabilities[i].argmax())
        axes[i, 0].imshow(view.pixels(image))
        axes[i, 0].set_title(f"{truth[i]}, seen as {said}: {probabilities[i, said]:.0%}", fontsize=8)
        for column, (name, e) in enumerate(found.items(), 1):
            axes[i, column].imshow(e[i].overlay(alpha=0.9)[0])
            if i == 0:
                axes[i, column].set_title(name, fontsize=8)
    a, b = int(why.target[0]), int(why.trace["against"][0])
    pictures = [
        (view.pixels(puzzle[0]), f"why {a} rather than {b}?"),
        (why.overlay(alpha=0.9)[0], "IG of the contrast"),
        (inside.overlay(alpha=0.9)[0], "the same, at layer 'parts'"),
    ]
    for one, (picture, title) in zip(axes[-1], pictures, strict=False):
        one.imshow(picture)
        one.set_title(title, fontsize=8)
    gap, rest, delta = why.score[0], why.baseline_score[0], why.convergence_delta[0]
    note = (
        f"logit of {a} minus logit of {b}: {gap:+.2f};\n{rest:+.2f} on a blank image.\n"
        f"The map sums to {gap - rest + delta:+.2f},\n{abs(delta):.3f} off."
    )
    caption = axes[-1, 3].text(0, 0.5, note, fontsize=8, va="center", transform=axes[-1, 3].transAxes)
    caption.set_in_layout(False)
    figure.suptitle("red: evidence for the class (I-GOS: what had to be deleted)   blue: evidence against", fontsize=8)
    return figure


if __name__ == "__main__":
    main()
