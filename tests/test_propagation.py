"""Relevance and differences passed back by rules: golden numbers, literal twins, exact identities."""

import weakref

import numpy as np
import pytest
import tensorflow as tf
from conftest import error, golden_model
from keras import layers as L

import tfig
from tfig import rules
from tfig.kernels import difference

RULES = {
    "lrp_epsilon/1e-6": rules.Epsilon(1e-6),
    "lrp_epsilon/0.25": rules.Epsilon(0.25),
    "lrp_gamma/0.25": rules.Gamma(0.25),
    "lrp_alphabeta/2_1": rules.AlphaBeta(2, 1),
    "lrp_zplus": rules.ZPlus(),
}


@pytest.mark.parametrize("key", RULES)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_lrp_golden(name, key):
    model, numbers = golden_model(name)
    e = tfig.explain(model, numbers["x"], tfig.LRP(RULES[key], start="one"), target=numbers["target"], output="logits")
    assert error(e.attributions, numbers[f"{key}/onehot"]) <= 1e-4


@pytest.mark.parametrize("rule", ["guided_backprop", "deconvnet"])
def test_rectified_golden(golden, rule):
    model, numbers = golden
    e = tfig.explain(model, numbers["x"], rule, target=numbers["target"], output="logits")
    assert error(e.attributions, numbers[f"{rule}/logit"]) <= 1e-4


def winner_takes_all(self, layer, call, x):
    """Max pooling by the plain gradient at x, which is what the reference numbers do."""
    states, carriers = self._split(x)
    index = difference._winners(layer, tf.split(states, 2)[0])
    y = call(states)

    def taken(one):
        shape = tf.shape(tf.split(y, 2)[0])
        return tf.reshape(tf.gather(tf.reshape(one, [tf.shape(one)[0], -1]), index, batch_dims=1), shape)

    return self._joined(y, [taken(one) for one in carriers])


def test_deeplift_golden(golden, monkeypatch):
    """On purpose, max pooling differs: cross-maxima keep the sum, which the reference numbers of the cnn miss."""
    model, numbers = golden
    asked = {"target": numbers["target"], "output": "logits"}
    if any(isinstance(layer, L.MaxPooling2D) for layer in model.layers):
        e = tfig.explain(model, numbers["x"], "deeplift", baseline=numbers["baseline"], **asked)
        gap = e.score - e.baseline_score
        assert np.abs(e.attributions.sum((1, 2, 3)) - gap).max() <= 1e-6
        assert np.abs(numbers["deeplift_rescale/logit"].sum((1, 2, 3)) - gap).max() > 0.01
        monkeypatch.setattr(difference.Differences, "maximum", winner_takes_all)
        monkeypatch.setattr("tfig.program._programs", weakref.WeakKeyDictionary())
    e = tfig.explain(model, numbers["x"], "deeplift", baseline=numbers["baseline"], **asked)
    assert error(e.attributions, numbers["deeplift_rescale/logit"]) <= 1e-4
    references = tfig.baselines.Dataset(numbers["references"])
    for method in ("deepshap", "deeplift"):
        e = tfig.explain(model, numbers["x"], method, baseline=references, **asked)
        assert error(e.attributions, numbers["deepshap/logit"]) <= 1e-4


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_deeplift_sums_to_the_difference(golden, rule, output):
    model, numbers = golden
    e = tfig.explain(model, numbers["x"], tfig.DeepLIFT(rule), output=output, baseline=numbers["baseline"])
    difference = np.abs(e.score - e.baseline_score)
    assert (np.abs(e.convergence_delta) <= 1e-4 * np.maximum(difference, 0.01)).all()
