"""The same answer from `explain`, from the session TensorFlow Serving uses, and over gRPC."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from c_api import Loaded
from conftest import exported_by_keras
from keras import layers as L

import tfig
from tfig.readings import SHARING


def batch_normalised():
    x = keras.Input((8, 8, 3))
    h = L.ReLU(name="conv")(L.BatchNormalization()(L.Conv2D(4, 3, padding="same")(x)))
    h = h + L.Conv2D(4, 3, padding="same")(h)
    return keras.Model(x, L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(h)))


ASKED = {
    "ig": tfig.IntegratedGradients(steps=8, rule="adaptive", tolerance=0.05, max_steps=32),
    "expected": tfig.ExpectedGradients(samples=16),
    "igos": tfig.IGOS(resolution=4, iterations=3, steps=4),
    "conductance": tfig.Conductance(steps=8),
}
MODELS = ("batch_normalised", "two_inputs", "half")
FEW = ("ig", "igos")  # the others differ in nothing that a kind of model changes


class Case:
    """A model, exported once with every explanation it can have, and its server."""

    def __init__(self, name, folder):
        zoo.ZOO.setdefault("batch_normalised", zoo.Case(batch_normalised, zoo.images(), layer="conv"))
        case = zoo.ZOO[name]
        self.model, self.x = zoo.build(name), case.x
        self.explainers = {}
        for key, method in ASKED.items():
            if name != MODELS[0] and key not in FEW:
                continue
            arguments = dict(case.arguments)
            if method.needs_layer:
                arguments["layer"] = case.layer
            if key == "expected":
                arguments["baseline"] = tfig.baselines.Dataset(tf.nest.map_structure(lambda leaf: leaf[:2], case.x))
            self.explainers[key] = tfig.Explainer(self.model, method, **arguments)
        self.folder = tfig.export(self.model, folder / name, self.explainers, warmup=False)
        self.loaded = Loaded(self.folder)
        # Rows as the wire takes them: older versions of Keras give a model of half layers half inputs.
        taken = self.loaded.signatures["ig"].inputs
        wire = {name: x.astype(tf.as_dtype(taken[name].dtype).as_numpy_dtype) for name, x in self.named.items()}
        self.x = wire if isinstance(self.x, dict) else wire["x"]
        self.server = tfig.serving.serve(folder / name, port=0)
        self.client = tfig.serving.Client(f"127.0.0.1:{self.server.port}", name)

    @property
    def named(self):
        return self.x if isinstance(self.x, dict) else {"x": self.x}


@pytest.fixture(scope="module")
def case(request, tmp_path_factory):
    made = Case(request.param, tmp_path_factory.mktemp("served"))
    yield made
    made.client.close()
    made.server.stop()
    made.loaded.close()


def maps(e):
    return e.attributions if isinstance(e.attributions, dict) else {None: e.attributions}


def raw_and_local(raw, e):
    """The tensors of a raw answer beside the fields of a local explanation."""
    for name, expected in maps(e).items():
        yield raw.pop("attributions" if name is None else f"attributions_{name}"), expected
    for word in ("target", "score", "baseline_score", "convergence_delta"):
        expected = getattr(e, word)
        assert (expected is None) == (word not in raw)
        if expected is not None:
            yield raw.pop(word), expected
    assert {word for word in raw if word.startswith("trace_")} == {f"trace_{word}" for word in e.trace}
    for word, expected in e.trace.items():
        yield raw[f"trace_{word}"], expected


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_three_ways_to_ask_agree_bitwise(case):
    for key, explainer in case.explainers.items():
        e = explainer(case.x)
        raw = case.loaded.run(key, **case.named)
        assert (raw["status"] == 0).all()
        for found, expected in raw_and_local(raw, e):
            np.testing.assert_array_equal(found, expected)
        served = case.client.explain(case.x, key)
        for name, expected in maps(e).items():
            np.testing.assert_array_equal(maps(served)[name], expected)
        for word in ("target", "score", "baseline_score", "convergence_delta"):
            np.testing.assert_array_equal(getattr(served, word), getattr(e, word))
        assert set(served.trace) == set(e.trace)
        for word, expected in e.trace.items():
            np.testing.assert_array_equal(served.trace[word], expected)

        if key not in FEW:  # the options mean the same to all
            continue
        asked = explainer(case.x, target=tfig.Contrast(2, "runner_up"))
        options = {"target": np.full(3, 2, "int32"), "contrast": np.array([-2], "int32")}
        raw = case.loaded.run(f"{key}_at", **case.named, **options)
        np.testing.assert_array_equal(raw.pop("contrast"), asked.trace.pop("against"))
        for found, expected in raw_and_local(raw, asked):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_serving_default_answers_as_the_models_own_export(case, tmp_path):
    exported_by_keras(case.model, tmp_path / "own")
    own = Loaded(tmp_path / "own")
    inputs = own.signatures["serving_default"].inputs
    assert set(inputs) == set(case.loaded.signatures["serving_default"].inputs)
    wire = dict(zip(sorted(inputs), (case.named[name] for name in sorted(case.named)), strict=True))
    expected, found = own.run("serving_default", **wire), case.loaded.run("serving_default", **wire)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(case.client.predict(wire), next(iter(expected.values())))
    own.close()


def test_every_family_of_methods_is_served(tmp_path):
    """One of each kernel, through the session TensorFlow Serving uses; the others differ in a line or two."""
    zoo.ZOO.setdefault("batch_normalised", zoo.Case(batch_normalised, zoo.images(), layer="conv"))
    model, x = zoo.build("batch_normalised"), zoo.images()
    references = tfig.baselines.Dataset(x[:2])
    asked = {
        "lrp": tfig.LRP("alpha2_beta1"), "deeplift": tfig.DeepLIFT("reveal_cancel"), "guided": tfig.GuidedBackprop(),
        "score_cam": tfig.ScoreCAM(), "guided_ig": tfig.GuidedIG(steps=8),
        "qii": tfig.QII("shapley", 3, segments=2),
        "pair": tfig.IGOSPlusPlus(resolution=4, iterations=2, steps=2, search="settled"),
    }  # fmt: skip
    explainers = {
        name: tfig.Explainer(model, method, baseline=references if method.default_baseline == "dataset" else None)
        for name, method in asked.items()
    }
    loaded = Loaded(tfig.export(model, tmp_path / "every", explainers, warmup=False))
    for name, explainer in explainers.items():
        e, raw = explainer(x), loaded.run(name, x=x)
        # An older TensorFlow optimises the same graph otherwise in a session: last bits of reveal-cancel differ.
        rounding = 0 if SHARING else 2e-6 * np.abs(e.attributions).max()
        np.testing.assert_allclose(raw["attributions"], e.attributions, rtol=0, atol=rounding, err_msg=name)
        assert raw["heatmap"].shape == (3, 8, 8) and (raw["status"] == 0).all()
    tf.saved_model.load(str(loaded.folder))  # the overridden gradients do not stand in the way
    loaded.close()


def test_a_scale_behind_a_relu_is_multiplied_in_the_same_order(tmp_path):
    """A session once took DeepLIFT's chain of products, of which one broadcasts, in another order."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = keras.Sequential([
        keras.Input((8, 8, 1), name="x"), L.Conv2D(4, 3, activation="relu"), L.BatchNormalization(), L.Flatten(),
        L.Dense(4, activation="softmax"),
    ])  # fmt: skip
    for w in model.layers[1].weights:
        w.assign(random.uniform(0.5, 1.5, w.shape))
    x = random.random((3, 8, 8, 1)).astype("float32")
    explainer = tfig.Explainer(model, "deeplift", baseline=0.3)
    loaded = Loaded(tfig.export(model, tmp_path / "m", {"deeplift": explainer}, warmup=False))
    expected = explainer(x).attributions
    rounding = 0 if SHARING else 2e-6 * np.abs(expected).max()
    np.testing.assert_allclose(loaded.run("deeplift", x=x)["attributions"], expected, rtol=0, atol=rounding)
    loaded.close()
