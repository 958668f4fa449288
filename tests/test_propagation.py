"""Relevance and differences passed back by rules: golden numbers, literal twins, exact identities."""

import itertools
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import error, golden_model
from keras import layers as L
from reference import deeplift, lrp

import tfig
from tfig import anatomy, rules
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


def winner_takes_all(self, op, above, free):
    """Max pooling by the plain gradient at x, which is what the reference numbers do."""
    return anatomy.pull(op, above, free)


def test_deeplift_golden(golden, monkeypatch):
    """On purpose, max pooling differs: cross-maxima keep the sum, which the reference numbers of the cnn miss."""
    model, numbers = golden
    asked = {"target": numbers["target"], "output": "logits"}
    if any(isinstance(layer, L.MaxPooling2D) for layer in model.layers):
        e = tfig.explain(model, numbers["x"], "deeplift", baseline=numbers["baseline"], **asked)
        gap = e.score - e.baseline_score
        assert np.abs(e.attributions.sum((1, 2, 3)) - gap).max() <= 1e-6
        assert np.abs(numbers["deeplift_rescale/logit"].sum((1, 2, 3)) - gap).max() > 0.01
        monkeypatch.setattr(difference.Differences, "_chosen", winner_takes_all)
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


def mlp(bias=True, sizes=(5, 6, 4, 3), seed=0):
    """A network of dense ReLU layers, and its weights as arrays."""
    rng = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((sizes[0],))])
    arrays = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        model.add(L.Dense(b, activation="relu" if i < len(sizes) - 2 else None, name=f"dense{i}"))
        arrays.append((rng.normal(size=(a, b)), rng.normal(size=b) * bias))
    model.set_weights([part.astype("float32") for pair in arrays for part in pair])
    return model, arrays, rng.normal(size=(4, sizes[0])).astype("float32")


TWINS = {
    "epsilon": (rules.Epsilon(0.25), ("epsilon", 0.25)),
    "gamma": (rules.Gamma(0.5), ("gamma", 0.5)),
    "alpha_beta": (rules.AlphaBeta(2, 1), ("alpha_beta", 2, 1)),
    "z_plus": (rules.ZPlus(), ("alpha_beta", 1, 0)),
    "w_square": (rules.WSquare(), ("w_square",)),
    "flat": (rules.Flat(), ("flat",)),
    "z_box": (rules.ZBox(-3, 3), ("z_box", -3, 3)),
}


@pytest.mark.parametrize("first", TWINS)
def test_lrp_against_the_literal_twin(first):
    model, arrays, x = mlp()
    rule, literal = TWINS[first]
    inner, inner_literal = TWINS["gamma" if first == "epsilon" else "epsilon"]
    e = tfig.explain(model, x, tfig.LRP({"dense0": rule, L.Dense: inner}), target=1)
    twin = [lrp.relevance(row, arrays, 1, [literal, inner_literal, inner_literal]) for row in x]
    assert error(e.attributions, np.stack(twin)) <= 1e-4


def test_deep_taylor_against_the_literal_twin():
    model, arrays, x = mlp(bias=False)
    for method, first in ((tfig.DeepTaylor(), ("w_square",)), (tfig.DeepTaylor(-3, 3), ("z_box", -3, 3))):
        e = tfig.explain(model, x, method)
        plus = ("alpha_beta", 1, 0)
        assert (e.score > 0).sum() >= 2
        twin = [lrp.relevance(row, arrays, c, [first, plus, plus]) for row, c in zip(x, e.target, strict=True)]
        twin = np.stack(twin) * (e.score > 0)[:, None]  # relevance starts with max(F, 0)
        assert error(e.attributions, twin) <= 1e-4 and (e.attributions >= 0).all()


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_deeplift_against_the_literal_twin(rule):
    model, arrays, x = mlp()
    x0 = np.random.default_rng(3).normal(size=x.shape).astype("float32")
    e = tfig.explain(model, x, tfig.DeepLIFT(rule), target=1, baseline=x0)
    twin = [deeplift.contributions(a, b, arrays, 1, rule == "reveal_cancel") for a, b in zip(x, x0, strict=True)]
    assert error(e.attributions, np.stack(twin)) <= 1e-4


