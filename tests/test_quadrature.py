"""The numerics of paths: orders of convergence, placement, tolerance."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import error, golden_model

import tfig
from tfig.kernels import path

FIXED = ["midpoint", "trapezoid", "left", "right", "gauss_legendre"]


@pytest.mark.parametrize("rule", FIXED)
def test_nodes_lie_on_the_path_and_weights_sum_to_one(rule):
    for count in (2, 3, 10, 257):
        nodes, weights = path.tabulate(rule, count)
        assert len(nodes) == count and 0 <= nodes.min() <= nodes.max() <= 1
        assert abs(weights.sum() - 1) < 1e-12


def smooth(x):
    """A smooth score whose integrated gradients are known: F = exp(x0) + sin(3 x1) + x2**4."""
    return tf.exp(x[:, 0]) + tf.sin(3 * x[:, 1]) + x[:, 2] ** 4


X = np.array([[1.0, 0.7, 1.3], [-0.5, 1.1, 0.9]])
EXACT = np.stack([np.exp(X[:, 0]) - 1, np.sin(3 * X[:, 1]), X[:, 2] ** 4], 1)


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)])
def test_order_of_convergence_on_a_smooth_score(rule, order):
    errors = []
    for steps in (8, 16, 32):
        count = steps + 1 if rule == "trapezoid" else steps
        e = tfig.explain(smooth, X, tfig.IntegratedGradients(count, rule))
        assert e.attributions.dtype == np.float64
        errors.append(np.abs(e.attributions - EXACT).max())
    for coarse, fine in itertools.pairwise(errors):
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_gauss_legendre_is_exact_for_polynomials():
    e = tfig.explain(lambda x: x[:, 0] ** 7 * 1.0, X, tfig.IntegratedGradients(4, "gauss_legendre"))
    np.testing.assert_allclose(e.attributions[:, 0], X[:, 0] ** 7, rtol=1e-6)
    smooth_error = np.abs(tfig.explain(smooth, X, tfig.IntegratedGradients(8, "gauss_legendre")).attributions - EXACT)
    assert smooth_error.max() < 1e-6


@pytest.mark.parametrize("rule", [*FIXED, "adaptive"])
def test_weights_are_complete_on_a_linear_score(rule):
    e = tfig.explain(lambda x: 2 * x[:, 0] - x[:, 1], X, tfig.IntegratedGradients(5, rule))
    np.testing.assert_allclose(e.attributions, X * [2, -1, 0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
@pytest.mark.parametrize("output", ["logit", "prob"])
def test_midpoint_is_not_worse_than_gauss_legendre_on_networks_with_kinks(name, output):
    model, numbers = golden_model(name)
    asked = {"target": numbers["target"], "baseline": numbers["baseline"]}
    asked["output"] = {"logit": "logits", "prob": "probabilities"}[output]
    exact = tfig.explain(model, numbers["x"], tfig.IntegratedGradients(4096), **asked).attributions
    midpoint, gauss = (
        error(tfig.explain(model, numbers["x"], tfig.IntegratedGradients(64, rule), **asked).attributions, exact)
        for rule in ("midpoint", "gauss_legendre")
    )
    assert midpoint <= gauss


def test_adaptive_nodes_cost_less_where_a_probability_saturates(digits):
    """At most 0.8 of midpoint's cost to the same error, a probing forward pass counted as a third of a gradient."""
    model, x, _ = digits
    x = x[:32]

    def found(steps, rule="midpoint"):
        e = tfig.explain(model, x, tfig.IntegratedGradients(steps, rule), output="probabilities", batch_size=512)
        return e.attributions

    exact = found(1024)  # to 6e-4
    for goal, steps in ((0.02, 15), (0.01, 27)):
        assert error(found(steps, "adaptive"), exact) <= goal
        allowed = int((steps + (path.PARTS - 1) / 3) / 0.8)
        assert all(error(found(count), exact) > goal for count in (allowed - 2, allowed - 1, allowed))


@pytest.mark.parametrize("rule", ["midpoint", "adaptive", "gauss_legendre", "trapezoid"])
def test_tolerance_is_met_or_reported(digits, rule):
    model, x, _ = digits
    method = tfig.IntegratedGradients(steps=8, rule=rule, tolerance=0.005, max_steps=64)
    e = tfig.explain(model, x[:32], method, output="probabilities")
    allowed = np.maximum(0.005 * np.abs(e.score - e.baseline_score), 1e-6 * np.maximum(1, np.abs(e.score)))
    # The delta is summed once more outside the loop: rows on the edge of the tolerance may differ in the last bit.
    edge = np.isclose(np.abs(e.convergence_delta), allowed, rtol=1e-3, atol=1e-6)
    assert ((e.trace["converged"] == (np.abs(e.convergence_delta) <= allowed)) | edge).all()
    assert (e.trace["steps"] >= 8).all() and (e.trace["steps"] <= 64).all()
    assert (e.trace["steps"][~e.trace["converged"]] == 64).all()
    assert len(set(e.trace["steps"])) > 1
    for row in (0, 5):
        alone = tfig.explain(model, x[row : row + 1], method, output="probabilities")
        assert alone.trace["steps"][0] == e.trace["steps"][row]
        plain = tfig.IntegratedGradients(steps=int(e.trace["steps"][row]), rule=rule)
        same = tfig.explain(model, x[row : row + 1], plain, output="probabilities")
        np.testing.assert_allclose(same.attributions[0], e.attributions[row], atol=1e-5)


