"""I-GOS against a literal twin, and its parts against independent ones."""

import dataclasses

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from reference import igos as literal

import tfig
from tfig.kernels import mask
from tfig.kernels.expectation import normal
from tfig.methods import REGISTRY


def network(seed=0):
    """A small convolutional classifier in float64: rounding must not decide a line search on one side only."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(3, 3, 1, 4)) * 0.8, rng.normal(size=(100, 3)) * 0.6

    def model(x):
        h = tf.nn.relu(tf.nn.conv2d(x, a, 2, "SAME"))
        return tf.nn.softmax(tf.reshape(h, [-1, 100]) @ b)

    return model


def test_igos_is_the_literal_algorithm_row_by_row():
    rng = np.random.default_rng(1)
    x, baseline = rng.uniform(size=(3, 10, 10, 1)), rng.uniform(size=(10, 10, 1)) * 0.2
    model = network()
    method = tfig.IGOS(resolution=5, iterations=4, steps=5, noise=0.0, tv=1.0, l1=0.2)
    e = tfig.explain(model, x, method, baseline=baseline)
    searches = set()
    for row in range(3):
        target = int(e.target[row])
        small, losses, scores, steps = literal.igos(model, x[row], baseline, target, 5, 4, 5, l1=0.2, tv=1.0)
        np.testing.assert_allclose(e.trace["step_sizes"][row], steps, rtol=1e-9)
        np.testing.assert_allclose(e.trace["mask"][row, ..., 0], small, atol=1e-9)
        np.testing.assert_allclose(e.trace["losses"][row], losses, atol=1e-9)
        np.testing.assert_allclose(e.trace["scores"][row], scores, atol=1e-9)
        np.testing.assert_allclose(e.attributions[row, ..., 0], 1 - literal.enlarge(small, 10), atol=1e-9)
        searches.add(tuple(steps))
    assert len(searches) > 1, "rows must have line searches of their own for this test to mean anything"


def test_rows_do_not_depend_on_each_other():
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(5, 10, 10, 1))
    method = tfig.IGOS(resolution=5, iterations=4, steps=5, tv=1.0, l1=0.2)
    together = tfig.explain(network(), x, method, baseline=0.1, batch_size=3, seed=np.arange(5))
    for row in range(5):
        alone = tfig.explain(network(), x[row : row + 1], method, baseline=0.1, seed=row)
        np.testing.assert_allclose(alone.attributions[0], together.attributions[row], atol=1e-9)


@pytest.mark.parametrize("method", [tfig.IGOS, tfig.IGOSPlusPlus])
def test_settled_masks_do_not_depend_on_neighbours(method):
    """Nor on how many rows there are: in float32, where a batched product rounds as it likes."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((16, 16, 3)), layers.Conv2D(96, 5, strides=2, activation="relu"), layers.Flatten(),
        layers.Dense(256, activation="relu"), layers.Dense(4, activation="softmax"),
    ])  # fmt: skip
    x = np.random.default_rng(0).uniform(size=(6, 16, 16, 3)).astype("float32")
    settled = method(resolution=8, iterations=40, tv=5.0, search="settled")
    explainer = tfig.Explainer(model, settled, output="probabilities")
    for row in range(3):
        alone = explainer(x[[row]]).attributions[0]
        for others in ((1, 3), (4, 5)):
            beside = explainer(x[[row, *((row + other) % 6 for other in others)]]).attributions[0]
            np.testing.assert_allclose(beside, alone, atol=5e-3 * alone.max())


def test_size_penalty_is_eased_where_nothing_changes():
    """A score that no mask changes: l1 falls tenfold after half the iterations and fivefold after 4/5, as printed by
    the losses, which are then l1 times the size of a mask that regularisation alone closes."""
    flat = lambda x: tf.reduce_sum(x, [1, 2, 3]) * 0 + 0.5  # noqa: E731
    x = np.random.default_rng(0).uniform(size=(1, 6, 6, 1)).astype("float32")
    e = tfig.explain(flat, x, tfig.IGOS(resolution=3, iterations=10, steps=2), baseline=0.0)
    np.testing.assert_allclose(e.trace["losses"], 0.5)
    assert (e.attributions == 0).all()


