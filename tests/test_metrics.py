"""Metrics: literal twins, closed forms, numbers of Captum and Quantus, and hand-set networks whose truth is known."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from conftest import GOLDEN, golden_model
from keras import layers as L
from reference import metrics as literal
from scipy import stats

import tfig
from tfig import metrics
from tfig.kernels import coalition
from tfig.metrics import METRICS, robustness
from tfig.metrics.randomisation import rank_correlation, similarity
from tfig.problem import Method

REFERENCE = dict(np.load(GOLDEN / "metrics.npz"))


def small(channels=2, seed=0):
    """A convolutional network of images [7, 6, C], and rows."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([
        keras.Input((7, 6, channels)), L.Conv2D(4, 3, activation="tanh", name="conv"), L.Flatten(), L.Dense(3),
        L.Softmax(),
    ])  # fmt: skip
    return model, np.random.default_rng(seed).uniform(size=(3, 7, 6, channels)).astype("float32")


def score_of(model, target):
    return lambda x: float(model(np.asarray(x, "float32")[np.newaxis]).numpy()[0, target])


# Faithfulness


@pytest.mark.parametrize("steps", [5, 100])
@pytest.mark.parametrize("metric", ["deletion", "insertion"])
def test_deletion_and_insertion_are_the_protocols(metric, steps):
    model, x = small()
    e = tfig.explain(model, x, "integrated_gradients")
    inserting = metric == "insertion"
    for protocol, taps, sigma in (("rise", 11, 5.0), ("igos", 51, 50.0)):
        absent = tfig.baselines.Blur(taps, sigma)(tf.constant(x), None).numpy()
        absent = np.zeros_like(x) if (protocol, metric) == ("rise", "deletion") else absent
        found = METRICS[metric].function(e, protocol=protocol, steps=steps)
        step = -(-42 // steps) if protocol == "rise" else max(1, 42 // steps)
        for row in range(3):
            score = score_of(model, e.target[row])
            expected, sizes = literal.curve(score, x[row], absent[row], e.heatmap()[row], step, inserting)
            area = literal.rise_area(expected) if protocol == "rise" else literal.igos_area(expected, sizes)
            shown = expected if protocol == "rise" else expected[1:]
            np.testing.assert_allclose(found.scores[row], shown, atol=1e-5)
            np.testing.assert_allclose(found.area[row], area, atol=1e-5)
        np.testing.assert_allclose(found.fractions[-1], 1)


def linear():
    """A linear model of 8 features, its weights, and rows."""
    weights = np.array([5.0, -3.0, 2.0, 0.0, 1.0, 0.5, 0.0, -1.0], "float32")
    model = keras.Sequential([keras.Input((8,)), L.Dense(1, use_bias=False)])
    model.set_weights([weights[:, np.newaxis]])
    return model, weights, np.random.default_rng(0).uniform(0.5, 1.5, (4, 8)).astype("float32")


def test_deletion_and_insertion_on_a_linear_model_have_their_closed_form():
    model, weights, x = linear()
    e = tfig.explain(model, x, "gradient_x_input")
    falling = -np.sort(-weights * x, axis=1)
    removed = np.concatenate([np.zeros((4, 1)), np.cumsum(falling, 1)], 1)
    whole = (weights * x).sum(1, keepdims=True)
    found = metrics.deletion(e, steps=8)
    np.testing.assert_allclose(found.scores, whole - removed, atol=1e-5)
    # Trapezoids of a sum of steps: the k-th highest contributes its own value for k - 1/2 of 8 steps.
    share = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(found.area, (falling * share).sum(1), atol=1e-5)
    np.testing.assert_allclose(metrics.insertion(e, steps=8).area, (falling * (1 - share)).sum(1), atol=1e-5)
    np.testing.assert_allclose(
        metrics.deletion(e, steps=8, protocol="igos").area, (falling * np.arange(8) / 8).sum(1), atol=1e-5
    )
    np.testing.assert_allclose(
        metrics.pixel_flipping(e, steps=8).area, (falling * (8 - np.arange(8)) / 9).sum(1), atol=1e-5
    )
    least = metrics.pixel_flipping(e, steps=8, order="least").area
    np.testing.assert_allclose(least, (falling * (np.arange(8) + 1) / 9).sum(1), atol=1e-5)


def test_pixel_flipping_against_the_literal_twin():
    model, x = small()
    e = tfig.explain(model, x, "integrated_gradients", baseline=0.3)
    found = metrics.pixel_flipping(e, steps=10)
    for row in range(3):
        absent = np.full_like(x[row], 0.3)  # the explanation's own baseline
        expected, _ = literal.curve(score_of(model, e.target[row]), x[row], absent, e.heatmap()[row], 5, False)
        np.testing.assert_allclose(found.scores[row], expected, atol=1e-5)
        np.testing.assert_allclose(found.area[row], np.mean(expected[0] - expected), atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity_against_the_literal_twin(normalize):
    model, x = small()
    e = tfig.explain(model, x, "gradient")
    moves = np.random.default_rng(1).normal(size=(12, *x.shape)).astype("float32") * 0.3
    found = metrics.infidelity(e, perturbation=moves, normalize=normalize)
    expected = [
        literal.infidelity(score_of(model, e.target[row]), x[row], e.attributions[row], moves[:, row], normalize)
        for row in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_infidelity_of_drawn_perturbations_has_its_expectation():
    """On a linear model I . (phi - w) is all that is missed: noise**2 range**2 |phi - w|**2 for Gaussians, and for
    squares of one position the mean of their own terms."""
    model, weights, x = linear()
    e = tfig.explain(model, x, "gradient")
    wrong = dataclasses.replace(e, attributions=e.attributions + np.arange(8, dtype="float32"))
    expected = 0.04 * (x.max(1) - x.min(1)) ** 2 * (np.arange(8) ** 2).sum()
    np.testing.assert_allclose(metrics.infidelity(wrong, samples=5000, noise=0.2), expected, rtol=0.1)
    assert (metrics.infidelity(e) < 1e-9).all()
    image = x.reshape(4, 4, 2, 1)
    sums = keras.Sequential([keras.Input((4, 2, 1)), L.Flatten(), L.Dense(1, use_bias=False)])
    sums.set_weights([weights[:, np.newaxis]])
    e = tfig.explain(sums, image, "gradient")
    wrong = dataclasses.replace(e, attributions=e.attributions + 1)
    squares = metrics.infidelity(wrong, perturbation="square", widest=1, samples=5000, baseline=0.2)
    np.testing.assert_allclose(squares, ((x - 0.2) ** 2).mean(1), rtol=0.1)
    all_of_it = metrics.infidelity(wrong, perturbation="square", widest=4, samples=5000, baseline=0.2)
    means = []
    for row in (image - 0.2)[..., 0]:
        total = 0
        for width in (1, 2, 3, 4):
            tall, wide = width, min(width, 2)
            windows = [
                row[i : i + tall, j : j + wide].sum() ** 2 for i in range(4 - tall + 1) for j in range(2 - wide + 1)
            ]
            total += np.mean(windows) / 4
        means.append(total)
    np.testing.assert_allclose(all_of_it, means, rtol=0.1)


def test_sensitivity_n_against_the_literal_twin():
    model, x = small()
    e = tfig.explain(model, x, "integrated_gradients", baseline=0.1)
    found = metrics.sensitivity_n(e, [3, 20], samples=15, seed=7)
    for row in range(3):
        for column, size in enumerate((3, 20)):
            numbers = tf.range(column * 15, column * 15 + 15)
            places = coalition.ordered(tf.tile([[7, 0]], [15, 1]), numbers, tf.constant(42)).numpy()
            subsets = [np.flatnonzero(place < size) for place in places]
            assert all(len(subset) == size for subset in subsets) and len({tuple(s) for s in subsets}) > 10
            expected = literal.subset_correlation(
                score_of(model, e.target[row]), x[row], np.full_like(x[row], 0.1), e.heatmap()[row], subsets
            )
            np.testing.assert_allclose(found[row, column], expected, atol=1e-3)
    one = metrics.faithfulness_correlation(e, subset_size=3, samples=15, seed=7)
    # The same subsets, scored in other batches: a score rounds to 6e-8 of itself, beside drops of hundredths.
    np.testing.assert_allclose(one, found[:, 0], atol=1e-5)
    np.testing.assert_allclose(metrics.sensitivity_n(e, 3, samples=15, seed=7), found[:, 0], atol=1e-5)


def test_average_drop_against_the_literal_twin():
    model, x = small()
    e = tfig.explain(model, x, "integrated_gradients")
    drop, rise = metrics.average_drop(e, baseline=0.2), metrics.increase(e, baseline=0.2)
    for row in range(3):
        score = score_of(model, e.target[row])
        after = score(literal.seen(x[row], np.full_like(x[row], 0.2), e.heatmap()[row]))
        np.testing.assert_allclose(drop[row], max(0, score(x[row]) - after) / score(x[row]), atol=1e-5)
        assert rise[row] == (after > score(x[row]))


# Robustness, complexity, localisation


def test_robustness_against_the_literal_twin():
    w = np.random.default_rng(3).normal(size=(6, 3))

    def explain(row):  # gradient times input of the second output of sum(tanh(x w))
        return row * ((1 - np.tanh(row @ w) ** 2)[1] * w[:, 1])

    x = np.random.default_rng(0).normal(size=(4, 6))
    moves = np.random.default_rng(1).normal(size=(9, 4, 6)).astype("float32") * 0.1
    model = lambda v: tf.tanh(tf.matmul(v, tf.constant(w)))  # noqa: E731
    e = tfig.explain(model, x, "gradient_x_input", target=1)
    expected = np.array([literal.sensitivities(explain, row, moves[:, i]) for i, row in enumerate(x)])
    for column, metric in enumerate((metrics.max_sensitivity, metrics.avg_sensitivity, metrics.local_lipschitz)):
        np.testing.assert_allclose(metric(e, perturbation=moves), expected[:, column], rtol=1e-4)


def test_random_moves_stay_in_their_ball_and_rows_have_their_own():
    model, x = small()
    e = tfig.explain(model, x, "gradient")
    moved = np.stack([leaves[0] for leaves in robustness._moves(e, 0.1, 50, None, [1, 2, 1])])
    reach = 0.1 * (x.max((1, 2, 3)) - x.min((1, 2, 3)))
    far = np.abs(moved - x).max((0, 2, 3, 4))
    assert (far <= reach * (1 + 1e-5)).all() and (far > 0.95 * reach).all()
    share = (moved - x) / reach[:, None, None, None]
    np.testing.assert_allclose(share[:, 0], share[:, 2], atol=1e-4)
    assert np.abs(share[:, 0] - share[:, 1]).max() > 0.1


def test_complexity_and_localisation_against_the_literal_twins():
    model, x = small()
    e = tfig.explain(model, x, "gradient")
    maps, masks = e.heatmap(), np.random.default_rng(1).uniform(size=(3, 7, 6)) < 0.3
    np.testing.assert_allclose(metrics.sparseness(e), [literal.gini(m) for m in maps], rtol=1e-5)
    np.testing.assert_allclose(metrics.complexity(e), [literal.entropy(m) for m in maps], rtol=1e-5)
    expected = np.array([literal.localisation(m, mask) for m, mask in zip(maps, masks, strict=True)])
    for column, metric in enumerate((metrics.pointing_game, metrics.relevance_mass, metrics.relevance_rank)):
        np.testing.assert_allclose(metric(e, masks), expected[:, column], rtol=1e-5)
        np.testing.assert_allclose(metric(e, masks[..., None]), expected[:, column], rtol=1e-5)
    with pytest.raises(ValueError, match="mask of row 1 is empty"):
        metrics.relevance_mass(e, masks * np.array([1, 0, 1])[:, None, None])
    with pytest.raises(ValueError, match=r"the maps are \[\[3, 7, 6\]\]"):
        metrics.relevance_mass(e, masks[:, :5])


# Axioms


def test_axioms_on_networks_whose_answers_are_known():
    model, weights, x = linear()
    e = tfig.explain(model, x, "integrated_gradients", baseline=0.5)
    assert (metrics.completeness(e) < 1e-5).all()
    twice = dataclasses.replace(e, attributions=2 * e.attributions)
    np.testing.assert_allclose(metrics.completeness(twice), 1, rtol=1e-4)
    slope = tfig.explain(model, x, "gradient")  # from zeros, for want of a baseline of its own
    difference = x @ weights
    np.testing.assert_allclose(
        metrics.completeness(slope), np.abs(weights.sum() - difference) / np.abs(difference), rtol=1e-4
    )
    # Features 3 and 6 are ignored; two maps that are wrong about one and about three.
    assert (metrics.non_sensitivity(e) == 0).all()
    wrong = e.attributions.copy()
    wrong[:2, 3] = 1
    wrong[2:, [0, 1, 6]] = 0, 0, 1
    found = metrics.non_sensitivity(dataclasses.replace(e, attributions=wrong))
    expected = [literal.non_sensitivity(row, (3, 6)) for row in wrong]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found, [1 / 8, 1 / 8, 3 / 8, 3 / 8])


def test_input_invariance_is_the_shift_of_the_baseline():
    """Kindermans' example: gradients do not see the shift, integrated gradients from black do, from the mean do not."""
    model, weights, x = linear()
    assert (metrics.input_invariance(tfig.explain(model, x, "gradient")) < 1e-5).all()
    assert (metrics.input_invariance(tfig.explain(model, x, "integrated_gradients", baseline="mean")) < 1e-4).all()
    black = metrics.input_invariance(tfig.explain(model, x, "integrated_gradients"), shift=2.0)
    expected = np.linalg.norm(2 * weights) / np.linalg.norm(weights * x, axis=1)  # w (x + 2) against w x
    np.testing.assert_allclose(black, expected, rtol=1e-4)
    assert (metrics.input_invariance(tfig.explain(model, x, "lrp")) < 1).any()
    network, image = small()
    cam = tfig.explain(network, image, "layer_cam")
    assert (metrics.input_invariance(cam) < 1e-4).all()


# Randomisation


def test_similarities_against_scipy_and_the_literal_twin():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 13, 14))
    b[0], b[1, :5] = a[0] + 0.3 * b[0], 0  # alike; with ties
    found = rank_correlation(a.reshape(3, -1), b.reshape(3, -1))
    expected = [stats.spearmanr(p.ravel(), q.ravel()).statistic for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    scaled = [(p / np.abs(p).max(), q / np.abs(q).max()) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(similarity(a, b), [literal.ssim(p, q) for p, q in scaled], atol=1e-4)
    a, b = a[:, 6:11, :4], b[:, 6:11, :4]
    narrow = similarity(a, b)
    scaled = [(p / np.abs(p).max(), q / np.abs(q).max()) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(narrow, [literal.ssim(p, q) for p, q in scaled], atol=1e-4)


class Recording(tfig.Explainer):
    """Notes which of the model's weights are not as they were, at each call."""

    def __call__(self, x, target=None):
        self.seen.append([bool((v.numpy() != b).any()) for v, b in zip(self.model.variables, self.before, strict=True)])
        return super().__call__(x, target)


@pytest.mark.parametrize("mode", ["cascading", "independent"])
@pytest.mark.parametrize("name", ["nested", "subclassed", "normalised"])
def test_randomisation_draws_layer_by_layer_from_the_top_and_puts_the_weights_back(name, mode):
    model, x = zoo.build(name), zoo.images()
    e = tfig.explain(model, x, "gradient")
    asked = Recording(model, "gradient")
    asked.seen, asked.before = [], [variable.numpy() for variable in model.variables]
    found = metrics.model_randomisation(e, mode=mode, model=asked)
    layers = {"nested": ["dense", "conv"], "subclassed": ["dense", "conv"]}.get(name)
    if layers:  # by kinds: names are numbered
        assert [one.rstrip("_0123456789") for one in found.layers] == layers
    assert found.rank_correlation.shape == found.ssim.shape == (len(found.layers), 3)
    moving = [variable.name.startswith(("moving", "seed")) for variable in model.variables]
    changed = np.array(asked.seen)
    assert not changed[:, moving].any()
    if mode == "cascading":
        assert (np.diff(changed.sum(1)) > 0).all() and changed[-1][~np.array(moving)].all()
        assert (np.diff(changed.astype(int), axis=0) >= 0).all()
    else:
        assert (changed.sum(0)[~np.array(moving)] == 1).all()
    for variable, value in zip(model.variables, asked.before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_randomisation_puts_the_weights_back_after_an_error():
    model, x = small()
    e = tfig.explain(model, x, "gradient")
    before = [variable.numpy() for variable in model.variables]
    with pytest.raises(ZeroDivisionError):
        metrics.model_randomisation(dataclasses.replace(e, explainer=_Failing(model)))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


class _Failing(tfig.Explainer):
    def __call__(self, x, target=None):
        return 1 / 0


def test_random_logit_compares_with_another_class_each_time():
    model, x = small()
    e = tfig.explain(model, x, "gradient")
    maps = [tfig.explain(model, x, "gradient", target=c).heatmap().reshape(3, -1) for c in range(3)]
    own = e.heatmap().reshape(3, -1)
    others = np.array([[stats.spearmanr(own[row], maps[c][row])[0] for c in range(3)] for row in range(3)])
    seen = [set(), set(), set()]
    for seed in range(8):
        found = metrics.random_logit(e, seed=seed)
        for row in range(3):
            which = int(np.abs(others[row] - found[row]).argmin())
            assert abs(others[row, which] - found[row]) < 1e-4 and which != e.target[row]
            seen[row].add(which)
    assert all(len(classes) == 2 for classes in seen)
    assert metrics.random_logit(e, similarity="ssim").shape == (3,)
    with pytest.raises(ValueError, match="without several"):
        metrics.random_logit(tfig.explain(*_regression(), "gradient"))


def _regression():
    case = zoo.ZOO["regression"]
    return zoo.build("regression"), case.x


def test_randomisation_flags_guided_backprop_and_neither_gradient_nor_integrated_gradients(digits):
    model, x, _ = digits
    flagged = {
        name: metrics.model_randomisation(tfig.explain(model, x[:16], name)).flagged
        for name in ("gradient", "integrated_gradients", "guided_backprop")
    }
    assert flagged == {"gradient": False, "integrated_gradients": False, "guided_backprop": True}


# Captum and Quantus


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_captum_and_quantus(name):
    model, numbers = golden_model(name)
    expected = {key.removeprefix(f"{name}/"): value for key, value in REFERENCE.items() if key.startswith(name)}
    e = tfig.explain(model, numbers["x"], "gradient_x_input", target=numbers["target"], output="logits")
    moves = expected["moves"]
    for normalize, key in ((False, "captum/infidelity"), (True, "captum/infidelity/normalized")):
        found = metrics.infidelity(e, perturbation=moves, normalize=normalize)
        np.testing.assert_allclose(found, expected[key], rtol=1e-3)
    for function, key in (
        (metrics.max_sensitivity, "captum/sensitivity_max"),
        (metrics.max_sensitivity, "quantus/MaxSensitivity"),
        (metrics.avg_sensitivity, "quantus/AvgSensitivity"),
        (metrics.local_lipschitz, "quantus/LocalLipschitzEstimate"),
    ):
        np.testing.assert_allclose(function(e, perturbation=moves), expected[key], rtol=1e-3)
    np.testing.assert_allclose(metrics.sparseness(e), expected["quantus/sparseness"], rtol=1e-3)
    np.testing.assert_allclose(metrics.complexity(e), expected["quantus/complexity"], rtol=1e-3)
    if name == "cnn":
        for key in ("relevance_mass", "relevance_rank", "pointing_game"):
            found = METRICS[key].function(e, expected["mask"])
            np.testing.assert_allclose(found, expected[f"quantus/{key}"].astype(float), rtol=1e-3)
    else:
        flips = metrics.pixel_flipping(e, steps=12, output="probabilities")
        np.testing.assert_allclose(flips.scores[:, 1:], expected["quantus/pixel_flipping"], atol=1e-5)
        found = metrics.faithfulness_correlation(e, subset_size=4, samples=4000)
        np.testing.assert_allclose(found, expected["quantus/faithfulness_correlation"], atol=0.06)


# The perfect and the random attribution


@dataclasses.dataclass(frozen=True)
class Chaos(Method):
    """Numbers that look random, of x and of nothing else."""

    name, reference = "chaos", ""

    def attribute(self, problem):
        """A hash of each row."""
        sums = tf.reduce_sum(problem.x[0] * tf.range(1.0, tf.cast(tf.shape(problem.x[0])[1], tf.float32) + 1), 1)
        return (tf.sin(1e4 * sums[:, None] * tf.range(1.0, 17.0)[None] + 7 * tf.range(16.0)),), {}


def hand_set():
    """16 features: class 0 adds up the first three, class 1 the next, class 2 the next; one is against all of them.

    On rows of ones the truth about class c is its weights, whether as a slope or as a difference from zeros.
    """
    weights = np.zeros((16, 3), "float32")
    weights[9] = -1
    for c in range(3):
        weights[3 * c : 3 * c + 3, c] = 2
    model = keras.Sequential([keras.Input((16,)), L.Dense(3, use_bias=False)])
    model.set_weights([weights])
    return model, weights


@pytest.mark.parametrize("name", METRICS)
def test_the_truth_scores_best_and_chaos_worst(name):
    model, weights = hand_set()
    metric, x = METRICS[name], np.ones((6, 16), "float32")
    target = np.arange(6, dtype="int32") % 3
    mask = weights.T[target] > 0
    arguments = {
        "non_sensitivity": {"samples": 3}, "infidelity": {"samples": 100}, "sensitivity_n": {"samples": 50},
        "model_randomisation": {"seed": 1},
    }.get(name, {})  # fmt: skip
    if name == "infidelity":  # rows that do not vary have no range to draw from
        arguments["perturbation"] = np.random.default_rng(0).normal(size=(50, 6, 16)).astype("float32")
    if name in ("max_sensitivity", "avg_sensitivity", "local_lipschitz"):
        arguments["perturbation"] = np.random.default_rng(0).normal(size=(5, 6, 16)).astype("float32") * 0.01
    if name == "non_sensitivity":
        x = x + np.linspace(0, 1e-3, 16, dtype="float32")

    def value(method):
        e = tfig.explain(model, x, method, target=target)
        found = metric.function(e, mask, **arguments) if metric.needs_mask else metric.function(e, **arguments)
        found = getattr(found, "value", found)
        assert found.shape == (6,) and np.isfinite(found).all()
        return found.mean()

    perfect, half, chaos = value("gradient"), value(Half()), value(Chaos())
    if metric.better == "lower":
        perfect, half, chaos = -perfect, -half, -chaos
    assert perfect >= half >= chaos and perfect > chaos


@dataclasses.dataclass(frozen=True)
class Half(Method):
    """The truth and chaos, half and half."""

    name, reference = "half", ""

    def attribute(self, problem):
        """Their mean."""
        truth, _ = tfig.Gradient().attribute(problem)
        noise, _ = Chaos().attribute(problem)
        return (truth[0] / 2 + noise[0] / 2,), {}


# Where questions are posed


@pytest.mark.parametrize("name", ["two_inputs", "tokens", "half"])
def test_metrics_of_every_kind_of_model(name):
    case, model = zoo.ZOO[name], zoo.build(name)
    e = tfig.explain(model, case.x, "integrated_gradients", **case.arguments)
    for key in ("deletion", "insertion", "sensitivity_n", "faithfulness_correlation", "average_drop", "completeness"):
        found = METRICS[key].function(e)
        assert np.isfinite(getattr(found, "value", found)).all()
    curve = metrics.deletion(e, steps=4)
    np.testing.assert_allclose(curve.scores[:, 0], e.score, atol=1e-2 if name == "half" else 1e-5)
    again = metrics.deletion(dataclasses.replace(e, explainer=None), steps=4, model=_again(model, e))
    np.testing.assert_allclose(again.scores, curve.scores, atol=1e-2 if name == "half" else 1e-5)
    assert metrics.model_randomisation(e).value.shape == (3,)


def _again(model, e):
    """A model is enough, but for outputs and targets that only an Explainer knows."""
    asked = e.explainer
    return asked if isinstance(asked.target, tuple) or callable(asked.target) else model


def test_maps_of_a_layer_are_measured_there_and_class_activation_maps_at_the_input():
    model, x = small()
    at_layer = tfig.explain(model, x, "integrated_gradients", layer="conv", baseline=0.0)
    curve = metrics.deletion(at_layer, steps=5)
    np.testing.assert_allclose(curve.scores[:, 0], at_layer.score, atol=1e-6)
    emptied = tfig.explain(lambda h: model.layers[-1](model.layers[-2](model.layers[-3](h))),
                           np.repeat(model.layers[0](np.zeros_like(x)).numpy()[:1], 3, 0), "gradient",
                           target=at_layer.target)  # fmt: skip
    np.testing.assert_allclose(curve.scores[:, -1], emptied.score, atol=1e-5)
    cam = tfig.explain(model, x, "grad_cam")
    blank = tfig.explain(model, np.zeros_like(x), "gradient", target=cam.target)
    np.testing.assert_allclose(metrics.deletion(cam, steps=5).scores[:, -1], blank.score, atol=1e-5)
    with pytest.raises(ValueError, match="a layer's positions"):
        metrics.infidelity(cam)


def test_served_and_loaded_explanations_take_a_model(tmp_path):
    model, x = small()
    e = tfig.explain(model, x, tfig.SmoothGrad(tfig.IntegratedGradients(8), samples=3), target=tfig.Contrast(1, 0))
    loaded = tfig.Explanation.load(e.save(tmp_path / "e.npz"))
    with pytest.raises(ValueError, match="knows no model; pass model="):
        metrics.deletion(loaded)
    np.testing.assert_allclose(metrics.deletion(loaded, model=model).scores, metrics.deletion(e).scores, atol=1e-6)
    np.testing.assert_allclose(metrics.max_sensitivity(loaded, model=model), metrics.max_sensitivity(e), rtol=1e-4)
    served = dataclasses.replace(loaded, method="why")
    assert metrics.deletion(served, model=model).area.shape == (3,)
    with pytest.raises(ValueError, match="'why', which is no method of tfig"):
        metrics.max_sensitivity(served, model=model)
    asked = tfig.Explainer(model, tfig.SmoothGrad(tfig.IntegratedGradients(8), samples=3))
    np.testing.assert_allclose(metrics.max_sensitivity(served, model=asked), metrics.max_sensitivity(e), rtol=1e-4)
    picked = tfig.explain(model, x, "gradient", seed=[1, 2, 3])[[2, 0]]
    with pytest.raises(ValueError, match="picked from rows"):
        metrics.deletion(picked)
    np.testing.assert_allclose(metrics.deletion(e[[2, 0]]).area, metrics.deletion(e).area[[2, 0]], atol=1e-6)


def test_another_question_than_the_explanations_is_refused(tmp_path):
    model, x = small()
    other, _ = small(seed=1)
    kept = {"blurred": {"baseline": "blur"}, "mine": {"target": lambda y: y[:, 0] - y[:, 1]}, "plain": {}}
    loaded = {
        name: tfig.Explanation.load(tfig.explain(model, x, **asked).save(tmp_path / name))
        for name, asked in kept.items()
    }
    with pytest.raises(ValueError, match=r"F\(x'\), from zeros, of row"):
        metrics.sensitivity_n(loaded["blurred"], model=model)
    expected = metrics.sensitivity_n(tfig.explain(model, x, baseline="blur"))
    for given in ({"model": model, "baseline": "blur"}, {"model": tfig.Explainer(model, baseline="blur")}):
        np.testing.assert_allclose(metrics.sensitivity_n(loaded["blurred"], **given), expected, atol=1e-5)
    metrics.sensitivity_n(loaded["plain"], model=model)
    for metric in (metrics.max_sensitivity, metrics.input_invariance, metrics.model_randomisation):
        with pytest.raises(ValueError, match="another than this one"):
            metric(loaded["blurred"], model=model)
        with pytest.raises(ValueError, match="another than this one"):
            metric(loaded["plain"], model=tfig.Explainer(model, "gradient"))
    for e, given in ((loaded["mine"], model), (loaded["plain"], other)):
        with pytest.raises(ValueError, match=r"of row 0 is .* and the explanation's is"):
            metrics.deletion(e, model=given)
    live = tfig.explain(model, x, baseline=np.full((7, 6, 2), 0.2, "float32"))
    np.testing.assert_allclose(
        metrics.sensitivity_n(live, 5), metrics.sensitivity_n(tfig.explain(model, x, baseline=0.2), 5), atol=1e-4
    )


def test_randomisation_leaves_out_what_the_answer_does_not_depend_on():
    inputs = keras.Input((6,))
    trunk = L.Dense(5, activation="relu", name="trunk")(inputs)
    heads = [L.Dense(3, name=f"head{i}")(trunk) for i in range(3)]
    model = keras.Model(inputs, heads)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    found = metrics.model_randomisation(tfig.explain(model, x, "gradient", target=(2, 1)))
    assert found.layers == ["head2", "trunk"]
    at_layer = tfig.explain(model, x, "gradient", target=(2, 1), layer="trunk")
    assert metrics.model_randomisation(at_layer).layers[0] == "head2"


def test_nothing_measured_is_not_a_good_mark():
    model, x = small()
    flat_rows = np.full_like(x, 0.5)
    e = tfig.explain(model, flat_rows, "gradient")
    assert np.isnan(metrics.max_sensitivity(e)).all() and np.isnan(metrics.infidelity(e, samples=5)).all()
    silent = tfig.explain(model, x, "gradient", target=lambda y: y[:, 0] * 0 + 1)
    assert "the map is zero everywhere in 3 of 3 rows" in silent.notes
    assert (rank_correlation(np.zeros((2, 5)), np.zeros((2, 5))) == 1).all()
    broken = tfig.explain(model, x, "gradient")
    broken = dataclasses.replace(
        broken, attributions=broken.attributions * np.array([1, np.nan, 1])[:, None, None, None]
    )
    assert "the map is NaN or infinite in 1 of 3 rows" in broken.notes
    with pytest.raises(ValueError, match="row 1 are NaN"):
        metrics.complexity(broken)
    assert metrics.complexity(broken[[0, 2]]).shape == (2,)
    with pytest.raises(ValueError, match="sparseness measures an Explanation"):
        metrics.sparseness(x)
    blurred = tfig.explain(model, x, tfig.BlurIG(steps=50, max_sigma=3))
    change = blurred.attributions.sum((1, 2, 3)) - blurred.trace["delta"]
    np.testing.assert_allclose(metrics.completeness(blurred), np.abs(blurred.trace["delta"] / change), rtol=1e-3)


def test_maps_of_layers_of_sequences_and_images():
    keras.utils.set_random_seed(0)
    series = keras.Sequential([keras.Input((9, 3)), L.Conv1D(4, 3, activation="relu"), L.Flatten(), L.Dense(3)])
    s = np.random.default_rng(0).normal(size=(2, 9, 3)).astype("float32")
    e = tfig.explain(series, s, "grad_cam")
    for metric in (metrics.deletion, metrics.insertion, metrics.average_drop, metrics.sensitivity_n):
        found = metric(e)
        assert np.isfinite(getattr(found, "value", found)).all()
    with pytest.raises(ValueError, match="a layer's positions"):
        metrics.infidelity(e)
    model, x = small()
    deep, mask = tfig.explain(model, x, "gradient", layer="conv"), np.zeros((7, 6), bool)
    mask[2:5, 1:4] = True
    shown = np.maximum(deep.heatmap(), 0)
    np.testing.assert_allclose(
        metrics.relevance_mass(deep, mask), shown[:, 2:5, 1:4].sum((1, 2)) / shown.sum((1, 2)), rtol=1e-5
    )
    assert metrics.relevance_mass(deep, mask[1:6, 1:5]).shape == (3,)  # of the layer's own positions
    with pytest.raises(ValueError, match="NaN or negative"):
        metrics.relevance_mass(deep, np.where(mask, 1, np.nan))
    assert metrics.relevance_mass(deep, mask[..., None]).shape == (3,)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda e: metrics.sensitivity_n(e, []), "n is empty"),
        (lambda e: metrics.infidelity(e, perturbation="given"), "must be one of gaussian, square"),
        (lambda e: metrics.pixel_flipping(e, baseline=tfig.baselines.Dataset(e.x)), "not a Dataset"),
        (lambda e: metrics.deletion(e, protocol="captum"), "protocol is 'captum'"),
        (lambda e: metrics.deletion(e, steps=0), "steps is 0"),
        (lambda e: metrics.pixel_flipping(e, order="random"), "order is 'random'"),
        (lambda e: metrics.infidelity(e, perturbation="circle"), "perturbation is 'circle'"),
        (lambda e: metrics.infidelity(e, perturbation=np.zeros((2, 3, 4))), "perturbation has shapes"),
        (lambda e: metrics.max_sensitivity(e, perturbation=np.zeros((2, 3, 4))), "perturbation has shapes"),
        (lambda e: metrics.sensitivity_n(e, 43), "n is 43, and there are 42 positions"),
        (lambda e: metrics.sensitivity_n(e, 4, samples=1), "samples is 1"),
        (lambda e: metrics.model_randomisation(e, mode="all"), "mode is 'all'"),
        (lambda e: metrics.random_logit(e, similarity="cosine"), "similarity is 'cosine'"),
        (lambda e: metrics.deletion(dataclasses.replace(e, x=None)), "x was left out"),
        (lambda e: metrics.sparseness(dataclasses.replace(e, attributions=None)), "attributions were left out"),
    ],
)
def test_what_cannot_be_measured_is_said(ask, said):
    model, x = small()
    with pytest.raises(ValueError, match=said):
        ask(tfig.explain(model, x, "gradient"))


def test_one_trace_for_a_metric():
    calls = []

    def counting(z):
        calls.append(1)
        return keras.ops.relu(z)

    model = keras.Sequential([keras.Input((6,)), L.Dense(4), L.Activation(counting), L.Dense(3)])
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    e = tfig.explain(model, x, "gradient")
    for rows in (5, 2):
        metrics.deletion(e[:rows])
        metrics.sensitivity_n(e[:rows], 2)
        metrics.max_sensitivity(e[:rows])
        metrics.model_randomisation(e[:rows])
        if rows == 5:
            traced = len(calls)
    assert len(calls) == traced


def test_infidelity_of_a_linear_model_is_zero_for_slopes_and_for_differences():
    """As Captum's, which divides perturbations by x - x' for maps that are multiplied by inputs."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 2)).astype("float32")
    x = rng.uniform(0.5, 1.5, (3, 6)).astype("float32")
    model = lambda v: tf.matmul(v, weights) + 1  # noqa: E731
    for method in ("gradient", "smoothgrad", "integrated_gradients", "gradient_x_input", "kernel_shap", "occlusion"):
        e = tfig.explain(model, x, method, target=1)
        assert metrics.infidelity(e, samples=50).max() <= 1e-5, method
    e = tfig.explain(model, x, "integrated_gradients", target=1)
    as_slope = metrics.infidelity(e, samples=4000, noise=0.2, multiply_by_inputs=False)
    deviation = 0.2 * np.ptp(x, axis=1, keepdims=True)
    expected = (((x - 1) * weights[:, 1] * deviation) ** 2).sum(1)
    np.testing.assert_allclose(as_slope, expected, rtol=0.15)


def test_a_map_of_zeros_is_no_stable_map():
    model, x = small()
    e = tfig.explain(model, x, "gradient", target=lambda y: y[:, 0] * 0 + 1)
    assert "the map is zero everywhere in 3 of 3 rows" in e.notes
    for metric in (metrics.max_sensitivity, metrics.avg_sensitivity, metrics.local_lipschitz, metrics.input_invariance):
        assert np.isnan(metric(e)).all()
    assert np.isnan(metrics.relevance_rank(e, np.ones(x.shape[1:3]))).all()


def test_maps_of_x_that_are_read_at_a_layer():
    """Guided Grad-CAM speaks of pixels, of all channels, whatever the size of the layer that it reads."""
    x = keras.Input((12, 12, 3))
    h = L.Conv2D(4, 3, strides=2, activation="relu")(x)
    model = keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(h)))
    rows = np.random.default_rng(0).uniform(size=(2, 12, 12, 3)).astype("float32")
    e = tfig.explain(model, rows, "guided_grad_cam", target=1)
    for metric in (metrics.deletion, metrics.sensitivity_n, metrics.infidelity, metrics.average_drop):
        found = metric(e)
        assert np.isfinite(getattr(found, "area", found)).all()
