"""The answer: saved, cut, drawn, streamed."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tfig
from tfig import view


@pytest.fixture(scope="module")
def e():
    return tfig.explain(zoo.build("sequential"), zoo.images(), target=tfig.Contrast(1, 2), output="logits")


def same(a, b):
    for one, other in zip(tf.nest.flatten(a.attributions), tf.nest.flatten(b.attributions), strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("target", "score", "baseline_score", "convergence_delta"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.method, a.parameters, a.layer, a.output) == (b.method, b.parameters, b.layer, b.output)
    assert set(a.trace) == set(b.trace)
    for name, value in a.trace.items():
        np.testing.assert_array_equal(value, b.trace[name])


@pytest.mark.parametrize("name", ["sequential", "two_inputs", "tokens", "regression"])
def test_save_and_load(name, tmp_path):
    case = zoo.ZOO[name]
    method = tfig.SmoothGrad(tfig.IntegratedGradients(4), samples=2)
    for asked in (tfig.IGOS(4, 2, 2), method) if name == "sequential" else (method,):
        before = tfig.explain(zoo.build(name), case.x, asked, **case.arguments)
        path = before.save(tmp_path / "e")
        assert path == tmp_path / "e.npz"
        after = tfig.Explanation.load(path)
        same(before, after)
        np.testing.assert_array_equal(tf.nest.flatten(before.x)[0], tf.nest.flatten(after.x)[0])
    assert after.parameters["inner"]["method"] == "integrated_gradients" and after.parameters["inner"]["steps"] == 4
    assert type(tf.nest.pack_sequence_as(after.attributions, tf.nest.flatten(after.attributions))) is type(
        before.attributions
    )


def test_load_refuses_other_files(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "text.npz").write_text("hello")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="holds no tfig explanation"):
            tfig.Explanation.load(tmp_path / name)


def test_rows(e):
    assert len(e) == 3
    one = e[1]
    assert one.attributions.shape == (1, 8, 8, 3) and one.score == e.score[1] and one.trace["against"] == [2]
    same(tfig.Explanation.concatenate([e[0], e[1:]]), e)


def test_heatmap():
    e = tfig.explain(zoo.build("sequential"), zoo.images(), layer="conv")
    assert e.attributions.shape == (3, 6, 6, 4)
    assert e.heatmap().shape == (3, 8, 8)
    flat = tfig.explain(zoo.build("sequential"), zoo.images())
    np.testing.assert_allclose(flat.heatmap(), flat.attributions.sum(-1))
    both = tfig.explain(zoo.build("two_inputs"), zoo.ZOO["two_inputs"].x).heatmap()
    assert both["image"].shape == (3, 8, 8) and both["table"].shape == (3, 5)
    assert tfig.explain(zoo.build("recurrent"), zoo.sequence()).heatmap().shape == (3, 6)


def test_overlay_paints_for_and_against():
    image = np.full((4, 4, 3), 0.5, "float32")
    e = tfig.Explanation(
        attributions=np.zeros((1, 4, 4, 3), "float32"), target=None, score=np.zeros(1), baseline_score=None,
        convergence_delta=None, method="gradient", x=image[None],
    )  # fmt: skip
    np.testing.assert_array_equal(e.overlay(), np.full((1, 4, 4, 3), 127))
    e.attributions[0, 0, 0], e.attributions[0, 3, 3] = 1.0, -1.0
    shown = e.overlay(alpha=1.0)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[0, 0, 0], view.WARM)
    np.testing.assert_array_equal(shown[0, 3, 3], view.COLD)
    np.testing.assert_array_equal(shown[0, 1:3], 127)
    with pytest.raises(ValueError, match=r"needs maps \[B, H, W\]"):
        tfig.explain(zoo.build("regression"), zoo.table()).overlay()
    with pytest.raises(ValueError, match="1 maps and 2 images"):
        e.overlay(np.stack([image, image]))


def test_pixels_of_any_range():
    ramp = np.linspace(0, 1, 4).reshape(2, 2, 1).astype("float32")
    for image in (ramp, ramp * 255, (ramp * 255).astype("uint8")):
        np.testing.assert_allclose(view.pixels(image)[..., 0], [[0, 85], [170, 255]], atol=1)
    np.testing.assert_allclose(view.pixels(ramp * 2 - 1)[..., 0], [[0, 85], [170, 255]], atol=1)
    assert view.pixels(ramp[..., 0]).shape == (2, 2, 3)


@pytest.mark.parametrize("name", ["sequential", "two_inputs", "recurrent", "regression", "tokens", "normalised"])
def test_plot(name, tmp_path):
    case = zoo.ZOO[name]
    figure = tfig.explain(zoo.build(name), case.x, **case.arguments).plot(tmp_path / "e.png")
    assert (tmp_path / "e.png").stat().st_size > 5000
    assert "score" in figure.axes[0].get_title(loc="left")


def test_map_streams_one_batch_at_a_time(capsys):
    model = zoo.build("sequential")
    drawn = []

    def rows():
        for i in range(10):
            drawn.append(i)
            yield zoo.images(4, seed=i), np.zeros(4)

    explainer = tfig.Explainer(model, "gradient")
    stream = explainer.map(rows())
    assert drawn == []
    first = next(stream)
    assert drawn == [0] and len(first) == 4
    dataset = tf.data.Dataset.from_tensor_slices(
        (np.concatenate([zoo.images(4, seed=i) for i in range(3)]), np.zeros(12))
    ).batch(5)
    found = list(tfig.Explainer(model, "gradient", progress=True).map(dataset))
    assert [len(e) for e in found] == [5, 5, 2]
    assert "3/3" in capsys.readouterr().out
    whole = tfig.explain(model, np.concatenate([zoo.images(4, seed=i) for i in range(3)]), "gradient")
    np.testing.assert_allclose(
        tfig.Explanation.concatenate(found).attributions, whole.attributions, rtol=1e-5, atol=1e-7
    )
    nest = zoo.ZOO["two_inputs"].x
    dataset = tf.data.Dataset.from_tensor_slices(nest).batch(2)
    assert [len(e) for e in tfig.Explainer(zoo.build("two_inputs"), "gradient").map(dataset)] == [2, 1]


def test_progress_and_silence(capfd, monkeypatch):
    model, x = zoo.build("sequential"), zoo.images(7)
    tfig.explain(model, x, "gradient", batch_size=2)
    assert capfd.readouterr().out == ""
    tfig.explain(model, x, "gradient", batch_size=2, progress=True)
    assert "7/7" in capfd.readouterr().out
    moves = []
    monkeypatch.setattr(keras.utils.Progbar, "add", lambda bar, rows: moves.append(rows))
    tfig.explain(model, x, "gradient", progress=True)  # one chunk, in which the bar moves
    assert len(moves) > 1 and sum(moves) == 7


def test_an_explainer_keeps_its_model_and_takes_a_target():
    explainer = tfig.Explainer(zoo.build("sequential"), "gradient", target=1)
    assert (explainer(zoo.images()).target == 1).all()
    assert (explainer(zoo.images(), target=[0, 2, 3]).target == [0, 2, 3]).all()


def test_methods_say_what_they_are():
    for name, info in tfig.methods().items():
        # A paper and its year; not all are on arXiv.
        assert (
            info.cost and info.gives and info.summary.endswith(".") and re.search(r", (19|20)\d\d", info.reference)
        ), name
    assert tfig.methods()["integrated_gradients"].complete and not tfig.methods()["gradient"].complete
    assert tfig.methods()["igos"].baseline == "blur" and tfig.methods()["conductance"].needs == "layer="
    assert isinstance(zoo.build("sequential"), keras.Model)


def test_notes_say_what_speaks_against_it():
    x = np.array([[1.0, 2.0]])
    with pytest.warns(UserWarning, match="baseline is NaN or infinite in 1 of 1 rows"):
        e = tfig.explain(lambda x: tf.math.log(x[:, 0]), x, tfig.IntegratedGradients(8))
    assert "baseline is NaN" in repr(e)
    with pytest.warns(UserWarning, match="misses more than a tenth"):
        tfig.explain(lambda x: tf.sigmoid(500 * (x[:, 0] - 0.51)), x, tfig.IntegratedGradients(8, "left"))
    with pytest.warns(UserWarning, match="1 of 1 rows are above the tolerance"):
        tfig.explain(lambda x: tf.sin(90 * x[:, 0]), x, tfig.IntegratedGradients(2, tolerance=1e-6, max_steps=4))
    assert tfig.explain(lambda x: x[:, 0], x).notes == []


def test_plot_of_volumes(tmp_path):
    inputs = keras.Input((6, 8, 8, 1))
    h = keras.layers.Conv3D(2, 3, activation="relu", name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling3D()(h)))
    x = np.random.default_rng(0).uniform(size=(2, 6, 8, 8, 1)).astype("float32")
    for arguments in ({}, {"layer": "conv"}):
        tfig.explain(model, x, **arguments).plot(tmp_path / "volume.png")
    tfig.explain(model, x, tfig.IGOS(4, 2, 2)).plot(tmp_path / "volume.png")


def test_notes_of_what_a_method_cannot_do():
    """One region of a whole image, an input without axes to blur, a mask towards a higher score, a walk in leaps."""
    x = zoo.images(2)
    score = lambda z: tf.reduce_sum(z**2, [1, 2, 3])  # noqa: E731
    whole = tfig.XRAI(steps=4, min_pixels=1, segments=np.zeros((8, 8), "int32"))
    halves = tfig.XRAI(steps=4, min_pixels=1, segments=np.repeat([[0], [1]], 4, 0) + np.zeros((8, 8), "int32"))
    said = "the image is one region in 2 of 2 rows: lower min_pixels, or pass segments="
    asked = {"target": lambda outputs: outputs}
    assert said in tfig.explain(score, x, whole, **asked).notes
    assert said not in tfig.explain(score, x, halves, **asked).notes
    both = {"image": x, "table": zoo.table(2)}
    image, table = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="table")
    flat = keras.layers.Concatenate()([keras.layers.Flatten()(image), table])
    model = keras.Model({"image": image, "table": table}, keras.layers.Dense(2)(flat))
    said = "inputs 'table' have no axes to blur: they stay as they are in x and get nothing"
    assert said in tfig.explain(model, both, tfig.BlurIG(steps=2, max_sigma=2), target=1).notes
    assert said not in tfig.explain(model, both, tfig.IntegratedGradients(2), target=1).notes
    said = "2 of 2 masks delete towards a baseline that scores higher than x: choose another one"
    masks = tfig.IGOS(2, 2, 4)
    assert said in tfig.explain(score, x, masks, baseline=2.0, **asked).notes
    assert said not in tfig.explain(score, x, masks, baseline=0.0, **asked).notes
    e = tfig.explain(lambda z: tf.reduce_sum(tf.cast(z > 0.5, z.dtype) + z, [1, 2, 3]), x, "guided_ig", **asked)
    assert any("rows: raise max_dist and steps; where that" in note for note in e.notes)


def test_notes_do_not_depend_on_a_constant():
    """A sum that misses half of a difference says so, beside whatever bias."""
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    said = []
    for bias in (0.0, 100.0, 1000.0):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(20, activation="relu"), keras.layers.Dense(2)])
        model.layers[-1].bias.assign([bias, bias])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said.append(tfig.explain(model, x, tfig.IntegratedGradients(2), baseline=-2.0, target=1).notes)
    assert said[0] and "misses more than a tenth" in said[0][0] and said[0] == said[1] == said[2]


def test_a_model_that_draws_at_random_is_noted():
    class Drawing(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop, self.dense = keras.layers.Dropout(0.5), keras.layers.Dense(2)

        def call(self, x):
            return self.dense(self.drop(x, training=True))

    model, x = Drawing(), np.ones((2, 6), "float32")
    model(x)
    with pytest.warns(UserWarning, match="explains one draw"):
        tfig.explain(model, x, "gradient")
    quiet = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
    assert tfig.explain(quiet, x, "gradient").notes == []
