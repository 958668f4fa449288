"""The task whose truth is known, the hand-set networks, and what the docs show of them."""

import pathlib
import sys

import keras
import numpy as np
import pytest
from keras import layers as L
from reference import coalition as literal

import tfig

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import networks  # noqa: E402
import objects  # noqa: E402  (scripts/, which conftest puts on the path)
import tables  # noqa: E402


def test_shapes_decoys_and_mark_lie_where_the_masks_say():
    images, again = (objects.compose(40, objects.HELD_OUT, 5) for _ in range(2))
    np.testing.assert_array_equal(images.x, again.x)
    assert images.x.min() >= 0 and images.x.max() <= 1 and set(images.y) == set(range(6))
    overlap = images.shape.astype(int) + images.decoy + images.mark
    assert overlap.max() == 1
    for mask in (images.shape, images.decoy):
        assert (mask.sum((1, 2)) > 30).all() and (mask.sum((1, 2)) < 300).all()
    for row in range(40):  # a shape is of one colour, but for its noise
        assert images.x[row][images.shape[row]].std(0).max() < 0.06
    assert (images.mark == images.mark[0]).all()
    assert (images.x[:, images.mark[0]] == images.x[:1, images.mark[0]]).all()


def test_no_photograph_is_both_trained_on_and_held_out():
    assert not set(objects.TRAINED_ON) & set(objects.HELD_OUT)


def test_what_every_image_bears_gets_nothing_from_the_mode():
    images = objects.compose(30, objects.TRAINED_ON, 1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((48, 48, 3)), L.Conv2D(4, 5, strides=3, activation="relu"), L.Flatten(), L.Dense(6),
    ])  # fmt: skip
    mode = tfig.baselines.Mode(images.x)
    for method in (tfig.IntegratedGradients(16), "deeplift", tfig.Occlusion(3, 3)):
        from_mode = np.abs(tfig.explain(model, images.x[:4], method, baseline=mode).heatmap())
        from_black = np.abs(tfig.explain(model, images.x[:4], method).heatmap())
        inside = images.mark[:4].copy()
        inside[:, 42:44] = inside[:, :, 33:36] = False  # windows of three positions reach in from outside
        assert from_mode[inside].max() <= 1e-6 * from_mode.max() < from_black[inside].max()


@pytest.mark.parametrize("name", networks.hand_set())
def test_the_truth_about_hand_set_networks_is_shapleys(name):
    model, row, expected = networks.hand_set()[name]

    def value(present):
        return float(model(np.array([[one if i in present else 0.0 for i, one in enumerate(row)]])).numpy()[0, 0])

    np.testing.assert_allclose(literal.shapley(value, 2), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["truth.md", "transformers.txt"])
def test_the_docs_show_what_the_benchmark_printed(name):
    assert (ROOT / "docs" / "choosing.md").read_text().count(tables.block(name)) == 1
