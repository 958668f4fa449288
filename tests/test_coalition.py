"""Coalitions, walks and comparisons: golden numbers, literal twins, exact identities."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import error
from keras import layers as L
from reference import coalition as literal
from scipy import ndimage

import tfig
from tfig.kernels import expectation, walk
from tfig.methods import REGISTRY


def asked(numbers):
    return {"target": numbers["target"], "output": "logits", "baseline": numbers["baseline"]}


def test_occlusion_golden(golden):
    model, numbers = golden
    key, window = ("1", 1) if "occlusion/logit/1" in numbers else ("3x3", 3)
    e = tfig.explain(model, numbers["x"], tfig.Occlusion(window, window), **asked(numbers))
    expected = numbers[f"occlusion/logit/{key}"]
    assert error(np.broadcast_to(e.attributions, expected.shape), expected) <= 1e-4


def test_ablation_and_shapley_golden(golden):
    model, numbers = golden
    segments = numbers["segments"]
    e = tfig.explain(model, numbers["x"], tfig.FeatureAblation(segments=segments), **asked(numbers))
    expected = numbers["feature_ablation/logit/segments"]
    assert error(np.broadcast_to(e.attributions, expected.shape), expected) <= 1e-4
    exact = numbers["shapley/logit/segments/exact"]
    e = tfig.explain(model, numbers["x"], tfig.KernelSHAP(segments=segments), **asked(numbers))
    assert error(e.trace["values"], exact) <= 1e-4
    assert np.abs(e.convergence_delta).max() <= 1e-5
    e = tfig.explain(model, numbers["x"], tfig.ShapleySampling(samples=1, segments=segments), **asked(numbers))
    assert np.abs(e.convergence_delta).max() <= 1e-5  # one order telescopes
    e = tfig.explain(model, numbers["x"], tfig.ShapleySampling(samples=2000, segments=segments), **asked(numbers))
    assert error(e.trace["values"], exact) <= 0.05


def polynomial(x):
    """A score with interactions of three and four features, in float64."""
    x = tf.cast(x, tf.float64)
    return (x[:, 0] * x[:, 1] + x[:, 2] ** 2 * x[:, 3] - 3 * x[:, 0] * x[:, 1] * x[:, 3] + x[:, 4])[:, tf.newaxis]


ROWS = np.random.default_rng(5).normal(size=(3, 5))
START = np.random.default_rng(6).normal(size=(3, 5))


def game(row):
    def value(present):
        mixed = np.array([ROWS[row, i] if i in present else START[row, i] for i in range(5)])
        return float(polynomial(mixed[np.newaxis])[0, 0])

    return value


def test_kernel_shap_over_all_coalitions_is_exact_shapley():
    e = tfig.explain(polynomial, ROWS, "kernel_shap", baseline=START)
    expected = np.stack([literal.shapley(game(row), 5) for row in range(3)])
    assert error(e.attributions, expected) <= 1e-4
    assert np.abs(e.convergence_delta).max() <= 1e-4
    sampled = tfig.explain(polynomial, ROWS, tfig.KernelSHAP(samples=28), baseline=START)
    assert np.abs(sampled.convergence_delta).max() <= 1e-4  # constrained, however few
    orders = tfig.explain(polynomial, ROWS, tfig.ShapleySampling(samples=5000), baseline=START)
    assert error(orders.attributions, expected) <= 0.05 and np.abs(orders.convergence_delta).max() <= 1e-3


def test_occlusion_against_the_literal_twin():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((7, 6, 2)), L.Conv2D(3, 3, activation="tanh"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 2)).astype("float32")

    def score(image):
        return float(model(image[np.newaxis]).numpy()[0, 1])

    for window, stride in ((1, 1), (3, 2), (4, 3)):
        e = tfig.explain(model, x, tfig.Occlusion(window, stride), target=1, baseline=0.5)
        expected = [literal.occlusion(score, row, np.full_like(row, 0.5), window, stride) for row in x]
        assert error(e.attributions[..., 0], np.stack(expected)) <= 1e-4
    whole = tfig.explain(model, x, tfig.Occlusion(7), target=1, baseline=0.5)
    difference = (whole.score - whole.baseline_score)[:, None, None, None]
    np.testing.assert_allclose(whole.attributions, np.broadcast_to(difference, whole.attributions.shape), atol=1e-6)


def test_marginal_methods_against_exhaustive_means():
    references = np.random.default_rng(7).normal(size=(3, 5))
    dataset = tfig.baselines.Dataset(references)
    unary = np.zeros((3, 5))
    for row in range(3):
        for i in range(5):
            for other in references:
                changed = ROWS[row].copy()
                changed[i] = other[i]
                unary[row, i] += float(polynomial(ROWS[row : row + 1])[0, 0] - polynomial(changed[None])[0, 0]) / 3
    for method in (tfig.QII(samples=2000), tfig.PredictionDifference(samples=6000)):
        e = tfig.explain(polynomial, ROWS, method, baseline=dataset, batch_size=4096)
        assert error(e.attributions, unary) <= 0.05

    # Shapley-QII: the game whose absent features are drawn each from its own marginal.
    expected = np.zeros((3, 5))
    for row in range(3):

        @functools.cache
        def value(present, row=row):
            total = 0.0
            for drawn in itertools.product(range(3), repeat=5):
                mixed = [ROWS[row, i] if i in present else references[drawn[i], i] for i in range(5)]
                total += float(_plain(mixed)) / 3**5
            return total

        expected[row] = literal.shapley(lambda s, value=value: value(frozenset(s)), 5)
    e = tfig.explain(polynomial, ROWS, tfig.QII("shapley", samples=2000), baseline=dataset, batch_size=4096)
    assert error(e.trace["values"], expected) <= 0.1


def _plain(x):
    return x[0] * x[1] + x[2] ** 2 * x[3] - 3 * x[0] * x[1] * x[3] + x[4]


def test_lime_of_a_linear_game_is_ridge_regression():
    weights = np.array([[2.0], [-1.0], [0.5], [3.0]], "float32")
    x = np.array([[1.0, 2.0, -1.0, 0.5]], "float32")
    e = tfig.explain(lambda v: tf.matmul(v, weights), x, tfig.LIME(samples=4000, alpha=0.0))
    np.testing.assert_allclose(e.attributions, x * weights[:, 0], rtol=1e-3, atol=1e-3)
    shrunk = tfig.explain(lambda v: tf.matmul(v, weights), x, tfig.LIME(samples=4000, alpha=1000.0))
    assert (np.abs(shrunk.attributions) < np.abs(e.attributions)).all()


def drawn(count, shape, stream=None):
    """The library's random numbers for a row of seed 3: what is random is given, what is done with it is not."""
    seeds = tf.tile([[3, 0]], [count, 1])
    for fork_by in stream or ():
        seeds = expectation.fork(seeds, tf.fill([count], fork_by))
    return expectation.uniform(seeds, tf.range(count), tf.zeros([count, *shape])).numpy()


