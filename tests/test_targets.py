"""What is explained: classes, contrasts, callables, outputs, and softmaxes opened."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as L

import tfig
from tfig.plots import sheet


@pytest.fixture(scope="module")
def model():
    return zoo.build("sequential")


X = zoo.images()


def logits_of(model, x):
    """The logits, by a model that ends before the softmax."""
    top = model.layers[-1]
    features = keras.Sequential(model.layers[:-1])(x)
    return np.array(features) @ top.get_weights()[0] + top.get_weights()[1]


def test_every_form_of_a_class(model):
    probabilities = model.predict(X, verbose=0)
    predicted, rows = probabilities.argmax(1), np.arange(3)
    runner_up = np.argsort(-probabilities, 1)[:, 1]
    for target, expected in [
        (None, predicted),
        ("predicted", predicted),
        ("runner_up", runner_up),
        (2, [2, 2, 2]),
        (np.int64(1), [1, 1, 1]),
        ([0, 1, 2], [0, 1, 2]),
        (np.array([3, 3, 0]), [3, 3, 0]),
        (tf.constant([1, 2, 3]), [1, 2, 3]),
    ]:
        e = tfig.explain(model, X, "gradient", target=target)
        np.testing.assert_array_equal(e.target, expected)
        np.testing.assert_allclose(e.score, probabilities[rows, expected], rtol=1e-5)
        assert "against" not in e.trace


@pytest.mark.parametrize("output", [None, "logits", "probabilities"])
def test_contrast_is_the_difference_of_two_explanations(model, output):
    method = tfig.IntegratedGradients(rule="midpoint")  # adaptive nodes lie where the score explained changes
    both = [tfig.explain(model, X, method, target=c, output=output) for c in (3, [0, 1, 2])]
    e = tfig.explain(model, X, method, target=tfig.Contrast(3, [0, 1, 2]), output=output)
    np.testing.assert_allclose(e.attributions, both[0].attributions - both[1].attributions, atol=1e-6)
    np.testing.assert_allclose(e.score, both[0].score - both[1].score, atol=1e-6)
    np.testing.assert_array_equal(e.target, [3, 3, 3])
    np.testing.assert_array_equal(e.trace["against"], [0, 1, 2])
    words = tfig.explain(model, X, target=tfig.Contrast("runner_up", "predicted"), output=output)
    order = np.argsort(-model.predict(X, verbose=0), 1)
    np.testing.assert_array_equal(words.target, order[:, 1])
    np.testing.assert_array_equal(words.trace["against"], order[:, 0])


def test_logits_and_probabilities_of_a_fused_softmax(model):
    logits = logits_of(model, X)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows, predicted = np.arange(3), logits.argmax(1)
    np.testing.assert_allclose(
        tfig.explain(model, X, "gradient", output="logits").score, logits[rows, predicted], rtol=1e-5
    )
    e = tfig.explain(model, X, "gradient", output="probabilities")
    np.testing.assert_allclose(e.score, probabilities[rows, predicted], rtol=1e-5)
    np.testing.assert_array_equal(e.attributions, tfig.explain(model, X, "gradient").attributions)
    bare = keras.Sequential([keras.Input((8, 8, 3)), *model.layers[:-1], L.Dense(4)])
    bare.layers[-1].set_weights(model.layers[-1].get_weights())
    for output in ("logits", "probabilities"):
        a, b = (tfig.explain(one, X, "gradient", output=output).attributions for one in (model, bare))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


class Inside(keras.Model):
    def __init__(self):
        super().__init__()
        self.flat, self.top = L.Flatten(), L.Dense(4)

    def call(self, x):
        return keras.ops.softmax(self.top(self.flat(x)))


def nested_softmax(h):
    inner = keras.Input((4,))
    return keras.Model(inner, L.Activation("softmax")(inner))(h)


def subclassed():
    model = Inside()
    model(X)
    return model


ENDINGS = {
    "layer": L.Softmax(),
    "activation": L.Activation("softmax"),
    "operation": keras.ops.softmax,
    "reshaped": lambda h: L.Reshape((4,))(L.Softmax()(L.Reshape((4,))(h))),
    "nested": nested_softmax,
    "half": L.Activation("softmax", dtype="mixed_float16"),
    "sigmoids": L.Activation("sigmoid"),
}


def ending(kind):
    x = keras.Input((8, 8, 3))
    return subclassed() if kind == "subclassed" else keras.Model(x, ENDINGS[kind](L.Dense(4)(L.Flatten()(x))))


@pytest.mark.parametrize("kind", [*ENDINGS, "subclassed"])
def test_a_softmax_is_opened_wherever_it_stands(kind):
    keras.utils.set_random_seed(3)
    model = ending(kind)
    weights, bias = (np.array(variable) for variable in model.variables[:2])
    logits = X.reshape(3, -1) @ weights + bias
    e = tfig.explain(model, X, "gradient", output="logits", target=1)
    bound = 2e-3 if kind == "half" else 1e-5
    np.testing.assert_allclose(e.score, logits[:, 1], rtol=bound, atol=bound)
    np.testing.assert_allclose(e.attributions[0].ravel(), weights[:, 1], rtol=bound, atol=bound)


def averaged():
    x = keras.Input((8, 8, 3))
    h = L.Flatten()(x)
    return keras.Model(x, L.Average()([L.Dense(4, activation="softmax")(h), L.Dense(4, activation="softmax")(h)]))


def test_what_cannot_be_opened_is_refused():
    x = keras.Input((8, 8, 3))
    log_softmax = keras.Model(x, L.Dense(4, activation="log_softmax")(L.Flatten()(x)))
    clipped = keras.Model(x, keras.ops.clip(L.Dense(4, activation="softmax")(L.Flatten()(x)), 1e-3, 1.0))
    by_hand = keras.Model(x, keras.ops.exp(L.Dense(4, activation="log_softmax")(L.Flatten()(x))))
    h = L.Dense(4)(L.Flatten()(x))
    p, q = L.Activation("softmax")(h), L.Activation("sigmoid")(L.Dense(4)(L.Flatten()(x)))
    others = {
        "ReverseV2 of Softmax": keras.ops.flip(p, -1),
        "Transpose of Softmax": L.Reshape((4,))(L.Softmax(axis=1)(L.Reshape((4, 1))(h))),
        "Mul of": L.Multiply()([p, q]),
        "Sub of Sigmoid": 1 - q,
        "RealDiv": 1 / (1 + keras.ops.exp(-h)),
        "clipping": keras.ops.hard_sigmoid(h),
    }
    refused = [(keras.Model(x, y), found) for found, y in others.items()]
    refused += [(averaged(), "Softmax"), (log_softmax, "LogSoftmax"), (clipped, "Softmax"), (by_hand, "Exp")]
    for model, found in refused:
        with pytest.raises(ValueError, match=f"{found}.*cannot be recovered.*output=None"):
            tfig.explain(model, X, "gradient", output="logits")
        tfig.explain(model, X, "gradient")
    wrapped = tf.function(zoo.build("sequential"))
    for output in ("logits", "probabilities"):
        with pytest.raises(ValueError, match=r"hidden in .*PartitionedCall.*output=None"):
            tfig.explain(wrapped, X, "gradient", output=output)
    tfig.explain(wrapped, X, "gradient")


def test_parts_of_probabilities_are_not_normalised_twice():
    x = keras.Input((8, 8, 3))
    flipped = keras.Model(x, keras.ops.flip(L.Dense(4, activation="softmax")(L.Flatten()(x)), -1))
    e = tfig.explain(flipped, X, "gradient", output="probabilities")
    np.testing.assert_allclose(e.score, flipped.predict(X, verbose=0).max(1), rtol=1e-5)


def test_a_mixture_and_a_log_softmax_still_give_probabilities():
    model = averaged()
    e = tfig.explain(model, X, "gradient", output="probabilities")
    np.testing.assert_allclose(e.score, model.predict(X, verbose=0).max(1), rtol=1e-5)
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Dense(4, activation="log_softmax")(L.Flatten()(x)))
    e = tfig.explain(model, X, "gradient", output="probabilities")
    np.testing.assert_allclose(e.score, np.exp(model.predict(X, verbose=0)).max(1), rtol=1e-5)


def test_gates_and_attention_are_not_taken_for_a_final_softmax():
    x = keras.Input((6, 4))
    gated = keras.ops.mean(x * keras.ops.sigmoid(L.Dense(4)(x)), 1)
    e = tfig.explain(keras.Model(x, gated), zoo.sequence(width=4), "gradient", output="logits", target=2)
    assert np.isfinite(e.attributions).all()


def test_a_layer_behind_the_softmax_hides_it(model):
    with pytest.raises(ValueError, match=r"Softmax.*before the layer"):
        tfig.explain(model, X, "gradient", output="logits", layer=model.layers[-1])
    e = tfig.explain(model, X, "gradient", layer=model.layers[-1], target=1)
    np.testing.assert_array_equal(e.attributions, [[0, 1, 0, 0]] * 3)


def test_one_unit():
    model = zoo.build("one_unit")
    p = model.predict(X, verbose=0)[:, 0]
    for target in (None, 0):
        e = tfig.explain(model, X, target=target)
        np.testing.assert_allclose(e.score, p, rtol=1e-5)
        np.testing.assert_array_equal(e.target, [0, 0, 0])
    e = tfig.explain(model, X, output="logits")
    np.testing.assert_allclose(1 / (1 + np.exp(-e.score)), p, rtol=1e-4)
    with pytest.raises(ValueError, match="one-unit output needs no target"):
        tfig.explain(model, X, target=1)
    with pytest.raises(ValueError, match="'runner_up' needs at least two units"):
        tfig.explain(model, X, target="runner_up")
    with pytest.raises(ValueError, match="at least two units"):
        tfig.explain(model, X, target=tfig.Contrast("predicted", "runner_up"))
    regression = zoo.build("regression")
    y = regression.predict(zoo.table(), verbose=0)[:, 0]
    np.testing.assert_allclose(tfig.explain(regression, zoo.table()).score, y, rtol=1e-5)
    e = tfig.explain(regression, zoo.table(), output="probabilities")
    np.testing.assert_allclose(e.score, 1 / (1 + np.exp(-y)), rtol=1e-5)


def test_callables_and_several_outputs():
    model = zoo.build("two_outputs")
    outputs = model.predict(X, verbose=0)
    e = tfig.explain(model, X, target=("kind", 2))
    np.testing.assert_allclose(e.score, outputs["kind"][:, 2], rtol=1e-5)
    e = tfig.explain(model, X, target=("size", None))
    np.testing.assert_allclose(e.score, outputs["size"][:, 0], rtol=1e-5)
    e = tfig.explain(model, X, target=("kind", tfig.Contrast(0, 1)), output="logits")
    assert (e.trace["against"] == 1).all()
    e = tfig.explain(model, X, target=lambda y: y["kind"][:, 0] * y["size"][:, 0])
    np.testing.assert_allclose(e.score, outputs["kind"][:, 0] * outputs["size"][:, 0], rtol=1e-4)
    assert e.target is None and e.convergence_delta is not None
    e = tfig.explain(model, X, target=("kind", lambda y: y[:, 1]), output="logits")
    np.testing.assert_allclose(e.score, tfig.explain(model, X, target=("kind", 1), output="logits").score, rtol=1e-5)
    with pytest.raises(ValueError, match=r"2 outputs \['kind', 'size'\]"):
        tfig.explain(model, X)
    with pytest.raises(ValueError, match="no output 'sort'"):
        tfig.explain(model, X, target=("sort", 1))
    with pytest.raises(ValueError, match="one score per row"):
        tfig.explain(model, X, target=lambda y: y["kind"])
    listed = keras.Model(model.inputs, [model.output["kind"], model.output["size"]])
    by_name = tfig.explain(listed, X, target=(listed.output_names[0], 2)).score
    np.testing.assert_allclose(by_name, outputs["kind"][:, 2], rtol=1e-5)
    np.testing.assert_allclose(tfig.explain(listed, X, target=(0, 2)).score, outputs["kind"][:, 2], rtol=1e-5)


def test_segmentation_by_a_callable():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Conv2D(2, 1, activation="softmax")(x))
    with pytest.raises(ValueError, match=r"say of which: target=tfig.At\('predicted', \(0, 0\)\), a region"):
        tfig.explain(model, X)
    e = tfig.explain(model, X, target=lambda y: tf.reduce_mean(y[..., 1], [1, 2]))
    np.testing.assert_allclose(e.score, model.predict(X, verbose=0)[..., 1].mean((1, 2)), rtol=1e-5)


def test_classes_by_the_names_a_model_has():
    model = zoo.build("sequential")
    model.class_names = ["cat", "dog", "bird", "fish"]
    expected = tfig.explain(model, X, "gradient", target=[1, 0, 1]).attributions
    found = tfig.explain(model, X, "gradient", target=["dog", "cat", "dog"])
    np.testing.assert_array_equal(found.attributions, expected)
    np.testing.assert_array_equal(tfig.explain(model, X, "gradient", target="fish").target, 3)
    e = tfig.explain(model, X, "gradient", target=tfig.Contrast("bird", "predicted"))
    np.testing.assert_array_equal(e.target, 2)
    with pytest.raises(ValueError, match=r"target is 'dgo'; did you mean 'dog'.*model.class_names"):
        tfig.explain(model, X, target="dgo")
    for names in (np.array(["cat", "dog", "bird", "fish"]), {1: "dog", 0: "cat", 3: "fish", 2: "bird"}):
        model.class_names = names
        np.testing.assert_array_equal(tfig.explain(model, X, "gradient", target="fish").target, 3)
    for names in (["cat", "dog", "cat", "fish"], "abcd"):
        model.class_names = names
        with pytest.raises(ValueError, match=r"the names that class_names= or model.class_names lists, each once"):
            tfig.explain(model, X, target="cat")


def test_two_names_of_one_sigmoid(tmp_path):
    """The score is of the second: Keras' classes 0 and 1."""
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, "sigmoid")])
    x = np.eye(3, dtype="float32")
    for names in (["healthy", "sick"], {0: "healthy", 1: "sick"}, {"healthy": 0, "sick": 1}):
        for target in (None, "sick", 0):
            e = tfig.explain(model, x, "gradient", target=target, class_names=names)
            assert sheet.title(e, 0).startswith("sick, score")
            np.testing.assert_array_equal(e.target, 0)
        with pytest.raises(ValueError, match="target is 'healthy'; the output has one unit, the score of 'sick'"):
            tfig.explain(model, x, "gradient", target="healthy", class_names=names)
    model.class_names = ["healthy", "sick"]
    tfig.report(tfig.explain(model, x, "gradient"), tmp_path / "e.html")
    page = (tmp_path / "e.html").read_text()
    assert "sick, score" in page and "healthy" not in page
    del model.class_names
    assert sheet.title(tfig.explain(model, x, "gradient"), 0, ["healthy", "sick"]).startswith("sick, score")