def every_layer_kind():
    """Bias-free networks of one kind of linear layer each, ReLUs given as argument, layer and operation."""
    image = keras.Input((8, 8, 3))
    wide = {"use_bias": False, "padding": "same"}
    h = L.Conv2D(4, 3, strides=2, activation="relu", **wide)(image)
    h = L.ReLU()(L.DepthwiseConv2D(3, depth_multiplier=2, **wide)(h))
    h = keras.ops.relu(L.SeparableConv2D(6, 3, **wide)(h))
    h = L.ZeroPadding2D(1)(L.Dropout(0.3)(h))
    h = L.Activation("relu")(L.Conv2DTranspose(5, 3, strides=2, **wide)(h))
    h = L.Concatenate()([h, L.UpSampling2D(2)(L.AveragePooling2D(2)(h))])
    h = L.MaxPooling2D(2)(h)
    h = L.Add()([h, L.Conv2D(10, 1, activation="relu", use_bias=False)(h)])
    h = h + L.Conv2D(10, 3, dilation_rate=2, groups=2, **wide)(h)
    h = L.Reshape((-1, 10))(keras.ops.relu(h))
    h = L.Dense(6, activation="relu", use_bias=False)(h)
    h = L.EinsumDense("abc,cd->abd", output_shape=(None, 7), activation="relu")(h)
    h = L.Conv1D(6, 3, padding="causal", use_bias=False, activation="relu")(h)
    yield keras.Model(image, L.Dense(3, use_bias=False)(L.GlobalAveragePooling1D()(h))), zoo.images()
    volume = keras.Input((4, 6, 6, 2))
    h = L.Conv3D(3, 2, use_bias=False, activation="relu")(volume)
    h = L.Conv3DTranspose(3, 2, use_bias=False, activation="relu")(h)
    h = L.Average()([h, h])
    h = L.Flatten()(L.MaxPooling3D(2)(h))
    yield keras.Model(volume, L.Dense(3, use_bias=False)(h)), np.random.default_rng(0).normal(size=(3, 4, 6, 6, 2))
    steps = keras.Input((8, 3))
    h = L.Conv1DTranspose(4, 3, use_bias=False, activation="relu")(steps)
    h = L.SeparableConv1D(5, 3, use_bias=False, activation="relu")(L.Permute((1, 2))(h))
    h = L.DepthwiseConv1D(2, use_bias=False, activation="relu")(L.Cropping1D(1)(h))
    h = L.GlobalMaxPooling1D()(L.AveragePooling1D(2)(h))
    yield keras.Model(steps, L.Dense(3, use_bias=False)(h)), np.random.default_rng(0).normal(size=(3, 8, 3))


@pytest.mark.parametrize("which", range(3))
def test_lrp_0_without_bias_is_gradient_times_input(which):
    keras.utils.set_random_seed(0)
    model, x = list(every_layer_kind())[which]
    x = 1000 * x  # without biases everything scales, and 1e-6 in denominators counts for nothing
    e = tfig.explain(model, x, tfig.LRP(rules.Epsilon(0.0)), target=1)
    expected = tfig.explain(model, x, "gradient_x_input", target=1)
    assert error(e.attributions, expected.attributions) <= 1e-4
    # z+ loses what reaches a unit that nothing raises: between the stages of a separable convolution there are such.
    for composite in ("epsilon_plus", "epsilon_plus_flat") if which == 1 else ():
        total = tfig.explain(model, x, tfig.LRP(composite), target=1)
        axes = tuple(range(1, x.ndim))
        np.testing.assert_allclose(total.attributions.sum(axes), total.score, rtol=1e-2, atol=1e-4)


def test_relevance_is_conserved_layer_by_layer():
    model, _, x = mlp(bias=False)
    for rule in (rules.Epsilon(1e-9), rules.ZPlus(), rules.AlphaBeta(2, 1), rules.Gamma(0.3)):
        for layer in (None, "dense0", "dense1"):
            e = tfig.explain(model, x, tfig.LRP(rule), target=1, layer=layer)
            # z+ and alpha-beta lose what reaches a unit that nothing raises.
            if not isinstance(rule, (rules.ZPlus, rules.AlphaBeta)):
                np.testing.assert_allclose(e.attributions.sum(1), e.score, rtol=1e-3, atol=1e-5)
    e = tfig.explain(model, np.abs(x), tfig.LRP(rules.Flat()), target=1)
    np.testing.assert_allclose(e.attributions, np.broadcast_to(e.score[:, None] / 5, (4, 5)), rtol=1e-4, atol=1e-6)