def test_lime_against_scikit_learn():
    method = tfig.LIME(samples=60, kernel_width=0.4, alpha=0.7)
    e = tfig.explain(polynomial, ROWS, method, baseline=START, seed=3)
    present = (drawn(60, [5]) < 0.5).astype(float)
    present[0] = 1
    for row in range(3):
        score = lambda v: float(_plain(v))  # noqa: E731
        expected = literal.lime(score, ROWS[row], START[row], present, 0.4, 0.7)
        assert error(e.trace["values"][row], expected) <= 1e-4


def test_rise_against_the_literal_twin():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((9, 8, 2)), L.Conv2D(3, 3, activation="tanh"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(1, 9, 8, 2)).astype("float32")
    e = tfig.explain(model, x, tfig.RISE(samples=40, cells=3, probability=0.4), target=1, baseline=0.5, seed=3)
    grids = (drawn(40, [3, 3], [-2]) < 0.4).astype("float32")
    shifts = drawn(40, [2], [-2, 0])

    def score(image):
        return float(model(image[np.newaxis].astype("float32")).numpy()[0, 1])

    expected = literal.rise(score, x[0], np.full_like(x[0], 0.5), grids, shifts, 0.4)
    assert error(e.attributions[0, ..., 0], expected) <= 1e-4


def test_rise_weighs_masks_by_the_score():
    """A score that is the mean of one corner: the map is highest there, and its mean is the score's."""
    x = np.ones((2, 12, 12, 1), "float32")
    e = tfig.explain(lambda v: tf.reduce_mean(v[:, :4, :4], [1, 2]), x, tfig.RISE(samples=3000, cells=3))
    inside, outside = e.attributions[:, :3, :3].mean(), e.attributions[:, 6:, 6:].mean()
    assert inside > 1.3 * outside
    assert abs(outside - 0.5) < 0.05  # a mask that says nothing of the corner: E F(mask x)


