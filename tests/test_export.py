"""The contract of an explainable SavedModel, rule by rule, on the session that TensorFlow Serving uses."""

import json
import re
import subprocess
import sys
import threading

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from c_api import Failed, Loaded
from conftest import exported_by_keras
from keras import layers as L
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import kernels
from tensorflow_serving.apis import prediction_log_pb2

import tfig
from tfig.serving import audit, protocol, sizing
from tfig.serving.servable import RequestError, Servable, proto

X = zoo.images(4)
NAN = np.full((1, 8, 8, 3), np.nan, "float32")
EXPLANATIONS = {
    "explain": tfig.IntegratedGradients(steps=8),
    "smooth": tfig.SmoothGrad(samples=4),
    "igos": tfig.IGOS(resolution=4, iterations=3, steps=4),
}


class Exported:
    """A small image classifier with three explanations."""

    def __init__(self, directory):
        self.directory = directory
        self.model = zoo.build("sequential")
        self.folder = tfig.export(
            self.model, directory, EXPLANATIONS, batching={"max_batch_size": 8, "allowed_batch_sizes": [4, 8]}
        )
        self.servable = Servable(self.folder)

    def run(self, signature, wanted=(), **inputs):
        sent = {name: proto(value) for name, value in inputs.items()}
        found = self.servable.predict(signature, sent, wanted)
        return {name: tf.make_ndarray(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    made = Exported(tmp_path_factory.mktemp("models") / "images")
    yield made
    made.servable.close()


ROUNDING = {"trace_step_sizes": 1e-5 * 200.0}
"""Of 200, the first step tried: which of the steps that change nothing ends the search is a matter of rounding."""


def close(found, expected, bound):
    """To `bound` of the largest value, and to the rounding of what lives on [0, 1]: masks, and all scores here."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        if value.dtype.kind == "O":
            continue  # a picture of the same map
        allowed = bound * np.nanmax(np.abs(value.astype("float64")))
        allowed += ROUNDING.get(name, 8 * np.finfo("float32").eps)
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(value))
        assert np.nanmax(np.abs(found[name].astype("float64") - value)) <= allowed, name


def cut(answer, rows):
    return {name: value[rows] for name, value in answer.items()}


def full(rows, target=-1, contrast=-1, seed=0, baseline=np.nan):
    """Every option, with a row for each row."""
    return {
        "target": np.full(rows, target, "int32"),
        "contrast": np.full(rows, contrast, "int32"),
        "seed": np.full(rows, seed, "int32"),
        "baseline": np.full((rows, 8, 8, 3), baseline, "float32"),
    }


def test_signatures_and_names(exported):
    signatures = exported.servable.signatures
    kinds = ("", "_at", "_heatmap", "_overlay")
    assert set(signatures) == {"serving_default", *(name + kind for name in EXPLANATIONS for kind in kinds)}
    assert set(signatures["explain"].inputs) == {"x"} and not signatures["explain"].defaults
    assert set(signatures["explain_at"].inputs) == {"x", "target", "contrast", "baseline", "seed"}
    assert set(signatures["explain_at"].defaults) == {"target", "contrast", "baseline", "seed"}
    assert set(signatures["smooth_at"].inputs) == {"x", "target", "contrast", "seed"}  # it has no baseline
    assert {"attributions", "heatmap", "target", "score", "baseline_score", "convergence_delta", "status",
            "overlay_bytes"} == set(signatures["explain"].outputs)  # fmt: skip
    assert "convergence_delta" not in signatures["igos"].outputs
    assert "baseline_score" not in signatures["smooth"].outputs


def test_everything_is_batch_major(exported):
    for name, signature in exported.servable.signatures.items():
        for info in signature.inputs.values():
            assert info.tensor_shape.dim[0].size == -1, name
    for name in EXPLANATIONS:
        answer = exported.run(f"{name}_at", x=X)
        assert all(len(value) == len(X) for value in answer.values())


def test_options_may_be_left_out_and_one_stands_for_all(exported):
    expected = exported.run("explain_at", x=X, **full(4))
    for options in ({}, {"target": np.array([-1], "int32")}, {"baseline": NAN, "seed": np.array([0], "int32")}):
        found = exported.run("explain_at", x=X, **options)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    plain = exported.run("explain", x=X)
    for name, value in plain.items():
        np.testing.assert_array_equal(expected[name], value)


@pytest.mark.parametrize(("name", "bound"), [("explain", 1e-5), ("smooth", 1e-5), ("igos", 1e-3)])
def test_rows_alone_merged_and_padded_agree(exported, name, bound):
    options = full(4)
    options["seed"] = np.arange(4, dtype="int32")
    options["target"] = np.array([-1, 0, 1, 2], "int32")
    if name == "smooth":
        del options["baseline"]
    merged = exported.run(f"{name}_at", x=X, **options)
    for row in range(4):
        alone = exported.run(f"{name}_at", x=X[[row]], **{key: value[[row]] for key, value in options.items()})
        close(alone, cut(merged, [row]), bound)
    padding = [0, 1, 2, 3, 0, 0, 0, 0]  # TensorFlow Serving pads with copies of the first row
    padded = exported.run(f"{name}_at", x=X[padding], **{key: value[padding] for key, value in options.items()})
    close(cut(padded, slice(4)), merged, bound)


def test_a_bad_row_does_not_disturb_its_neighbours(exported):
    options = full(4)
    good = exported.run("explain_at", x=X, **options)
    x = X.copy()
    x[1, 0, 0, 0] = np.nan
    options["target"][2] = 44
    options["baseline"][3, 0] = 0.5  # the rest of the row is NaN: neither a baseline nor the default
    found = exported.run("explain_at", x=x, **options)
    np.testing.assert_array_equal(found["status"], [0, 2, 1, 2])
    np.testing.assert_array_equal(found["target"][1:], -1)
    assert np.isnan(found["attributions"][1:]).all() and np.isnan(found["score"][1:]).all()
    for name, value in good.items():
        np.testing.assert_array_equal(found[name][0], value[0])
    for option, value in (("target", -2), ("contrast", 4), ("contrast", -5)):
        options = full(4)
        options[option][0] = value
        np.testing.assert_array_equal(exported.run("explain_at", x=X, **options)["status"], [1, 0, 0, 0])


def test_options_mean_what_they_mean_at_home(exported):
    rng = np.random.default_rng(0)
    base = rng.uniform(size=X.shape).astype("float32")
    options = full(4, target=1, contrast=-2)
    found = exported.run("explain_at", x=X, **{**options, "baseline": base})
    method = EXPLANATIONS["explain"]
    e = tfig.explain(exported.model, X, method, target=tfig.Contrast(1, "runner_up"), baseline=base)
    np.testing.assert_array_equal(found["attributions"], e.attributions)
    np.testing.assert_array_equal(found["contrast"], e.trace["against"])
    found = exported.run("explain_at", x=X, **{**options, "contrast": np.full(4, -3, "int32")})
    e = tfig.explain(exported.model, X, method, target=tfig.Contrast(1, "predicted"))
    np.testing.assert_array_equal(found["attributions"], e.attributions)
    mixed = options["baseline"].copy()
    mixed[1] = base[1]
    found = exported.run("explain_at", x=X, **{**full(4), "baseline": mixed})
    rows = np.where(np.arange(4)[:, None, None, None] == 1, base, 0)
    np.testing.assert_array_equal(
        found["attributions"], tfig.explain(exported.model, X, method, baseline=rows).attributions
    )


def test_pictures_are_those_drawn_at_home(exported):
    for name, method in EXPLANATIONS.items():
        answer = exported.run(name, x=X)
        e = tfig.explain(exported.model, X, method)
        np.testing.assert_allclose(answer["heatmap"], e.heatmap(), rtol=1e-5, atol=1e-6)
        for png, expected in zip(answer["overlay_bytes"], e.overlay(), strict=True):
            drawn = cv2.cvtColor(cv2.imdecode(np.frombuffer(png, "uint8"), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            assert np.abs(drawn.astype(int) - expected).max() <= 1


def test_pictures_alone(exported):
    for name in EXPLANATIONS:
        whole = exported.run(name, x=X)
        for word, shown in (("heatmap", "heatmap"), ("overlay", "overlay_bytes")):
            alone = exported.run(f"{name}_{word}", x=X)
            assert set(alone) == {shown, "score", "status", "target"}
            for alias, value in alone.items():
                np.testing.assert_array_equal(value, whole[alias])


def test_numbers_without_pictures(exported, tmp_path):
    folder = tfig.export(exported.model, tmp_path / "m", {"explain": EXPLANATIONS["explain"]}, pictures=False)
    with Servable(folder) as servable:
        assert set(servable.signatures) == {"serving_default", "explain", "explain_at"}
        assert all(len(sets) == 1 for sets in protocol.asked(servable.signatures).values())  # one warm-up each
        found = servable.predict("explain", {"x": proto(X)})
    whole = exported.run("explain", x=X)
    assert set(whole) - set(found) == {"heatmap", "overlay_bytes"}
    for name, value in found.items():
        np.testing.assert_array_equal(tf.make_ndarray(value), whole[name])


def test_numbers_that_json_can_hold(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="row"), L.Dense(2)])
    folder = tfig.export(model, tmp_path / "m", {"explain": "integrated_gradients"}, warmup=False, fill_value=0.0)
    rows = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf, 0, 0]], "float32")
    with Servable(folder) as servable:
        found = servable.predict("explain_at", {"row": proto(rows), "target": proto(np.array([0, 1, 1], "int32"))})
        found = {name: tf.make_ndarray(value) for name, value in found.items()}
        assert all(np.isfinite(value).all() for value in found.values())
        np.testing.assert_array_equal(found["status"], [0, 2, 2])
        np.testing.assert_array_equal(found["attributions"][1:], 0)
        expected = tfig.explain(model, rows[:1], target=0)
        np.testing.assert_allclose(found["attributions"][:1], expected.attributions, rtol=1e-5)
        json.loads(json.dumps({name: value.tolist() for name, value in found.items()}, allow_nan=False))
    with pytest.raises(ValueError, match="finite number"):
        tfig.export(model, tmp_path / "m", {"explain": "gradient"}, fill_value=float("nan"))


def test_output_filter(exported):
    assert set(exported.run("explain", ["score", "status"], x=X)) == {"score", "status"}
    assert exported.run("explain", ["overlay_bytes"], x=X[:1])["overlay_bytes"][0].startswith(b"\x89PNG")


def test_wrong_shapes_are_rejected(exported):
    loaded = Loaded(exported.folder)  # the session itself: shapes are not checked against the signature
    for name in ("serving_default", "explain", "explain_at"):
        key = "x" if name != "serving_default" else next(iter(loaded.signatures[name].inputs))
        with pytest.raises(Failed, match="not compatible with expected shape"):
            loaded.run(name, **{key: zoo.images(2, size=9)})
    for option, value in (
        ("target", np.zeros(3, "int32")),
        ("seed", np.zeros(2, "int32")),
        ("baseline", np.zeros((4, 4, 8, 3), "float32")),
    ):
        with pytest.raises(Failed, match=option):
            loaded.run("explain_at", x=X, **{option: value})
    loaded.close()


FORBIDDEN = audit.PYTHON | audit.XLA | audit.RANDOM
NOT_NUMERIC = {"Placeholder", "PlaceholderWithDefault", "NoOp"}
PICTURES = {"EncodePng"}
FILES = {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename", "StringJoin", "StaticRegexFullMatch"}


def test_no_forbidden_op_in_any_function(exported):
    graph = audit.read(exported.folder).graph_def
    everywhere = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert len(everywhere) > 1000
    assert not {node.op for node in everywhere} & FORBIDDEN
    assert not any(node.attr["_XlaMustCompile"].b for node in everywhere)
    assert not any(function.attr["_XlaMustCompile"].b for function in graph.library.function)
    lacking = set()
    for op in {node.op for node in everywhere} - NOT_NUMERIC - PICTURES - FILES:
        devices = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(op).kernel}
        if not devices & {"GPU", "DEFAULT"}:
            lacking.add(op)
    assert not lacking


def behind(meta, tensors: list) -> list:
    """The operations of a graph that tensors come of."""
    nodes, found, waiting = {node.name: node for node in meta.graph_def.node}, {}, list(tensors)
    while waiting:
        name = waiting.pop().removeprefix("^").split(":")[0]
        if name not in found:
            found[name] = nodes[name]
            waiting += nodes[name].input
    return list(found.values())


def test_few_copies_of_the_model_and_what_is_only_read_is_not_differentiated(tmp_path):
    """A session takes functions apart before it looks for what nobody needs, so that there must be none of that."""
    inputs = keras.Input((8, 8, 3), name="x")
    h = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(L.Conv2D(4, 3)(inputs)))
    explanations = {
        "ig": tfig.IntegratedGradients(4), "smooth": tfig.SmoothGrad(samples=2), "boundary": tfig.BoundaryIG(4)
    }  # fmt: skip
    # (only read, differentiated) for boundary: x, halving and the path; the search and the gradients along the path.
    copies = {"ig": (1, 1), "smooth": (1, 1), "boundary": (3, 2)}
    folder = tfig.export(keras.Model(inputs, L.Dense(3)(h)), tmp_path / "m", explanations, warmup=False)
    meta = audit.read(folder)
    functions = {function.signature.name: function.node_def for function in meta.graph_def.library.function}

    def inside(some, kind) -> int:
        """How many operations of a kind are in nodes and in all that they call."""
        called = (value.func.name for node in some for value in node.attr.values() if value.func.name)
        return sum(node.op == kind for node in some) + sum(inside(functions[name], kind) for name in called)

    for name in explanations:
        needed = behind(meta, [meta.signature_def[name].outputs["attributions"].name])
        convolutions, gradients = (inside(needed, kind) for kind in ("Conv2D", "Conv2DBackpropInput"))
        read, differentiated = copies[name]
        assert (convolutions, gradients) == (2 * (read + differentiated), 2 * differentiated), name


def test_gradients_that_a_model_defines_itself_are_there_when_it_is_loaded(tmp_path):
    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda dy: 3 * dy * x

    inputs = keras.Input((6,), name="x")
    h = L.Dense(8, activation="swish")(L.Rescaling(1.0)(L.Lambda(doubled)(inputs)))
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(h))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    folder = tfig.export(model, tmp_path / "m", {"ig": tfig.IntegratedGradients(4), "out": "occlusion"}, warmup=False)
    # In a process that has not made the model, and so has none of its gradients.
    script = (
        "import sys, numpy as np, tensorflow as tf, tfig\n"
        "loaded, x = tf.saved_model.load(sys.argv[1]), np.load(sys.argv[2])\n"
        "np.save(sys.argv[2], tfig.explain(loaded, x, 'gradient', target=1).attributions)\n"
        "tfig.export(loaded, sys.argv[3], {'again': 'gradient'}, warmup=False)\n"
    )
    np.save(tmp_path / "x.npy", x)
    subprocess.run([sys.executable, "-c", script, folder, tmp_path / "x.npy", tmp_path / "again"], check=True)
    expected = tfig.explain(model, x, "gradient", target=1).attributions
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, rtol=1e-4, atol=1e-7)


def test_a_gradient_that_cannot_be_saved_is_told(tmp_path):
    @tf.custom_gradient
    def doubled(x):
        def gradient(dy):
            raise TypeError("where this is traced, it has no gradient")

        return 2 * x, gradient

    inputs = keras.Input((6,), name="x")
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.Lambda(doubled)(inputs)))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    with pytest.warns(UserWarning, match="cannot be saved, so that the export answers, but whoever loads it"):
        folder = tfig.export(model, tmp_path / "m", {"out": "feature_ablation"}, warmup=False)
    with Servable(folder) as servable:
        answer = servable.predict("out", {"x": proto(x)})
    expected = tfig.explain(model, x, "feature_ablation").attributions
    np.testing.assert_array_equal(tf.make_ndarray(answer["attributions"]), expected)


def test_a_gradient_that_was_not_saved_is_told(tmp_path):
    """Where a method overrides gradients, those of the model are not saved; another process does not know them."""
    inputs = keras.Input((8, 8, 1), name="x")
    h = L.Conv2D(2, 3, activation="swish")(L.Conv2D(2, 3, activation="relu")(inputs))
    folder = tfig.export(
        keras.Model(inputs, L.Dense(2)(L.Flatten()(h))), tmp_path / "m", {"e": "guided_backprop"}, warmup=False
    )
    said = subprocess.run(
        [sys.executable, "-c", SECOND, str(folder), str(tmp_path / "again")], capture_output=True, text=True, check=True
    ).stdout
    assert said.count("an operation of the model has no gradient (No gradient defined for operation") == 2, said
    assert "explanation 'again' cannot be made" in said


SECOND = """
import sys, numpy as np, tensorflow as tf, tfig
folder, other = sys.argv[1:]
for ask in (
    lambda: tfig.explain(tf.saved_model.load(folder), np.ones((1, 8, 8, 1), "float32"), "smoothgrad"),
    lambda: tfig.export(folder, other, {"again": "gradient"}),
):
    try:
        ask()
    except ValueError as error:
        print(error)
"""


def test_maps_of_a_layer_are_drawn_over_images_of_any_size(tmp_path):
    inputs = keras.Input((None, None, 3), name="x")
    h = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="c")(inputs)
    model = keras.Model(inputs, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(h)))
    asked = {"cam": "grad_cam", "ig": tfig.Explainer(model, tfig.IntegratedGradients(2), layer="c"), "g": "gradient"}
    with Servable(tfig.export(model, tmp_path / "m", asked)) as servable:
        for side in (12, 16):
            x = np.random.default_rng(0).uniform(size=(3, side, side, 3)).astype("float32")
            for name, method in asked.items():
                answer = servable.predict(name, {"x": proto(x)})
                e = method(x) if isinstance(method, tfig.Explainer) else tfig.explain(model, x, method)
                np.testing.assert_allclose(tf.make_ndarray(answer["heatmap"]), e.heatmap(), rtol=1e-4, atol=1e-6)
                drawn = servable.predict(protocol.pictured(name)["overlay"], {"x": proto(x)})["overlay_bytes"]
                assert tf.io.decode_png(tf.make_ndarray(drawn)[0]).shape == (side, side, 3)


def test_no_rows_have_no_explanations(tmp_path):
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(3, activation="softmax")])
    asked = ("integrated_gradients", "smoothgrad", "occlusion", "guided_ig", "lrp")
    loaded = tf.saved_model.load(str(tfig.export(model, tmp_path / "m", {name: name for name in asked}, warmup=False)))
    for name in asked:
        assert loaded.signatures[name](x=tf.zeros((0, 6)))["attributions"].shape == (0, 6)


def test_loops_over_any_number_of_steps_are_refused_where_they_are_unrolled(tmp_path):
    inputs = keras.Input((None, 4), name="x")
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.LSTM(6)(inputs)))
    with pytest.raises(ValueError, match=r"lrp\) unrolls loops over time.*'x' takes any: \[None, None, 4\]"):
        tfig.export(model, tmp_path / "m", {"e": "lrp"})
    references = tfig.baselines.Dataset(np.zeros((3, 7, 4), "float32"))
    with pytest.raises(ValueError, match=r"input 'x' takes \[None, None, 4\], and 1 stands for what is free"):
        tfig.export(model, tmp_path / "m", {"e": "expected_gradients"}, baseline=references)


def test_explanations_do_not_pay_for_each_other(tmp_path):
    """What a session copies for every set of outputs is small: functions that signatures reach are loops' alone."""
    inputs = keras.Input((8, 8, 3), name="x")
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(inputs))))

    def sizes(count: int) -> np.ndarray:
        explanations = {f"ig_{i}": tfig.IntegratedGradients(2 + i) for i in range(count)}
        graph = audit.read(tfig.export(model, tmp_path / str(count), explanations, warmup=False)).graph_def
        reached = list(audit.reached(graph))
        return np.array([len({name for name, _ in reached}), len(reached), sum(name == "" for name, _ in reached)])

    one, two, three = (sizes(count) for count in (1, 2, 3))
    functions, nodes, outside = three - two
    np.testing.assert_array_equal(three - two, two - one)
    # Two loops, each a condition and a body; all signatures share what is outside of them.
    assert functions == 4 and nodes < 500 and outside < 250, (functions, nodes, outside)