@pytest.mark.parametrize("names", [["cat", "dog", "bird"], list("abcde")])
def test_as_many_names_as_units(names):
    with pytest.raises(ValueError, match=rf"class_names has {len(names)} entries, and the output has 4 units"):
        tfig.explain(zoo.build("sequential"), X, "gradient", class_names=names)


def test_a_class_at_a_place():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, L.Conv2D(4, 3, padding="same")(x))
    logits, probabilities = model(X).numpy(), tf.nn.softmax(model(X)).numpy()
    spot = (slice(None), 2, 5)
    e = tfig.explain(model, X, "gradient", target=tfig.At("predicted", (2, 5)))
    np.testing.assert_array_equal(e.target, logits[spot].argmax(-1))
    np.testing.assert_allclose(e.score, logits[spot].max(-1), rtol=1e-5)
    assert not e.attributions[:, 4:].any() and e.attributions[:, 1:4, 4:7].any()  # what its 3 x 3 window does not see
    e = tfig.explain(model, X, "gradient", target=tfig.At(1, (2, 5)), output="probabilities")
    np.testing.assert_allclose(e.score, probabilities[spot][:, 1], rtol=1e-5)
    e = tfig.explain(model, X, "gradient", target=tfig.At(tfig.Contrast(1, 2), (2, -3)))
    np.testing.assert_allclose(e.score, logits[spot][:, 1] - logits[spot][:, 2], rtol=1e-4)
    e = tfig.explain(model, X, "gradient", target=tfig.At(3))
    np.testing.assert_allclose(e.score, logits[..., 3].mean((1, 2)), rtol=1e-4, atol=1e-6)
    region = np.zeros((8, 8))
    region[1:3, 2:6] = 1
    e = tfig.explain(model, X, target=tfig.At([0, 1, 2], region))
    np.testing.assert_allclose(e.score, [logits[i, 1:3, 2:6, i].mean() for i in range(3)], rtol=1e-4, atol=1e-6)
    assert np.abs(e.convergence_delta).max() < 1e-5
    np.testing.assert_allclose(tfig.metrics.deletion(e).scores[:, 0], e.score, rtol=1e-4, atol=1e-6)
    for where, message in (
        ((2,), "has 1 indices, and the positions are"),
        ((9, 0), "lies outside of the positions"),
        (np.zeros((8, 8)), "of which none is negative and some are not zero"),
        (np.ones((4, 4)), r"is a region \[4, 4\], and the positions are \[8, 8\]"),
    ):
        with pytest.raises(ValueError, match=message):
            tfig.explain(model, X, target=tfig.At(0, where))
    with pytest.raises(ValueError, match="has no positions to choose from"):
        tfig.explain(zoo.build("sequential"), X, target=tfig.At(0, (1, 1)))