def test_guided_ig_against_the_literal_walk():
    def gradient(point):
        x0, x1, x2, x3, _ = point
        return np.array([x1 - 3 * x1 * x3, x0 - 3 * x0 * x3, 2 * x2 * x3, x2**2 - 3 * x0 * x1, 1.0])

    for method in (tfig.GuidedIG(steps=40), tfig.GuidedIG(steps=17, fraction=0.5, max_dist=0.3)):
        e = tfig.explain(polynomial, ROWS, method, baseline=START)
        arguments = (method.steps, method.fraction, method.max_dist)
        expected = [literal.guided_ig(gradient, a, b, *arguments) for a, b in zip(ROWS, START, strict=True)]
        assert error(e.attributions, np.stack(expected)) <= 1e-3
    fine = tfig.explain(polynomial, ROWS, tfig.GuidedIG(steps=2000), baseline=START)
    assert np.abs(fine.convergence_delta).max() <= 0.01 * np.abs(fine.score - fine.baseline_score).max()


def test_blur_ig_sums_to_the_change_of_the_score():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((9, 9, 2)), L.Conv2D(3, 3, activation="tanh"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 2)).astype("float32")
    e = tfig.explain(model, x, tfig.BlurIG(steps=400, max_sigma=5), target=1)
    blurred = np.stack([ndimage.gaussian_filter(row, [5, 5, 0], mode="constant") for row in x])
    change = (model(x) - model(blurred)).numpy()[:, 1]
    np.testing.assert_allclose(e.attributions.sum((1, 2, 3)), change, atol=0.02 * np.abs(change).max())
    np.testing.assert_allclose(e.trace["delta"], e.attributions.sum((1, 2, 3)) - change, atol=1e-4)


def test_boundary_ig_is_ig_from_the_boundary():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3)])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    found = tfig.explain(model, x, "boundary_ig")
    same = tfig.explain(model, x, "integrated_gradients", baseline="boundary")
    np.testing.assert_array_equal(found.attributions, same.attributions)