@pytest.mark.parametrize(("small", "large"), [(2, 7), (7, 28), (28, 28), (5, 6), (1, 4)])
def test_enlarging_aligns_corners(small, large):
    values = np.random.default_rng(0).uniform(size=(small, small)).astype("float32")
    where = mask.Canvas(0, 2)
    found = where.enlarge(tf.constant(values)[None, ..., None], tf.zeros([1, large, large, 3]))[0, ..., 0].numpy()
    if small == 1:
        np.testing.assert_allclose(found, values[0, 0])
        return
    np.testing.assert_allclose(found, literal.enlarge(tf.constant(values), large), atol=1e-6)
    legacy = tf.compat.v1.image.resize_bilinear(values[None, ..., None], [large, large], align_corners=True)
    np.testing.assert_allclose(found, legacy[0, ..., 0], atol=1e-6)
    np.testing.assert_allclose(found[[0, 0, -1, -1], [0, -1, 0, -1]], values[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-6)


def test_total_variation_by_hand():
    m = np.array([[0.0, 1.0], [0.5, 0.5]], "float32")
    found = mask.total_variation(tf.constant(m)[None, ..., None], 2, 2.0)
    np.testing.assert_allclose(found, [(0.25 + 0.25) / 2 + (1 + 0) / 2])


def test_noise_is_standard_normal_and_independent_over_samples():
    seeds = tf.stack([tf.range(400), tf.zeros([400], tf.int32)], -1)
    draws = normal(seeds, tf.zeros([400], tf.int32), tf.zeros([400, 50])).numpy()
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size) and abs(draws.std() - 1) < 4 / np.sqrt(draws.size)
    assert abs(np.corrcoef(draws[0], draws[1])[0, 1]) < 0.6
    others = normal(seeds, tf.ones([400], tf.int32), tf.zeros([400, 50])).numpy()
    assert abs(np.mean(draws * others)) < 4 / np.sqrt(draws.size)


def test_mask_deletes_the_object_and_spares_the_rest(digits):
    model, x, _ = digits
    e = tfig.explain(model, x[:8], tfig.IGOS(resolution=8, tv=1.6), output="probabilities")
    assert e.attributions.shape == (8, 32, 32, 1)
    assert ((e.attributions >= 0) & (e.attributions <= 1)).all()
    blurred = [cv2.GaussianBlur(image, (51, 51), 50, borderType=cv2.BORDER_REFLECT_101) for image in x[:8]]
    kept = (1 - e.attributions) * x[:8] + e.attributions * np.stack(blurred)[..., None]
    after = model.predict(kept, verbose=0)[np.arange(8), e.target]
    np.testing.assert_allclose(after, e.trace["scores"][:, -1], atol=1e-4)
    np.testing.assert_array_equal(e.trace["moved"], np.abs(after - e.score) > 0.01)
    assert e.trace["moved"].sum() >= 5
    assert (after[e.trace["moved"]] < 0.5 * e.score[e.trace["moved"]]).all() and e.attributions.mean() < 0.5


def test_masks_that_change_nothing_say_so(digits):
    model, x, _ = digits
    e = tfig.explain(model, x[:4], tfig.IGOS(resolution=8, tv=1e4), output="probabilities")
    assert not e.trace["moved"].any() and "4 of 4 masks do not change the score" in repr(e)
    assert np.abs(e.overlay() - e.x.repeat(3, -1) * 255).max() <= 1, "a mask of nothing must not be painted"


def test_igos_plus_plus_is_the_literal_algorithm_row_by_row():
    rng = np.random.default_rng(1)
    x, baseline = rng.uniform(size=(2, 10, 10, 1)), rng.uniform(size=(10, 10, 1)) * 0.2
    model = network()
    e = tfig.explain(
        model, x, tfig.IGOSPlusPlus(resolution=5, iterations=3, steps=4, noise=0.0, tv=1.0, l1=0.2), baseline=baseline
    )
    searches = set()
    for row in range(2):
        target = int(e.target[row])
        small, losses, steps = literal.igos_plus_plus(model, x[row], baseline, target, 5, 3, 4, l1=0.2, tv=1.0)
        np.testing.assert_allclose(e.trace["step_sizes"][row], steps, rtol=1e-9)
        np.testing.assert_allclose(e.trace["losses"][row], losses, atol=1e-9)
        np.testing.assert_allclose(e.trace["mask"][row, ..., 0], small, atol=1e-9)
        np.testing.assert_allclose(e.attributions[row, ..., 0], 1 - literal.enlarge(small, 10), atol=1e-9)
        searches.add(tuple(steps))
    assert len(searches) > 1


def test_meaningful_perturbation_is_the_literal_algorithm():
    rng = np.random.default_rng(1)
    x, baseline = rng.uniform(size=(2, 10, 10, 1)), rng.uniform(size=(10, 10, 1)) * 0.2
    model = network()
    settings = {"l1": 0.01, "tv": 0.05, "tv_beta": 3.0, "blur": 1.0}
    e = tfig.explain(
        model, x, tfig.MeaningfulPerturbation(resolution=5, iterations=12, shift=0, **settings), baseline=baseline
    )
    for row in range(2):
        small, losses = literal.meaningful_perturbation(
            model, x[row], baseline, int(e.target[row]), 5, 12, 0.1, *settings.values()
        )
        np.testing.assert_allclose(e.trace["losses"][row], losses, atol=1e-8)
        np.testing.assert_allclose(e.trace["mask"][row, ..., 0], small, atol=1e-8)
        assert small.min() < 0.5