def test_what_only_explanations_are_made_of_is_said_in_few_letters(tmp_path):
    """A session copies all of it many times; what the model itself answers by keeps the names that errors tell."""
    inputs = keras.Input((64, 64, 3), name="x")
    h = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="a_layer_with_a_name_of_its_own")(inputs))
    model = keras.Model(inputs, L.Dense(3)(h))
    meta = audit.read(tfig.export(model, tmp_path / "m", {"ig": tfig.IntegratedGradients(2)}, warmup=False))
    graph = meta.graph_def

    def reached(signature: str) -> list:
        """The operations that a signature's outputs come of, and those in functions that these call."""
        found = behind(meta, [one.name for one in meta.signature_def[signature].outputs.values()])
        made = [node for node in found if node.op not in ("Placeholder", "VarHandleOp")]
        return [node for _, node in audit.reached(GraphDef(node=made, library=graph.library))]

    explaining, own = reached("ig_overlay"), reached("serving_default")
    assert {"Conv2D", "Conv2DBackpropInput", "EncodePng"} <= {node.op for node in explaining}
    assert max(node.name.count("/") for node in explaining) == 2
    assert any(node.name.endswith("/a_layer_with_a_name_of_its_own_1/convolution") for node in explaining)
    assert np.mean(["_output_shapes" in node.attr for node in explaining]) < 0.15
    assert any("a_layer_with_a_name_of_its_own" in node.name for node in own)
    # One number throughout is one number in the file, here a baseline of 49 kB.
    everything = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert max(node.ByteSize() for node in everything) < 2000