def test_tolerance_has_an_absolute_floor_and_says_when_it_is_out_of_reach():
    e = tfig.explain(lambda x: x[:, 0] * 0 + 5.0, X[:1], tfig.IntegratedGradients(steps=4, tolerance=0.0))
    assert e.trace["converged"].all() and (e.trace["steps"] == 4).all()
    rough = lambda x: tf.sin(200 * x[:, 0])  # noqa: E731
    e = tfig.explain(rough, X[:1], tfig.IntegratedGradients(steps=2, tolerance=1e-9, max_steps=5))
    assert not e.trace["converged"].any() and (e.trace["steps"] == 5).all()
    assert "above the tolerance" in repr(e)


def test_references_are_averaged_literally():
    model, numbers = golden_model("mlp")
    asked = {"target": numbers["target"], "output": "logits"}
    method = tfig.IntegratedGradients(steps=8, tolerance=0.05)
    together = tfig.explain(
        model, numbers["x"], method, baseline=tfig.baselines.Dataset(numbers["references"]), **asked
    )
    single = [tfig.explain(model, numbers["x"], method, baseline=one, **asked) for one in numbers["references"]]
    np.testing.assert_allclose(together.attributions, np.mean([e.attributions for e in single], 0), atol=1e-5)
    np.testing.assert_allclose(together.baseline_score, np.mean([e.baseline_score for e in single], 0), atol=1e-5)
    assert (together.trace["converged"] == np.all([e.trace["converged"] for e in single], 0)).all()


def test_expected_gradients_is_unbiased_over_seeds():
    rng = np.random.default_rng(0)
    references = rng.normal(size=(7, 3))
    x = rng.normal(size=(1, 3))
    method = tfig.ExpectedGradients(samples=5)
    seeds = np.arange(4000)
    score = lambda x: tf.reduce_sum(x**3, -1) + x[:, 0] * x[:, 1]  # noqa: E731
    asked = {"baseline": tfig.baselines.Dataset(references), "batch_size": 4000}
    mean = tfig.explain(score, np.repeat(x, len(seeds), 0), method, seed=seeds, **asked).attributions
    exact = tfig.explain(score, x, tfig.IntegratedGradients(64, "gauss_legendre"), **asked).attributions
    spread = mean.std(0) / np.sqrt(len(seeds))
    assert (np.abs(mean.mean(0) - exact[0]) < 5 * spread).all()


def test_conductance_is_the_integral_of_the_flow():
    """A literal twin: 2000 fine steps of dF/dy * dy along the path, in NumPy."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 5)).astype("float32"), rng.normal(size=(5, 1)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh", name="h"), keras.layers.Dense(1)])
    model.set_weights([a, np.zeros(5), b, np.zeros(1)])
    model.layers[1].activation = keras.activations.sigmoid
    x, start = rng.normal(size=(2, 4)).astype("float32"), np.ones(4, "float32")
    e = tfig.explain(model, x, tfig.Conductance(steps=200), layer="h", baseline=start)
    flow = np.zeros((2, 5))
    steps = 2000
    for k in range(steps):
        low, high, middle = (np.tanh((start + t / steps * (x - start)) @ a) for t in (k, k + 1, k + 0.5))
        out = 1 / (1 + np.exp(-middle @ b))
        flow += out * (1 - out) * b[:, 0] * (high - low)
    np.testing.assert_allclose(e.attributions, flow, atol=1e-4)
    assert np.abs(e.convergence_delta).max() < 1e-4


def test_roundings_of_the_score_move_no_node_across_a_kink():
    """A constant rounds the score to fewer bits: the same map in nearly every row, of a score with 20,000 kinks."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 20000)).astype("float32")
    offsets, slopes = rng.normal(size=(2, 20000)).astype("float32")
    x = rng.normal(size=(300, 6)).astype("float32")

    def rough(x):
        return tf.linalg.matvec(tf.nn.relu(tf.matmul(x, weights) + offsets), slopes) / 100

    plain, shifted = (tfig.explain(score, x, "integrated_gradients") for score in (rough, lambda x: rough(x) + 1.0))
    apart = np.abs(plain.attributions - shifted.attributions).max(1) / np.abs(plain.attributions).max(1)
    assert (apart > 1e-5).mean() < 0.005