def folded(model):
    """The network without batch normalisation: scale and shift in the kernels."""
    conv, norm, dense = (model.get_layer(name) for name in ("conv", "norm", "dense"))
    kernel, bias = conv.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    bare = keras.Sequential([
        keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="conv"), L.ReLU(), L.Flatten(), L.Dense(3, name="dense"),
    ])  # fmt: skip
    bare.get_layer("conv").set_weights([kernel * scale, (bias - mean) * scale + beta])
    bare.get_layer("dense").set_weights(dense.get_weights())
    return bare


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "alpha2_beta1", "epsilon_gamma_box"])
def test_batch_normalisation_is_folded(composite):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(), L.Flatten(),
        L.Dense(3, name="dense"),
    ])  # fmt: skip
    rng = np.random.default_rng(1)
    for variable in model.get_layer("norm").variables:
        variable.assign(rng.uniform(0.5, 2, variable.shape))
    x = rng.normal(size=(3, 6, 6, 2)).astype("float32")
    e, plain = (tfig.explain(one, x, tfig.LRP(composite), target=1) for one in (model, folded(model)))
    assert error(e.attributions, plain.attributions) <= 1e-4
    # A scaling before a layer belongs to its inputs.
    before = keras.Sequential([keras.Input((5,)), L.Rescaling(2.0, offset=-1.0), L.Dense(3, name="dense")])
    w, b = rng.normal(size=(5, 3)).astype("float32"), rng.normal(size=3).astype("float32")
    before.set_weights([w, b])
    x = rng.normal(size=(3, 5)).astype("float32")
    e = tfig.explain(before, x, tfig.LRP(rules.Epsilon(0.1)), target=1)
    shift = -w.sum(0)
    z = (2 * x) @ w + shift + b
    expected = 2 * x * w[:, 1] / (z[:, 1:2] + 0.1 * np.sign(z[:, 1:2])) * z[:, 1:2]
    assert error(e.attributions, expected) <= 1e-4


def test_reveal_cancel_shares_a_minimum():
    """min(x1, x2) = x1 - relu(x1 - x2): half of it each, where rescale gives all to one."""
    x = keras.Input((2,))
    h = L.Dense(1, activation="relu", use_bias=False, name="difference")(x)
    model = keras.Model(x, L.Dense(1, use_bias=False, name="rest")(L.Concatenate()([x, h])))
    model.get_layer("difference").set_weights([np.array([[1.0], [-1.0]])])
    model.get_layer("rest").set_weights([np.array([[1.0], [0.0], [-1.0]])])
    points = np.array([[3.0, 2.0], [1.0, 5.0], [4.0, 4.0]], "float32")
    e = tfig.explain(model, points, tfig.DeepLIFT("reveal_cancel"))
    lowest = points.min(1)
    np.testing.assert_allclose(e.score, lowest)
    np.testing.assert_allclose(e.attributions, np.stack([lowest / 2, lowest / 2], 1), atol=1e-6)
    rescaled = tfig.explain(model, points[:1], "deeplift").attributions
    np.testing.assert_allclose(rescaled, [[0.0, 2.0]], atol=1e-6)


def test_rectified_against_the_literal_twin():
    model, arrays, x = mlp()
    (w0, b0), (w1, b1), (w2, _) = arrays
    for name, mask in (("guided_backprop", True), ("deconvnet", False)):
        z0 = x @ w0 + b0
        z1 = np.maximum(z0, 0) @ w1 + b1
        above = np.maximum(np.broadcast_to(w2[:, 1], z1.shape), 0) * ((z1 > 0) if mask else 1)
        above = np.maximum(above @ w1.T, 0) * ((z0 > 0) if mask else 1)
        assert error(tfig.explain(model, x, name, target=1).attributions, above @ w0.T) <= 1e-5


def test_contrasts_and_callables_start_at_what_they_read():
    model, _, x = mlp(bias=False)
    asked = tfig.LRP(rules.Epsilon(1e-9))
    parts = [tfig.explain(model, x, asked, target=unit).attributions for unit in (0, 1)]
    e = tfig.explain(model, x, asked, target=tfig.Contrast(0, 1))
    assert error(e.attributions, parts[0] - parts[1]) <= 1e-4
    e = tfig.explain(model, x, asked, target=lambda y: y[:, 0] - y[:, 1])
    assert error(e.attributions, parts[0] - parts[1]) <= 1e-4
    parts = [tfig.explain(model, x, "deeplift", target=unit).attributions for unit in (0, 1)]
    e = tfig.explain(model, x, "deeplift", target=lambda y: 2 * y[:, 0] - y[:, 1])
    assert error(e.attributions, 2 * parts[0] - parts[1]) <= 1e-4


