"""Class activation maps: golden numbers, literal twins, exact identities."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import error, golden_model
from keras import layers as L

import tfig

LAYERS = [
    (name, key.split("/")[1])
    for name in ("cnn", "resnet")
    for key in golden_model(name)[1]
    if key.startswith("grad_cam")
]


@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_grad_cam_golden(name, layer):
    model, numbers = golden_model(name)
    e = tfig.explain(
        model, numbers["x"], tfig.GradCAM(relu=False), target=numbers["target"], output="logits", layer=layer
    )
    expected = numbers[f"grad_cam/{layer}/logit"]
    assert error(e.attributions, expected) <= 1e-4
    e = tfig.explain(model, numbers["x"], "grad_cam", target=numbers["target"], output="logits", layer=layer)
    assert error(e.attributions, np.maximum(expected, 0)) <= 1e-4


def gap_network():
    x = keras.Input((8, 8, 3))
    h = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    return keras.Model(x, L.Dense(3, activation="softmax")(L.Dropout(0.5)(L.GlobalAveragePooling2D()(h))))


def test_cam_is_grad_cam_up_to_scale_and_averages_to_the_logit():
    keras.utils.set_random_seed(1)
    model, x = gap_network(), zoo.images()
    e = tfig.explain(model, x, "cam", target=1, output="logits")
    assert e.layer == "conv"
    weights, bias = model.layers[-1].get_weights()
    maps = keras.Model(model.input, model.get_layer("conv").output)(x).numpy()
    np.testing.assert_allclose(e.attributions[..., 0], maps @ weights[:, 1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(e.attributions.mean((1, 2, 3)) + bias[1], e.score, rtol=1e-4)
    grad = tfig.explain(model, x, tfig.GradCAM(relu=False), target=1, output="logits")
    np.testing.assert_allclose(e.attributions, 36 * grad.attributions, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"here follow \['Flatten'|here follow"):
        tfig.explain(zoo.build("one_unit"), x, "cam")


def slopes(model, layer, x, unit):
    """(activation, gradient of the logit) by a model built from its parts."""
    inner = keras.Model(model.input, model.get_layer(layer).output)
    a = inner(x)
    with tf.GradientTape() as tape:
        tape.watch(a)
        pooled = tf.reduce_mean(a, [1, 2])
        weights, bias = model.layers[-1].weights
        logit = (pooled @ weights.value + bias.value)[:, unit] ** 1
    return a.numpy().astype("float64"), tape.gradient(logit, a).numpy().astype("float64")


def test_twins_of_the_other_maps():
    keras.utils.set_random_seed(1)
    model, x = gap_network(), zoo.images()
    a, g = slopes(model, "conv", x, 2)
    expected = np.maximum((np.maximum(g, 0) * a).sum(-1, keepdims=True), 0)
    assert error(tfig.explain(model, x, "layer_cam", target=2, output="logits").attributions, expected) <= 1e-5
    rows = []
    for row in range(3):
        weights = []
        for k in range(4):
            alpha = g[row, :, :, k] ** 2 / (2 * g[row, :, :, k] ** 2 + g[row, :, :, k] ** 3 * a[row, :, :, k].sum())
            weights.append((alpha * np.maximum(g[row, :, :, k], 0)).sum())
        rows.append(np.maximum(a[row] @ np.array(weights), 0))
    e = tfig.explain(model, x, "grad_cam_plus_plus", target=2)  # by the logit, whatever is explained
    assert error(e.attributions[..., 0], np.stack(rows)) <= 1e-5
    rows = []
    for row in range(3):
        scores = []
        for k in range(4):
            large = tf.image.resize(a[row, :, :, k][None, ..., None], (8, 8)).numpy()
            mask = (large - large.min()) / max(large.max() - large.min(), 1e-30)
            scores.append(model(x[row : row + 1] * mask).numpy()[0, 2])
        weights = np.exp(scores) / np.exp(scores).sum()
        rows.append(np.maximum(a[row] @ weights, 0))
    assert error(tfig.explain(model, x, "score_cam", target=2).attributions[..., 0], np.stack(rows)) <= 1e-5


def test_guided_grad_cam_is_the_product():
    model, x = zoo.build("nested"), zoo.images()
    e = tfig.explain(model, x, "guided_grad_cam", output="logits")
    assert e.layer == "conv" and e.attributions.shape == x.shape
    guided = tfig.explain(model, x, "guided_backprop", output="logits").attributions
    cam = tfig.explain(model, x, "grad_cam", output="logits").attributions
    np.testing.assert_allclose(e.attributions, guided * tf.image.resize(cam, (8, 8)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "layer"), [("nested", "conv"), ("skips", "conv"), ("two_inputs", "conv")])
def test_the_last_feature_map_is_found(name, layer):
    e = tfig.explain(zoo.build(name), zoo.ZOO[name].x, "grad_cam")
    assert e.layer == layer or (layer is None and "conv" in e.layer)
    with pytest.raises(ValueError, match="has no feature map"):
        tfig.explain(zoo.build("regression"), zoo.table(), "grad_cam")


def test_the_last_feature_map_is_looked_for_once():
    calls = []

    def counting(z):
        calls.append(1)
        return keras.ops.relu(z)

    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(2, 3), L.Activation(counting), L.Flatten(), L.Dense(3)])
    x = np.random.default_rng(0).uniform(size=(2, 6, 6, 1)).astype("float32")
    tfig.explain(model, x, "grad_cam")
    traced = len(calls)
    for rows in (1, 2):
        tfig.explain(model, x[:rows], "grad_cam")
        tfig.explain(model, x[:rows], tfig.GradCAM(), target=1)
    assert len(calls) == traced
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def turned(h):
    return L.Flatten()(L.Permute((2, 1, 3))(h))


class Fused(keras.Model):
    """A detector of edges: its output is a map."""

    def __init__(self):
        super().__init__()
        self.side, self.fuse = L.Conv2D(4, 3, padding="same", name="side"), L.Conv2D(1, 1, name="fuse")

    def call(self, x):
        h = self.side(x)
        coarse = tf.image.resize(h[:, ::2, ::2], tf.shape(x)[1:3])
        return self.fuse(tf.concat([h, coarse], -1))


class Residual(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(4, 3, padding="same", name="inside")

    def call(self, x):
        return tf.nn.relu(x + self.conv(x))


def found(build, shape=(8, 8, 3), **arguments):
    """The layer that is taken of a network from its input to its output."""
    x = keras.Input(shape)
    model = build(x) if isinstance(build(x), keras.Model) else keras.Model(x, build(x))
    rows = np.random.default_rng(0).uniform(size=(2, *(size or 9 for size in shape))).astype("float32")
    return tfig.explain(model, rows, "grad_cam", **arguments).layer


def test_the_layer_is_the_last_map_with_the_positions_of_the_image():
    def conv(x):
        return L.Conv2D(4, 3, activation="relu", name="conv")(x)

    def head(h):  # as Keras' MobileNets end
        h = L.Conv2D(3, 1, name="logits")(L.GlobalAveragePooling2D(keepdims=True)(h))
        return L.Softmax()(L.Flatten()(h))

    assert found(lambda x: head(conv(x))) == "conv"
    assert found(lambda x: L.Dense(2)(turned(conv(x)))) == "conv"  # as the published MTCNN ends
    assert found(lambda x: L.Dense(2)(L.Flatten()(keras.ops.flip(conv(x), 1)))) == "conv"
    assert found(lambda x: L.Dense(2)(L.GlobalAveragePooling2D()(L.Dense(5, name="dense")(conv(x))))) == "dense"
    assert found(lambda x: L.Dense(2)(keras.ops.mean(Residual(name="block")(conv(x)), [1, 2]))) == "block"
    assert found(lambda x: L.Dense(2)(L.GlobalAveragePooling2D()(conv(x))), (None, None, 3)) == "conv"
    # A picture as a table, channels first, a volume, a sequence.
    assert found(lambda x: L.Dense(2)(L.Flatten()(conv(L.Reshape((8, 8, 1))(x)))), (64,)) == "conv"
    assert found(lambda x: L.Dense(2)(L.Flatten()(conv(L.Permute((2, 3, 1))(x)))), (3, 8, 8)) == "conv"
    assert found(lambda x: L.Dense(2)(L.Flatten()(L.Conv3D(2, 3, name="conv")(x))), (5, 5, 5, 1)) == "conv"
    assert (
        found(lambda x: L.Dense(2)(L.LSTM(4)(L.Bidirectional(L.GRU(4, return_sequences=True), name="both")(x))), (7, 3))
        == "both"
    )
    # Shuffled pixels keep their order.
    assert (
        found(
            lambda x: L.Dense(2)(
                L.GlobalAveragePooling2D()(
                    L.Conv2D(2, 3, name="after")(
                        L.Reshape((16, 16, 3))(
                            L.Permute((1, 3, 2, 4, 5))(L.Reshape((8, 8, 2, 2, 3))(L.Conv2D(12, 1)(x)))
                        )
                    )
                )
            )
        )
        == "after"
    )


def test_where_no_layer_is_sure_candidates_are_named():
    mean = {"target": lambda y: tf.reduce_mean(y, [1, 2, 3])}
    model = Fused()
    model(zoo.images())
    with pytest.raises(ValueError, match=r"itself a map; pass layer=, such as 'side' \[None, 8, 8, 4\]"):
        tfig.explain(model, zoo.images(), "grad_cam", **mean)

    def unet(x):
        down = L.Conv2D(4, 3, padding="same", name="down")(x)
        up = L.UpSampling2D()(L.Conv2D(6, 3, padding="same", name="bottom")(L.MaxPooling2D()(down)))
        return L.Conv2D(1, 1, name="out")(L.Concatenate(name="joined")([down, up]))

    with pytest.raises(ValueError, match=r"'joined' .*'bottom'"):
        found(unet, **mean)
    towers = lambda x: L.Dense(2)(L.Concatenate()([  # noqa: E731
        L.GlobalAveragePooling2D()(L.Conv2D(3, k, name=f"tower{k}")(x)) for k in (1, 3)]))  # fmt: skip
    with pytest.raises(ValueError, match=r"2 maps .* end side by side, of 'tower1', 'tower3'"):
        found(towers)
    two = keras.Input((8, 8, 3))
    h = L.Conv2D(3, 3, name="trunk")(two)
    both = keras.Model(two, [L.Dense(2)(L.Flatten()(h)), L.Conv2D(1, 3, name="mask")(h)])
    assert tfig.explain(both, zoo.images(), "grad_cam", target=(0, 1)).layer == "trunk"


def test_cam_is_of_the_layer_just_before_the_pooling():
    x = keras.Input((8, 8, 3))
    h = L.Activation("relu", name="relu")(L.Conv2D(4, 3, name="conv")(x))
    for activation in (None, "softmax", "relu"):
        model = keras.Model(x, L.Dense(3, activation=activation)(L.GlobalAveragePooling2D()(h)))
        with pytest.raises(ValueError, match="'Activation', 'GlobalAveragePooling2D', 'Dense'"):
            tfig.explain(model, zoo.images(), "cam", layer="conv")
        if activation == "relu":
            with pytest.raises(ValueError, match="here follow"):
                tfig.explain(model, zoo.images(), "cam")
        else:
            assert tfig.explain(model, zoo.images(), "cam").layer == "relu"
