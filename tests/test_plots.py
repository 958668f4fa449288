"""Pictures, by the kind of what is explained: what they show is what the numbers say."""

import itertools
import json

import keras
import matplotlib as mpl
import numpy as np
import pytest
import tensorflow as tf
import zoo
from matplotlib.colors import to_rgb

import tfig
from tfig import naming, picture, view
from tfig.plots import canvas, panel, series, sheet, table, tokens, volume

RANDOM = np.random.default_rng(0)
SAID = "the film was not at all what I had expected , but the acting of the lead is wonderful and moving throughout"
TEXT = SAID.split()
VOCABULARY = ["", "[UNK]", *sorted(set(TEXT))]


def answer(attributions, x=None, **fields):
    """An explanation of what is given."""
    leaf = next(iter(attributions.values())) if isinstance(attributions, dict) else attributions
    rows = len(leaf)
    known = {"target": np.arange(rows), "score": np.ones(rows), "baseline_score": None, "convergence_delta": None,
             "method": "integrated_gradients"}  # fmt: skip
    return tfig.Explanation(attributions=attributions, x=x, **{**known, **fields})


def text(rows=2, length=30):
    ids = np.zeros((rows, length), "int32")
    ids[0, : len(TEXT)] = [VOCABULARY.index(word) for word in TEXT]
    ids[1:, :3] = 2
    return ids


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


KINDS = {
    "image": (noise(2, 8, 8, 3), noise(2, 8, 8, 3), None),
    "a layer of images": (noise(2, 4, 4, 5), noise(2, 8, 8, 3), "conv"),
    "tokens at an embedding": (noise(2, 30, 4), text(), "embedding"),
    "tokens": (noise(2, 30), text(), None),
    "words": (noise(2, 3), np.array([["a", "b", ""], ["c", "", ""]]), None),
    "series": (noise(2, 20, 3), noise(2, 20, 3), None),
    "a long series": (noise(1, 501), noise(1, 501), None),
    "steps of a layer": (noise(2, 5, 3), noise(2, 20, 3), "pool"),
    "table": (noise(2, 5), noise(2, 5), None),
    "categories": (noise(2, 1), np.array([[3], [4]]), None),
    "units of a layer": (noise(2, 600), noise(2, 5), "dense"),
    "one number a row": (noise(2), noise(2), None),
    "volume": (noise(2, 6, 7, 8, 1), noise(2, 6, 7, 8, 1), None),
    "video": (noise(2, 9, 7, 8, 3), noise(2, 9, 7, 8, 3), None),
}
EXPECTED = {
    "a layer of images": "image", "tokens at an embedding": "tokens", "words": "tokens", "a long series": "series",
    "steps of a layer": "series", "categories": "table", "units of a layer": "table", "one number a row": "table",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_told_and_drawn(name, tmp_path):
    attributions, x, layer = KINDS[name]
    e = answer(attributions, x, layer=layer, class_names=["cat", "dog"])
    (part,) = sheet.parts(e)
    assert part.kind == EXPECTED.get(name, name)
    np.testing.assert_allclose(part.share, 1, rtol=1e-6)
    figure = e.plot(tmp_path / "e.png")
    assert (tmp_path / "e.png").stat().st_size > 3000
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == ["cat, score 1", "dog, score 1"][: len(e)]


def test_what_has_no_picture_and_what_does_not_fit():
    with pytest.raises(ValueError, match=r"no picture of attributions \[1, 2, 2, 2, 2, 2\]"):
        answer(noise(1, 2, 2, 2, 2, 2)).plot()
    with pytest.raises(ValueError, match=r"kind is 'volume'; attributions .* can be drawn as image"):
        answer(noise(1, 4, 4, 3)).plot(kind="volume")
    with pytest.raises(ValueError, match=r"kind is 'text'.*tokens, series, table"):
        answer(noise(1, 4)).plot(kind="text")
    with pytest.raises(ValueError, match="feature_names has 2 entries, and there are 4"):
        answer(noise(1, 4)).plot(feature_names=["a", "b"])
    with pytest.raises(ValueError, match="channel_names has 2 entries, and there are 3"):
        answer(noise(1, 9, 3)).plot(channel_names=["a", "b"])
    with pytest.raises(ValueError, match="tokens gives 2 words for 4 tokens"):
        answer(noise(2, 4), np.ones((2, 4), "int32")).plot(tokens=lambda ids: ["a", "b"])


class Tokenizer:
    """As KerasHub's."""

    def id_to_token(self, i):
        return VOCABULARY[i]


def test_words_however_they_are_given():
    ids = text()
    layer = keras.layers.TextVectorization(vocabulary=sorted(set(TEXT)))
    many = [TEXT + [""] * (30 - len(TEXT)), ["x"] * 30]
    ways = [VOCABULARY, dict(enumerate(VOCABULARY)), {word: i for i, word in enumerate(VOCABULARY)}, Tokenizer(), layer,
            lambda row: [VOCABULARY[i] for i in row], many, np.array(many)]  # fmt: skip
    for given in ways:
        assert naming.tokens(given, ids[0], 0, 2)[: len(TEXT)] == TEXT
    assert naming.tokens(" ".join(TEXT), ids[0, : len(TEXT)]) == TEXT
    assert naming.tokens(None, np.array([b"na\xc3\xafve", b""])) == ["naïve", ""]
    assert naming.tokens(["a", "b"], np.array([7, 9])) == ["a", "b"]  # words of the one row, no vocabulary
    with pytest.raises(ValueError, match="3 lists of words, and there are 2 rows"):
        naming.tokens([["a"], ["b"], ["c"]], np.array([1]), 0, 2)


def test_words_bear_the_colour_of_what_they_did():
    ids, maps = text(), noise(2, 30)
    maps[ids == 0] = 0
    e = answer(maps, ids, class_names={0: "cat", 1: "dog"})
    figure = e.plot(tokens=VOCABULARY)
    axes = figure.axes[0]
    assert [one.get_text() for one in axes.texts] == TEXT
    full = picture.full(maps[:1, : len(TEXT)]).numpy()[0]
    for box, value in zip(axes.patches, maps[0], strict=False):
        assert box.get_facecolor()[:3] == pytest.approx(canvas.colour(np.clip(value / full, -1, 1)))
    rows = {one.get_position()[1] for one in axes.texts}
    assert len(rows) == 2  # 96 letters fill a line
    for row in rows:
        ends = [(x, x + len(one.get_text())) for one in axes.texts for x, y in [one.get_position()] if y == row]
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(ends)) and ends[-1][1] <= 96