def test_a_variable_may_have_a_name_that_an_operation_would_get(tmp_path):
    def build(name: str, weight: str) -> keras.Model:
        class Scale(L.Layer):
            def build(self, shape):
                self.scale = self.add_weight(shape=(), initializer="ones", name=weight)

            def call(self, x):
                return x * self.scale

        inputs = keras.Input((4,), name="x")
        return keras.Model(inputs, L.Dense(2)(Scale(name=name)(inputs)))

    graph = audit.read(tfig.export(build("own", "scale"), tmp_path / "m", {"e": "gradient"}, warmup=False)).graph_def
    layer, weight = next(node.name for node in graph.node if re.fullmatch("S[0-9a-f]+/[A-Za-z]+", node.name)).split("/")
    folder = tfig.export(build(layer, weight), tmp_path / "m", {"e": "gradient"}, warmup=False)
    names = [node.name for node in audit.read(folder).graph_def.node]
    assert f"{layer}/{weight}" in names and any(name.startswith("SS") for name in names)


def test_what_python_loads_answers_as_a_session(exported):
    loaded = tf.saved_model.load(str(exported.folder))
    options = full(2, target=[1, -1], contrast=[-2, 2], seed=3, baseline=0.5)
    for name, definition in exported.servable.signatures.items():
        sent = {key: options.get(key, X[:2]) for key in definition.inputs}
        answer = exported.run(name, **sent)
        expected = loaded.signatures[name](**{key: tf.constant(value) for key, value in sent.items()})
        assert set(answer) == set(expected)
        for output, value in expected.items():
            np.testing.assert_array_equal(answer[output], value.numpy(), err_msg=f"{name} {output}")


