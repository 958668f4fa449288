"""Questions posed at a layer, on every shape of model, against models that were cut by hand."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as L

import tfig


def test_functional_model_with_a_skip_around_the_layer():
    """F(y) = top(relu(y + h)) with h held at x: the skip stays, only the layer's output moves."""
    model, x = zoo.build("skips"), zoo.images()
    h = keras.Model(model.inputs, model.get_layer("before").output)(x)
    y = model.get_layer("conv")(h)
    top = model.layers[-1]

    def rest(y):
        return top(tf.reduce_max(tf.nn.relu(y + h), [1, 2]))

    with tf.GradientTape() as tape:
        tape.watch(y)
        score = rest(y)[:, 1]
    e = tfig.explain(model, x, "gradient", layer="conv", target=1)
    np.testing.assert_allclose(e.attributions, tape.gradient(score, y), rtol=1e-4, atol=1e-7)
    # The baseline is mapped to the layer by the model; the score there keeps the skip at x.
    e = tfig.explain(model, x, tfig.IntegratedGradients(256), layer="conv", target=1)
    at_baseline = model.get_layer("conv")(model.get_layer("before")(np.zeros_like(x)))
    np.testing.assert_allclose(e.baseline_score, rest(at_baseline)[:, 1], rtol=1e-4)
    assert np.abs(e.convergence_delta).max() < 2e-3
    assert tfig.explain(model, x, tfig.Conductance(8), layer="conv").convergence_delta is None


@pytest.mark.parametrize("name", ["nested", "subclassed", "normalised", "recurrent", "attention", "half", "one_unit"])
def test_integrated_gradients_at_a_layer_are_complete(name):
    case = zoo.ZOO[name]
    e = tfig.explain(zoo.build(name), case.x, tfig.IntegratedGradients(256), layer=case.layer, **case.arguments)
    assert e.layer == case.layer and e.attributions.dtype == np.float32
    assert np.abs(e.convergence_delta).max() <= 1e-2
    same = tfig.explain(zoo.build(name), case.x, "gradient", layer=case.layer, **case.arguments)
    np.testing.assert_allclose(same.score, e.score, rtol=1e-3)


def test_a_layer_called_twice_is_cut_at_its_last_call():
    model, x = zoo.build("shared"), zoo.table()
    dense, top = model.get_layer("conv"), model.layers[-1]
    y = dense(dense(x))
    with tf.GradientTape() as tape:
        tape.watch(y)
        score = top(y)[:, 2]
    e = tfig.explain(model, x, "gradient_x_input", layer=dense, target=2)
    np.testing.assert_allclose(e.attributions, y * tape.gradient(score, y), rtol=1e-4, atol=1e-7)


def test_nested_layers_by_name_path_and_object():
    model, x = zoo.build("nested"), zoo.images()
    inner = model.get_layer("backbone").get_layer("conv")
    by_object = tfig.explain(model, x, "gradient", layer=inner).attributions
    np.testing.assert_array_equal(tfig.explain(model, x, "gradient", layer="conv").attributions, by_object)
    assert by_object.shape == (3, 6, 6, 4)
    np.testing.assert_array_equal(tfig.explain(model, x, "gradient", layer="backbone/conv").attributions, by_object)
    whole = tfig.explain(model, x, "gradient", layer="backbone").attributions
    np.testing.assert_allclose(whole, by_object, atol=1e-7)


def test_token_models_are_explained_at_the_embedding():
    model, ids = zoo.build("tokens"), zoo.IDS
    table = model.get_layer("embedding").get_weights()[0]
    e = tfig.explain(model, ids, layer="embedding")
    assert e.attributions.shape == (3, 6, 4)
    unasked = tfig.explain(model, ids)  # it is the only one that is looked up by an input
    assert unasked.layer == "embedding"
    np.testing.assert_array_equal(unasked.attributions, e.attributions)
    assert np.abs(e.convergence_delta).max() < 2e-2
    # Named baselines live in the layer's space; an array of tokens is mapped by the model; AtLayer says so explicitly.
    pad = tfig.explain(model, ids, layer="embedding", baseline=np.zeros(6, "int32"))
    mapped = tfig.explain(model, ids, layer="embedding", baseline=tfig.baselines.AtLayer(table[[0] * 6]))
    np.testing.assert_allclose(pad.attributions, mapped.attributions, atol=1e-6)
    np.testing.assert_allclose(
        pad.baseline_score, model.predict(np.zeros((3, 6), "int32"), verbose=0)[range(3), pad.target], rtol=1e-5
    )
    zero = tfig.explain(model, ids, layer="embedding", baseline=tfig.baselines.AtLayer("zeros"))
    np.testing.assert_array_equal(zero.attributions, e.attributions)
    token = tfig.explain(model, ids, layer="embedding", baseline=0)
    np.testing.assert_array_equal(token.attributions, pad.attributions)
    several = tfig.explain(model, ids, layer="embedding", baseline=tfig.baselines.Dataset(ids[:2]))
    assert np.abs(several.convergence_delta).max() < 2e-2
    near = tfig.explain(model, ids, layer="embedding", baseline="boundary")
    assert near.trace["boundary_found"].all()


