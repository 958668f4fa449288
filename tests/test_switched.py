"""Tokens, categories and flags: switched to a baseline of their kind by methods that see scores alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfig
from tfig.serving import Client, serve
from tfig.serving.servable import Servable, proto

ONE_BY_ONE = ("occlusion", "feature_ablation", "shapley_sampling", "kernel_shap", "prediction_difference", "qii")
WEIGHTS = np.random.default_rng(0).normal(size=12)
IDS = np.array([[3, 4, 5, 0, 0], [6, 7, 8, 9, 10]], "int32")


@pytest.fixture(scope="module")
def table():
    """num + 100 if red, num - 100 if green: a category in a one-hot beside two numbers."""
    num, colour = keras.Input((2,), name="num"), keras.Input((1,), dtype="string", name="colour")
    one_hot = L.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")(colour)
    model = keras.Model({"num": num, "colour": colour}, L.Dense(1)(L.Concatenate()([num, one_hot])))
    model.set_weights([np.array([[1.0], [1], [0], [100], [-100]]), np.zeros(1)])
    return model


def row(colours):
    return {"num": np.tile([[1.0, 2.0]], (len(colours), 1)), "colour": np.array(colours)[:, np.newaxis]}


class Kept(keras.Layer):
    """What flags let through."""

    def call(self, h, flags):
        return h * tf.cast(flags[..., tf.newaxis], h.dtype)


@pytest.fixture(scope="module")
def sentence():
    """The sum of a weight for each token, where a mask is 1."""
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    words = L.Embedding(12, 1, mask_zero=True, name="words")
    kept = Kept()(words(ids), mask)
    model = keras.Model([ids, mask], L.Lambda(lambda h: tf.reduce_sum(h, 1))(kept))
    words.set_weights([WEIGHTS[:, np.newaxis]])
    return model


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_a_category_beside_numbers_gets_what_it_is_worth(table, method):
    baseline = {"num": [0, 0], "colour": ["green"]}
    if tfig.methods()[method].baseline == "dataset":
        baseline = tfig.baselines.Dataset({"num": np.zeros((3, 2)), "colour": np.array([["green"]] * 3)})
    e = tfig.explain(table, row(["red", "green"]), method, baseline=baseline)
    np.testing.assert_allclose(e.baseline_score, -100)
    np.testing.assert_allclose(e.attributions["colour"], [[200], [0]], atol=1e-3)
    np.testing.assert_allclose(e.attributions["num"], [[1, 2], [1, 2]], atol=1e-3)
    assert e.held == () and not e.notes and e.attributions["colour"].dtype == np.float32


def test_random_masks_rank_a_category_first(table):
    for method in (tfig.LIME(samples=400), tfig.RISE(samples=400)):
        e = tfig.explain(table, row(["red"]), method, baseline={"colour": ["green"]})
        assert np.abs(e.attributions["colour"]).min() > 5 * np.abs(e.attributions["num"]).max()


def test_absent_by_default_is_zero_or_the_empty_word(table):
    e = tfig.explain(table, row(["red"]), "occlusion")
    np.testing.assert_allclose(e.baseline_score, 0)  # "" is out of the vocabulary, whose weight is 0
    np.testing.assert_allclose(e.attributions["colour"], [[100]])
    np.testing.assert_array_equal(tfig.explain(table, row(["red"]), "occlusion", baseline="zeros").baseline_score, [0])


@pytest.mark.parametrize("baseline", ["mean", 3, {"colour": 0.5}, {"num": 1.0, "colour": 7}])
def test_a_baseline_of_another_kind_is_refused(table, baseline):
    with pytest.raises(
        ValueError, match="has no meaning for input 'colour', which holds string; give it one of its own"
    ):
        tfig.explain(table, row(["red"]), "occlusion", baseline=baseline)


def test_methods_that_need_slopes_say_what_they_hold(table):
    with pytest.warns(UserWarning, match=r"inputs 'colour' hold no floats.*a method that switches what is no float"):
        e = tfig.explain(table, row(["red"]))
    assert e.held == (0,) and not e.attributions["colour"].any()


@pytest.mark.parametrize("method", ["occlusion", "shapley_sampling", "kernel_shap"])
@pytest.mark.parametrize("instead", [None, 2])
def test_tokens_are_switched_and_padding_and_masks_are_not(sentence, method, instead):
    mask = (IDS > 0).astype("int32")
    baseline = None if instead is None else [instead, None]
    with pytest.warns(UserWarning, match="inputs 1 hold no floats, or are a mask of tokens"):
        e = tfig.explain(sentence, [IDS, mask], method, baseline=baseline)
    expected = np.where(IDS == 0, 0, WEIGHTS[IDS] - WEIGHTS[instead or 0])
    np.testing.assert_allclose(e.attributions[0], expected, atol=2e-5)
    assert e.held == (1,) and not e.attributions[1].any() and e.layer is None
    np.testing.assert_array_equal(e.heatmap()[0], e.attributions[0])


def test_tokens_flags_and_whole_pixels_as_the_only_input():
    ids = keras.Sequential([keras.Input((4,), dtype="int32"), L.Embedding(12, 2), L.Flatten(), L.Dense(1)])
    x = IDS[:, :4]

    e = tfig.explain(ids, x, "feature_ablation", baseline=2)
    for t in range(4):
        without = x.copy()
        without[:, t] = 2
        np.testing.assert_allclose(e.attributions[:, t], (ids(x) - ids(without)).numpy()[:, 0], atol=1e-6)

    flags = keras.Sequential([keras.Input((3,), dtype="bool"), L.Lambda(lambda b: tf.cast(b, "float32")), L.Dense(1)])
    e = tfig.explain(flags, np.array([[True, False, True]]), "occlusion")
    np.testing.assert_allclose(e.attributions, [[1, 0, 1]] * flags.get_weights()[0].T, atol=1e-6)

    pixels = keras.Sequential([keras.Input((4, 4, 1), dtype="uint8"), L.Rescaling(1 / 255), L.Flatten(), L.Dense(1)])
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 1)).astype("uint8")
    e = tfig.explain(pixels, image, "occlusion")
    expected = image.reshape(1, -1) / 255 * pixels.get_weights()[0].T
    np.testing.assert_allclose(e.attributions.reshape(1, -1), expected, atol=1e-6)


def recurrent(before=lambda ids: ids, dtype="int32"):
    keras.utils.set_random_seed(1)
    ids = keras.Input((4,), dtype=dtype)
    h = L.Embedding(15, 4, mask_zero=True, embeddings_initializer="random_normal")(before(ids))
    return keras.Model(ids, L.Dense(1)(L.GRU(4)(h)))


@pytest.mark.parametrize("before", [lambda ids: ids + 1, L.IntegerLookup(vocabulary=[0, 5, 6, 7, 8])])
def test_a_zero_that_is_no_padding_where_it_is_looked_up_is_a_token(before):
    model, x = recurrent(before, "int64"), np.array([[0, 5, 6, 0], [7, 0, 8, 5]])
    e = tfig.explain(model, x, "occlusion", baseline=6)
    for t in range(4):
        without = x.copy()
        without[:, t] = 6
        np.testing.assert_allclose(e.attributions[:, t], (model(x) - model(without)).numpy()[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        tfig.PredictionDifference(samples=3), tfig.QII(samples=3), tfig.QII("shapley", samples=2),
        tfig.RISE(samples=20), tfig.Occlusion(window=2), tfig.KernelSHAP(samples=40), tfig.LIME(samples=40),
    ],
    ids=lambda method: f"{method.name}-{getattr(method, 'kind', '')}",
)  # fmt: skip
def test_padding_gets_nothing_whatever_is_put_in_the_place_of_tokens(method):
    x = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], "int32")
    references = tfig.baselines.Dataset(np.array([[5, 6, 7, 8], [9, 10, 11, 12]]))
    baseline = references if method.default_baseline == "dataset" else np.array([5, 6, 7, 8])
    e = tfig.explain(recurrent(), x, method, baseline=baseline)
    assert not e.attributions[x == 0].any() and (e.attributions[x > 0] != 0).all()
    if method.name == "prediction_difference":
        one = tfig.baselines.Dataset(np.array([[5, 6, 7, 8]]))
        found = tfig.explain(recurrent(), x, method, baseline=one).attributions
        expected = tfig.explain(recurrent(), x, "feature_ablation", baseline=np.array([5, 6, 7, 8])).attributions
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_segments_of_tokens_are_as_many_as_are_asked_for():
    x = np.array([[1, 2, 3, 4]], "int32")
    model = recurrent()
    e = tfig.explain(model, x, tfig.FeatureAblation(segments=2), baseline=9)
    halves = [(model(x) - model(np.array([row]))).numpy()[0, 0] for row in ([9, 9, 3, 4], [1, 2, 9, 9])]
    np.testing.assert_allclose(e.attributions[0], np.repeat(halves, 2), atol=1e-6)


def test_text_through_a_vocabulary_into_a_masked_embedding():
    words = L.TextVectorization(output_sequence_length=5, vocabulary=["good", "bad", "film"])
    text = keras.Input((1,), dtype="string")
    h = L.GRU(3)(L.Embedding(20, 4, mask_zero=True)(words(text)))
    model = keras.Model(text, L.Dense(1)(h))
    e = tfig.explain(model, ["good film", "bad film"], "occlusion", baseline=np.array([["film"]]))
    film = model(tf.constant([["film"]])).numpy()
    np.testing.assert_allclose(e.attributions, e.score[:, np.newaxis] - film, atol=1e-6)


def test_numbers_beside_categories_are_no_mask_and_a_mask_may_be_asked_for():
    cat, counts = keras.Input((2,), dtype="int32", name="cat"), keras.Input((2,), dtype="int32", name="counts")
    h = L.Concatenate()([L.Flatten()(L.Embedding(5, 2)(cat)), L.Lambda(lambda n: tf.cast(n, "float32"))(counts)])
    model = keras.Model([cat, counts], L.Dense(1, use_bias=False)(h))
    weights = model.get_weights()[-1][4:, 0]
    e = tfig.explain(model, [np.array([[1, 2]]), np.array([[3, 7]])], "occlusion")
    assert e.held == ()
    np.testing.assert_allclose(e.attributions[1], [[3, 7] * weights], atol=1e-6)
    x = [np.array([[1, 2]]), np.array([[1, 0]])]
    with pytest.warns(UserWarning, match="or are a mask of tokens"):
        assert tfig.explain(model, x, "occlusion").held == (1,)
    e = tfig.explain(model, x, "occlusion", baseline=[0, 0])
    np.testing.assert_allclose(e.attributions[1], [[weights[0], 0]], atol=1e-6)


def test_tokens_beside_segments_are_explained_where_they_are_looked_up():
    """As BERT takes them: token ids, their segments, their mask."""
    ids, segments = keras.Input((4,), dtype="int32", name="ids"), keras.Input((4,), dtype="int32", name="segments")
    h = L.LayerNormalization()(L.Embedding(9, 3, name="words")(ids) + L.Embedding(2, 3, name="parts")(segments))
    model = keras.Model({"ids": ids, "segments": segments}, L.Dense(2)(L.GlobalAveragePooling1D()(h)))
    x = {"ids": np.array([[3, 4, 5, 6]]), "segments": np.array([[0, 0, 1, 1]])}
    e = tfig.explain(model, x, tfig.IntegratedGradients(256), baseline=8)
    assert e.layer == "words" and e.heatmap().shape == (1, 4)
    assert np.abs(e.convergence_delta).max() < 1e-3
    x["segments"] = np.array([[0, 1, 2, 0]])  # not of two kinds: it might be either
    with pytest.raises(ValueError, match=r"pass layer='words' \(or 'parts'\)"):
        tfig.explain(model, x)


def test_what_does_not_fit_into_whole_numbers_is_refused():
    pixels = keras.Sequential([keras.Input((3,), dtype="uint8"), L.Rescaling(1 / 255), L.Dense(1)])
    x = np.array([[0, 128, 255]], "uint8")
    for baseline, message in (
        ("white", "has no meaning"), (300, "whole numbers that fit"), (-1, "whole numbers that fit"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tfig.explain(pixels, x, "occlusion", baseline=baseline)
    with pytest.raises(ValueError, match="runs from 0 to 256, which does not fit into uint8"):
        tfig.explain(pixels, np.array([[0, 1, 256]]), "occlusion")
    flags = keras.Sequential([keras.Input((2,), dtype="bool"), L.Lambda(lambda b: tf.cast(b, "float32")), L.Dense(1)])
    with pytest.raises(ValueError, match="whole numbers that fit"):
        tfig.explain(flags, np.array([[True, False]]), "occlusion", baseline=2)
    ids, kinds = keras.Input((3,), dtype="int32", name="ids"), keras.Input((3,), dtype="int32", name="kinds")
    h = L.Embedding(9, 2)(ids) + L.Embedding(2, 2)(kinds)
    model = keras.Model([ids, kinds], L.Dense(1)(L.Flatten()(h)))
    x = [np.array([[1, 2, 3]]), np.array([[0, 0, 1]])]
    with pytest.raises(ValueError, match=r"baseline 7 is one value, and inputs \['ids', 'kinds'\] each have their own"):
        tfig.explain(model, x, "occlusion", baseline=7)
    with pytest.raises(ValueError, match=r"lies outside of what the model can look up .*must be of the vocabulary"):
        tfig.explain(model, x, "occlusion", baseline=[99, 0])


def test_references_of_words_are_whole_and_held_ones_may_be_among_them(table, sentence):
    references = tfig.baselines.Dataset({"num": np.zeros((1, 2)), "colour": np.array([["green"]], object)})
    e = tfig.explain(table, row(["red"]), "prediction_difference", baseline=references)  # "red" is shorter
    np.testing.assert_allclose(e.attributions["colour"], [[200]], atol=1e-3)
    with pytest.raises(ValueError, match=r"Dataset holds \['num'\], and the explained inputs are"):
        tfig.explain(table, row(["red"]), "qii", baseline=tfig.baselines.Dataset({"num": np.zeros((1, 2))}))
    both = tfig.baselines.Dataset([np.array([[2, 2, 2, 2, 2]]), np.ones((1, 5), int)])
    e = tfig.explain(sentence, [IDS[1:], np.ones((1, 5), int)], "qii", baseline=both)
    np.testing.assert_allclose(e.attributions[0], [WEIGHTS[IDS[1]] - WEIGHTS[2]], atol=2e-5)


def test_metrics_remove_what_was_switched_and_refuse_to_move_it(sentence):
    mask = (IDS > 0).astype("int32")
    e = tfig.explain(sentence, [IDS[1:], mask[1:]], "occlusion", baseline=[2, None])
    falling = np.sort(WEIGHTS[IDS[1]] - WEIGHTS[2])[::-1]
    curve = tfig.metrics.deletion(e, baseline=[2, None]).scores[0]
    np.testing.assert_allclose(curve, e.score[0] - np.concatenate([[0], np.cumsum(falling)]), atol=1e-5)
    np.testing.assert_allclose(tfig.metrics.sensitivity_n(e), 1, atol=1e-5)
    with pytest.raises(ValueError, match=r"this metric changes numbers by degrees, and inputs \['ids'\]"):
        tfig.metrics.infidelity(e)
    with pytest.raises(ValueError, match="nothing float in it to move"):
        tfig.metrics.max_sensitivity(e)


def test_files_keep_words(table, tmp_path):
    for words in (np.array([["red"], ["green"]]), np.array([["red"], ["green"]], object)):
        e = tfig.explain(table, {"num": np.ones((2, 2)), "colour": words}, "occlusion")
        loaded = tfig.Explanation.load(e.save(tmp_path / "e"))
        assert loaded.x["colour"].tolist() == [["red"], ["green"]] and loaded.held == e.held
        np.testing.assert_allclose(tfig.metrics.deletion(loaded, model=table).scores, tfig.metrics.deletion(e).scores)


def test_what_is_switched_is_served(table, sentence, tmp_path):
    x = row(["red", "green"])
    wire = {"num": x["num"].astype("float32"), "colour": x["colour"].astype(object)}
    folder = tfig.export(table, tmp_path / "table", {"why": "occlusion"})
    options = {
        "baseline_num": np.full((2, 2), np.nan, "float32"),
        "baseline_colour": np.array([["green"]] * 2, object),
        **{name: np.zeros(2, "int32") for name in ("target", "seed")},
        "contrast": np.full(2, -1, "int32"),
    }
    with Servable(folder) as served:
        plain = served.predict("why", {name: proto(value) for name, value in wire.items()})
        asked = served.predict("why_at", {name: proto(value) for name, value in {**wire, **options}.items()})
    for answer, baseline in ((plain, None), (asked, {"colour": ["green"]})):
        e = tfig.explain(table, x, "occlusion", baseline=baseline)
        for name in x:
            np.testing.assert_array_equal(tf.make_ndarray(answer[f"attributions_{name}"]), e.attributions[name])

    with serve(tmp_path / "table", port=0) as server, Client(f"127.0.0.1:{server.port}", "table") as client:
        columns = {"num": wire["num"], "colour": ["red", "green"]}
        found = client.explain(columns, "why", baseline={"colour": "green"})
    np.testing.assert_array_equal(found.attributions["colour"], e.attributions["colour"])

    why = tfig.Explainer(sentence, "occlusion", baseline=[2, None])
    tfig.export(sentence, tmp_path / "words", {"why": why})
    asked = {"ids": IDS, "mask": (IDS > 0).astype("int32")}
    with serve(tmp_path / "words", port=0) as server, Client(f"127.0.0.1:{server.port}", "words") as client:
        found = client.explain(asked, "why")
        other = client.explain(asked, "why", baseline={"ids": 0})
    np.testing.assert_array_equal(found.attributions["ids"], why(list(asked.values())).attributions[0])
    np.testing.assert_allclose(other.attributions["ids"], np.where(IDS == 0, 0, WEIGHTS[IDS] - WEIGHTS[0]), atol=2e-5)
    assert found.held == (1,)