def test_a_class_of_a_box_of_one_of_several_outputs():
    x = keras.Input((8, 8, 3))
    h = L.Dense(15)(L.Flatten()(x))
    model = keras.Model(x, {"boxes": L.Reshape((5, 4))(L.Dense(20)(h)), "classes": L.Reshape((5, 3))(h)})
    e = tfig.explain(model, X, target=("classes", tfig.At(2, 4)))
    np.testing.assert_allclose(e.score, model(X)["classes"].numpy()[:, 4, 2], rtol=1e-5)
    np.testing.assert_allclose(tfig.metrics.deletion(e).scores[:, 0], e.score, rtol=1e-5)


@pytest.mark.parametrize("method", ["integrated_gradients", "expected_gradients", "occlusion"])
def test_a_target_takes_arrays_with_a_row_for_each_row(method):
    model, rng = zoo.build("sequential"), np.random.default_rng(0)
    x, weights, which = zoo.images(5), rng.normal(size=(5, 4)).astype("float32"), np.array([2, 0, 1, 1, 2])
    weighed = lambda y, w, i: tf.reduce_sum(w * y, 1) + tf.gather(y, i, batch_dims=1)  # noqa: E731
    baseline = tfig.baselines.Dataset(zoo.images(3, seed=1)) if method == "expected_gradients" else None
    explainer = tfig.Explainer(model, method, target=(weighed, weights, which), baseline=baseline, batch_size=2)
    e = explainer(x)
    outputs = model.predict(x, verbose=0)
    np.testing.assert_allclose(e.score, (weights * outputs).sum(1) + outputs[np.arange(5), which], rtol=1e-5)
    for i in range(5):
        alone = lambda y, i=i: weighed(y, weights[[i]], tf.fill(tf.shape(y)[:1], int(which[i])))  # noqa: E731
        one = tfig.explain(model, x[[i]], method, target=alone, baseline=baseline)
        if method != "expected_gradients":
            np.testing.assert_allclose(e.attributions[i], one.attributions[0], atol=1e-6)
        np.testing.assert_allclose(e.baseline_score[i], one.baseline_score[0], rtol=1e-5)
    assert e[:2].explainer is None  # rows of it would need rows of the arrays
    with pytest.raises(ValueError, match=r"target\[1\] has shape \[4, 4\], and x has 5 rows"):
        tfig.explain(model, x, method, target=(weighed, weights[:4], which), baseline=baseline)