def test_shifts_turn_the_image_round():
    """Shifts with the borders joined do not matter to a score that they do not change, and do to another."""
    x = np.random.default_rng(1).uniform(size=(2, 8, 8, 1))

    def turning(v):
        joined = tf.concat([v, v[:, :2]], 1)
        joined = tf.concat([joined, joined[:, :, :2]], 2)
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(joined, KERNEL, 1, "VALID")), [1, 2])

    def still(v):
        return v[:, 0, :2, 0]

    def masks(model, shift):
        method = tfig.MeaningfulPerturbation(resolution=4, iterations=6, shift=shift, blur=1.0)
        return tfig.explain(model, x, method, target=1, baseline=0.0).attributions

    np.testing.assert_allclose(masks(turning, 4), masks(turning, 0), atol=1e-9)
    assert np.abs(masks(still, 4) - masks(still, 0)).max() > 0.01


KERNEL = np.random.default_rng(2).normal(size=(3, 3, 1, 2))


def rough(mask, beta, cells, tv):
    """tv times the mean of slopes to a power, as if each axis had 28 cells, along both axes."""
    rows, columns = mask[1:] - mask[:-1], mask[:, 1:] - mask[:, :-1]
    return tv * sum(tf.reduce_mean(tf.abs(one * cells / 28) ** beta) for one in (rows, columns))


def same_as_the_twin(e, row, twin, atol):
    answered = e.trace["mask"][row, ..., 0], e.trace["losses"][row], e.trace["objective"][row]
    for found, expected in zip(answered, twin, strict=True):
        np.testing.assert_allclose(found, expected, atol=atol)


def test_settled_igos_is_its_literal_twin():
    rng = np.random.default_rng(1)
    x, baseline = rng.uniform(size=(2, 10, 10, 1)), rng.uniform(size=(10, 10, 1)) * 0.2
    model, method = network(), tfig.IGOS(resolution=5, iterations=12, steps=5, noise=0.0, tv=5.0, search="settled")
    e = tfig.explain(model, x, method, baseline=baseline)
    for row in range(2):
        twin = literal.settled(
            model, x[row], baseline, int(e.target[row]), 5, 12, 5,
            penalty=lambda mask: tf.reduce_mean(tf.abs(1 - mask)) + rough(mask, 2, 5, 5.0),
        )  # fmt: skip
        same_as_the_twin(e, row, twin, 1e-9)


def test_settled_igos_plus_plus_is_its_literal_twin():
    rng = np.random.default_rng(1)
    x, baseline = rng.uniform(size=(2, 10, 10, 1)), rng.uniform(size=(10, 10, 1)) * 0.2
    model = network()
    method = tfig.IGOSPlusPlus(resolution=5, iterations=12, steps=5, noise=0.0, tv=5.0, search="settled")
    e = tfig.explain(model, x, method, baseline=baseline)
    for row in range(2):

        def penalty(mask, image=x[row, ..., 0]):
            large, excused = literal.enlarge(mask, 10), 0.0
            for cut in (lambda m: m[1:] - m[:-1], lambda m: m[:, 1:] - m[:, :-1]):
                edges = np.exp(-((cut(image) / np.ptp(image)) ** 2) / 0.01)
                excused += tf.reduce_mean(tf.abs(cut(large) * 10 / 28) ** 2 * edges)
            return tf.reduce_mean(tf.abs(1 - mask)) + (rough(mask, 2, 5, 5.0) + 5.0 * excused) / 2

        twin = literal.settled(model, x[row], baseline, int(e.target[row]), 5, 12, 5, both=True, penalty=penalty)
        same_as_the_twin(e, row, twin, 1e-9)


def test_settled_perturbation_is_its_literal_twin():
    rng = np.random.default_rng(1)
    x, baseline = rng.uniform(size=(2, 10, 10, 1)), rng.uniform(size=(10, 10, 1)) * 0.2
    model = network()
    settings = {"learning_rate": 0.03, "l1": 1.0, "tv": 5.0, "shift": 0, "blur": 22.4, "search": "settled"}
    e = tfig.explain(
        model, x, tfig.MeaningfulPerturbation(resolution=5, iterations=12, **settings), baseline=baseline
    )  # a blur of one pixel in ten
    for row in range(2):
        twin = literal.settled(
            model, x[row], baseline, int(e.target[row]), 5, 12, 20, blur=lambda large: literal.blurred(large, 1.0),
            penalty=lambda mask: tf.reduce_mean(tf.abs(1 - mask)) + rough(mask, 3, 5, 5.0),
        )  # fmt: skip
        same_as_the_twin(e, row, twin, 1e-8)