class Tied(keras.Model):
    """A language model whose embedding is its head too, behind one whose indices are none of an input's."""

    def __init__(self):
        super().__init__()
        self.words = keras.layers.ReversibleEmbedding(12, 4, name="words") if REVERSIBLE else Reversible(name="words")
        self.places = keras.layers.Embedding(5, 4, name="places")

    def call(self, ids):
        h = self.words(ids) + self.places(tf.range(5))[tf.newaxis]
        return self.words(tf.nn.tanh(tf.cumsum(h, 1)), reverse=True)[:, -1]


REVERSIBLE = hasattr(keras.layers, "ReversibleEmbedding")


class Reversible(keras.layers.Embedding):
    def __init__(self, **kwargs):
        super().__init__(12, 4, **kwargs)

    def call(self, x, reverse=False):
        return x @ tf.transpose(tf.convert_to_tensor(self.embeddings)) if reverse else super().call(x)


def test_an_embedding_that_is_the_head_too_is_explained_where_tokens_enter():
    keras.utils.set_random_seed(0)
    model, ids = Tied(), np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    model(ids)
    with pytest.warns(UserWarning, match=r"'words' is called 2 times, and call 0 is explained; pass layer='words:0'"):
        e = tfig.explain(model, ids, target=7)
    assert e.layer == "words:0" and e.attributions.shape == (2, 5, 4)
    assert np.abs(e.convergence_delta).max() <= 1e-2 * np.abs(e.score - e.baseline_score).max()
    # The closed form: what tokens enter by.
    table, places = model.words.get_weights()[0], model.places.get_weights()[0]
    given = tf.constant(table[ids])
    with tf.GradientTape() as tape:
        tape.watch(given)
        score = tf.reduce_sum((tf.nn.tanh(tf.cumsum(given + places, 1)) @ table.T)[:, -1, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope = tfig.explain(model, ids, "gradient", target=7, layer="words:0")
    np.testing.assert_allclose(slope.attributions, tape.gradient(score, given), rtol=1e-5, atol=1e-6)
    # The other call is the output itself; a metric asks on where the explanation was posed.
    last = tfig.explain(model, ids, "gradient", target=7, layer="words:-1")
    assert last.layer == "words:1" and last.attributions.shape == (2, 5, 12)
    np.testing.assert_array_equal(last.attributions[:, -1], np.eye(12)[[7, 7]])
    assert np.isfinite(tfig.metrics.infidelity(last, samples=8)).all()
    again = tfig.Explainer(model, "gradient", layer=slope.explainer.layer)(ids, target=7)
    np.testing.assert_array_equal(again.attributions, slope.attributions)
    with pytest.raises(ValueError, match="has no call 2: it is called 2 time"):
        tfig.explain(model, ids, "gradient", layer="words:2")


def test_a_normalisation_behind_an_embedding_is_not_a_matter_of_steps():
    """From zeros the path changes the length alone, which a LayerNormalization undoes."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    h = keras.layers.LayerNormalization(epsilon=1e-12)(keras.layers.Embedding(9, 8, name="word")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(h)))
    ids = np.array([[1, 2, 3, 4, 5]])
    with pytest.warns(UserWarning, match="where that changes nothing, F jumps at the baseline"):
        e = tfig.explain(model, ids)
    assert np.abs(e.convergence_delta) > 0.9 * np.abs(e.score - e.baseline_score)
    padded = tfig.explain(model, ids, tfig.IntegratedGradients(256), baseline=0)
    assert np.abs(padded.convergence_delta) < 0.05 * np.abs(padded.score - padded.baseline_score) and not padded.notes


def test_several_embeddings_are_named_by_whose_integers_vary():
    ids, kinds = keras.Input((4,), dtype="int32", name="ids"), keras.Input((4,), dtype="int32", name="kinds")
    h = keras.layers.Embedding(3, 3, name="kind")(kinds) + keras.layers.Embedding(9, 3, name="word")(ids)
    model = keras.Model({"ids": ids, "kinds": kinds}, keras.layers.Dense(2)(keras.layers.Flatten()(h)))
    x = {"ids": np.array([[1, 2, 3, 4]]), "kinds": np.zeros((1, 4), int)}
    assert tfig.explain(model, x, "gradient").layer == "word"  # zeros and ones are kinds, not words
    x["kinds"] += 2
    with pytest.raises(ValueError, match=r"pass layer='word'\.$"):
        tfig.explain(model, x)


def test_masks_of_padded_tokens_survive_the_cut():
    x = keras.Input((6,), dtype="int32")
    h = L.Embedding(9, 4, mask_zero=True, name="embedding")(x)
    model = keras.Model(x, L.Dense(3, activation="softmax")(L.LSTM(4)(h)))
    ids = np.array([[3, 5, 1, 0, 0, 0], [1, 2, 3, 4, 5, 6]], "int32")
    e = tfig.explain(model, ids, "gradient", layer="embedding")
    np.testing.assert_allclose(e.score, model.predict(ids, verbose=0).max(1), rtol=1e-5)
    assert (e.attributions[0, 3:] == 0).all() and (e.attributions[1] != 0).any(1).all()


def test_layers_that_cannot_be_cut():
    x = keras.Input((5, 4), name="entry")
    inner = L.Dense(3, name="inner")
    h = L.TimeDistributed(inner, name="each")(x)
    h = L.RNN(L.SimpleRNNCell(3, name="cell"), name="loop")(h)
    model = keras.Model(x, L.Dense(2)(h))
    rows = zoo.sequence(steps=5, width=4)
    for layer, match in [
        ("inner", "once a step by 'each'"),
        ("cell", "inside a loop"),
        ("entry", "input itself"),
        ("loup", r"did you mean.*loop"),
    ]:
        with pytest.raises(ValueError, match=match):
            tfig.explain(model, rows, "gradient", layer=layer)
    with pytest.raises(ValueError, match="not part of model"):
        tfig.explain(model, rows, "gradient", layer=L.Dense(1, name="stranger"))
    assert tfig.explain(model, rows, "gradient", layer="each").attributions.shape == (3, 5, 3)
    assert all("call" not in vars(layer) for layer in (inner, *model.layers)), (
        "a failed trace must leave no replacement"
    )
    integer = keras.Input((4,), dtype="int32")
    table = L.Embedding(5, 2, name="table")
    shifted = L.Lambda(lambda t: t + 1, name="shift")(integer)
    model = keras.Model(integer, L.Dense(2)(L.Flatten()(table(shifted))))
    with pytest.raises(ValueError, match=r"'shift' gives int32.*later layer"):
        tfig.explain(model, np.ones((2, 4), "int32"), "gradient", layer="shift")
    with pytest.raises(ValueError, match=r"AtLayer.*pass layer="):
        tfig.explain(model, np.ones((2, 4), "int32"), baseline=tfig.baselines.AtLayer(0.0))
    with pytest.raises(ValueError, match="needs a Keras model"):
        tfig.explain(lambda x: x, rows, "gradient", layer="each")


def test_two_layers_of_one_name_are_told_apart_by_path():
    x = keras.Input((4,))
    left, right = (
        keras.Sequential([keras.Input((4,)), L.Dense(3, name="same")], name=side) for side in ("left", "right")
    )
    model = keras.Model(x, L.Dense(2)(left(x) + right(x)))
    with pytest.raises(ValueError, match="2 layers are named 'same'"):
        tfig.explain(model, zoo.table(width=4), "gradient", layer="same")
    by_object = tfig.explain(model, zoo.table(width=4), "gradient_x_input", layer=right.get_layer("same"))
    by_path = tfig.explain(model, zoo.table(width=4), "gradient_x_input", layer="right/same")
    np.testing.assert_array_equal(by_path.attributions, by_object.attributions)


def test_half_precision_layers_are_explained_in_single():
    model = zoo.build("half")
    e = tfig.explain(model, zoo.images(), tfig.IntegratedGradients(128), layer="conv")
    assert e.attributions.dtype == np.float32 and np.abs(e.convergence_delta).max() < 2e-3


def test_conductance_and_layer_attributions_sum_to_the_difference_over_any_cut():
    from conftest import golden_model

    model, numbers = golden_model("cnn")
    asked = {"target": numbers["target"], "output": "logits", "baseline": numbers["baseline"]}
    for layer in ("conv1", "maxpool1", "conv2", "flatten1", "dense1", "dense2"):
        for method in (tfig.Conductance(512), tfig.IntegratedGradients(512)):
            e = tfig.explain(model, numbers["x"], method, layer=layer, **asked)
            total = e.attributions.reshape(6, -1).sum(1)
            difference = numbers["logits"][range(6), numbers["target"]] - e.baseline_score
            np.testing.assert_allclose(total, difference, atol=5e-3 * np.abs(difference).max())


def test_a_layer_with_one_output_for_all_rows_is_refused():
    class Positions(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.top = L.Embedding(6, 3, name="positions"), L.Dense(2)

        def call(self, x):
            return self.top(keras.ops.mean(x + self.table(tf.range(6)), 1))

    model = Positions()
    model(zoo.sequence())
    with pytest.raises(ValueError, match="one output for all rows"):
        tfig.explain(model, zoo.sequence(), "gradient", layer="positions")


def test_small_gradients_of_half_precision_models_do_not_vanish():
    """Pooling over 96 x 96 pixels divides gradients by 9216: in float16 many of them would be zero."""
    x = np.random.default_rng(0).uniform(size=(2, 96, 96, 3)).astype("float32")

    def network(policy):
        keras.utils.set_random_seed(0)
        layers = [L.Conv2D(8, 3, activation="gelu", dtype=policy), L.GlobalAveragePooling2D(dtype=policy)]
        return keras.Sequential([keras.Input((96, 96, 3)), *layers, L.Dense(4, activation="softmax", dtype="float32")])

    single, half = network("float32"), network("mixed_float16")
    half.set_weights(single.get_weights())
    for method in ("gradient", "integrated_gradients"):
        a, b = (tfig.explain(model, x, method, target=1).attributions for model in (single, half))
        assert np.linalg.norm(a - b) <= 0.02 * np.linalg.norm(a)