def test_segments_in_every_form():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype("float32")
    halves = np.repeat([0, 1], 18).reshape(6, 6)
    by_map = tfig.explain(model, x, tfig.FeatureAblation(segments=halves))
    by_function = tfig.explain(model, x, tfig.FeatureAblation(segments=lambda image: halves + 7), batch_size=2)
    np.testing.assert_allclose(by_map.attributions, by_function.attributions, atol=1e-6)
    grid = np.add.outer(np.arange(6) // 3 * 2, np.arange(6) // 3)
    np.testing.assert_allclose(
        tfig.explain(model, x, tfig.FeatureAblation(segments=2)).attributions,
        tfig.explain(model, x, tfig.FeatureAblation(segments=grid)).attributions,
        atol=1e-6,
    )
    for segments, said in (
        (np.zeros((3, 3), int), "the positions are"),
        (np.full((6, 6), 0.5), "must be whole numbers"),
        (0, "segments is 0"),
        (lambda image: image, "map of whole numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            tfig.explain(model, x, tfig.FeatureAblation(segments=segments))
    with pytest.raises(ValueError, match="calls a Python function"):
        tfig.export(model, "nowhere", {"a": tfig.KernelSHAP(segments=lambda image: halves)})
    with pytest.raises(ValueError, match="leave gaps"):
        tfig.Occlusion(window=2, strides=3)


def test_kernel_shap_refuses_what_it_could_not_tell_apart():
    weights = np.random.default_rng(0).normal(size=(200, 1)).astype("float32")
    x = np.random.default_rng(1).normal(size=(2, 200)).astype("float32")
    linear = lambda v: tf.matmul(v, weights)  # noqa: E731
    with pytest.raises(ValueError, match="raise it to 800 or more"):
        tfig.explain(linear, x, tfig.KernelSHAP(samples=799))
    e = tfig.explain(linear, x, tfig.KernelSHAP(samples=800))
    assert error(e.attributions, x * weights[:, 0]) <= 1e-3


def test_token_models_are_told_to_name_an_embedding():
    tokens = keras.Input((7,), dtype="int32")
    both = L.Embedding(20, 8, name="words")(tokens) + L.Embedding(20, 8, name="more")(tokens)
    model = keras.Model(tokens, L.Dense(2)(L.GlobalMaxPooling1D()(both)))
    ids = np.random.default_rng(0).integers(0, 20, (3, 7))
    for name, kind in REGISTRY.items():
        if kind.needs_layer or kind.switches:
            continue
        baseline = tfig.baselines.Dataset(ids) if kind.default_baseline == "dataset" else None
        with pytest.raises(ValueError, match=r"nothing to attribute to: .* pass layer='words' \(or 'more'\)"):
            tfig.explain(model, ids, name, baseline=baseline)


def test_windows_of_channels_of_a_series():
    model = keras.Sequential([keras.Input((6, 3)), L.Flatten(), L.Dense(1)])
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    parts = x * model.get_weights()[0].reshape(6, 3)
    for strides in (1, 2):
        found = tfig.explain(model, x, tfig.Occlusion((2, 1), strides)).attributions
        sums = [parts[:, start : start + 2].sum(1, keepdims=True) for start in range(0, 5, strides)]
        total, covers = np.zeros_like(x), np.zeros_like(x)
        for start, one in zip(range(0, 5, strides), sums, strict=True):
            total[:, start : start + 2] += one
            covers[:, start : start + 2] += 1
        np.testing.assert_allclose(found, total / covers, atol=1e-5)
    with pytest.raises(ValueError, match="leave gaps"):
        tfig.explain(model, x, tfig.Occlusion((2, 1), 3))


def test_what_is_wrong_with_a_question_is_said_in_its_words():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).uniform(size=(2, 6, 6, 1)).astype("float32")
    with pytest.raises(ValueError, match="made of TensorFlow operations"):
        tfig.explain(lambda v: model.predict(v, verbose=0), x, "occlusion")
    with pytest.raises(ValueError, match="there could not be ten regions"):
        tfig.explain(model, x, tfig.XRAI(segments=np.zeros((6, 6), int)))
    with pytest.raises(ValueError, match="method is MethodInfo"):
        tfig.compare(model, x, tfig.methods())
    silent = tfig.explain(model, x, "deep_taylor", target=lambda y: -tf.abs(y[:, 0]) - 1)
    assert "the map is zero everywhere in 2 of 2 rows" in silent.notes
    names = [keras.Sequential([L.Conv2D(2, 3, name="same")], name=name) for name in ("a", "b")]
    image = keras.Input((6, 6, 1))
    both = keras.Model(image, L.Dense(2)(L.Flatten()(names[1](names[0](image)))))
    e = tfig.explain(both, x, "gradient", layer="b/same")
    assert e.layer == "b/same" and tfig.explain(both, x, "gradient", layer=e.layer).attributions.shape == (2, 2, 2, 2)


def test_compare_survives_a_methods_fault_and_says_which_maps_are_empty(monkeypatch):
    x = np.ones((2, 4), "float32")
    monkeypatch.setattr(tfig.IntegratedGradients, "attribute", lambda self, problem: {}["fault"])
    found = tfig.compare(
        lambda x: tf.nn.relu(tf.reduce_sum(x, 1) - 9), x, ["integrated_gradients", "gradient", "occlusion"]
    )
    assert found.refused == {"integrated_gradients": "KeyError: 'fault'"}
    assert found.empty == ["gradient", "occlusion"] and "empty: gradient, occlusion" in repr(found)


def test_compare_asks_the_same_question_of_many(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).uniform(size=(2, 6, 6, 1)).astype("float32")
    found = tfig.compare(model, x, ["gradient", tfig.Occlusion(2), "cam"], target=1)
    assert list(found.explanations) == ["gradient", "occlusion"] and "here follow" in found.refused["cam"]
    expected = tfig.explain(model, x, "gradient", target=1)
    np.testing.assert_array_equal(found["gradient"].attributions, expected.attributions)
    figure = found.plot(tmp_path / "grid.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("gradient") == titles.count("occlusion") == 2 and (tmp_path / "grid.png").exists()
    named = tfig.compare(model, x, {"a": "gradient", "b": tfig.SmoothGrad(samples=2)})
    assert list(named.explanations) == ["a", "b"]
    with pytest.raises(ValueError, match="did you mean"):
        tfig.compare(model, x, ["gradiant"])
    with pytest.raises(ValueError, match="methods is empty"):
        tfig.compare(model, x, [])
    with pytest.raises(ValueError, match="no method answered"):
        tfig.compare(model, x, ["cam"])


def test_xrai_against_the_literal_ranking():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 9, 2)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(3, 8, 9, 2)).astype("float32")
    fine = np.add.outer(np.arange(8) // 2 * 5, np.arange(9) // 2)
    coarse = np.add.outer(np.arange(8) // 4 * 3, np.arange(9) // 3)
    maps = np.stack([fine, coarse], -1)
    method = tfig.IntegratedGradients(20, "midpoint")
    ends = [np.broadcast_to(end(x, axis=(1, 2, 3), keepdims=True), x.shape) for end in (np.min, np.max)]
    both = [tfig.explain(model, x, method, baseline=end, target=1).attributions for end in ends]
    attribution = ((both[0] + both[1]) / 2).max(-1).astype("float64")
    for least in (1, 5):
        expected = np.stack([literal.ranked_regions(row, maps, least) for row in attribution])
        for segments in (maps, lambda image: maps):
            e = tfig.explain(model, x, tfig.XRAI(steps=20, min_pixels=least, segments=segments), target=1)
            assert error(e.attributions[..., 0], expected) <= 1e-4
    with pytest.raises(ValueError, match="one image"):
        tfig.explain(polynomial, ROWS, tfig.XRAI(segments=fine))
    with pytest.raises(ValueError, match="pass a map"):
        tfig.XRAI(segments=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"segments is a map \[3, 3\], and the positions are \[8, 9\]"):
        tfig.explain(model, x, tfig.XRAI(min_pixels=5, segments=np.zeros((3, 3), int)))


@pytest.mark.parametrize("given", [(200, 0.25, 0.02), (50, 0.1, 0.2), (30, 0.5, 0.3)])
def test_guided_ig_of_a_network_is_the_literal_walk(given):
    """Coordinates that have arrived must not count among the smallest gradients, nor lengths be rounded."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((8, 8, 2)), L.Conv2D(6, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(),
        L.Dense(4, activation="softmax"),
    ])  # fmt: skip
    x = np.random.default_rng(0).uniform(size=(1, 8, 8, 2)).astype("float32")

    def gradient(point):
        at = tf.constant(point.reshape(1, 8, 8, 2), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(at)
            score = model(at)[:, 1]
        return tape.gradient(score, at).numpy().astype("float64").ravel()

    e = tfig.explain(model, x, tfig.GuidedIG(*given), target=1)
    expected = literal.guided_ig(gradient, x.ravel().astype("float64"), np.zeros(128), *given)
    assert error(e.attributions.ravel(), expected) <= 1e-5
    larger = keras.Sequential([keras.Input((8, 8, 2)), L.Rescaling(2.0**-10), model])
    scaled = tfig.explain(larger, x * 2**10, tfig.GuidedIG(*given), target=1)
    assert error(scaled.attributions, e.attributions) <= 1e-6


@pytest.mark.parametrize("distance", [0.02, 0.3])
def test_a_guided_walk_never_leaves_the_way(distance):
    """Where a coordinate still stands at the baseline, F may have a kink, or nothing beyond."""
    random = np.random.default_rng(0)
    x, w = random.uniform(0.05, 1, (3, 64)).astype("float32"), random.uniform(0.5, 2, 64).astype("float32")

    def score(z):
        return tf.reduce_sum(w * tf.abs(z) + 0.5 * w[::-1] * z + z**2.2, -1)

    def gradient(z):
        return w * np.sign(z) + 0.5 * w[::-1] + 2.2 * z**1.2

    e = tfig.explain(score, x, tfig.GuidedIG(40, max_dist=distance), target=lambda outputs: outputs)
    expected = [literal.guided_ig(gradient, row.astype("float64"), np.zeros(64), 40, 0.25, distance) for row in x]
    assert error(e.attributions, np.stack(expected)) <= 1e-5


def test_a_guided_walk_of_the_smallest_numbers():
    """Single steps of the way are smaller than float32 holds."""
    random = np.random.default_rng(0)
    x = (random.uniform(0.5, 1, (2, 30)) * 2.0**-124).astype("float32")
    w = random.uniform(1, 2, 30).astype("float32")
    e = tfig.explain(lambda z: tf.reduce_sum(w * z, -1), x, "guided_ig", target=lambda outputs: outputs)
    assert error(e.attributions.astype("float64"), (w * x).astype("float64")) <= 1e-5


@pytest.mark.parametrize("width", [None, 10, 300, 1 << walk.DIGIT])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_nth_smallest_is_that_of_a_sort(dtype, width):
    random = np.random.default_rng(0)
    found = tf.function(
        lambda values, n: walk.ranked(values)(n),
        input_signature=[tf.TensorSpec([None, width], dtype), tf.TensorSpec([None], "int32")],
    )
    for _ in range(60):
        values = np.abs(random.normal(size=(3, width or random.integers(1, 400))) * 10.0 ** random.integers(-30, 30))
        values[random.random(values.shape) < 0.2] = np.inf
        values[random.random(values.shape) < 0.2] = 0
        values[random.random(values.shape) < 0.3] = values[0, 0]
        n = random.integers(values.shape[1] + 2, size=3)
        values = values.astype(dtype)
        expected = np.sort(values, 1)[range(3), np.minimum(n, values.shape[1] - 1)]
        nth, finite = found(values, n.astype("int32"))
        np.testing.assert_array_equal(nth, expected)
        alike = (values <= expected[:, np.newaxis]) & np.isfinite(values)
        np.testing.assert_array_equal(finite, alike.sum(1))


def tiles(cells):
    return np.add.outer(np.arange(8) * cells // 8 * cells, np.arange(8) * cells // 8)


@pytest.mark.parametrize("method", ["lime", "kernel_shap", "shapley_sampling", "feature_ablation"])
def test_segments_of_a_row_are_its_own(method):
    """Neither a neighbour's number of segments nor numbers that no position has change a row's values."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)])
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype("float32")
    x[1] += 2

    def ask(segments, rows):
        samples = {} if method == "feature_ablation" else {"samples": 120}
        kind = REGISTRY[method](segments=segments, **samples)
        return tfig.explain(model, rows, kind, target=1)

    def several(image):
        return tiles(2) if image.mean() < 1.5 else tiles(5)

    together, alone = ask(several, x), ask(several, x[:1])
    assert error(together.attributions[0], alone.attributions[0]) <= 1e-5
    assert error(ask(tiles(2) * 10 + 1, x).attributions, ask(tiles(2), x).attributions) <= 1e-6
    assert error(ask(lambda image: tiles(2) * 3 + 2, x).attributions, ask(tiles(2), x).attributions) <= 1e-5


def test_kernel_shap_is_exact_over_few_segments_of_a_function():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3, activation="tanh"), L.Flatten(), L.Dense(3)])
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype("float32")
    e = tfig.explain(model, x, tfig.KernelSHAP(samples=40, segments=lambda image: tiles(2) + 3), target=1)
    for row in range(2):

        def value(present, row=row):
            kept = np.isin(tiles(2), [np.unique(tiles(2))[i] for i in present])[..., None]
            return float(model(x[row : row + 1] * kept).numpy()[0, 1])

        expected = literal.shapley(value, 4)
        found = [e.attributions[row, ..., 0][tiles(2) == number].sum() for number in np.unique(tiles(2))]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(ValueError, match="raise it to 100 or more"):
        tfig.explain(model, x, tfig.KernelSHAP(samples=60, segments=lambda image: tiles(5)))