def test_an_assertion_outside_of_the_model_holds(tmp_path):
    model = keras.Sequential([keras.Input((2,)), L.Dense(3, kernel_initializer="ones")])

    def target(y):
        tf.debugging.assert_less(y, 10.0, "too much")
        return y[:, 0]

    explainer = tfig.Explainer(model, "gradient", target=target)
    with Servable(tfig.export(model, tmp_path / "checked", {"explain": explainer}, warmup=False)) as servable:
        servable.predict("explain", {"x": proto(np.ones((1, 2), "float32"))})
        with pytest.raises(RequestError, match="too much"):
            servable.predict("explain", {"x": proto(np.full((1, 2), 9, "float32"))})


def test_the_description(exported):
    described = json.loads((exported.folder / "assets.extra/tfig.json").read_text())
    assert described["tfig"] == tfig.__version__
    assert described["inputs"] == {"x": {"shape": [None, 8, 8, 3], "dtype": "float32", "explained": True}}
    one = described["explanations"]["explain"]
    assert one["method"] == "integrated_gradients" and one["parameters"]["steps"] == 8
    assert (
        one["signatures"] == ["explain", "explain_at", "explain_heatmap", "explain_overlay"]
        and "Sundararajan" in one["reference"]
    )
    assert one["baseline"] == "zeros" and one["options"]["target"] == {"shape": [None], "dtype": "int32"}
    assert set(described["statuses"]) == {"0", "1", "2"}