class Own(keras.Model):
    """Computes with TensorFlow between its layers."""

    def __init__(self, between):
        super().__init__()
        self.first, self.last, self.between = L.Dense(4), L.Dense(2), between

    def call(self, x):
        return self.last(self.between(self.first(x)))


@pytest.mark.parametrize("method", ["lrp", "deep_taylor", "deeplift"])
def test_what_has_no_rule_is_named(method):
    x = zoo.table()
    own = Own(tf.math.cumprod)
    own(x)
    with pytest.raises(ValueError, match=r"no rule for Cumprod \('.*', outside any layer, test_propagation.py:\d+\)"):
        tfig.explain(own, x, method)
    inputs = keras.Input((5,))
    h = L.Lambda(tf.math.cumprod, name="odd")(L.Dense(4)(inputs))
    model = keras.Model(inputs, L.Dense(2, name="last")(h))
    with pytest.raises(ValueError, match=r"no rule for Cumprod .*in 'odd' \(Lambda\)"):
        tfig.explain(model, x, method)
    with pytest.raises(ValueError, match="needs a Keras model"):
        tfig.explain(lambda x: x * 2, x, method)
    # Behind it, there is nothing without a rule.
    assert tfig.explain(model, x, method, layer="odd").attributions.shape == (3, 4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tfig.LRP("epsilon_minus"), "rules is 'epsilon_minus'"),
        (lambda: tfig.LRP({3: rules.Flat()}), "layer names or classes"),
        (lambda: tfig.LRP(3), "rules is 3"),
        (lambda: tfig.LRP(start="zero"), "start is 'zero'"),
        (lambda: rules.AlphaBeta(2, 2), "alpha - beta must be 1"),
        (lambda: tfig.DeepTaylor(low=0), "give both"),
        (lambda: tfig.DeepLIFT("linear"), "rule is 'linear'"),
    ],
)
def test_hyper_parameters_that_cannot_be(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_channels_first_and_shared_layers():
    keras.utils.set_random_seed(0)
    dense = L.Dense(5, activation="relu", use_bias=False)
    x = keras.Input((5,))
    model = keras.Model(x, L.Dense(2, use_bias=False)(dense(dense(x))))
    rows = zoo.table()
    e = tfig.explain(model, rows, tfig.LRP(rules.Epsilon(0.0)), target=1)
    assert error(e.attributions, tfig.explain(model, rows, "gradient_x_input", target=1).attributions) <= 1e-4


# Taylor interactions (Deng et al., Unifying Fourteen Post-Hoc Attribution Methods With Taylor Interactions, 2024): of
# each effect of the expansion at the baseline (a monomial of x - x'), who is given what? (1) nothing of the expansion
# is left out, (2) nothing goes to a variable that is not in it, (3) all of it is given out, once.

VARIABLES = 5
BY_SCORE = {
    "gradient_x_input": tfig.GradientXInput(),
    "occlusion": tfig.Occlusion(),
    "occlusion_patch": tfig.Occlusion(window=2),
    "prediction_difference": tfig.PredictionDifference(samples=1),
    "integrated_gradients": tfig.IntegratedGradients(steps=16, rule="gauss_legendre"),
    "expected_gradients": tfig.ExpectedGradients(samples=4096),
    "shapley": tfig.KernelSHAP(),
}


def monomials():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 4, 5):
        for _ in range(2):
            powers = np.zeros(VARIABLES, int)
            powers[rng.choice(VARIABLES, size, replace=False)] = rng.integers(1, 4, size)
            yield tuple(powers)


def derived_marks(method):
    """(principle 1, 2, 3) as random monomials show them, at the baseline 0."""
    x = np.random.default_rng(1).uniform(0.5, 1.5, (2, VARIABLES))
    zeros = np.zeros((1, VARIABLES))
    takes = method.default_baseline == "dataset"
    bound = 0.02 if method.stochastic else 1e-5
    covered = unrelated = complete = True
    terms = list(monomials())

    def scores(v):  # a class for each
        return tf.stack([tf.reduce_prod(v ** tf.constant(powers, v.dtype), 1) for powers in terms], 1)

    explainer = tfig.Explainer(scores, method, baseline=tfig.baselines.Dataset(zeros) if takes else None)
    for k, powers in enumerate(terms):
        given = explainer(x, target=k).attributions
        value = np.prod(x ** np.array(powers), 1)
        outside = np.array(powers) == 0
        unrelated &= bool(np.abs(given[:, outside]).max(initial=0) <= bound)
        complete &= bool(np.abs(given.sum(1) - value).max() <= bound * np.abs(value).max())
        covered &= bool(np.abs(given).max() > 1e-9)
    return covered, unrelated, complete


