"""The promises every method keeps, on every kind of model."""

import functools
import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from placement import lacking

import tfig
from tfig import entry
from tfig.methods import REGISTRY

# Small hyper-parameters: the promises do not depend on them.
SMALL = {
    "integrated_gradients": tfig.IntegratedGradients(steps=16),
    "expected_gradients": tfig.ExpectedGradients(samples=64),
    "smoothgrad": tfig.SmoothGrad(samples=8),
    "squaregrad": tfig.SquareGrad(samples=8),
    "vargrad": tfig.VarGrad(samples=8),
    "conductance": tfig.Conductance(steps=16),
    "internal_influence": tfig.InternalInfluence(steps=16),
    "occlusion": tfig.Occlusion(window=3, strides=2),
    "feature_ablation": tfig.FeatureAblation(segments=4),
    "prediction_difference": tfig.PredictionDifference(samples=4, segments=2),
    "shapley_sampling": tfig.ShapleySampling(samples=4, segments=2),
    "kernel_shap": tfig.KernelSHAP(samples=64, segments=2),
    "lime": tfig.LIME(samples=64, segments=2),
    "rise": tfig.RISE(samples=64, cells=3),
    "qii": tfig.QII(samples=4, segments=2),
    "guided_ig": tfig.GuidedIG(steps=64),
    "blur_ig": tfig.BlurIG(steps=16, max_sigma=4),
    "xrai": tfig.XRAI(steps=4, min_pixels=2, segments=np.add.outer(np.arange(8) // 2 * 4, np.arange(8) // 2)),
    "boundary_ig": tfig.BoundaryIG(steps=16),
    "igos_plus_plus": tfig.IGOSPlusPlus(resolution=4, iterations=2, steps=3),
    "meaningful_perturbation": tfig.MeaningfulPerturbation(resolution=4, iterations=5, blur=1),
    "igos": tfig.IGOS(resolution=4, iterations=3, steps=4),
}
METHODS = {name: SMALL.get(name, kind()) for name, kind in REGISTRY.items()}
EPS = np.finfo("float32").eps
MOVES_THE_INPUT = ("conductance", "internal_influence")
ONE_CHANNEL = (
    "igos", "occlusion", "feature_ablation", "prediction_difference", "shapley_sampling", "kernel_shap", "lime", "rise",
    "qii", "xrai", "igos_plus_plus", "meaningful_perturbation", "attention_rollout", "gradient_weighted_attention",
)  # fmt: skip
MASKS = ("igos", "igos_plus_plus", "meaningful_perturbation")
ATTENDING = ("attention_rollout", "gradient_weighted_attention")
RECTIFIED = ("guided_backprop", "deconvnet")
# Layers without feature maps, and models that end otherwise than class activation mapping is defined for.
CAMS = {
    **{(name, None): "needs feature maps" for name in ("shared", "smooth", "regression")},
    **{(name, "cam"): "here follow" for name in ("skips", "nested", "subclassed", "two_outputs", "tokens", "normalised",
                                                "one_unit", "recurrent")},
    **{(name, "score_cam"): "has others" for name in ("tokens", "recurrent", "attention", "two_inputs")},
    **{(name, "guided_grad_cam"): "takes others" for name in ("tokens", "recurrent", "attention", "two_inputs")},
}  # fmt: skip
NO_RELU = ("shared", "attention", "recurrent", "regression")


@functools.lru_cache(1)  # cases come model by model; programs of those that are over are much to go through
def model_of(name):
    return zoo.build(name)


def rows_of(x, index):
    return tf.nest.map_structure(lambda leaf: leaf[index], x)


def asked(case, method):
    arguments = dict(case.arguments)
    if method.needs_layer:
        arguments["layer"] = case.layer
    if method.default_baseline == "dataset":
        arguments["baseline"] = tfig.baselines.Dataset(rows_of(case.x, slice(0, 2)))
    return arguments


def close(found, expected, bound, unit):
    """To `bound` of the largest value, and to the rounding of `unit`: a map is made of differences of what has it."""
    return np.abs(found - expected).max() <= bound * np.abs(expected).max() + 8 * EPS * unit


# These differ from another method over the same kernel in nothing that depends on the kind of model.
SLOW = (
    "igos_plus_plus", "meaningful_perturbation", "boundary_ig", "qii", "lime", "deconvnet", "squaregrad", "vargrad",
    "feature_ablation", "kernel_shap", "grad_cam_plus_plus", "layer_cam",
    # These see scores alone, which the others ask of every kind.
    "occlusion", "prediction_difference", "shapley_sampling", "rise",
    "internal_influence", "deepshap", "blur_ig", "score_cam", "guided_grad_cam", "deep_taylor",
)  # fmt: skip
SLOWEST = ("igos_plus_plus", "meaningful_perturbation")
FEW = ("sequential", "two_inputs")
# These end, or are put together, otherwise than others, and that meets all methods of a kernel alike.
LIKE = ("shared", "one_unit", "regression", "normalised", "nested", "two_outputs", "recurrent", "attention", "half")
ALIKE = (
    "gradient_x_input", "expected_gradients", "conductance", "igos", "guided_ig", "xrai", "smoothgrad",
    "guided_backprop", "cam",
)  # fmt: skip
CASES = [
    (name, method)
    for name in zoo.ZOO
    for method in METHODS
    if (name in FEW[:1] if method in SLOWEST else name in FEW if method in SLOW else name not in LIKE)
    or method not in (*SLOW, *ALIKE)
]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_promises(name, method):
    case, method, model = zoo.ZOO[name], METHODS[method], model_of(name)
    arguments = asked(case, method)
    if name == "tokens" and method.name in MOVES_THE_INPUT:
        with pytest.raises(ValueError, match="moves the model's float input"):
            tfig.explain(model, case.x, method, **arguments)
        return
    refused = None
    if method.name in RECTIFIED and name in NO_RELU:
        refused = "the model has none"
    if method.name in ATTENDING and name != "attention":
        refused = "needs tokens|has none"
    if method.name == "blur_ig" and name in ("shared", "smooth", "regression"):
        refused = "needs spatial axes"
    if method.name == "xrai" and np.ndim(case.x) != 4:
        refused = "one image"
    if method.name == "boundary_ig" and name == "regression":
        refused = "needs a classifier"
    if method.picks_layer:
        refused = CAMS.get((name, None), CAMS.get((name, method.name)))
    if refused:
        with pytest.raises(ValueError, match=refused):
            tfig.explain(model, case.x, method, **arguments)
        return
    before = [variable.numpy() for variable in model.variables]
    flags = [(layer.trainable, "call" in vars(layer)) for layer in model.layers]
    explainer = tfig.Explainer(model, method, **arguments)
    e = explainer(case.x)
    maps = tf.nest.flatten(e.attributions)
    if name == "sequential":
        assert not lacking(explainer.pose(*entry.read(model, case.x), None).program)  # nothing keeps it from a GPU

    # Shape, dtype, finite.
    if arguments.get("layer") is None:
        for leaf, x in zip(maps, tf.nest.flatten(case.x), strict=True):
            if method.picks_layer:
                continue  # the map of a layer, which e.layer names
            masked = method.name in ONE_CHANNEL and x.ndim >= 3
            assert leaf.shape == ((*x.shape[:-1], 1) if masked else x.shape)
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in maps)
    # A mask stays open where the baseline does not lower the score.
    assert method.name in MASKS or any(np.abs(leaf).max() > 0 for leaf in maps)
    assert e.score.shape == (3,) and (e.baseline_score is None) == (method.default_baseline is None)

    # The same rows in the same batch: bitwise. An equal method object is the same question.
    again = tfig.explain(model, case.x, type(method)(**vars(method)), **arguments)
    for leaf, other in zip(maps, tf.nest.flatten(again.attributions), strict=True):
        np.testing.assert_array_equal(leaf, other)

    # A row alone, and in other company. Half precision rounds to eleven bits, and batches round differently.
    # A line search may branch; a fit to scores whose differences are small magnifies their rounding.
    bound = 2e-2 if name == "half" else 1e-3 if method.name in (*MASKS, "lime", "kernel_shap", "guided_ig") else 1e-5
    if name == "smooth" and method.name in ("deeplift", "deepshap"):
        bound = 1e-4  # from zeros, which a normalisation divides by the root of its epsilon
    # A mask lives on [0, 1]; all else is made of scores.
    unit = 1 if method.name in MASKS else max(np.abs(F).max() for F in (e.score, e.baseline_score) if F is not None)
    alone = explainer(rows_of(case.x, slice(1, 2)))
    mixed = explainer(rows_of(case.x, [2, 1, 1, 0]))
    for leaf, one, other in zip(maps, *(tf.nest.flatten(x.attributions) for x in (alone, mixed)), strict=True):
        assert close(one[0], leaf[1], bound, unit)
        assert close(other[1], leaf[1], bound, unit) and close(other[3], leaf[0], bound, unit)

    # Noise follows the seed.
    reseeded = tfig.explain(model, case.x, method, seed=[7, 8, 9], **arguments)
    seeded = tfig.explain(model, rows_of(case.x, slice(1, 2)), method, seed=8, **arguments)
    for leaf, one, other in zip(maps, *(tf.nest.flatten(x.attributions) for x in (reseeded, seeded)), strict=True):
        assert method.stochastic or close(one, leaf, bound, unit)
        assert close(other[0], one[1], bound, unit)
    if method.stochastic and method.name not in (*MASKS, "kernel_shap"):  # all coalitions of few segments
        changed = zip(maps, tf.nest.flatten(reseeded.attributions), strict=True)
        assert any(np.abs(a - b).max() > 1e-7 for a, b in changed)

    # Completeness, where claimed: the reported delta is the real one.
    if e.convergence_delta is not None:
        assert method.complete
        total = sum(leaf.reshape(3, -1).astype("float64").sum(1) for leaf in maps)
        np.testing.assert_allclose(total - (e.score - e.baseline_score), e.convergence_delta, atol=1e-5)
        # A guided walk evaluates each gradient where its step begins, and converges slowly: what it reports is enough.
        bound = 0.1 if method.name != "guided_ig" else 1.0
        assert np.abs(e.convergence_delta).max() <= bound * max(1, np.abs(e.score - e.baseline_score).max())

    # The model is as it was.
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert flags == [(layer.trainable, "call" in vars(layer)) for layer in model.layers]
    assert model.losses == []


LINEAR = (
    "gradient", "gradient_x_input", "integrated_gradients", "expected_gradients", "smoothgrad", "squaregrad", "vargrad",
    "lrp", "deep_taylor", "deeplift", "deepshap", "occlusion", "feature_ablation", "shapley_sampling", "kernel_shap",
)  # fmt: skip


@pytest.mark.parametrize("method", LINEAR)
def test_linear_models_have_their_closed_form(method):
    method = METHODS[method]
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    weight, bias = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=3).astype("float32")
    model.set_weights([weight, bias])
    x = rng.normal(size=(5, 4)).astype("float32")
    references = rng.normal(size=(2, 4)).astype("float32")
    needs_references = method.default_baseline == "dataset"
    baseline = tfig.baselines.Dataset(references) if needs_references else None
    e = tfig.explain(model, x, method, target=1, baseline=baseline)
    slope = np.broadcast_to(weight[:, 1], x.shape)
    expected = {
        "gradient": slope,
        "gradient_x_input": slope * x,
        "integrated_gradients": slope * x,
        "expected_gradients": slope * (x - references.mean(0)),
        "smoothgrad": slope,
        "squaregrad": slope**2,
        "vargrad": slope * 0,
        "lrp": slope * x,
        "deep_taylor": slope**2 / (slope**2).sum(1, keepdims=True) * np.maximum(x @ weight + bias, 0)[:, 1:2],
        "deeplift": slope * x,
        **dict.fromkeys(("occlusion", "feature_ablation", "shapley_sampling", "kernel_shap"), slope * x),
        "deepshap": slope * (x - references.mean(0)),
    }[method.name]
    if method.name == "occlusion":
        method = tfig.Occlusion()
        e = tfig.explain(model, x, method, target=1)
    if method.name == "expected_gradients":
        # Sampled references: each is drawn 32 times of 64, give or take two.
        assert np.abs(e.attributions - expected).max() <= 1 / 31 * np.abs(slope * (references[0] - references[1])).max()
    else:
        np.testing.assert_allclose(e.attributions, expected, atol=1e-5)
    np.testing.assert_allclose(e.score, (x @ weight + bias)[:, 1], atol=1e-5)