def test_warm_up_requests_are_for_every_signature_and_run(exported):
    records = tf.data.TFRecordDataset(str(exported.folder / "assets.extra/tf_serving_warmup_requests"))
    asked = []
    for record in records.as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        exported.servable.predict(request.model_spec.signature_name, request.inputs, request.output_filter)
        asked.append((request.model_spec.signature_name, list(request.output_filter)))
        assert request.model_spec.name == "images"
    known = protocol.asked(exported.servable.signatures)
    assert sorted(asked) == sorted((key, wanted) for key, sets in known.items() for wanted in sets)
    assert set(known) == set(exported.servable.signatures)


def test_what_a_model_costs_is_measured(exported):
    size = sizing.measure(exported.folder)
    assert set(size.milliseconds) == {"serving_default", *EXPLANATIONS}
    assert 0 < max(map(max, size.milliseconds.values())) < 1000 * size.seconds  # each was asked to warm up
    assert "warms up in" in str(size) and all(name in str(size) for name in EXPLANATIONS)


def test_batching_parameters(exported):
    text = (exported.folder / "batching_params.pbtxt").read_text()
    assert text == "max_batch_size { value: 8 }\nallowed_batch_sizes: 4\nallowed_batch_sizes: 8\n"


@pytest.fixture(scope="module")
def linear():
    return keras.Sequential([keras.Input((3,), name="row"), L.Dense(2)])