@pytest.mark.parametrize("name", BY_SCORE)
def test_taylor_principles_of_methods_that_see_scores(name):
    method = BY_SCORE[name]
    covered, unrelated, complete = derived_marks(method)
    marks = tfig.methods()["occlusion" if name == "occlusion_patch" else method.name].principles
    if name == "occlusion_patch":
        assert (covered, unrelated, complete) == (True, False, False)
    elif name == "gradient_x_input":
        # It reads the slope at x: each monomial is given out as often as its degree, none left at zero.
        assert (unrelated, complete) == (True, False) and marks == "2"
    else:
        shown = "".join(number for number, held in zip("123", (covered, unrelated, complete), strict=True) if held)
        assert shown == marks


@pytest.mark.parametrize("name", ["gradient_x_input", "occlusion", "integrated_gradients", "shapley"])
def test_what_polynomials_are_given_is_the_sum_of_what_their_monomials_are(name):
    """So that the marks, derived on monomials, hold for polynomials."""
    method, terms = BY_SCORE[name], list(monomials())
    weights = np.random.default_rng(2).normal(size=len(terms))
    x = np.random.default_rng(1).uniform(0.5, 1.5, (2, VARIABLES))
    baseline = tfig.baselines.Dataset(np.zeros((1, VARIABLES))) if method.default_baseline == "dataset" else None

    def polynomial(v, chosen):
        return sum(weights[i] * tf.reduce_prod(v ** tf.constant(terms[i], v.dtype), 1) for i in chosen)[:, tf.newaxis]

    def given(chosen):
        return tfig.explain(lambda v: polynomial(v, chosen), x, method, baseline=baseline).attributions

    assert error(given(range(10)), given(range(5)) + given(range(5, 10))) <= 1e-4


def test_taylor_principles_of_grad_cam():
    """Of features: first-order effects completely, each at its own position; of others, as often as their degree."""
    maps = np.random.default_rng(0).uniform(0.1, 1, (2, 4, 4, 3)).astype("float32")
    maps[:, 0, 0] = 0
    image = keras.Input((4, 4, 3))
    features = L.Activation("linear", name="maps")(image)
    for powers in ((1, 0, 0), (0, 2, 0), (1, 0, 2)):

        def score(pooled, powers=powers):
            return keras.ops.prod(pooled ** np.array(powers, "float32"), axis=1, keepdims=True)

        model = keras.Model(image, L.Lambda(score)(L.GlobalAveragePooling2D()(features)))
        e = tfig.explain(model, maps, tfig.GradCAM(), layer="maps")
        np.testing.assert_allclose(e.attributions.sum((1, 2, 3)), sum(powers) * e.score, rtol=1e-5)
        assert (e.attributions[:, 0, 0] == 0).all()
    assert tfig.methods()["grad_cam"].principles == "23"  # of the first order in features: the rest is left out


@pytest.mark.parametrize(
    ("name", "method"),
    [("deeplift", tfig.DeepLIFT()), ("deeplift", tfig.DeepLIFT("reveal_cancel")), ("deepshap", tfig.DeepSHAP()),
     ("lrp", tfig.LRP(rules.Epsilon(1e-9))), ("lrp", tfig.LRP(rules.AlphaBeta(2, 1))),
     ("deep_taylor", tfig.DeepTaylor())],
)  # fmt: skip
def test_taylor_principles_of_rules(name, method):
    """On a unit without bias, at the baseline 0: does what one input adds alone go to another?"""
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, activation="relu"), L.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0], [-1.0]]), np.zeros(1), np.ones((1, 1))])
    x = np.array([[2.0, 1.0], [2.0, 0.5]], "float32")  # the second input alone lowers the unit
    baseline = tfig.baselines.Dataset(np.zeros((1, 2), "float32")) if name == "deepshap" else None
    e = tfig.explain(model, x, method, baseline=baseline)
    if name in ("deeplift", "deepshap") or method == tfig.LRP(rules.Epsilon(1e-9)):
        np.testing.assert_allclose(e.attributions.sum(1), e.score, rtol=1e-5)  # all of it, once
        if method != tfig.DeepLIFT("reveal_cancel"):
            np.testing.assert_allclose(e.attributions, x * [[1, -1]], rtol=1e-5)  # each its own
    else:
        # The first input, the same in both rows, is given what the second does on its own.
        assert abs(e.attributions[0, 0] - e.attributions[1, 0]) > 0.1
    marks = tfig.methods()[name].principles
    assert marks == {"lrp": "23", "deep_taylor": "13"}.get(name, "123")