# Soft masks and fits to random coalitions promise it in expectation only.
PROMISED = [
    name
    for name, method in METHODS.items()
    if name not in (*MASKS, "rise", "lime", "xrai", "blur_ig", "boundary_ig", *RECTIFIED, *ATTENDING, *MOVES_THE_INPUT)
    and not method.picks_layer
]


@pytest.mark.parametrize("method", PROMISED)
def test_what_the_model_ignores_gets_nothing(method):
    method = METHODS[method] if method != "occlusion" else tfig.Occlusion()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="tanh")(inputs[:, :3]))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    baseline = tfig.baselines.Dataset(x) if method.default_baseline == "dataset" else None
    e = tfig.explain(model, x, method, baseline=baseline)
    # Scores of coalitions are differences, of batches that round differently.
    assert np.abs(e.attributions[:, 3]).max() <= (1e-6 if method.name in ONE_CHANNEL else 0)
    assert (e.attributions[:, :3] != 0).any()


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("cam", "xrai", *ATTENDING, *SLOW)])
def test_one_trace_and_no_memory_of_a_model_that_is_gone(method):
    method = METHODS[method]
    calls = []

    def counting(z):
        calls.append(1)
        return keras.ops.relu(z)

    model = keras.Sequential([
        keras.Input((6, 6, 1)), keras.layers.Conv2D(2, 3, name="conv"), keras.layers.Activation(counting),
        keras.layers.Flatten(), keras.layers.Dense(3),
    ])  # fmt: skip
    x = np.random.default_rng(0).uniform(size=(5, 6, 6, 1)).astype("float32")
    arguments = {"layer": "conv"} if method.needs_layer else {}
    if method.default_baseline == "dataset":
        arguments["baseline"] = tfig.baselines.Dataset(x[:2])
    explainer = tfig.Explainer(model, method, **arguments)
    explainer(x)
    traced = len(calls)
    for rows in (1, 5):
        for target in (None, [2] * rows, tfig.Contrast(0, 1)):
            tfig.explain(model, x[:rows], type(method)(**vars(method)), target=target, seed=rows, **arguments)
            tfig.explain(model, x[:rows], method, batch_size=2, **arguments)
    assert len(calls) == traced
    gone, weights = weakref.ref(model), weakref.ref(model.variables[0])
    del model, explainer
    gc.collect()
    assert gone() is None and weights() is None