def test_a_target_that_holds_rows_itself_or_is_no_tensorflow_is_told_what_to_do(tmp_path):
    model, rows = zoo.build("sequential"), tf.constant([0, 1, 2])
    advice = r"must hold nothing that has a value for each row.*target=\(function, array\)"
    with pytest.raises(ValueError, match=advice):
        tfig.explain(model, X, target=lambda y: tf.gather(y, rows, batch_dims=1))
    with pytest.raises(ValueError, match=advice):
        tfig.explain(model, X, target=lambda y: y[:, 0] * tf.constant([1.0, 2, 3]), batch_size=1)
    for wrong in (lambda y: np.max(np.asarray(y), 1), lambda y: y.numpy()[:, 0], lambda y, z: y[:, 0], lambda y: None):
        with pytest.raises(ValueError, match="must be made of TensorFlow operations, which NumPy"):
            tfig.explain(model, X, target=wrong)
    wide = tfig.explain(model, X, "gradient", target=(lambda y, w: tf.reduce_sum(y * w, 1), np.ones((3, 4))))
    np.testing.assert_allclose(wide.score, 1, rtol=1e-5)  # float64, as NumPy has it
    beside = tfig.Explainer(model, "gradient", target=(lambda y, i: tf.gather(y, i, batch_dims=1), np.array([1])))
    with pytest.raises(ValueError, match="a target that takes arrays beside the outputs"):
        tfig.export(model, tmp_path / "m", {"why": beside})