def test_padding_is_not_shown_but_where_it_has_a_value():
    ids, maps = text(), noise(2, 30)
    maps[ids == 0] = 0
    shown = panel.Panel(maps[1], maps[1], ids[1], words=tuple(naming.tokens(VOCABULARY, ids[1])))
    assert tokens.visible(shown)[0] == [VOCABULARY[2]] * 3
    maps[1, 7], maps[1, 9] = 0.5, 0.25
    words, values = tokens.visible(shown)
    assert words[-1] == "[27 of padding]" and values[-1] == 0.75
    inner = np.array([3, 0, 4, 0])
    assert naming.padding(["a", "", "b", ""], inner).tolist() == [False, False, False, True]


def test_a_long_word_and_wide_letters_fit():
    words = ("漢字" * 60, "e\u0301" * 50, "a" * 300)
    ids = np.arange(1, 4)
    shown = panel.Panel(np.ones(3), np.ones(3), ids, words=words)
    assert all(across + tokens._width(word) <= 96 for line in tokens._lines(words) for across, _, word in line)
    assert tokens.size(shown)[1] < 2.5


@pytest.mark.parametrize("steps", [1, 7, 1200, 1201, 5000, 43844])
def test_a_series_of_any_length(steps):
    signal, attributions = noise(1, steps, 2), noise(1, steps, 2)
    figure = answer(attributions, signal).plot(channel_names=["left", "right"])
    bands = [axes for axes in figure.axes if axes.images]
    assert len(bands) == 2
    width = -(-steps // series.BINS)
    for channel, axes in enumerate(bands):
        drawn = axes.images[0].get_array()
        expected = [attributions[0, i : i + width, channel].sum() for i in range(0, steps, width)]
        np.testing.assert_allclose(drawn[0], expected, rtol=1e-4, atol=1e-5)
        low, high = axes.get_ylim()
        assert low <= signal[0, :, channel].min() and high >= signal[0, :, channel].max()
    assert (f"sums of {width} steps" in bands[-1].get_xlabel()) == (steps > series.BINS)


def test_one_attribution_of_all_channels_is_behind_each(tmp_path):
    signal, attributions = noise(1, 30, 3), noise(1, 30, 1)  # as occlusion gives them
    figure = answer(attributions, signal).plot(channel_names=["a", "b", "c"])
    bands = [axes for axes in figure.axes if axes.images]
    assert [axes.get_ylabel() for axes in bands] == ["a", "b", "c"]
    for axes in bands:
        np.testing.assert_allclose(axes.images[0].get_array()[0], attributions[0, :, 0], rtol=1e-6)


def test_of_many_channels_the_strongest_are_drawn():
    attributions = noise(1, 30, 20) * 0.01
    attributions[..., [3, 17]] += 1
    shown = panel.Panel(attributions[0], attributions[0].sum(-1))
    assert {3, 17} <= set(series.strongest(shown)) and len(series.strongest(shown)) == 8
    assert "8 of 20 channels" in answer(attributions).plot().axes[7].get_xlabel()


@pytest.mark.parametrize("missed", [0.0, 0.4])
def test_a_waterfall_ends_where_the_model_does(missed):
    values = noise(2, 30)
    base = np.array([0.5, -2.0])
    score = base + values.sum(1) + missed
    delta = values.sum(1) - (score - base)
    names = [f"column {i}" for i in range(30)]
    e = answer(values, noise(2, 30), baseline_score=base, score=score, convergence_delta=delta)
    figure = e.plot(feature_names=names)
    for row, axes in enumerate(figure.axes):
        bars = axes.patches
        assert bars[0].get_x() == pytest.approx(base[row])
        assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(score[row], abs=1e-5)
        for one, other in itertools.pairwise(bars):
            assert one.get_x() + one.get_width() == pytest.approx(other.get_x(), abs=1e-6)
        labels = [label.get_text() for label in axes.get_yticklabels()]
        order = np.argsort(-np.abs(values[row]))
        assert labels[0].startswith(f"column {order[0]} = ") and labels[15] == "15 others"
        assert (labels[-1] == "not attributed") == bool(missed)
        assert to_rgb(canvas.FOR if values[row, order[0]] > 0 else canvas.AGAINST) == bars[0].get_facecolor()[:3]
    bars_alone = answer(values, noise(2, 30)).plot().axes[0].patches
    assert all(bar.get_x() == 0 for bar in bars_alone)  # no F(x') to begin at


def test_columns_by_name_are_one_table():
    x = {"age": noise(2, 1), "colour": np.array([["red"], ["blue"]]), "size": noise(2, 3)}
    maps = {"age": noise(2, 1), "colour": noise(2, 1), "size": noise(2, 3)}
    (part,) = sheet.parts(answer(maps, x), words=panel.Words(feature_names={"size": ["h", "w", "d"]}))
    assert part.kind == "table" and part.panels[0].words[1] == "colour = red"
    assert [word.split(" = ")[0] for word in part.panels[0].words] == ["age", "colour", "h", "w", "d"]
    wide = sheet.parts(answer(maps, x))[0].panels[0]
    assert wide.words[-1].startswith("size 2 = ")
    assert len(table.bars(wide)) == 5


def test_several_inputs_have_a_panel_and_a_share_each():
    x = {"image": noise(2, 8, 8, 3), "table": noise(2, 5), "words": text()}
    maps = {"image": np.ones((2, 8, 8, 3)), "table": np.full((2, 5), -12.8), "words": np.zeros((2, 30))}
    parts = sheet.parts(answer(maps, x, held=(2,)))
    assert [(part.kind, part.name) for part in parts] == [("image", "image"), ("table", "table")]  # words are held
    np.testing.assert_allclose([part.share for part in parts], [[0.75, 0.75], [0.25, 0.25]])
    figure = answer(maps, x).plot(kind={"table": "series"}, tokens=VOCABULARY)
    assert [place._suptitle.get_text() for place in figure.subfigs[:3]] == ["image: 75%", "table: 25%", "words: 0%"]


def test_cuts_go_through_the_strongest_voxel():
    maps = noise(1, 6, 7, 8, 1) * 0.1
    maps[0, 4, 5, 2] = -3
    figure = answer(maps, noise(1, 6, 7, 8, 1)).plot()
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == ["depth 4", "row 5", "column 2"]
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for axes in figure.axes[:3] for line in axes.lines]
    assert places == [(2, 5), (2, 4), (5, 4)]
    clip = panel.Panel(maps[0], np.zeros((30, 4, 4)))
    clip.map[17] = 1
    assert 17 in volume.frames(clip) and len(volume.frames(clip)) == volume.FRAMES