def test_one_number_a_row_is_a_row_of_one():
    """`keras.Input(())` is explained, and measured, as `keras.Input((1,))` is."""
    keras.utils.set_random_seed(0)
    random, hidden, last = np.random.default_rng(0), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)
    rest, number = random.normal(size=(3, 5)).astype("float32"), random.normal(size=3).astype("float32")

    def model(shape):
        inputs = {"number": keras.Input(shape, name="number"), "rest": keras.Input((5,), name="rest")}
        column = keras.layers.Reshape((1,))(inputs["number"]) if shape else inputs["number"][:, None]
        return keras.Model(inputs, last(hidden(keras.layers.Concatenate()([column, inputs["rest"]]))))

    single, row = model(()), model((1,))
    for name in (
        "gradient",
        "integrated_gradients",
        "occlusion",
        "rise",
        "qii",
        "igos",
        "guided_ig",
        "deeplift",
        "cam",
    ):
        method, found = METHODS[name], []
        for asked, x in ((single, {"number": number, "rest": rest}), (row, {"number": number[:, None], "rest": rest})):
            baseline = tfig.baselines.Dataset(x) if method.default_baseline == "dataset" else None
            try:
                found.append(tfig.explain(asked, x, method, target=1, baseline=baseline))
            except ValueError as error:
                found.append(str(error))
        if isinstance(found[1], str):  # what needs layers, positions or tokens
            assert isinstance(found[0], str), name
            continue
        e, expected = found
        assert e.attributions["number"].shape == (3,), name
        for key, map_ in expected.attributions.items():
            np.testing.assert_allclose(e.attributions[key].reshape(map_.shape), map_, atol=1e-6, err_msg=name)
        if name in ("gradient", "occlusion", "integrated_gradients"):
            for metric in (tfig.metrics.sensitivity_n, tfig.metrics.infidelity, tfig.metrics.max_sensitivity):
                np.testing.assert_allclose(metric(e), metric(expected), rtol=1e-4, atol=1e-6)
            curves = (tfig.metrics.deletion(one) for one in found)
            np.testing.assert_allclose(*(curve.scores for curve in curves), atol=1e-6)