def test_callables_share_a_program_while_they_live_and_hold_no_model():
    import gc
    import weakref

    calls = Counter()

    def target(y):
        calls["traced"] += 1
        return y[:, 0]

    model = zoo.build("sequential")
    tfig.explain(model, X, "gradient", target=target)
    count = calls["traced"]
    tfig.explain(model, X[:1], "gradient", target=target)
    assert calls["traced"] == count
    closing = lambda y, model=model: y[:, 0] * (model is not None)  # noqa: E731
    tfig.explain(model, X, "gradient", target=closing)
    gone = weakref.ref(model)
    del model, closing
    gc.collect()
    assert gone() is None


def test_what_a_callable_reads_from_outside_is_part_of_the_question():
    model, chosen = zoo.build("sequential"), [1]
    target = lambda y: y[:, chosen[0]]  # noqa: E731
    first = tfig.explain(model, X, "gradient", target=target).score
    chosen[0] = 2
    second = tfig.explain(model, X, "gradient", target=target).score
    probabilities = model.predict(X, verbose=0)
    np.testing.assert_allclose(first, probabilities[:, 1], rtol=1e-5)
    np.testing.assert_allclose(second, probabilities[:, 2], rtol=1e-5)


def test_a_target_that_needs_x_takes_a_model_that_hands_it_on():
    x = keras.Input((5,))
    model = keras.Model(x, L.Dense(5)(L.Dense(2, activation="tanh")(x)))
    rows = zoo.table()
    wrapped = lambda x: (model(x), x)  # noqa: E731
    e = tfig.explain(wrapped, rows, target=lambda y: tf.reduce_mean((y[0] - y[1]) ** 2, 1))
    np.testing.assert_allclose(e.score, ((model.predict(rows, verbose=0) - rows) ** 2).mean(1), rtol=1e-5)