def test_versions(linear, tmp_path):
    directory = tmp_path / "linear"
    first = tfig.export(linear, directory, {"explain": "gradient"}, warmup=False)
    assert first == directory / "1"
    assert not (first / "assets.extra/tf_serving_warmup_requests").exists()
    (directory / "not a version").mkdir()
    (directory / "0007").mkdir()
    assert tfig.export(linear, directory, {"explain": "gradient"}, warmup=False).name == "8"
    assert tfig.export(linear, directory, {"explain": "gradient"}, warmup=False, version=3).name == "3"
    before = (first / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="version 1 exists"):
        tfig.export(linear, directory, {"explain": "gradient"}, version=1)
    assert (first / "saved_model.pb").read_bytes() == before
    with pytest.raises(ValueError, match="positive int"):
        tfig.export(linear, directory, {"explain": "gradient"}, version=0)
    assert sorted(path.name for path in directory.iterdir()) == ["0007", "1", "3", "8", "not a version"]


def test_a_polling_server_never_sees_half_a_model(linear, tmp_path):
    directory, over, incomplete = tmp_path / "linear", threading.Event(), []

    def poll():
        while not over.is_set():
            for folder in directory.glob("[0-9]*"):
                wanted = ("saved_model.pb", "variables/variables.index", "assets.extra/tfig.json")
                incomplete.extend(name for name in wanted if not (folder / name).exists())

    watcher = threading.Thread(target=poll)
    watcher.start()
    for _ in range(3):
        tfig.export(linear, directory, {"explain": "gradient"}, warmup=False)
    over.set()
    watcher.join()
    assert not incomplete and len(list(directory.iterdir())) == 3


def python_inside(x):
    return tf.ensure_shape(tf.numpy_function(lambda value: value * 2, [x], tf.float32), x.shape)