def test_a_bias_takes_what_lrp_gives():
    """Which is why LRP-epsilon does not keep the first principle."""
    model = keras.Sequential([keras.Input((2,)), L.Dense(1)])
    model.set_weights([np.ones((2, 1)), np.array([5.0])])
    e = tfig.explain(model, np.ones((1, 2), "float32"), tfig.LRP("epsilon"))
    assert abs(e.attributions.sum() - (e.score[0] - 5.0)) < 1e-4 < e.score[0]


def test_a_normalisation_of_another_axis_is_not_folded_into_channels():
    keras.utils.set_random_seed(0)
    image = keras.Input((7, 5, 2))
    h = L.BatchNormalization(axis=1)(L.Conv2D(7, 3, padding="same")(image))
    model = keras.Model(image, L.Dense(3)(L.Flatten()(L.ReLU()(h))))
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 2)).astype("float32")
    with pytest.raises(ValueError, match=r"folds 'batch_normalization\w*' into 'conv2d\w*'.*another axis"):
        tfig.explain(model, x, "lrp")
    behind = L.Conv2D(4, 3, padding="same")(L.BatchNormalization(axis=1)(image))  # folded into what is behind it
    model = keras.Model(image, L.Dense(3)(L.Flatten()(behind)))
    assert np.isfinite(tfig.explain(model, x, "lrp").attributions).all()


def test_names_in_a_mapping_must_be_layers():
    model, x = zoo.build("nested"), zoo.images()
    for key in ("cnv", "backbone/conv", "backbone"):
        with pytest.raises(ValueError, match=rf"rules names '{key}'.*did you mean.*'conv'"):
            tfig.explain(model, x, tfig.LRP({key: rules.Flat()}))
    mapped = tfig.explain(model, x, tfig.LRP({"conv": rules.Flat(), L.LSTM: rules.ZPlus()}))
    assert np.abs(mapped.attributions - tfig.explain(model, x, tfig.LRP(rules.Epsilon())).attributions).max() > 1e-4


def test_rules_take_whole_numbers_and_refuse_what_makes_no_sense():
    model, _, x = mlp()
    same = [tfig.explain(model, x, tfig.LRP(rules.Epsilon(number))).attributions for number in (1, 1.0)]
    np.testing.assert_array_equal(*same)
    for make in (
        lambda: rules.Epsilon(-1),
        lambda: rules.Epsilon("a"),
        lambda: rules.Epsilon(float("nan")),
        lambda: rules.Gamma(-0.1),
    ):
        with pytest.raises(ValueError, match="must be a number, and at least 0"):
            make()
    for make in (lambda: rules.ZBox(1, 0), lambda: tfig.DeepTaylor(1.0, 0.0)):
        with pytest.raises(ValueError, match="low must be below high"):
            make()


def ending(h, seed=0):
    """A normalisation and a head with weights that depend on nothing else."""
    return L.Dense(3, name="head", kernel_initializer=keras.initializers.GlorotUniform(seed))(L.Flatten()(h))


CHAIN = {
    "negation": lambda z: keras.ops.negative(-z),
    "padding": L.ZeroPadding2D(0),
    "factor": lambda z: z * 1.0,
    "quotient": lambda z: z / 1.0,
    "sum": lambda z: z + 0.0,
}


