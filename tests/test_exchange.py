"""What other libraries take: SHAP, pandas, xarray, TensorBoard."""

import builtins

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tfig

NAMES = ["red", "green", "blue"]
RANDOM = np.random.default_rng(0)


def answer(attributions, x=None, **fields):
    rows = len(tf.nest.flatten(attributions)[0])
    known = {"target": np.zeros(rows, int), "score": np.ones(rows), "baseline_score": np.full(rows, 0.25)}
    return tfig.Explanation(
        attributions=attributions, x=x, method="integrated_gradients", convergence_delta=np.zeros(rows),
        **{**known, **fields},
    )  # fmt: skip


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def test_shap_draws_tables_texts_and_images(tmp_path):
    shap = pytest.importorskip("shap")
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    x = noise(5, 3)
    e = answer(noise(5, 3), x)
    table = e.to_shap(feature_names=NAMES)
    np.testing.assert_array_equal(table.values, e.attributions)
    np.testing.assert_array_equal(table.data, x)
    assert table.feature_names == NAMES and (table.base_values == 0.25).all()
    shap.plots.waterfall(table[0], show=False)
    shap.plots.beeswarm(table, show=False)
    shap.plots.bar(table, show=False)
    plt.close("all")
    columns = answer(
        {"size": noise(2, 1), "colour": noise(2, 1)}, {"size": noise(2, 1), "colour": np.array([["a"], ["b"]])}
    )
    assert columns.to_shap().feature_names == ["size", "colour"] and columns.to_shap().data[1, 1] == "b"

    ids = np.array([[1, 2, 0], [2, 1, 1]])
    text = answer(noise(2, 3, 4), ids, layer="embedding").to_shap(tokens=["", "good", "bad"])
    assert text.data.tolist() == [["good", "bad", ""], ["bad", "good", "good"]]
    assert "good" in shap.plots.text(text, display=False)

    image = answer(noise(2, 8, 8, 3), RANDOM.uniform(size=(2, 8, 8, 3)))
    shown = image.to_shap()
    np.testing.assert_array_equal(shown.values, image.attributions)
    shap.plots.image(shown, show=False)
    plt.close("all")
    with pytest.raises(ValueError, match=r"holds one input, and \['image', 'table'\] are explained"):
        answer({"image": noise(2, 8, 8, 3), "table": noise(2, 3)}).to_shap()


def test_pandas():
    e = answer(noise(4, 3), noise(4, 3), class_names=["cat"])
    frame = e.to_dataframe(feature_names=NAMES)
    assert list(frame.columns) == [*NAMES, "class", "target", "score", "baseline_score", "convergence_delta"]
    np.testing.assert_array_equal(frame[NAMES].to_numpy(), e.attributions)
    assert set(frame["class"]) == {"cat"}
    maps = noise(2, 3)
    maps[0, 2] = 0
    words = answer(maps, np.array([[1, 2, 0], [2, 1, 1]])).to_dataframe(tokens=["", "good", "bad"])
    assert list(words["token"]) == ["good", "bad", "bad", "good", "good"]  # without padding
    np.testing.assert_array_equal(words["attribution"], maps.ravel()[[0, 1, 3, 4, 5]])
    assert list(words["row"]) == [0, 0, 1, 1, 1] and list(words["position"]) == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match=r"what is explained is \{'x': \[2, 8, 8, 3\]\}; use to_xarray"):
        answer(noise(2, 8, 8, 3)).to_dataframe()
    with pytest.raises(ValueError, match=r"features are called \['score'\]"):
        e.to_dataframe(feature_names=["score", "a", "b"])


def test_xarray(tmp_path):
    x = noise(2, 8, 6, 3)
    e = answer(noise(2, 8, 6, 3), x, provenance={"model": "Net"})
    data = e.to_xarray(channel_names=NAMES)
    assert data["attributions"].dims == ("row", "height", "width", "channel") and data.attrs["model"] == "Net"
    np.testing.assert_array_equal(data["attributions"].sel(channel="green"), e.attributions[..., 1])
    np.testing.assert_array_equal(data["x"].sum(("height", "width")), x.sum((1, 2)))
    assert data["score"].dims == ("row",) and data.attrs["method"] == "integrated_gradients"
    kinds = {"a": noise(2, 5), "b": noise(2, 9, 2), "c": noise(2, 3, 4, 5, 1), "d": noise(2)}
    found = answer(kinds, {name: leaf for name, leaf in kinds.items()}).to_xarray(feature_names={"a": list("vwxyz")})
    assert found["attributions_a"].dims == ("row", "feature_a") and list(found["feature_a"].values) == list("vwxyz")
    assert found["attributions_b"].dims == ("row", "step_b", "channel_b")
    assert found["attributions_c"].dims == ("row", "depth_c", "height_c", "width_c", "channel_c")
    assert found["attributions_d"].dims == ("row",)
    tokens = answer(noise(2, 3, 4), np.ones((2, 3), int), layer="embedding").to_xarray()
    assert tokens["attributions"].dims == ("row", "position", "channel") and tokens["x"].dims == ("row", "position")
    masks = answer(noise(2, 4, 3, 1), x).to_xarray()
    assert "x" not in masks  # a smaller map than its image


