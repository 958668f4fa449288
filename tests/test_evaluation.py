"""Evaluation: the table of methods by metrics."""

import csv
import functools
import io

import keras
import numpy as np
import pytest
from keras import layers as L

import tfig
from tfig import metrics


@pytest.fixture(scope="module")
def asked():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((8, 8, 1)), L.Conv2D(3, 3, activation="relu"), L.Flatten(), L.Dense(3, activation="softmax"),
    ])  # fmt: skip
    return model, np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype("float32")


def test_the_table_holds_what_the_metrics_say(asked):
    model, x = asked
    masks = x[..., 0] > 0.8
    found = tfig.evaluate(
        model, x, {"slope": "gradient", "IG": tfig.IntegratedGradients(8), "cam": "cam"},
        {"deletion": "deletion", "by blur": functools.partial(metrics.deletion, protocol="igos"),
         "relevance_mass": "relevance_mass", "mine": lambda e: e.score, "infidelity": "infidelity"},
        masks, target=1,
    )  # fmt: skip
    assert found.methods == ["slope", "IG", "cam"]
    assert found.better == {
        "deletion": "lower", "by blur": "lower", "relevance_mass": "higher", "mine": "", "infidelity": "lower",
    }  # fmt: skip
    e = tfig.explain(model, x, tfig.IntegratedGradients(8), target=1)
    np.testing.assert_array_equal(found.values["IG"]["deletion"], metrics.deletion(e).area)
    np.testing.assert_array_equal(found.values["IG"]["by blur"], metrics.deletion(e, protocol="igos").area)
    np.testing.assert_array_equal(found.values["IG"]["relevance_mass"], metrics.relevance_mass(e, masks))
    np.testing.assert_array_equal(found.curves["IG"]["deletion"].scores, metrics.deletion(e).scores)
    assert "here follow" in found.refused["cam", ""] and np.isnan(found.mean("cam", "deletion"))
    assert found.mean("IG", "mine") == pytest.approx(e.score.mean()) and found.best("mine") == []
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert len(table) == 15 and table[0]["method"] == "slope" and "here follow" in table[-1]["refused"]
    assert float(table[5]["mean"]) == pytest.approx(found.mean("IG", "deletion"), rel=1e-5)


def test_intervals_are_the_bootstraps(asked):
    model, x = asked
    found = tfig.evaluate(model, x, ["gradient"], {"row": lambda e: np.arange(len(e), dtype=float)})
    low, high = found.interval("gradient", "row")
    # Six rows 0...5: the mean's deviation is sqrt(35/12/6), and the interval about 1.96 of it to each side.
    half = 1.96 * (35 / 12 / 6) ** 0.5
    assert abs(low - (2.5 - half)) < 0.2 and abs(high - (2.5 + half)) < 0.2
    narrow = found.interval("gradient", "row", confidence=0.5)
    assert low < narrow[0] < 2.5 < narrow[1] < high
    with pytest.raises(ValueError, match="confidence is 95"):
        found.interval("gradient", "row", 95)
    lost = tfig.evaluate(model, x, ["gradient"], {"row": lambda e: np.where(np.arange(len(e)) < 3, np.nan, 1.0)})
    assert lost.mean("gradient", "row") == 1 and ",3," in lost.to_csv()


def test_one_row_says_nothing_of_others_and_one_failure_costs_one_cell(asked):
    model, x = asked
    one = tfig.evaluate(model, x[:1], "gradient", "deletion")
    assert np.isnan(one.interval("gradient", "deletion")).all() and "[" not in one.to_markdown()
    broken = {"zero": lambda e: 1 / 0, "short": lambda e: np.ones(2), "fine": lambda e: e.score}
    found = tfig.evaluate(model, x, ["gradient"], broken)
    assert "ZeroDivisionError" in found.refused["gradient", "zero"] and list(found.values["gradient"]) == ["fine"]
    assert "one number a row" in found.refused["gradient", "short"]
    assert "* gradient, zero: ZeroDivisionError" in found.to_markdown()


def test_columns_compare_like_with_like(asked):
    """Metrics that would take each explanation's own baseline take one for all."""
    model, x = asked
    names = ["pixel_flipping", "sensitivity_n"]
    for baseline, start in ((None, "zeros"), (0.3, 0.3), (np.full((8, 8, 1), 0.3, "float32"), 0.3)):
        found = tfig.evaluate(model, x, ["occlusion", "igos", "gradient"], names, baseline=baseline)
        assert not found.refused
        ends = [found.curves[name]["pixel_flipping"].scores[:, -1] for name in found.methods]
        empty = model(np.full_like(x, 0 if start == "zeros" else start)).numpy()
        target = tfig.explain(model, x, "gradient").target
        for end in ends:
            np.testing.assert_allclose(end, empty[np.arange(6), target], atol=1e-5)


def test_the_best_and_what_reaches_it_are_bold(asked):
    model, x = asked
    values = {"gradient": [1.0, 1.1, 0.9, 1.0, 1.05, 0.95], "gradient_x_input": [0.5, 1.9, 1.0, 0.2, 1.5, 0.7],
              "lrp": [5.0, 5.1, 5.2, 5.1, 5.0, 5.2]}  # fmt: skip
    found = tfig.evaluate(model, x, list(values), ["deletion"])
    mine = tfig.Evaluation({name: {"m": np.array(v)} for name, v in values.items()}, {}, {"m": "lower"}, {})
    assert mine.best("m") == ["gradient", "gradient_x_input"]
    assert "| gradient | **1 [" in mine.to_markdown() and "| lrp | 5.1 [" in mine.to_markdown()
    assert found.to_markdown().splitlines()[0] == "| | deletion (lower is better) |"


def test_files_and_pictures(asked, tmp_path):
    model, x = asked
    found = tfig.evaluate(model, x, ["gradient", "occlusion"], ["deletion", "insertion", "sparseness"])
    assert found.to_markdown(tmp_path / "t.md") == (tmp_path / "t.md").read_text()
    assert found.to_csv(tmp_path / "t.csv") == (tmp_path / "t.csv").read_text()
    figure = found.plot(tmp_path / "t.png")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["deletion", "insertion"]
    line = figure.axes[0].lines[1]
    np.testing.assert_allclose(line.get_ydata(), found.curves["occlusion"]["deletion"].scores.mean(0))
    assert (tmp_path / "t.png").stat().st_size > 10000


@pytest.mark.parametrize(
    ("methods", "given", "said"),
    [
        (["gradient"], ["deletions"], "no metric is named 'deletions'; did you mean deletion"),
        (["gradient"], [], "metrics is empty"),
        (["gradient"], ["pointing_game"], "pass masks="),
        (["gradients"], ["deletion"], "did you mean"),
        ([], ["deletion"], "methods is empty"),
        ([tfig.IntegratedGradients(4), tfig.IntegratedGradients(8)], ["deletion"], "one name twice"),
    ],
)
def test_what_cannot_be_evaluated_is_said(asked, methods, given, said):
    with pytest.raises(ValueError, match=said):
        tfig.evaluate(*asked, methods, given)


def test_the_default_table_and_its_masks(asked):
    model, x = asked
    found = tfig.evaluate(model, x[:2], ["gradient"], masks=x[:2] > 0.5)
    assert found.metrics[-2:] == ["pointing_game", "relevance_mass"] and not found.refused
    assert all(len(found.values["gradient"][metric]) == 2 for metric in found.metrics)