@pytest.mark.parametrize("loss", ["binary_crossentropy", keras.losses.BinaryCrossentropy(from_logits=True), None])
def test_the_compiled_loss_says_whether_classes_exclude_each_other(loss):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    if loss is not None:
        model.compile(loss=loss)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    logits = model.predict(x, verbose=0)
    expected = tf.nn.softmax(logits) if loss is None else tf.nn.sigmoid(logits)
    e = tfig.explain(model, x, "gradient", target=1, output="probabilities")
    np.testing.assert_allclose(e.score, expected[:, 1], rtol=1e-5)


def test_what_a_model_takes_beside_floats_is_said_to_be_held():
    num, kind = keras.Input((2,), name="num"), keras.Input((1,), dtype="int32", name="kind")
    encoded = keras.layers.Flatten()(keras.layers.CategoryEncoding(3, output_mode="one_hot")(kind))
    h = keras.layers.Concatenate()([num, encoded])
    model = keras.Model({"num": num, "kind": kind}, keras.layers.Dense(1)(h))
    x = {"num": np.array([[1.0, 2.0]]), "kind": np.array([[1]])}
    with pytest.warns(UserWarning, match="inputs 'kind' hold no floats, .* they stay as they are"):
        e = tfig.explain(model, x)
    assert not e.attributions["kind"].any() and np.abs(e.convergence_delta).max() < 1e-5
    with pytest.raises(ValueError, match=r"baseline gives \['kind'\], which are no floats and are held at x"):
        tfig.explain(model, x, baseline={"num": [0, 0], "kind": [2]})
    column = tfig.explain(model, {"num": x["num"], "kind": np.array([1])})  # as Keras takes it
    np.testing.assert_array_equal(column.attributions["num"], e.attributions["num"])