@pytest.mark.parametrize("rules", ["epsilon", "epsilon_gamma_box", "alpha2_beta1_flat", rules.WSquare()])
def test_scalings_fold_through_what_changes_nothing(rules):
    """A Rescaling folds into the convolution behind it, a normalisation into the one before it, whatever is between."""
    glorot = keras.initializers.GlorotUniform
    x = np.random.default_rng(0).uniform(size=(2, 7, 7, 3)).astype("float32")

    def build(first=None, second=None):
        inputs = keras.Input((7, 7, 3))
        h = CHAIN.get(first, lambda z: z)(L.Rescaling(2.0, offset=-1.0)(inputs))
        h = CHAIN.get(second, lambda z: z)(L.Conv2D(4, 3, kernel_initializer=glorot(1), bias_initializer=glorot(4))(h))
        norm = L.BatchNormalization(
            moving_mean_initializer=keras.initializers.RandomUniform(0, 1, 2),
            moving_variance_initializer=keras.initializers.RandomUniform(0.5, 1.5, 3),
        )
        return keras.Model(inputs, ending(L.ReLU()(norm(h))))

    expected = tfig.explain(build(), x, tfig.LRP(rules), target=1).attributions
    for places in zip(CHAIN, [*CHAIN][1:] + [*CHAIN][:1], strict=True):
        found = tfig.explain(build(*places), x, tfig.LRP(rules), target=1).attributions
        assert error(found, expected) <= 1e-5, places


def test_relevance_passes_through_a_negation():
    """-x hands on what it is given: of a linear model LRP-0 is the gradient times the input."""
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    inputs = keras.Input((5,))
    model = keras.Model(inputs, L.Dense(2, use_bias=False)(-L.Dense(4, use_bias=False)(inputs)))
    e = tfig.explain(model, x, tfig.LRP(rules.Epsilon(0)), target=1)
    assert error(e.attributions, tfig.explain(model, x, "gradient_x_input", target=1).attributions) <= 1e-4
    for cancel in ("rescale", "reveal_cancel"):
        h = L.Dense(6, activation="relu")(keras.ops.negative(L.Dense(6, activation="relu")(inputs)))
        deep = keras.Model(inputs, L.Dense(2)(h))
        assert np.abs(tfig.explain(deep, x, tfig.DeepLIFT(cancel), target=1).convergence_delta).max() <= 1e-5


def test_w_square_is_of_the_folded_weights():
    """Behind a normalisation of the inputs w is w times its scale."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 4)).astype("float32"), rng.normal(size=(4, 3)).astype("float32")
    norm = L.Normalization(mean=[0.0] * 4, variance=[0.01, 1.0, 4.0, 100.0])
    model = keras.Sequential([keras.Input((4,)), norm, L.Dense(3, use_bias=False)])
    model.layers[-1].set_weights([kernel])
    e = tfig.explain(model, x, tfig.LRP(rules.WSquare(), start="one"), target=2)
    squares = (kernel[:, 2] / np.sqrt([0.01, 1.0, 4.0, 100.0])) ** 2
    np.testing.assert_allclose(e.attributions, np.tile(squares / squares.sum(), (2, 1)), rtol=1e-5)


def centred(z):
    return z - keras.ops.mean(z, -1, keepdims=True)


def test_what_stands_between_layers_passes_what_it_is_given():
    """Values that a stopped gradient, a function of the user's or a mean hands on are those of the plain network."""
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32")
    held, plain = Own(tf.stop_gradient), Own(tf.identity)
    for model in (held, plain):
        model(x)
    plain.set_weights(held.get_weights())
    for method in ("lrp", "deeplift"):
        maps = [tfig.explain(model, x, method, target=1).attributions for model in (held, plain)]
        assert error(*maps) <= 1e-6
    swish = lambda z: z * keras.ops.sigmoid(1.7 * z)  # noqa: E731
    for between in (centred, swish, "log_softmax"):
        for layers in ([L.Dense(4), L.Activation(between)], [L.Dense(4, activation=between)]):
            model = keras.Sequential([keras.Input((5,)), *layers, L.Dense(2)])
            assert np.abs(tfig.explain(model, x, "deeplift", target=1).convergence_delta).max() <= 1e-5
    linear = Own(centred)
    linear(x)
    e = tfig.explain(linear, x, tfig.LRP(rules.Epsilon(0)), target=1)
    assert error(e.attributions, tfig.explain(linear, x, "gradient_x_input", target=1).attributions) <= 1e-4


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_deeplift_beside_a_branch_that_is_held(rule):
    """What is joined but not explained has no difference to carry."""
    keras.utils.set_random_seed(3)
    a, b = keras.Input((5,), name="a"), keras.Input((3,), name="b", dtype="int32")
    h = L.Concatenate()([L.Dense(4, activation="relu")(a), keras.ops.cast(b, "float32")])
    h = L.MaxPooling1D(2)(L.Reshape((7, 1))(h)) if rule == "rescale" else L.Dense(6, activation="tanh")(h)
    h = L.Flatten()(h)
    model = keras.Model([a, b], L.Dense(2)(L.Dense(6, activation="tanh")(h)))
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(4, 5)).astype("float32"), rng.integers(-5, 1, (4, 3))]
    e = tfig.explain(model, x, tfig.DeepLIFT(rule), target=0)
    assert np.abs(e.convergence_delta).max() <= 1e-5 and np.abs(e.score - e.baseline_score).max() > 1e-3


