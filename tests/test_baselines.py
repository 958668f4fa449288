"""Baselines against independent ones, and how they are given."""

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tfig
from tfig import baselines

X = zoo.images(4, size=9)


def seen(baseline, x=X, **arguments):
    """The baseline that IG used, read off a linear score: with weight 1 the attributions are x - baseline."""
    score = lambda y: tf.reduce_sum(y, list(range(1, len(x.shape))))  # noqa: E731
    e = tfig.explain(score, x, tfig.IntegratedGradients(2), baseline=baseline, **arguments)
    np.testing.assert_allclose(e.baseline_score, (x - e.attributions).reshape(len(x), -1).sum(1), rtol=1e-4, atol=1e-4)
    return x - e.attributions


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, 0 * X),
        ("zeros", 0 * X),
        ("black", 0 * X),
        ("white", 0 * X + 1),
        (0.3, 0 * X + 0.3),
        (1, 0 * X + 1),
        ("mean", np.broadcast_to(X.mean((1, 2), keepdims=True), X.shape)),
        (X[0], np.broadcast_to(X[0], X.shape)),
        (X[:1], np.broadcast_to(X[0], X.shape)),
        (X[::-1], X[::-1]),
        (tf.constant(X[::-1]), X[::-1]),
        (baselines.Constant(0.7), 0 * X + 0.7),
    ],
)
def test_given_and_simple(given, expected):
    np.testing.assert_allclose(seen(given), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "sigma", "side"), [(51, 50.0, 9), (51, 50.0, 40), (5, 1.2, 9), (7, 3.0, 2), (3, 1.0, 1)]
)
def test_blur_is_opencvs_gaussian_blur(size, sigma, side):
    x = zoo.images(2, size=side)
    found = seen(baselines.Blur(size, sigma), x)
    for row, image in zip(found, x, strict=True):
        expected = cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(row, expected, atol=2e-5)


def test_blur_of_sequences_runs_along_time():
    x = zoo.sequence(steps=12)
    found = seen(baselines.Blur(5, 1.0), x)
    expected = np.stack([cv2.GaussianBlur(row, (1, 5), 0, sigmaY=1.0, borderType=cv2.BORDER_REFLECT_101) for row in x])
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_mean_of_other_ranks():
    for x in (zoo.sequence(), zoo.table()):
        np.testing.assert_allclose(seen("mean", x), x * 0 + x.mean(1, keepdims=True), atol=1e-5)


def test_random_baselines_stay_in_range_and_follow_the_seed():
    low, high = X.min((1, 2, 3), keepdims=True), X.max((1, 2, 3), keepdims=True)
    for name in ("uniform", "gaussian"):
        found = seen(name, seed=[1, 2, 3, 1])
        assert (found >= low - 1e-5).all() and (found <= high + 1e-5).all()
        np.testing.assert_allclose(seen(name, seed=[1, 2, 3, 1]), found, atol=1e-6)
        np.testing.assert_allclose(seen(name, X[1:2], seed=2), found[1:2], atol=1e-5)
        assert np.abs(found - seen(name, seed=9)).max() > 0.1
    wide = zoo.images(2, size=64)
    uniform = seen("uniform", wide)
    assert abs(uniform.mean() - 0.5) < 0.02 and abs(uniform.std() - 12**-0.5) < 0.02
    far = baselines.Gaussian(0.1, low=-10.0, high=10.0)
    assert abs((seen(far, wide) - wide).std() - 2.0) < 0.05


