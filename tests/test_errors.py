"""Bad input is refused before any work, in words that say what was given, what is needed, what to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import exported_by_keras
from keras import layers as L

import tfig

X = zoo.images()


@pytest.fixture(scope="module")
def model():
    return zoo.build("sequential")


def bad(x, index, value):
    x = x.copy()
    x[index] = value
    return x


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (bad(X, (1, 0, 0, 0), np.nan), "NaN or infinite in row 1"),
        (bad(X, (2, 3, 0, 1), np.inf), "NaN or infinite in row 2"),
        (X[0], r"shape \[8, 8, 3\], and the model takes \[None, 8, 8, 3\].*x\[None\]"),
        (X[..., :1], r"shape \[3, 8, 8, 1\], and the model takes"),
        (X[:, :5], r"shape \[3, 5, 8, 3\], and the model takes"),
        (X[:0], "zero rows"),
        (X.astype(str), "array of str"),
        ([X, X], "takes 1 inputs .* and x has 2"),
        ({"wrong": X}, "unknown in x"),
    ],
)
def test_inputs(model, x, match):
    with pytest.raises(ValueError, match=match):
        tfig.explain(model, x)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"target": 4}, "target 4 is out of range: the output has 4 units, 0 to 3"),
        ({"target": -1}, "-1 is negative"),
        ({"target": [0, 1]}, "3 rows"),
        ({"target": [0, 1, 9]}, "target 9 is out of range"),
        ({"target": 1.5}, "must be an int"),
        ({"target": "best"}, "'predicted' and 'runner_up'"),
        ({"target": tfig.Contrast(0, 7)}, "target 7 is out of range"),
        ({"target": ("kind", 1)}, "no output 'kind'"),
        ({"target": (1, 2, 3)}, r"Contrast\(a, b\)"),
        ({"output": "logit"}, "pass None, 'logits' or 'probabilities'"),
        ({"method": "integrated_gradient"}, "did you mean 'integrated_gradients'"),
        ({"method": "IGOS"}, "did you mean 'igos'"),
        ({"method": "conductance"}, "pass layer="),
        ({"layer": "convv"}, "did you mean one of conv"),
        ({"baseline": "zero"}, "did you mean 'zeros'"),
        ({"baseline": np.zeros((5, 5))}, r"shape \[5, 5\], and x has \[3, 8, 8, 3\]"),
        ({"baseline": np.zeros((2, 8, 8, 3))}, "one per row"),
        ({"baseline": np.nan}, "NaN"),
        ({"baseline": object()}, "pass a name, number, array"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": "2"}, "whole number"),
        ({"method": "ig"}, "did you mean 'integrated_gradients'"),
        ({"layer": 1}, "pass a layer's name"),
        ({"seed": [1, 2]}, "3 rows"),
        ({"seed": 0.5}, "must be an int"),
        ({"seed": 2**40}, "32 bits"),
    ],
)
def test_arguments(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        tfig.explain(model, X, **arguments)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: tfig.IntegratedGradients(0), "steps is 0; it must be at least 1"),
        (lambda: tfig.IntegratedGradients(1, "trapezoid"), "at least 2"),
        (lambda: tfig.IntegratedGradients(2.5), "whole number"),
        (lambda: tfig.IntegratedGradients(rule="simpson"), "midpoint, trapezoid"),
        (lambda: tfig.IntegratedGradients(64, tolerance=0.1, max_steps=8), "max_steps is 8"),
        (lambda: tfig.IntegratedGradients(tolerance=-1.0), "tolerance"),
        (lambda: tfig.ExpectedGradients(0), "samples"),
        (lambda: tfig.Conductance(0), "steps"),
        (lambda: tfig.IGOS(shrink=1.5), "between 0 and 1"),
        (lambda: tfig.IGOS(minimum_step=0.0), "minimum_step"),
        (lambda: tfig.baselines.Blur(4), "odd"),
        (lambda: tfig.baselines.Boundary(radii=(2.0, 1.0)), "rising"),
    ],
)
def test_hyper_parameters(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_models():
    with pytest.raises(ValueError, match="not built"):
        tfig.explain(keras.Sequential([L.Dense(3)]), zoo.table())
    with pytest.raises(ValueError, match="pass a Keras model"):
        tfig.explain("model.keras", X)
    x = keras.Input((5,))
    rounded = keras.Model(x, keras.ops.round(x))
    with pytest.raises(ValueError, match="does not depend on the input by differentiable operations"):
        tfig.explain(rounded, zoo.table(), target=0)
    two = zoo.build("two_inputs")
    x = zoo.ZOO["two_inputs"].x
    with pytest.raises(ValueError, match=r"missing: .'table'"):
        tfig.explain(two, {"image": X})
    with pytest.raises(ValueError, match="did you mean 'table' for 'tabel'"):
        tfig.explain(two, {"image": X, "tabel": x["table"]})
    with pytest.raises(ValueError, match="different numbers of rows"):
        tfig.explain(two, {"image": X, "table": x["table"][:2]})
    with pytest.raises(ValueError, match="holds fractions"):
        tfig.explain(zoo.build("tokens"), np.full((1, 6), 1.5), layer="embedding")


def test_what_people_pass_is_taken(model):
    expected = tfig.explain(model, X).attributions
    for x in (tf.constant(X), X.astype("float64"), X.tolist(), X.astype("float32")[:, ::1]):
        np.testing.assert_allclose(tfig.explain(model, x).attributions, expected, rtol=1e-5, atol=1e-7)
    pixels = (X * 255).astype("uint8")
    np.testing.assert_allclose(
        tfig.explain(model, pixels).attributions, tfig.explain(model, pixels.astype("float32")).attributions
    )
    case = zoo.ZOO["two_inputs"]
    two = zoo.build("two_inputs")
    by_name = tfig.explain(two, case.x).attributions
    by_place = tfig.explain(two, [case.x["image"], case.x["table"]]).attributions
    assert isinstance(by_place, list)
    np.testing.assert_array_equal(by_name["table"], by_place[1])
    method = tfig.explain(model, X, tfig.IntegratedGradients).attributions
    np.testing.assert_array_equal(method, expected)


def test_callables_and_saved_models(model, tmp_path):
    expected = tfig.explain(model, X).attributions
    np.testing.assert_allclose(tfig.explain(lambda x: model(x, training=False), X).attributions, expected, atol=1e-6)
    np.testing.assert_allclose(tfig.explain(tf.function(model), X).attributions, expected, atol=1e-6)
    np.testing.assert_allclose(tfig.explain(model.call, X).attributions, expected, atol=1e-6)
    exported_by_keras(model, tmp_path / "exported")
    loaded = tf.saved_model.load(str(tmp_path / "exported"))
    for one in (loaded, loaded.signatures["serving_default"]):
        np.testing.assert_allclose(tfig.explain(one, X).attributions, expected, atol=1e-6)
        assert np.isfinite(tfig.explain(one, X, tfig.IGOS(4, 2, 2)).attributions).all()
    two = zoo.build("two_inputs")
    exported_by_keras(two, tmp_path / "two")
    case = zoo.ZOO["two_inputs"]
    loaded_two = tf.saved_model.load(str(tmp_path / "two"))
    with pytest.raises(ValueError, match="has no order; pass x as a dict"):
        tfig.explain(loaded_two, [case.x["image"], case.x["table"]])
    with pytest.raises(ValueError, match="pass the model itself"):
        tfig.explain(model.predict, X)
    found = tfig.explain(loaded_two, case.x).attributions
    np.testing.assert_allclose(found["table"], tfig.explain(two, case.x).attributions["table"], atol=1e-6)


def test_a_failed_assertion_of_the_model_says_what_it_says():
    class Checked(keras.layers.Layer):
        def call(self, x):
            tf.debugging.assert_less_equal(tf.reduce_max(x), 10.0, message="pixels are above ten")
            return x

    model = keras.Sequential([keras.Input((6,)), Checked(), keras.layers.Dense(3)])
    for method in ("gradient", "integrated_gradients"):
        with pytest.raises(ValueError, match=r"the model failed \(assertion failed: \[pixels are above ten\]"):
            tfig.explain(model, np.full((2, 6), 100, "float32"), method)
