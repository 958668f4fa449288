"""Ask a server for explanations, as a process that has nothing but the address: the second half of the demo.

Usage: ask.py ADDRESS MODEL X.npy FOLDER   writes FOLDER/NAME.npz for each explanation the model offers.
"""

import sys
from pathlib import Path

import numpy as np

import tfig


def main() -> None:
    """Ask for each explanation of the rows in a file."""
    address, model, rows, folder = sys.argv[1:]
    x = np.load(rows)
    with tfig.serving.Client(address, model) as client:
        for name in client.explanations():
            e = client.explain(x, name)
            e.save(Path(folder) / f"{name}.npz")
            print(f"asked {address} for {name!r} of {model!r}: {e!r}")


if __name__ == "__main__":
    main()