def test_max_distance():
    found = seen("max_distance")
    low, high = X.min((1, 2, 3), keepdims=True), X.max((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, np.where(X - low > high - X, low, high) * np.ones_like(X), atol=1e-5)
    np.testing.assert_allclose(seen(baselines.MaxDistance(0.0, 1.0)), (X < 0.5).astype(float), atol=1e-5)


def test_mode():
    references = np.array([[1.0, 5.0, 2.0], [1.0, 4.0, 2.0], [3.0, 4.0, 7.0], [3.0, 9.0, 8.0]])
    np.testing.assert_allclose(seen(baselines.Mode(references), np.ones((2, 3))), [[1, 4, 2]] * 2)
    assert baselines.Mode(references) == baselines.Mode(references.copy()) != baselines.Mode(references + 1)


def test_dataset_averages_for_every_method_that_moves_from_a_baseline():
    model, x = zoo.build("sequential"), zoo.images()
    references = zoo.images(3, seed=5)
    for method in (tfig.IntegratedGradients(8), tfig.Conductance(8), tfig.InternalInfluence(8)):
        arguments = {"target": 1, "layer": "conv"} if method.needs_layer else {"target": 1}
        e = tfig.explain(model, x, method, baseline=baselines.Dataset(references), **arguments)
        each = [tfig.explain(model, x, method, baseline=one, **arguments) for one in references]
        np.testing.assert_allclose(e.attributions, np.mean([one.attributions for one in each], 0), atol=1e-6)
        np.testing.assert_allclose(e.baseline_score, np.mean([one.baseline_score for one in each], 0), atol=1e-6)
    with pytest.raises(ValueError, match="not a Dataset"):
        tfig.explain(model, x, "igos", baseline=baselines.Dataset(references))
    with pytest.raises(ValueError, match=r"references of .* have shape \[3, 4\]"):
        tfig.explain(model, x, baseline=baselines.Dataset(np.zeros((3, 4))))
    with pytest.raises(ValueError, match="at least one reference"):
        baselines.Dataset(np.zeros((0, 8, 8, 3)))
    with pytest.raises(ValueError, match="NaN"):
        baselines.Dataset(np.full((1, 8, 8, 3), np.nan))
    with pytest.raises(ValueError, match="needs references"):
        tfig.explain(model, x, "expected_gradients")
    with pytest.raises(ValueError, match="needs references"):
        tfig.explain(model, x, "expected_gradients", baseline="zeros")


def test_baselines_of_several_inputs():
    case, model = zoo.ZOO["two_inputs"], zoo.build("two_inputs")
    for given in (0.5, "mean", {"image": "blur", "table": 0.0}, {"image": case.x["image"][0], "table": "zeros"}):
        e = tfig.explain(model, case.x, tfig.IntegratedGradients(64), baseline=given)
        assert np.abs(e.convergence_delta).max() < 1e-2
    half = {"image": case.x["image"] * 0, "table": case.x["table"]}
    e = tfig.explain(model, case.x, baseline=half)
    np.testing.assert_allclose(e.baseline_score, model.predict(half, verbose=0)[range(3), e.target], rtol=1e-4)
    assert (e.attributions["table"] == 0).all()
    references = baselines.Dataset({name: value[:2] for name, value in case.x.items()})
    assert np.abs(tfig.explain(model, case.x, baseline=references).convergence_delta).max() < 1e-2
    for given, match in [
        ({"picture": 0.0}, r"names inputs \['picture'\]"),
        (case.x["image"], "pass a nest like x"),
        ("blur", r"Blur needs spatial axes.*'table'"),
        ([0.0, 1.0], "x is a dict and baseline a list"),
    ]:
        with pytest.raises(ValueError, match=match):
            tfig.explain(model, case.x, baseline=given)


def test_the_boundary_is_found_and_lies_on_the_boundary():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    model.set_weights([np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]), np.zeros(3)])
    x = np.array([[1.0, 0.0], [-0.6, 0.1], [0.2, 2.0]], "float32")
    e = tfig.explain(model, x, tfig.IntegratedGradients(64), baseline="boundary")
    assert e.trace["boundary_found"].all()
    # Closed form: the distance from x to the nearest line w_c x = w_j x, over the other classes j.
    weights = model.get_weights()[0]
    for row in range(3):
        c = int(e.target[row])
        normals = [weights[:, c] - weights[:, j] for j in range(3) if j != c]
        gaps = [x[row] @ normal / np.linalg.norm(normal) for normal in normals]
        assert e.trace["boundary_distance"][row] == pytest.approx(min(gaps), rel=0.05)
    assert np.abs(e.convergence_delta).max() < 1e-3


def test_boundary_of_one_unit_and_its_absence():
    model, x = zoo.build("one_unit"), zoo.images()
    for output in (None, "logits", "probabilities"):
        e = tfig.explain(model, x, baseline="boundary", output=output)
        expected = 0.0 if output == "logits" else 0.5
        np.testing.assert_allclose(e.baseline_score[e.trace["boundary_found"]], expected, atol=2e-2)
    never = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    never.set_weights([np.zeros((2, 2)), np.array([5.0, 0.0])])
    never.layers[0].kernel.assign([[1e-6, 0.0], [0.0, 0.0]])
    with pytest.warns(UserWarning, match="no decision boundary was found for row 0, 1"):
        e = tfig.explain(never, np.ones((2, 2)) * [[1.0, 2.0]], baseline="boundary")
    assert not e.trace["boundary_found"].any() and np.isnan(e.attributions).all() and np.isfinite(e.score).all()
    with pytest.raises(ValueError, match="regression"):
        tfig.explain(zoo.build("regression"), zoo.table(), baseline="boundary")
    with pytest.raises(ValueError, match="callable target has none"):
        tfig.explain(model, x, baseline="boundary", target=lambda y: y[:, 0])


def test_white_must_be_white():
    with pytest.raises(ValueError, match=r"'white' means 1.0, and .* runs from"):
        seen("white", X * 255)


def test_a_baseline_object_is_part_of_the_question_by_value():
    from tfig import program

    model, x = zoo.build("sequential"), zoo.images()
    for _ in range(2):
        tfig.explain(model, x, baseline=baselines.Dataset(zoo.images(2)))
        tfig.explain(model, x, baseline=baselines.Blur(5, 1.0))
        tfig.explain(model, x, baseline=np.random.default_rng().uniform(size=(8, 8, 3)))
        tfig.explain(model, x, baseline=0.25)
    assert len(program._programs[model]) == 3


@pytest.mark.parametrize(
    ("baseline", "layer"),
    [("vocabulary", None), (tfig.baselines.AtLayer("vocabulary"), "words"), (tfig.baselines.Vocabulary(), "words")],
)
def test_the_mean_of_a_vocabulary_is_where_a_path_begins(baseline, layer):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((4,), dtype="int32"), layers.Embedding(9, 3, name="words"), layers.Flatten(),
        layers.Dense(5, activation="tanh"), layers.Dense(2),
    ])  # fmt: skip
    ids = np.random.default_rng(0).integers(0, 9, (3, 4))
    e = tfig.explain(model, ids, baseline=baseline, target=1, layer=layer)
    table, first, bias, second, last = (np.asarray(w, "float64") for w in model.get_weights())
    start = np.tanh(np.tile(table.mean(0), 4) @ first + bias) @ second + last
    np.testing.assert_allclose(e.baseline_score, np.full(3, start[1]), atol=1e-6)
    assert np.abs(e.convergence_delta).max() < 1e-5
    assert tfig.explain(model, ids, "gradient", baseline=baseline, layer=layer).baseline_score is None  # not looked at


def test_what_has_no_vocabulary_says_so():
    model = zoo.build("sequential")
    for layer in (None, "conv"):
        with pytest.raises(ValueError, match="mean of an embedding's table"):
            tfig.explain(model, zoo.images(), baseline="vocabulary", layer=layer)
