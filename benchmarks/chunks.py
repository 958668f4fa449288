"""How many rows a network should evaluate together, and what is chosen where nobody says.

Seconds a gradient of integrated gradients (16 rows, 16 points) by `batch_size`, over the best of them, in one process,
in turns; then what tfig chooses by itself. 96 x 96 images, random weights.

Usage: chunks.py [NAME...]   (as first.py)
"""

import sys
import time

import numpy as np
from first import NETWORKS, network

import tfig

SIZES = (1, 4, 16, 64, 256, None)
ROWS, STEPS, TURNS = 16, 16, 3


def main(names: list[str]) -> None:
    """The table."""
    print(
        f"{'':18}" + "".join(f"{'chosen' if size is None else size:>9}" for size in SIZES) + "   ms a gradient at best"
    )
    for name in names:
        model, x = network(name)
        rows = np.resize(x, (ROWS, *x.shape[1:]))
        method = tfig.IntegratedGradients(STEPS)
        explainers = [tfig.Explainer(model, method, batch_size=size) for size in SIZES]
        explainers[0](rows[:1])
        seconds = np.zeros((TURNS, len(SIZES)))
        for turn in range(TURNS):
            for place, explainer in enumerate(explainers):
                begin = time.perf_counter()
                explainer(rows)
                seconds[turn, place] = time.perf_counter() - begin
        each = np.median(seconds, 0)
        best = each.min()
        print(
            f"{name:18}" + "".join(f"{one / best:>9.2f}" for one in each) + f"{1e3 * best / ROWS / STEPS:15.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