NAMES = ("igos", "igos_plus_plus", "meaningful_perturbation")


@pytest.mark.parametrize(
    ("name", "output"),
    [(name, "probabilities") for name in NAMES] + [("igos", "logits")],
)
def test_by_name_every_mask_answers(digits, name, output):
    """Each changes the score, ends below x's own objective, and does so as the model says."""
    model, x, _ = digits
    e = tfig.explain(model, x[:5], name, output=output)
    assert e.trace["moved"].all() and (e.trace["objective"] < 0).all() and not e.notes
    blurred = tfig.baselines.Blur()(tf.constant(e.x), None).numpy()
    kept = (1 - e.attributions) * e.x + e.attributions * blurred
    after = tfig.explain(model, kept, "gradient", target=e.target, output=output).score
    if name != "igos_plus_plus":
        assert ((after - e.score) / np.abs(e.score - e.baseline_score) <= e.trace["objective"] + 1e-4).all()
    assert (after < e.score - 0.3 * np.abs(e.score - e.baseline_score)).all()


def test_the_range_of_the_inputs_does_not_matter(digits):
    model, x, _ = digits
    expected = tfig.explain(model, x[:4], tfig.IGOS(search="settled", iterations=10, tv=5.0), output="probabilities")
    for low, high in ((-1, 1), (0, 255)):
        inputs = keras.Input(x.shape[1:])
        turned = keras.Model(inputs, model(keras.layers.Rescaling(1 / (high - low), -low / (high - low))(inputs)))
        found = tfig.explain(turned, low + (high - low) * x[:4], expected.explainer.method, output="probabilities")
        np.testing.assert_allclose(found.trace["mask"], expected.trace["mask"], atol=0.02)
        np.testing.assert_allclose(found.trace["objective"], expected.trace["objective"], atol=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_masks_lie_between_zero_and_one_on_any_side(name):
    # What a mask is spread by adds up to one but for rounding.
    still = lambda x: tf.reduce_sum(x, [1, 2, 3]) * 0 + 0.5  # noqa: E731
    method = dataclasses.replace(REGISTRY[name].default(), iterations=1)
    found = [tfig.explain(still, np.ones((1, side, 37, 1), "float32"), method) for side in (29, 61, 90)]
    assert all(e.attributions.min() >= 0 and e.attributions.max() < 1e-6 for e in found)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_can_be_deleted_the_note_says_why(digits, name):
    model, x, _ = digits
    constant = lambda x: tf.reduce_sum(x, [1, 2, 3]) * 0 + 0.5  # noqa: E731
    asked, baseline = (constant, None) if name == "igos" else (model, x[:2])
    method = dataclasses.replace(REGISTRY[name].default(), iterations=3)
    explained = tfig.explain(asked, x[:2], method, baseline=baseline)
    assert "2 of 2 masks have nothing to delete: the baseline scores as x does" in repr(explained)
    assert not explained.attributions.any() and not explained.trace["moved"].any()
    assert (explained.trace["objective"] == 0).all()


def test_features_without_positions_are_masked_one_by_one():
    """A score of two of five features: these two are closed, and what of the others costs something is not."""
    weights = tf.constant([[2.0], [0.0], [-3.0], [0.0], [0.0]])
    x = np.array([[1.0, 1.0, -1.0, 1.0, -1.0]], "float32")
    e = tfig.explain(lambda x: tf.sigmoid(x @ weights)[:, 0], x, "igos", baseline=0.0)
    assert e.attributions[0, [0, 2]].min() > 0.5 and e.attributions[0, [1, 3, 4]].max() < 0.1


@pytest.mark.parametrize("size", [(14, 11), (1, 9)])  # one pixel high, a product of oneDNN wrote past its end
@pytest.mark.parametrize("method", ["meaningful_perturbation", "igos"])
def test_a_network_that_takes_any_size_has_the_same_masks(method, size):
    def network(height, width):
        return keras.Sequential([
            keras.Input((height, width, 3)), L.Conv2D(8, 3, padding="same", activation="relu"),
            L.GlobalAveragePooling2D(), L.Dense(4, activation="softmax"),
        ])  # fmt: skip

    any_size, fixed = network(None, None), network(*size)
    fixed.set_weights(any_size.get_weights())
    x = np.random.default_rng(2).normal(size=(2, *size, 3)).astype("float32")
    found, expected = (tfig.explain(model, x, method, baseline=0.0).attributions for model in (any_size, fixed))
    np.testing.assert_allclose(found, expected, atol=5e-3)  # as masks by name are promised