def test_the_scale_bar_says_what_full_colour_is():
    maps = noise(1, 8, 8, 3)
    figure = answer(maps, noise(1, 8, 8, 3)).plot()
    full = np.quantile(np.abs(maps.sum(-1)), picture.CLIP)
    assert view.scale(maps[0].sum(-1)) == pytest.approx(full, rel=1e-5)
    assert figure.axes[-1].get_yticklabels()[-1].get_text() == f"{full:.2g}"
    assert view.scale(np.zeros((3, 3), "float32")) == 1 and view.scale(maps[0], 0.5) == 0.5


def test_class_names_are_kept(tmp_path):
    model, x = zoo.build("sequential"), zoo.images()
    for given in (["a", "b", "c", "d"], {0: "a", 1: "b", 2: "c", 3: "d"}, {"a": 0, "b": 1, "c": 2, "d": 3}):
        e = tfig.explain(model, x, "gradient", target="b", class_names=given)
        assert (e.target == 1).all()
        after = tfig.Explanation.load(e.save(tmp_path / "e.npz"))
        assert sheet.title(after, 0).startswith("b, score") and naming.listed(given) == after.class_names
    named = tfig.explain(model, x, "gradient", target=tfig.Contrast(1, 2), class_names=lambda i: f"<{i}>")
    after = tfig.Explanation.load(named.save(tmp_path / "e.npz"))
    assert after.class_names == {1: "<1>", 2: "<2>"}
    assert sheet.title(after[1], 0).startswith("<1> rather than <2>, score")
    assert sheet.title(named, 0, ["", "x", "y"]).startswith("x rather than y")
    assert tfig.Explanation.load(tfig.explain(model, x, "gradient").save(tmp_path / "e")).class_names is None
    with np.load(tmp_path / "e.npz") as file:
        assert json.loads(str(file["header"]))["version"] == 1