def test_data_sets_pairs_paths_and_words_as_people_pass_them():
    model, x = zoo.build("sequential"), zoo.images(5)
    expected = tfig.explain(model, x, "gradient").attributions
    labels = np.arange(5)
    batched = tf.data.Dataset.from_tensor_slices((x, labels)).batch(2)
    for given in (batched, batched.unbatch(), tf.data.Dataset.from_tensor_slices(x).batch(3)):
        np.testing.assert_allclose(tfig.explain(model, given, "gradient").attributions, expected, atol=1e-7)
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    columns = keras.Model([a, b], L.Dense(1)(L.Concatenate()([a, b])))
    values = np.arange(3.0)
    whole = tfig.explain(columns, {"a": values, "b": values}, "gradient").score
    data = tf.data.Dataset.from_tensor_slices({"a": values, "b": values})
    for given in (data, data.batch(2), data.batch(3), data.batch(1)):
        np.testing.assert_allclose(tfig.explain(columns, given, "gradient").score, whole, rtol=1e-5)
    with pytest.raises(ValueError, match="a data set without end"):
        tfig.explain(model, batched.repeat())
    with pytest.raises(ValueError, match=r"Of a pair \(x, y\) pass x alone"):
        tfig.explain(model, (x, labels))
    with pytest.raises(ValueError, match=r"model is str; .* keras.saving.load_model\(path\)"):
        tfig.explain("model.keras", x)
    words = L.TextVectorization(output_mode="multi_hot")
    words.adapt(["a good film", "a bad film"])
    reader = keras.Sequential([keras.Input((1,), dtype="string"), words, L.Dense(1)])
    e = tfig.explain(reader, ["good film", "bad"], "occlusion")
    assert e.attributions.shape == (2, 1) and e.x.tolist() == [["good film"], ["bad"]]


def test_a_distributed_data_set_is_mapped():
    model, x = zoo.build("sequential"), zoo.images(4)
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(4))).batch(2)
    spread = tf.distribute.MirroredStrategy(["CPU:0"]).experimental_distribute_dataset(data)
    maps = [e.attributions for e in tfig.Explainer(model, "gradient").map(spread)]
    np.testing.assert_allclose(np.concatenate(maps), tfig.explain(model, x, "gradient").attributions, atol=1e-7)


def test_a_token_is_a_baseline_of_tokens_alone():
    ids, kinds = keras.Input((4,), dtype="int32", name="ids"), keras.Input((4,), dtype="int32", name="kinds")
    h = L.Embedding(9, 3, name="words")(ids) + L.Embedding(2, 3, name="sorts")(kinds)
    model = keras.Model([ids, kinds], L.Dense(1)(L.Flatten()(h)))
    x = [np.array([[3, 4, 5, 6]]), np.array([[0, 0, 1, 1]])]
    for baseline in (8, [8, None]):
        e = tfig.explain(model, x, layer="words", baseline=baseline)
        np.testing.assert_allclose(e.baseline_score, model([np.full((1, 4), 8), x[1]]).numpy()[:, 0], rtol=1e-5)
        assert np.abs(e.convergence_delta).max() < 1e-5