@pytest.mark.parametrize(
    ("library", "call"), [("shap", "to_shap"), ("pandas", "to_dataframe"), ("xarray", "to_xarray")]
)
def test_what_is_missing_is_named(library, call, monkeypatch):
    e = answer(noise(2, 3))
    known = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] == library:
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ImportError, match=rf"{call}\(\) needs {library}: pip install tfig\[exchange\]"):
        getattr(e, call)()


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return {tag: found.Tensors(tag) for tag in found.Tags()["tensors"]}


def test_training_leaves_explanations_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = zoo.images(6), np.arange(6) % 4
    told = tfig.callbacks.Explain(x[:2], "gradient", log_dir=tmp_path, every=2, metrics=["sparseness"], target=1)
    model.fit(x, y, epochs=5, verbose=0, callbacks=[told])
    found = events(tmp_path / "explanations")
    assert set(found) == {"gradient/row 0", "gradient/row 1", "gradient/score", "gradient/sparseness"}
    assert [one.step for one in found["gradient/score"]] == [1, 3, 4]  # each second epoch, and the last
    final = tfig.explain(model, x[:2], "gradient", target=1)
    np.testing.assert_allclose(told.last.attributions, final.attributions, rtol=1e-5, atol=1e-7)
    scores = [float(tf.make_ndarray(one.tensor_proto)) for one in found["gradient/score"]]
    assert scores[-1] == pytest.approx(final.score.mean(), rel=1e-5) and len(set(scores)) == 3
    sparse = float(tf.make_ndarray(found["gradient/sparseness"][-1].tensor_proto))
    assert sparse == pytest.approx(tfig.metrics.sparseness(final).mean(), rel=1e-4)
    for row in range(2):
        width, height, png = tf.make_ndarray(found[f"gradient/row {row}"][-1].tensor_proto)
        assert (int(width), int(height)) == (8, 8)
        np.testing.assert_array_equal(tf.io.decode_png(png), final.overlay(alpha=0.8)[row])


def test_training_on_a_table_draws_figures_and_bad_words_are_refused_before(tmp_path):
    pytest.importorskip("tensorboard")
    model = zoo.build("regression")
    model.compile("sgd", "mse")
    x = zoo.table()
    told = tfig.callbacks.Explain(x, log_dir=tmp_path, feature_names=[f"f{i}" for i in range(x.shape[1])])
    model.fit(x, np.zeros(len(x)), epochs=1, verbose=0, callbacks=[told])
    found = events(tmp_path / "explanations")
    assert len([tag for tag in found if "/row " in tag]) == len(x)
    rows = [["a"] * 3, ["b"] * 3]  # a list of words for each row; and names that do not fit end no training
    texts = tfig.callbacks.Explain(np.ones((2, 3), "int32"), log_dir=tmp_path / "texts", tokens=rows)
    ids = keras.Input((3,), dtype="int32")
    reader = keras.Model(ids, keras.layers.Dense(1)(keras.layers.Flatten()(keras.layers.Embedding(5, 2)(ids))))
    reader.compile("sgd", "mse")
    reader.fit(np.ones((2, 3), "int32"), np.zeros(2), epochs=1, verbose=0, callbacks=[texts])
    assert len([tag for tag in events(tmp_path / "texts" / "explanations") if "/row " in tag]) == 2
    with pytest.warns(UserWarning, match="no pictures of epoch 0: feature_names has 1 entries"):
        model.fit(x, np.zeros(len(x)), epochs=1, verbose=0, callbacks=[
            tfig.callbacks.Explain(x, log_dir=tmp_path / "w", feature_names=["a"])])  # fmt: skip
    for arguments, said in (
        ({"method": "gradientt"}, "no method is named"),
        ({"every": 0}, "every"),
        ({"metrics": "x"}, "no metric"),
    ):
        with pytest.raises(ValueError, match=said):
            tfig.callbacks.Explain(x, **arguments)