def test_one_unit_is_no_class(tmp_path):
    e = tfig.explain(zoo.build("regression"), zoo.table(), "gradient")
    assert e.provenance["target"] == "the only unit of the output"
    assert sheet.title(tfig.Explanation.load(e.save(tmp_path / "e")), 0) == f"score {e.score[0]:.3g}"


def test_class_maps_of_series_and_volumes_lie_over_the_input():
    coarse = noise(1, 5, 1)
    signal = noise(1, 20, 3)
    (leaf,) = sheet.explained(answer(coarse, signal, layer="conv", method="grad_cam"))
    assert leaf.attributions.shape == (1, 20, 1) and leaf.x is signal
    image = view.enlarged(coarse[..., None], (20, 1))[..., 0]
    expected = tf.image.resize(coarse[..., None], (20, 1))[..., 0].numpy()
    np.testing.assert_allclose(leaf.attributions, expected, atol=1e-6)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    clip = noise(1, 3, 4, 4, 1)
    (leaf,) = sheet.explained(answer(clip, noise(1, 9, 8, 8, 3), layer="conv", method="grad_cam"))
    assert leaf.kind == "video" and leaf.map.shape == (1, 9, 8, 8)
    (still,) = sheet.explained(answer(np.zeros((1, 3, 4, 4, 1)), layer="conv"))
    assert not [
        line for axes in sheet.single(sheet.parts(answer(still.attributions))[0], 0).axes for line in axes.lines
    ]


def test_units_of_a_layer_are_no_channels_or_features():
    units = answer(noise(1, 9, 3), noise(1, 20, 5), layer="conv")
    (part,) = sheet.parts(units)
    assert part.panels[0].x is None and part.panels[0].words == ("unit 0", "unit 1", "unit 2")
    dense = answer(noise(2, 6), noise(2, 6), layer="dense")  # as wide as the table
    assert sheet.parts(dense)[0].panels[0].words[0] == "unit 0"
    inside = answer(noise(2, 8, 8, 3), noise(2, 8, 8, 3), layer="conv", method="guided_grad_cam")  # of the input
    assert not sheet.explained(inside)[0].units


def test_words_that_no_ids_stand_for_are_refused_not_guessed():
    steps = answer(noise(2, 5, 4), np.array([["a b"], ["c d"]]), layer="conv")
    for given in (VOCABULARY, Tokenizer(), {1: "a"}):
        with pytest.raises(ValueError, match="tokens= is to name ids, and there are none for the 5 positions"):
            steps.plot(tokens=given)
    assert sheet.parts(steps, words=panel.Words([list("abcde")] * 2))[0].panels[1].words == tuple("abcde")
    layer = keras.layers.TextVectorization(vocabulary=["good", "bad"], output_sequence_length=3)
    held = answer(noise(2, 3, 4), np.array([["good film"], ["bad"]]), layer="embedding")  # the model holds the layer
    assert sheet.parts(held, words=panel.Words(layer))[0].panels[0].words == ("good", "[UNK]", "")
    ids = np.array([[5, 4, 3, 2, 1, 0]])  # one row, and a vocabulary as long as it
    assert naming.tokens(["", *"abcde"], ids[0]) == [*"edcba", ""]


