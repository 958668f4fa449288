"""Run by `test_programs` in a process of its own: four logical devices, as four accelerators would be."""

import os
import pathlib
import tempfile
import threading

os.environ["TF_NUM_INTEROP_THREADS"] = "8"

import keras
import numpy as np
import tensorflow as tf
from keras import layers as L

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(4)])

import tfig  # noqa: E402
from tfig import program  # noqa: E402
from tfig.cli import main  # noqa: E402

NAMES = [f"CPU:{i}" for i in range(4)]
X = np.random.default_rng(0).uniform(size=(22, 8, 8, 3)).astype("float32")


def build():
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        keras.Input((8, 8, 3)), L.Conv2D(4, 3, activation="relu", name="conv"), L.BatchNormalization(),
        L.GlobalAveragePooling2D(), L.Dense(4, activation="softmax"),
    ])  # fmt: skip


def variables(model):
    """The devices whose variables the programs of a model read, and the kinds of their operations."""
    graphs = [one.run.graph for one in program._programs[model].values()]
    read = {t.device[-5:] for graph in graphs for t in graph.external_captures if t.dtype == tf.resource}
    return read, {op.type for graph in graphs for op in graph.get_operations()}


def answers_are_those_of_one_device():
    plain, strategy = build(), tf.distribute.MirroredStrategy(NAMES)
    with strategy.scope():
        mirrored = build()
    for method in ("integrated_gradients", "lrp", tfig.IGOS(resolution=4, iterations=1, steps=2)):
        expected = tfig.explain(plain, X, method)
        answers = [tfig.explain(mirrored, X, method)]
        if method == "integrated_gradients":
            answers.append(tfig.explain(plain, X, method, devices=["CPU:1", "CPU:3"]))
        for found in answers:
            np.testing.assert_allclose(found.score, expected.score, atol=1e-6)
            top = np.abs(expected.attributions).max()
            np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-6 * top)
    read, kinds = variables(mirrored)
    assert read == set(NAMES)  # each its own copy
    assert not [kind for kind in kinds if "Collective" in kind or "Nccl" in kind or "AllReduce" in kind]
    # Fewer rows than devices, and rows with seeds of their own.
    seeds = np.arange(22)
    expected = tfig.explain(plain, X, "smoothgrad", seed=seeds).attributions
    np.testing.assert_allclose(
        tfig.explain(mirrored, X, "smoothgrad", seed=seeds).attributions, expected, atol=1e-6 * np.abs(expected).max()
    )
    assert len(tfig.explain(mirrored, X[:2], "gradient")) == 2
    count = len(program._programs[mirrored])
    tfig.Explainer(mirrored, "gradient_x_input").compile(X)
    assert len(program._programs[mirrored]) == count + 4
    tfig.explain(mirrored, X, "gradient_x_input")
    assert len(program._programs[mirrored]) == count + 4


def all_run_at_once():
    """Each waits within the model for the three others: one after the other they would never meet."""
    meeting = threading.Barrier(4)
    top = L.Dense(3)
    top(X[:1].reshape(1, -1))

    def meet(y):
        if os.environ.get("MEET"):
            meeting.wait(60)
        return y

    def model(x):
        y = top(tf.reshape(x, [-1, 8 * 8 * 3]))
        return y + 0 * tf.stop_gradient(tf.ensure_shape(tf.numpy_function(meet, [y], tf.float32), y.shape))

    explainer = tfig.Explainer(model, "gradient", devices=NAMES).compile(X)
    os.environ["MEET"] = "yes"
    e = explainer(X[:20])
    np.testing.assert_allclose(e.attributions.reshape(20, -1), top.kernel.numpy().T[e.target], atol=1e-6)


def what_is_not_there_is_said():
    for devices, said in (
        (["GPU:7"], "no device 'GPU:7'; there are CPU:0"),
        ("CPU:0", "pass a list"),
        ([], "pass a list"),
    ):
        try:
            tfig.Explainer(build(), devices=devices)
        except ValueError as error:
            assert said in str(error), error
        else:
            raise AssertionError(devices)


def a_job_is_spread():
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        build().save(place / "model.keras")
        np.save(place / "rows.npy", X)
        command = ["batch", str(place / "model.keras"), str(place / "rows.npy"), "-o"]
        assert main([*command, str(place / "four"), "--devices", ",".join(NAMES)]) == 0
        (found,) = tfig.read(place / "four")
        expected = tfig.explain(build(), X)
        np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-6)


if __name__ == "__main__":
    answers_are_those_of_one_device()
    all_run_at_once()
    what_is_not_there_is_said()
    a_job_is_spread()
    print("all hold")
