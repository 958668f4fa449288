"""SmoothGrad and its kin against literal loops over the same noise."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import golden_model

import tfig
from tfig.kernels.expectation import normal, over_noise, spread, uniform
from tfig.problem import Problem


def test_smoothgrad_with_one_sample_and_no_noise_is_the_inner_method():
    model, numbers = golden_model("cnn")
    asked = {"target": numbers["target"], "output": "logits", "baseline": numbers["baseline"]}
    for inner in (tfig.Gradient(), tfig.IntegratedGradients(steps=8)):
        plain = tfig.explain(model, numbers["x"], inner, **asked).attributions
        smooth = tfig.explain(model, numbers["x"], tfig.SmoothGrad(inner, samples=3, noise=0.0), **asked).attributions
        square = tfig.explain(model, numbers["x"], tfig.SquareGrad(inner, samples=3, noise=0.0), **asked).attributions
        varied = tfig.explain(model, numbers["x"], tfig.VarGrad(inner, samples=3, noise=0.0), **asked).attributions
        np.testing.assert_allclose(smooth, plain, atol=1e-6)
        np.testing.assert_allclose(square, plain**2, atol=1e-6)
        np.testing.assert_allclose(varied, 0, atol=1e-6)


X = np.array([[1.0, 3.0], [-2.0, 0.0], [0.5, 0.5]])


def test_moments_of_a_quadratic_score():
    """F = sum x**2 has gradient 2 (x + s e): mean 2x, mean square 4 (x**2 + s**2), variance 4 s**2, s = 0.1 range."""
    score = lambda x: tf.reduce_sum(x**2, -1)  # noqa: E731
    samples = 20_000
    s = 0.1 * (X.max(1) - X.min(1))[:, None]
    found = {
        kind.name: tfig.explain(score, X, kind(samples=samples, noise=0.1), batch_size=4096).attributions
        for kind in (tfig.SmoothGrad, tfig.SquareGrad, tfig.VarGrad)
    }
    bound = 5 / np.sqrt(samples)
    np.testing.assert_allclose(found["smoothgrad"], 2 * X, atol=2 * 0.2 * bound)
    np.testing.assert_allclose(found["vargrad"], 4 * s**2 * np.ones(2), atol=4 * 0.04 * np.sqrt(2) * bound)
    np.testing.assert_allclose(found["squaregrad"], 4 * (X**2 + s**2), atol=3 * bound)
    # A row without range has no noise.
    np.testing.assert_allclose(found["vargrad"][2], 0, atol=1e-12)
    # The three share their noise: the identity holds draw by draw, not only on average.
    np.testing.assert_allclose(found["vargrad"], found["squaregrad"] - found["smoothgrad"] ** 2, atol=1e-6)


def test_more_samples_than_fit_a_chunk_change_nothing():
    model, numbers = golden_model("cnn")
    method = tfig.SmoothGrad(tfig.IntegratedGradients(steps=5), samples=7)
    asked = {"target": numbers["target"], "output": "logits", "seed": 3}
    wide = tfig.explain(model, numbers["x"], method, batch_size=256, **asked).attributions
    narrow = tfig.explain(model, numbers["x"], method, batch_size=4, **asked).attributions
    np.testing.assert_allclose(wide, narrow, atol=1e-5 * np.abs(wide).max())


def test_seeds_belong_to_rows():
    model, numbers = golden_model("mlp")
    x = np.repeat(numbers["x"][:1], 3, 0)
    e = tfig.explain(model, x, "smoothgrad", target=0, seed=[1, 2, 1])
    np.testing.assert_allclose(e.attributions[0], e.attributions[2], rtol=1e-4)
    assert np.abs(e.attributions[0] - e.attributions[1]).max() > 1e-3 * np.abs(e.attributions).max()


def test_smoothed_conductance_puts_noise_on_the_input():
    model, numbers = golden_model("mlp")
    asked = {"target": numbers["target"], "output": "logits", "layer": "dense1", "baseline": numbers["baseline"]}
    method = tfig.Conductance(steps=8)
    plain = tfig.explain(model, numbers["x"], method, **asked).attributions
    none = tfig.explain(model, numbers["x"], tfig.SmoothGrad(method, samples=2, noise=0.0), **asked).attributions
    some = tfig.explain(model, numbers["x"], tfig.SmoothGrad(method, samples=2, noise=0.3), **asked).attributions
    np.testing.assert_allclose(none, plain, atol=1e-6)
    assert np.abs(some - plain).max() > 1e-3


@pytest.mark.parametrize("bad", [{"samples": 0}, {"noise": -1.0}, {"inner": "gradient"}])
def test_bad_parameters(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        tfig.SmoothGrad(**bad)


def test_what_an_inner_method_draws_does_not_repeat_the_noise():
    x = tf.random.stateless_normal([2, 500], [1, 2])
    problem = Problem(None, (x,), (), tf.constant([[3, 0], [4, 0]]), tf.constant(8))

    class Nothing:
        def take(self, rows):
            return self

    def term(p, row):
        first = tf.zeros_like(p.seed[:, 0])
        return (p.x[0] - tf.gather(x, row)) / tf.gather(spread(x), row)[:, None], normal(p.seed, first, p.x[0])

    noise, inner = over_noise(problem.replace(score=Nothing()), 1, 1.0, (x, x), term, at_source=False)
    assert abs(np.corrcoef(np.ravel(noise), np.ravel(inner))[0, 1]) < 0.15
    assert abs(np.std(noise) - 1) < 0.15


def test_uniform_numbers_are_the_literal_generator_s():
    def mixed(bits):
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        return bits ^ bits >> 31

    seeds, samples = [[-2, 5], [-1, 0], [3, 7], [2**31 - 1, -9]], [0, 100_000, -3, 8]
    found = uniform(tf.constant(seeds), tf.constant(samples), tf.zeros([4, 3, 7]))
    for row, (own, stream), sample in zip(found.numpy(), seeds, samples, strict=True):
        wrapped = (stream * 1_000_003 + sample + 1 + 2**31) % 2**32 - 2**31  # as 32 bits do
        begin = mixed((own * 2**32 + wrapped) % 2**64)
        bits = [mixed((begin + k * 0x9E3779B97F4A7C15) % 2**64) >> 40 for k in range(1, 22)]
        np.testing.assert_array_equal(row.ravel(), np.array(bits) * 2.0**-24)