def test_names_are_no_formulas(tmp_path):
    e = answer(noise(1, 3), np.array([["$a$", "$b$", "$\\frac{$"]]), class_names=["$20_000 or $5"])
    for name in ("$\\frac{$", "$20k-$30k"):
        e.plot(tmp_path / "e.png", feature_names=[name, "b", "c"])
        tfig.summary(e, feature_names=[name, "b", "c"]).plot(tmp_path / "s.png")
    figure = e.plot(feature_names=["$x", "b$", "c"])
    figure.savefig(tmp_path / "e.png")
    assert not [text for text in figure.findobj(mpl.text.Text) if text.get_parse_math()]


def test_what_is_not_drawn_is_said_and_what_is_no_number_is_drawn(tmp_path):
    nine = answer(noise(9, 3)).plot()
    assert nine._supxlabel.get_text() == "and 1 rows more"
    lost = noise(4, 3)
    lost[1] = np.nan
    e = answer(lost, score=np.full(4, np.nan))
    e.plot(tmp_path / "e.png")
    found = tfig.summary(e)
    np.testing.assert_allclose(found.mean(found.features[0]), np.abs(lost[[0, 2, 3]]).mean(0).max(), rtol=1e-6)
    found.plot(tmp_path / "s.png")
    with pytest.raises(ValueError, match="no rows, so there is nothing to show"):
        e[[]].plot()
    with pytest.raises(ValueError, match="2 rows and 5 images"):
        answer(noise(2, 8, 8, 3)).plot(image=noise(5, 8, 8, 3))
    answer(noise(2, 8, 8, 3)).plot(image=noise(1, 8, 8, 3))
    with pytest.raises(ValueError, match="class_names is 3"):
        answer(noise(2, 3), class_names=3).plot()
    assert len(sheet.title(answer(noise(1, 3), class_names=["very " * 50]), 0)) < 70


def test_a_grid_of_several_inputs_says_what_share_it_shows():
    x = {"image": noise(1, 8, 8, 3), "table": noise(1, 5)}
    e = answer({"image": np.ones((1, 8, 8, 3)), "table": np.full((1, 5), 12.8)}, x)
    figure = tfig.Comparison({"ig": e}, {}).plot()
    assert figure.axes[1].get_title() == "ig: 75% in image"


def test_summary_of_features_channels_and_words():
    x, maps = noise(50, 20), noise(50, 20)
    names = [f"column {i}" for i in range(20)]
    found = tfig.summary(answer(maps, x), feature_names=names)
    means = np.abs(maps).mean(0)
    assert found.features == [names[i] for i in np.argsort(-means)]
    first = found.features[0]
    assert found.mean(first) == pytest.approx(means.max())
    low, high = found.interval(first)
    sigma = np.abs(maps[:, means.argmax()]).std() / np.sqrt(50)
    assert low == pytest.approx(means.max() - 1.96 * sigma, abs=0.3 * sigma)
    assert high == pytest.approx(means.max() + 1.96 * sigma, abs=0.3 * sigma)
    np.testing.assert_array_equal(found.values[first], x[:, means.argmax()])
    assert len(found.to_markdown().splitlines()) == 22 and "column" in repr(found)
    figure = found.plot()
    bars, swarm = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], np.sort(means)[::-1][:15], rtol=1e-6)
    assert [len(points.get_offsets()) for points in swarm.collections] == [50] * 15
    for row, points in enumerate(swarm.collections):
        np.testing.assert_allclose(
            np.sort(points.get_offsets()[:, 0]), np.sort(found.attributions[found.features[row]])
        )
        assert np.abs(points.get_offsets()[:, 1] - row).max() <= 0.4

    pictures = noise(4, 8, 8, 3)
    channels = tfig.summary(answer(pictures, pictures), channel_names=["r", "g", "b"])
    sums = dict(zip("rgb", np.abs(pictures.sum((1, 2))).mean(0), strict=True))
    assert {name: channels.mean(name) for name in "rgb"} == pytest.approx(sums)

    ids, maps = text(), noise(2, 30)
    words = tfig.summary(answer(maps, ids), tokens=VOCABULARY)
    where = (ids == VOCABULARY.index("the")).nonzero()
    assert words.mean("the") == pytest.approx(np.abs(maps[where]).mean()) and "" not in words.features
    assert np.isnan(words.interval("wonderful")).all() and words.plot().axes
