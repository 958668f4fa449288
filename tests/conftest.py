"""What tests share: the golden models, a trained network, and the house measure of error."""

import functools
import gc
import inspect
import json
import pathlib
import sys
import tempfile
import zipfile

import keras
import numpy as np
import pytest

from tfig.serving import trial

# A full collection goes through all that TensorFlow is made of, and traces, of small objects, ask for many.
gc.set_threshold(50_000, 20, 100)

GOLDEN = pathlib.Path(__file__).parent / "golden"
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))


@functools.cache
def golden_model(name):
    return load_golden(GOLDEN / f"{name}.keras"), dict(np.load(GOLDEN / f"{name}.npz"))


def load_golden(path):
    """The model of a file that a newer Keras may have written: options left unset are unknown to older ones."""

    older = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 5)

    def known(config):
        if isinstance(config, dict):
            return {
                key: known(value)
                for key, value in config.items()
                if (value is not None or key == "registered_name") and not key.startswith(("renorm", "use_gate"))
            }
        if config == "Orthogonal" and older:
            return "OrthogonalInitializer"
        return [known(value) for value in config] if isinstance(config, list) else config

    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        config = known(json.loads(archive.read("config.json")))
        if older:
            for ends in ("input_layers", "output_layers"):
                config["config"][ends] = [config["config"][ends]]
        model = keras.saving.deserialize_keras_object(config)
        model.load_weights(archive.extract("model.weights.h5", folder))
    return model


def exported_by_keras(model, path):
    """The SavedModel that Keras itself writes; older ones cannot be told to be quiet."""
    quiet = {"verbose": False} if "verbose" in inspect.signature(model.export).parameters else {}
    model.export(str(path), **quiet)


def error(found, expected):
    """Relative L2 error."""
    return np.linalg.norm(np.asarray(found, "float64") - expected) / np.linalg.norm(expected)


@pytest.fixture(params=["mlp", "cnn", "resnet"])
def golden(request):
    return golden_model(request.param)


@pytest.fixture(scope="module", autouse=True)
def _own_garbage():
    """Tests that collect garbage go through what their own module made, not through all that was made before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def digits():
    """(the demo's trained network, held-out digits, their labels)."""
    import digits as task

    _, _, x, y = task.load()
    return task.train(), x, y


@pytest.fixture(scope="session", autouse=True)
def untried():
    """Without warm-up requests an export does not ask its own signatures first: tests ask them, and each ask costs."""
    run = trial.run

    def asked_for(folder, name, wanted, source, served):
        if wanted is not False:
            run(folder, name, wanted, source, served)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "run", asked_for)
        yield