def test_rules_do_not_depend_on_the_unit_of_the_input():
    """Without biases a network of ReLUs scales along, and so must its maps, down to inputs of 1e-6."""
    keras.utils.set_random_seed(0)
    layers = [L.Dense(8, activation="relu", use_bias=False) for _ in range(2)]
    model = keras.Sequential([keras.Input((6,)), *layers, L.Dense(3, use_bias=False)])
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    methods = [tfig.LRP(name) for name in ("epsilon", "alpha2_beta1", "epsilon_gamma_box")]
    for method in (
        *methods,
        tfig.LRP(rules.Gamma()),
        tfig.DeepTaylor(),
        tfig.DeepLIFT(),
        tfig.DeepLIFT("reveal_cancel"),
    ):
        large, small = (tfig.explain(model, rows, method, target=1).attributions for rows in (x, x * 2.0**-20))
        assert error(small * 2.0**20, large) <= 5e-4


def test_a_saturated_relu6_passes_nothing_back():
    x = np.array([[1.0, 2.0]], "float32")
    model = keras.Sequential([keras.Input((2,)), L.Dense(2, activation="relu6"), L.Dense(1)])
    model.set_weights([np.array([[10, 1], [0, 1]]), np.zeros(2), np.ones((2, 1)), np.zeros(1)])
    np.testing.assert_allclose(tfig.explain(model, x, "guided_backprop").attributions, [[1, 1]])


def test_float16_neither_vanishes_nor_overflows():
    """Slopes of 300 fit into half precision; 2**8 times them do not."""
    policy = {"dtype": "mixed_float16"}
    layers = [L.Dense(8, activation="relu", **policy), L.Dense(3, **policy), L.Activation("linear", dtype="float32")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    wide = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu"), L.Dense(3)])
    for network in (model, wide):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        network.set_weights([rng.normal(size=(6, 8)), np.zeros(8), rng.normal(size=(8, 3)) * 600, np.zeros(3)])
    x = np.random.default_rng(1).normal(size=(3, 6)).astype("float32")
    for method in ("gradient", "integrated_gradients", "smoothgrad", "lrp", "deeplift"):
        half, whole = (tfig.explain(network, x, method, target=1).attributions for network in (model, wide))
        assert np.isfinite(half).all() and error(half, whole) <= 0.05, method


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lrp_0_is_gradient_times_input_through_sums_that_cancel(dtype):
    named = {"use_bias": False, "dtype": dtype}
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,), dtype=dtype)
    h = L.Dense(16, activation="relu", **named)(inputs)
    h = L.Dense(16, activation="relu", **named)(L.Add(dtype=dtype)([h, h * -0.99]))
    model = keras.Model(inputs, L.Dense(3, **named)(h))
    x = np.random.default_rng(0).normal(size=(4, 10))
    for scale in (1.0, 1e-4):
        expected = tfig.explain(model, x * scale, "gradient_x_input", target=1).attributions
        found = tfig.explain(model, x * scale, tfig.LRP(rules.Epsilon(0)), target=1).attributions
        assert error(found, expected) <= (1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize(
    "rule", [rules.WSquare(), rules.Flat(), rules.ZBox(), rules.Gamma(), rules.AlphaBeta(), rules.ZPlus()]
)
def test_rules_in_float64(rule):
    x = np.random.default_rng(0).normal(size=(3, 6))
    found = []
    for dtype in ("float32", "float64"):
        keras.utils.set_random_seed(0)
        layers = [L.Dense(8, activation="relu", dtype=dtype), L.Dense(3, dtype=dtype)]
        model = keras.Sequential([keras.Input((6,), dtype=dtype), *layers])
        model.set_weights([np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(model.get_weights())])
        found.append(tfig.explain(model, x, tfig.LRP(rule), target=1).attributions)
    assert found[1].dtype == np.float64 and error(found[0], found[1]) <= 1e-5
