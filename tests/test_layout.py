"""Channels before positions: every answer is that of the same network with channels last, transposed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from c_api import Loaded
from conftest import error
from keras import layers as L

import tfig
from tfig import layout, metrics

X = np.random.default_rng(0).uniform(size=(3, 9, 8, 3)).astype("float32")
FIRST = X.transpose(0, 3, 1, 2)


def network(first, kind="2d"):
    conv, pool = {
        "1d": (L.Conv1D, L.MaxPooling1D),
        "2d": (L.Conv2D, L.MaxPooling2D),
        "3d": (L.Conv3D, L.AveragePooling3D),
    }[kind]
    named = {"data_format": "channels_first" if first else "channels_last"}
    sides = {"1d": (9,), "2d": (9, 8), "3d": (5, 6, 4)}[kind]
    x = keras.Input((3, *sides) if first else (*sides, 3))
    h = pool(2, **named)(conv(4, 3, padding="same", activation="tanh", name="conv", **named)(x))
    h = L.Flatten(**named)(h)
    model = keras.Model(x, L.Dense(3)(h))
    rng = np.random.default_rng(1)
    # Without biases: of volumes with channels first TensorFlow adds them along another axis on some processors.
    model.set_weights([rng.normal(size=weight.shape) * 0.3 * (len(weight.shape) > 1) for weight in model.weights])
    return model


def pair(kind="2d"):
    """The network with channels last and first; skips where TensorFlow itself has no such convolution."""
    first = network(True, kind)
    try:
        first.predict(np.zeros((1, *first.input_shape[1:]), "float32"), verbose=0)
    except tf.errors.OpError as missing:
        if "NHWC" not in str(missing):
            raise
        pytest.skip("without oneDNN TensorFlow has no convolution of channels first on this processor")
    return network(False, kind), first


@pytest.fixture(scope="module")
def both():
    return pair()


@pytest.mark.parametrize("baseline", ["mean", "blur", "uniform", "gaussian", "max_distance", "boundary", 0.3, X[:1]])
def test_baselines(both, baseline):
    turned = baseline.transpose(0, 3, 1, 2) if isinstance(baseline, np.ndarray) else baseline
    last = tfig.explain(both[0], X, target=1, baseline=baseline)
    first = tfig.explain(both[1], FIRST, target=1, baseline=turned)
    assert error(first.attributions, last.attributions.transpose(0, 3, 1, 2)) <= 1e-5
    np.testing.assert_allclose(first.baseline_score, last.baseline_score, atol=1e-5)


@pytest.mark.parametrize("baseline", [None, "mean", tfig.baselines.AtLayer("mean"), tfig.baselines.AtLayer(0.2)])
def test_layers(both, baseline):
    last = tfig.explain(both[0], X, target=1, layer="conv", baseline=baseline)
    first = tfig.explain(both[1], FIRST, target=1, layer="conv", baseline=baseline)
    assert first.attributions.shape == (3, 4, 9, 8)
    assert error(first.attributions, last.attributions.transpose(0, 3, 1, 2)) <= 1e-5
    assert error(first.heatmap(), last.heatmap()) <= 1e-5


@pytest.mark.parametrize("kind", ["1d", "3d"])
def test_sequences_and_volumes(kind):
    shape = {"1d": (2, 9, 3), "3d": (2, 5, 6, 4, 3)}[kind]
    x = np.random.default_rng(0).uniform(size=shape).astype("float32")
    plain, turned = pair(kind)
    for method in ("occlusion", "integrated_gradients", "grad_cam", tfig.LIME(samples=60, segments=2)):
        last = tfig.explain(plain, x, method, target=1)
        first = tfig.explain(turned, np.moveaxis(x, -1, 1), method, target=1)
        assert error(np.moveaxis(first.attributions, 1, -1), last.attributions) <= 1e-4
        assert error(first.heatmap(), last.heatmap()) <= 1e-4


def test_pictures_files_and_metrics(both, tmp_path):
    last, first = (tfig.explain(model, x, target=1, baseline="mean") for model, x in ((both[0], X), (both[1], FIRST)))
    np.testing.assert_array_equal(first.overlay(), last.overlay())
    loaded = tfig.Explanation.load(first.save(tmp_path / "e"))
    np.testing.assert_array_equal(loaded.heatmap(), first.heatmap())
    assert (
        len([axes for axes in first.plot().axes if axes.images]) == 9
        and error(first[1:].heatmap(), last.heatmap()[1:]) <= 1e-5
    )
    asked = [
        metrics.deletion, metrics.insertion, metrics.pixel_flipping, metrics.sensitivity_n, metrics.infidelity,
        metrics.max_sensitivity, metrics.average_drop, metrics.completeness, metrics.non_sensitivity,
        metrics.sparseness,
    ]  # fmt: skip
    for metric in asked:
        here, there = (getattr(one, "area", one) for one in (metric(first), metric(last)))
        np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-5, err_msg=metric.__name__)
    given = np.random.default_rng(2).normal(size=(4, *X.shape)).astype("float32")
    turned = given.transpose(0, 1, 4, 2, 3)
    a, b = metrics.infidelity(first, perturbation=turned), metrics.infidelity(last, perturbation=given)
    np.testing.assert_allclose(a, b, rtol=1e-3)


def test_an_image_turned_inside_the_model():
    """As networks converted from other frameworks take it: no layer of it has channels first."""
    inputs = keras.Input((3, 9, 8))
    model = keras.Model(inputs, network(False)(L.Permute((2, 3, 1))(inputs)))
    for method in (tfig.IGOS(4, 3, 4), tfig.BlurIG(steps=8, max_sigma=2), tfig.RISE(samples=40)):
        last = tfig.explain(network(False), X, method, target=1)
        for asked in (model, lambda x, model=model: model(x) * 1):
            first = tfig.explain(asked, FIRST, method, target=1)
            assert error(np.moveaxis(first.attributions, 1, -1), last.attributions) <= 1e-4


def test_segments_of_a_function_are_given_images_with_channels_last(both):
    seen = []

    def segments(image):
        seen.append(image.shape)
        return np.add.outer(np.arange(9) // 3 * 2, np.arange(8) // 4)

    e = tfig.explain(both[1], FIRST, tfig.FeatureAblation(segments=segments), target=1)
    assert set(seen) == {(9, 8, 3)} and e.attributions.shape == (3, 1, 9, 8)


def test_served(both, tmp_path):
    method = tfig.Occlusion(window=3, strides=2)
    loaded = Loaded(tfig.export(both[1], tmp_path / "first", {"why": method}, warmup=False))
    answer, e = loaded.run("why", x=FIRST), tfig.explain(both[1], FIRST, method)
    np.testing.assert_array_equal(answer["attributions"], e.attributions)
    np.testing.assert_allclose(answer["heatmap"], e.heatmap(), atol=1e-6)


def traced(body, *shapes):
    trails = []

    def look(*x):
        outputs = body(*x)
        operations = tf.compat.v1.get_default_graph().get_operations()
        trails.append((layout.follow(x, {}, operations), tf.nest.flatten(outputs)))
        return outputs

    tf.function(look, autograph=False).get_concrete_function(*(tf.TensorSpec([None, *shape]) for shape in shapes))
    trail, outputs = trails[0]
    return [[None if one is None else (one.leaf, one.axis) for one in trail.positions(output)] for output in outputs]


def test_axes_are_followed_through_operations():
    """By hand: what each operation does to axes of [B, 4, 6, 3]."""
    h, w, c = (0, 1), (0, 2), (0, 3)
    cases = {
        "transpose": (lambda x: tf.transpose(x, [0, 2, 1, 3]), [w, h, c]),
        "merged and split": (lambda x: tf.reshape(tf.reshape(x, [-1, 24, 3]), [-1, 4, 6, 3]), [h, w, c]),
        "merged": (lambda x: tf.reshape(x, [-1, 24, 3]), [None, c]),
        "repeated": (lambda x: tf.repeat(x, 2, 1), [h, w, c]),
        "reversed": (lambda x: tf.reverse(x, [1]), [None, w, c]),
        "reversed by a slice": (lambda x: x[:, :, ::-1], [h, None, c]),
        "cut": (lambda x: x[:, 1, ..., tf.newaxis], [w, c, None]),
        "mean": (lambda x: tf.reduce_mean(x, 2), [h, c]),
        "mean kept": (lambda x: tf.reduce_mean(x, 2, keepdims=True), [h, None, c]),
        "gate": (lambda x: x * tf.reduce_mean(x, [1, 2], keepdims=True), [h, w, c]),
        "joined": (lambda x: tf.concat([x, x], -1), [h, w, c]),
        "stacked": (lambda x: tf.stack([x, x], 1)[:, 0], [h, w, c]),
        "einsum": (lambda x: tf.einsum("bhwc,cd->bdwh", x, tf.ones([3, 5])), [None, w, h]),
        "dense": (lambda x: tf.tensordot(x, tf.ones([3, 5]), 1), [h, w, None]),
        "convolved": (lambda x: tf.nn.conv2d(x, tf.ones([3, 3, 3, 2]), 2, "SAME"), [h, w, None]),
        "resized": (lambda x: tf.image.resize(x, [8, 8]), [h, w, c]),
        "unknown": (lambda x: tf.map_fn(lambda row: row, x), [None, None, None]),
    }
    for name, (body, expected) in cases.items():
        assert traced(body, (4, 6, 3)) == [expected], name