def test_a_single_segment_has_all_of_the_difference():
    weights = np.random.default_rng(0).normal(size=(8, 1)).astype("float32")
    x = np.random.default_rng(1).normal(size=(2, 8)).astype("float32")
    for method in (tfig.LIME(samples=50, segments=np.zeros(8, int)), tfig.FeatureAblation(segments=np.zeros(8, int))):
        e = tfig.explain(lambda v: tf.matmul(v, weights), x, method)
        np.testing.assert_allclose(e.attributions, np.repeat((e.score - e.baseline_score)[:, None], 8, 1), atol=1e-5)


def test_a_score_whose_rounding_is_the_map_is_noted():
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    for dtype, bias, noted in (("float32", 1e6, True), ("float32", 10.0, False), ("float64", 1e7, False)):
        keras.utils.set_random_seed(0)
        layers = [L.Dense(8, activation="relu", dtype=dtype), L.Dense(2, dtype=dtype)]
        model = keras.Sequential([keras.Input((6,), dtype=dtype), *layers])
        model.layers[-1].bias.assign([bias, bias])
        for method in ("occlusion", "kernel_shap", "integrated_gradients"):
            notes = tfig.explain(model, x, method, target=1).notes
            assert any("its rounding" in said for said in notes) == noted, (method, dtype, notes)
        if dtype == "float64":
            whole = [tfig.explain(model, x, name, target=1).attributions for name in ("shapley_sampling", "lime")]
            model.layers[-1].bias.assign([0.0, 0.0])
            for name, one in zip(("shapley_sampling", "lime"), whole, strict=True):
                assert error(one, tfig.explain(model, x, name, target=1).attributions) <= 1e-5
