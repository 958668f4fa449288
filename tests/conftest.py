"""What tests share: the golden models, a trained network, and the house measure of error."""

import functools
import pathlib
import sys

import keras
import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))


@functools.cache
def golden_model(name):
    return keras.models.load_model(GOLDEN / f"{name}.keras"), dict(np.load(GOLDEN / f"{name}.npz"))


def error(found, expected):
    """Relative L2 error."""
    return np.linalg.norm(np.asarray(found, "float64") - expected) / np.linalg.norm(expected)


@pytest.fixture(params=["mlp", "cnn", "resnet"])
def golden(request):
    return golden_model(request.param)


@pytest.fixture(scope="session")
def digits():
    """(the demo's trained network, held-out digits, their labels)."""
    import digits as task

    _, _, x, y = task.load()
    return task.train(), x, y