@tf.function(jit_compile=True)
def compiled(x):
    return x * 2


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        (python_inside, "runs Python"),
        (compiled, "compiled by XLA"),
        (lambda x: x + tf.random.normal(tf.shape(x)), "random numbers that no seed decides"),
    ],
)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(operation, said, tmp_path):
    class Odd(L.Layer):
        def call(self, x):
            return operation(x)

    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="dense"), Odd(), L.Dense(2)])
    with pytest.raises(ValueError, match=said):
        # At the layer after it, the gradient need not pass through the operation.
        tfig.export(model, tmp_path / "odd", {"explain": tfig.Explainer(model, "gradient", layer=model.layers[-1])})
    assert not (tmp_path / "odd").exists()


@pytest.mark.parametrize(
    ("explanations", "said"),
    [
        ({}, "pass a dict"),
        ("gradient", "pass a dict"),
        ({"explain": "gradiant"}, "no method is named 'gradiant'"),
        ({"explain": "conductance"}, "explanation 'explain': conductance is defined at a layer"),
        ({"serving_default": "gradient"}, "'serving_default' exists already"),
        ({"a": "gradient", "a_at": "gradient"}, "'a_at' exists already"),
        ({"a b": "gradient"}, "no name of a signature"),
        ({"explain": "expected_gradients"}, "needs references"),
    ],
)
def test_explanations_that_cannot_be(linear, explanations, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        tfig.export(linear, tmp_path / "linear", explanations)


def test_explainers_that_cannot_be(linear, tmp_path):
    other = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    clashing = keras.Sequential([keras.Input((3,), name="target"), L.Dense(2)])
    for model, explainer, said in (
        (linear, tfig.Explainer(other), "another model"),
        (linear, tfig.Explainer(linear, target=[0, 1]), "x has 1 rows"),
        (linear, tfig.Explainer(linear, seed=[0, 1]), "seed for each row"),
        (linear, tfig.Explainer(linear, target=tfig.Contrast("runner_up", "predicted")), "runner-up"),
        (clashing, "gradient", "rename"),
        (lambda x: x, "gradient", "says neither what it takes"),
        (keras.Sequential([keras.Input((3,), batch_size=2), L.Dense(2)]), "gradient", "fixed batch size"),
        (keras.Sequential([keras.Input((3,), name="class"), L.Dense(2)]), "gradient", "rename it"),
        (linear, tfig.Explainer(linear, baseline=np.zeros((4, 3))), "holds for every row"),
        ("model.keras", "gradient", "load_model"),
    ):
        with pytest.raises(ValueError, match=said):
            tfig.export(model, tmp_path / "m", {"explain": explainer})
    with pytest.raises(ValueError, match="no SavedModel"):
        tfig.export(tmp_path, tmp_path / "m", {"explain": "gradient"})
    for batching, said in (({"max_batch": 3}, "max_batch_size"), ({"max_batch_size": 0}, "at least 1")):
        with pytest.raises(ValueError, match=said):
            tfig.export(linear, tmp_path / "m", {"explain": "gradient"}, batching=batching)
    with pytest.raises(ValueError, match="an Explainer has them"):
        tfig.export(linear, tmp_path / "m", {"explain": tfig.Explainer(linear)}, output="logits")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        tfig.export(linear, tmp_path / "file", {"explain": "gradient"})
    with pytest.raises(ValueError, match="63 bits"):
        tfig.export(linear, tmp_path / "m", {"explain": "gradient"}, version=2**70)
    assert not (tmp_path / "m").exists()
    tfig.export(linear, tmp_path / "m", {"explain": "gradient"}, warmup=False)
    with pytest.raises(ValueError, match="pass the folder of one"):
        tfig.export(tmp_path / "m", tmp_path / "m", {"explain": "gradient"})


def test_each_explainer_keeps_its_question(tmp_path):
    model = zoo.build("two_outputs")
    asked = {
        "kind": tfig.Explainer(model, tfig.IntegratedGradients(4), target=("kind", 2), output="logits"),
        "size": tfig.Explainer(model, "gradient", target=("size", lambda y: y[:, 0] ** 2)),
        "inside": tfig.Explainer(model, "gradient_x_input", target=("kind", tfig.Contrast(0, 1)), layer="conv"),
        "grey": tfig.Explainer(model, tfig.IntegratedGradients(4), target=("kind", None), baseline=0.5),
    }
    loaded = Loaded(tfig.export(model, tmp_path / "two", asked, warmup=False))
    for name, explainer in asked.items():
        answer, e = loaded.run(name, x=zoo.images()), explainer(zoo.images())
        np.testing.assert_array_equal(answer["attributions"], e.attributions)
        np.testing.assert_array_equal(answer["score"], e.score)
    assert set(loaded.signatures["size_at"].inputs) == {"x", "seed"}  # its score is of no class
    assert "target" not in loaded.signatures["size"].outputs
    np.testing.assert_array_equal(loaded.run("inside", x=zoo.images())["contrast"], 1)
    loaded.close()


@pytest.mark.parametrize("name", ["subclassed", "recurrent", "attention", "skips"])
def test_every_kind_of_model(name, tmp_path):
    case, model = zoo.ZOO[name], zoo.build(name)
    method = tfig.IntegratedGradients(steps=4)
    loaded = Loaded(tfig.export(model, tmp_path / name, {"explain": method}, warmup=False))
    answer, e = loaded.run("explain", x=case.x), tfig.explain(model, case.x, method)
    np.testing.assert_array_equal(answer["attributions"], e.attributions)
    exported_by_keras(model, tmp_path / "own")
    own = Loaded(tmp_path / "own")
    wire = {next(iter(own.signatures["serving_default"].inputs)): case.x}
    expected, found = own.run("serving_default", **wire), loaded.run("serving_default", **wire)
    assert set(found) == set(expected)
    for output, value in expected.items():  # the shape that is pinned changes how attention is fused
        np.testing.assert_allclose(found[output], value, rtol=1e-6 if name == "attention" else 0)
    for one in (loaded, own):
        one.close()


def test_a_saved_model_without_source(exported, tmp_path):
    """Twice: a model's own export, and one that explains already, whose options stay optional."""
    exported_by_keras(exported.model, tmp_path / "own")
    wrapped = tfig.export(tmp_path / "own", tmp_path / "wrapped", {"why": tfig.IntegratedGradients(8)}, warmup=False)
    loaded = Loaded(wrapped)
    answer = loaded.run("why", x=X)
    e = tfig.explain(exported.model, X, tfig.IntegratedGradients(8))
    np.testing.assert_allclose(answer["attributions"], e.attributions, atol=1e-6 * np.abs(e.attributions).max())
    loaded.close()
    second = tfig.export(wrapped, tmp_path / "wrapped", {"slope": "gradient"}, warmup=False)
    before, after = (json.loads((one / "assets.extra/tfig.json").read_text()) for one in (wrapped, second))
    assert after["explanations"]["why"] == before["explanations"]["why"]
    assert after["explanations"]["slope"]["method"] == "gradient"
    again = Loaded(second)
    assert {"why", "why_at", "slope", "slope_at", "serving_default"} <= set(again.signatures)
    assert set(again.signatures["why_at"].defaults) == {"target", "contrast", "baseline", "seed"}
    answer = again.run("why_at", x=X, target=np.array([1], "int32"))
    np.testing.assert_array_equal(answer["target"], 1)
    again.close()
    with pytest.raises(ValueError, match="'why' exists already"):
        tfig.export(wrapped, tmp_path / "wrapped", {"why": "gradient"})


def test_a_model_with_a_lookup_table(tmp_path):
    words = keras.Input((3,), dtype="string", name="words")
    ids = L.StringLookup(vocabulary=["good", "bad", "film"])(words)
    model = keras.Model(words, L.Dense(2)(L.Flatten()(L.Embedding(4, 2, name="embedding")(ids))))
    x = np.array([["good", "film", "bad"]], object)
    explainer = tfig.Explainer(model, "gradient", layer="embedding")
    servable = Servable(tfig.export(model, tmp_path / "words", {"explain": explainer}, warmup=False))
    answer = servable.predict("explain", {"words": proto(x)})
    np.testing.assert_array_equal(tf.make_ndarray(answer["attributions"]), explainer(x).attributions)
    servable.close()


def test_images_of_any_size(tmp_path):
    model = keras.Sequential([
        keras.Input((None, None, 1)), L.Conv2D(3, 5, strides=4), L.GlobalAveragePooling2D(), L.Softmax(),
    ])  # fmt: skip
    servable = Servable(tfig.export(model, tmp_path / "any", {"explain": tfig.IntegratedGradients(4)}))
    for size in (9, 30):
        x = zoo.images(2, size, 1)
        answer = servable.predict("explain", {"x": proto(x)})
        e = tfig.explain(model, x, tfig.IntegratedGradients(4))
        np.testing.assert_array_equal(tf.make_ndarray(answer["attributions"]), e.attributions)
        assert answer["heatmap"].tensor_shape.dim[1].size == size
    servable.close()


def test_a_folder_that_does_not_load_says_why(tmp_path):
    with pytest.raises(ValueError, match="no SavedModel that loads"):
        Servable(tmp_path)


def test_the_servable_refuses_what_the_server_would(exported):
    with pytest.raises(RequestError, match="not found") as refused:
        exported.run("bogus", x=X)
    assert refused.value.code == "FAILED_PRECONDITION"
