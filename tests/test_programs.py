"""Compiled programs: what they are made of, what they leave behind, and who may run beside them."""

import ast
import contextlib
import gc
import pathlib
import re
import subprocess
import sys
import threading
import weakref

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf
import zoo
from keras import layers as L
from placement import lacking
from test_conformance import METHODS

import tfig
from tfig import entry, memory, readings
from tfig import program as programs

ROOT = pathlib.Path(tfig.__file__).parent

MORE = [
    (tfig.IGOS(4, 2, 2), {"output": "probabilities"}),
    (tfig.IntegratedGradients(8), {"baseline": "blur"}),
    (tfig.SmoothGrad(samples=2), {"baseline": "uniform"}),
    (tfig.CAM(), {}),
    (tfig.IntegratedGradients(8, "adaptive", tolerance=0.01), {"baseline": "boundary"}),
    (tfig.IntegratedGradients(8, "gauss_legendre"), {"baseline": "max_distance", "layer": "conv"}),
    (tfig.IntegratedGradients(8), {"baseline": "gaussian", "target": tfig.Contrast(0, 1)}),
    (tfig.SmoothGrad(tfig.IntegratedGradients(4), samples=3), {"baseline": tfig.baselines.Mode(zoo.images(4))}),
    (tfig.SmoothGrad(tfig.IGOS(4, 2, 2), samples=2), {"baseline": "mean"}),
    (tfig.DeepLIFT("reveal_cancel"), {"output": "probabilities"}),
    (tfig.LRP("epsilon_gamma_box"), {"output": "logits"}),
    (tfig.LRP("alpha2_beta1_flat"), {"output": "logits"}),
    (tfig.KernelSHAP(segments=2), {}),
    (tfig.QII("shapley", samples=2, segments=2), {"baseline": tfig.baselines.Dataset(zoo.images(2))}),
]

# Methods that some of these models have no rule, no ReLU or no feature map for.
REFUSED = {"lrp", "deep_taylor", "deeplift", "deepshap", "guided_backprop", "deconvnet", "cam", "score_cam",
           "guided_grad_cam", "attention_rollout", "gradient_weighted_attention"}  # fmt: skip

BRINGING = ("gradient", "lrp", "deeplift")


def compiled_programs(model):
    return list(programs._programs[model].values())


def traced(model, x, method, **arguments):
    """The program of a question, which need not run."""
    return tfig.Explainer(model, method, **arguments).pose(*entry.read(model, x), None).program


@pytest.mark.parametrize("name", ["sequential", "normalised", "attention", "recurrent"])
def test_every_numeric_op_has_a_gpu_kernel(name):
    """What a method adds is the same for every model (`test_conformance` asks each); here what models bring."""
    case, model, found = zoo.ZOO[name], zoo.build(name), []
    asked = [(METHODS[key], {}) for key in BRINGING]
    if name == "sequential":
        asked += MORE
    if name == "attention":
        asked += [(METHODS["attention_rollout"], {}), (METHODS["gradient_weighted_attention"], {})]
    for method, arguments in asked:
        with contextlib.suppress(ValueError) if method.name in REFUSED else contextlib.nullcontext():
            found.append(traced(model, case.x, method, **arguments))
    assert len(found) >= 3
    assert not set().union(*map(lacking, found))


def test_one_tf_function_one_matplotlib_no_private_keras():
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.rglob("*.py")}
    assert [name for name, text in sources.items() if "tf.function(" in text] == ["tracing.py"]
    assert [name for name, text in sources.items() if re.search(r"(import|from) matplotlib.*Figure", text)] == [
        "plots/canvas.py"
    ]
    drawing = [name for name, text in sources.items() if "import matplotlib" in text or "from matplotlib" in text]
    assert all(name.startswith("plots/") for name in drawing)
    assert not [name for name, text in sources.items() if "keras.src" in text]
    assert not [name for name, text in sources.items() if "custom_gradient" in text]
    imports = re.compile("^(import|from) matplotlib", re.MULTILINE)  # when it is drawn, not before
    assert not [name for name, text in sources.items() if imports.search(text)]


ORDER = [
    ("version",),
    ("fingerprint", "graph", "axes", "naming", "sizes"),
    ("slices", "picture", "rules", "layout"),
    ("tracing",),
    ("entry", "memory"),
    ("network", "baselines", "anatomy"),
    ("ending",),
    ("score",),
    ("problem",),
    ("kernels",),
    ("methods",),
    ("readings",),
    ("outset",),
    ("program", "explanation"),
    ("devices", "view", "arguments", "catalogue", "provenance", "archive", "notes"),
    ("plots",),
    ("summary", "exchange"),
    ("tally",),
    ("survey",),
    ("api",),
    ("comparison",),
    ("metrics",),
    ("evaluation",),
    ("pages", "callbacks"),
    ("console",),
    ("files",),
    ("serving",),
    ("batch",),
    ("beam",),
    ("cli",),
]


def test_imports_go_downwards_only():
    level = {room: i for i, rooms in enumerate(ORDER) for room in rooms}
    beside = ROOT.parent / "serving"  # installed as tfig.serving
    for path in [*ROOT.rglob("*.py"), *beside.rglob("*.py")]:
        inside = beside in path.parents
        room = "serving" if inside else path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        # A view is opened from the explanation it shows, when it is shown.
        module = ast.parse(path.read_text())
        top = [node for node in ast.walk(module) if isinstance(node, (ast.Import, ast.ImportFrom))]
        for node in top:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfig"):
                parts = (node.module or "").split(".")
                names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tfig.")]
            else:
                continue
            for name in names:
                if (room, name) in {
                    ("explanation", above) for above in ("view", "plots", "pages", "exchange", "archive", "notes")
                }:
                    continue
                assert level[name] < level[room] or name == room, f"{room} imports {name}"


def test_a_model_is_traced_once_for_all_that_reads_it(monkeypatch):
    monkeypatch.setattr(programs, "SHARING", True)  # what is traced how often does not depend on the version
    calls = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            calls.append(self.name)
            return x * 2

    x = zoo.images(2)
    inputs = keras.Input((8, 8, 3))
    h = keras.layers.Conv2D(4, 3, name="conv")(Counting()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(h)))
    calls.clear()
    tfig.explain(model, x, tfig.IntegratedGradients(4))
    assert len(calls) == 1
    for method in (tfig.SmoothGrad(samples=2), tfig.IntegratedGradients(4, tolerance=0.1), tfig.GuidedIG(steps=4),
                   tfig.IGOS(resolution=4, iterations=1, steps=2), tfig.RISE(samples=4, cells=2)):  # fmt: skip
        tfig.explain(model, x, method)
    assert len(calls) == 1
    # One gradient at x is taken of the F(x) that is known: in a trace of its own, with the model evaluated once.
    tfig.explain(model, x, "gradient")
    assert len(calls) == 2
    # It holds neither the program nor the function that asked first.
    target = lambda y: y[:, 0]  # noqa: E731
    gone = weakref.ref(target)
    tfig.explain(model, x, "gradient", target=target)
    traced = len(calls)
    tfig.explain(model, x, "gradient", target=lambda y: y[:, 1])
    assert len(calls) == traced
    del target
    for method in range(memory.KEPT):  # the program that was made for it goes
        tfig.explain(model, x, tfig.GradientXInput(), target=lambda y, i=method: y[:, 0] * i)
    gc.collect()
    assert gone() is None
    # Relevance goes back along F(x) as the program has it, differences along F(x) and F(x'): nothing is called beside.
    for method, ends in (("lrp", 1), ("deeplift", 2)):
        traced = len(calls)
        tfig.explain(model, x, method)
        assert len(calls) - traced == ends, method
    # What is behind a layer is traced once.
    tfig.explain(model, x, "grad_cam", layer="conv")
    traced = len(calls)
    tfig.explain(model, x, tfig.IntegratedGradients(4), layer="conv")
    assert len(calls) - traced <= 4  # the layer's outputs at x and at the baseline, and what else leads to it


def test_a_first_call_that_was_interrupted_can_be_made_again(monkeypatch):
    monkeypatch.setattr(programs, "SHARING", True)
    model, x = zoo.build("sequential"), zoo.images(2)

    def once(*arguments):
        monkeypatch.setattr(readings, "part", whole)
        whole(*arguments)
        raise KeyboardInterrupt

    whole = readings.part
    monkeypatch.setattr(readings, "part", once)
    with pytest.raises(KeyboardInterrupt):
        tfig.explain(model, x)
    expected = tfig.explain(zoo.build("sequential"), x).attributions
    np.testing.assert_array_equal(tfig.explain(model, x).attributions, expected)


@pytest.mark.parametrize(
    ("method", "ends", "between"),
    [
        ("gradient", 1, 0),
        (tfig.IntegratedGradients(steps=4, rule="midpoint"), 2, 4),
        (tfig.IntegratedGradients(steps=4), 2 + 7, 4),
        (tfig.SmoothGrad(samples=4), 1, 4),
        (tfig.GuidedIG(steps=4), 2, 5),
        (tfig.RISE(samples=4, cells=2), 2, 4),
    ],
    ids=str,
)
def test_the_model_is_evaluated_as_often_as_said_and_a_path_at_once(method, ends, between):
    seen = []

    @tf.custom_gradient
    def counted(x):
        def count(x):
            seen.append(len(x))
            return x

        return tf.ensure_shape(tf.numpy_function(count, [x], tf.float32), x.shape), lambda dy: dy

    weights = tf.constant(np.random.default_rng(0).normal(size=(48, 3)), tf.float32)
    tfig.explain(lambda x: tf.tanh(tf.reshape(counted(x), [-1, 48]) @ weights), np.ones((2, 4, 4, 3), "f4"), method)
    assert seen[0] == 2 * ends and sum(seen) == 2 * (ends + between)


def test_a_path_is_read_at_its_very_ends():
    """x' + 1 (x - x') is not x."""
    seen = []

    def look(x):
        seen.extend(x)
        return x

    def model(x):
        return tf.reduce_sum(tf.ensure_shape(tf.numpy_function(look, [x], tf.float32), x.shape), 1, keepdims=True) * x

    x, base = (np.random.default_rng(0).normal(size=(2, 3, 5)) * [[[1]], [[1e3]]]).astype("float32")
    assert (base + (x - base) != x).any()
    tfig.explain(model, x, tfig.IntegratedGradients(4), target=0, baseline=base)
    for row in (*x, *base):
        assert any(np.array_equal(row, one) for one in seen)


def test_rows_are_split_over_four_devices():
    script = pathlib.Path(__file__).with_name("four_devices.py")
    ran = subprocess.run([sys.executable, "-W", "ignore", script], check=False, capture_output=True, text=True)
    assert ran.stdout.endswith("all hold\n"), ran.stderr[-2000:]


def test_a_change_of_the_model_is_a_new_question():
    model, x = zoo.build("sequential"), zoo.images()
    before = tfig.explain(model, x, "gradient", target=1)
    model.layers[-1].activation = keras.activations.linear
    after = tfig.explain(model, x, "gradient", target=1)
    assert np.abs(before.score - after.score).max() > 1e-3
    model.layers[0].kernel.assign(model.layers[0].kernel * 0)
    np.testing.assert_allclose(tfig.explain(model, x, "gradient", target=1).attributions, 0)
    model.layers[0].trainable = False
    count = len(compiled_programs(model))
    tfig.explain(model, x, "gradient", target=1)
    assert len(compiled_programs(model)) == count + 1


def test_compile_does_the_work_of_the_first_call():
    calls = []
    model = keras.Sequential(
        [keras.Input((5,)), L.Dense(4), L.Activation(lambda z: calls.append(1) or keras.ops.relu(z)), L.Dense(3)]
    )
    x, calls[:] = zoo.table(), []
    explainer = tfig.Explainer(model, "integrated_gradients", seed=np.arange(3), target=[0, 2, 1]).compile(x)
    traced = len(calls)
    assert traced and isinstance(explainer, tfig.Explainer) and explainer.batch_size is None
    e = explainer(x)
    assert len(calls) == traced
    np.testing.assert_array_equal(e.target, [0, 2, 1])


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 4)
    model, x = zoo.build("regression"), zoo.table()
    for steps in range(1, memory.KEPT + 5):
        tfig.explain(model, x, tfig.IntegratedGradients(steps))
    assert len(compiled_programs(model)) == memory.KEPT


def test_losses_and_everything_else_stay():
    x = keras.Input((8, 8, 3))
    h = L.Conv2D(4, 3, activity_regularizer="l2", kernel_regularizer="l1", name="conv")(x)
    h = L.BatchNormalization(name="bn")(L.Dropout(0.5)(h))
    model = keras.Model(x, L.Dense(3, activation="softmax")(L.Flatten()(h)))
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    model.fit(zoo.images(), np.zeros(3), verbose=0)
    model(zoo.images())
    losses = [float(one) for one in model.losses]
    weights, config = model.get_weights(), model.get_config()
    attributes = [set(vars(layer)) for layer in model.layers]
    for method, arguments in (("igos", {}), ("conductance", {"layer": "conv"}), ("smoothgrad", {"layer": "bn"})):
        tfig.explain(model, zoo.images(), method, **arguments)
    assert [float(one) for one in model.losses] == losses
    assert attributes == [set(vars(layer)) for layer in model.layers] and config == model.get_config()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_another_thread_predicts_rightly_while_an_explanation_is_traced():
    model, x = zoo.build("skips"), zoo.images()
    expected = np.array(model(x, training=False))
    wrong, stop = [], threading.Event()

    def predict():
        while not stop.is_set():
            if not np.allclose(np.array(model(x, training=False)), expected, atol=1e-6):
                wrong.append(1)

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        for steps in range(1, 4):
            tfig.explain(model, x, tfig.Conductance(steps), layer="conv")
            tfig.explain(model, x, tfig.IntegratedGradients(steps), layer="conv")
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_threads_explain_at_once():
    model, x = zoo.build("skips"), zoo.images()
    methods = [tfig.IntegratedGradients(4), tfig.Conductance(4), tfig.SmoothGrad(samples=4)]
    expected = [tfig.explain(model, x, method, layer="conv").attributions for method in methods]
    fresh, found = zoo.build("skips"), [None] * 3

    def work(i):
        found[i] = tfig.explain(fresh, x, methods[i], layer="conv").attributions

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def resident():
    """Memory of this process in MB."""
    return psutil.Process().memory_info().rss / 2**20


def test_four_models_of_30_mb_leave_memory_where_it_was():
    def once():
        model = keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                L.Conv2D(4, 3, name="conv"),
                L.Flatten(),
                L.Dense(2000),
                L.Dense(3000),
                L.Dense(4),
            ]
        )
        assert model.count_params() * 4 > 30e6
        x = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype("float32")
        tfig.explain(model, x, tfig.IntegratedGradients(8))
        tfig.explain(model, x, tfig.SmoothGrad(samples=4), layer="conv")
        weights = weakref.ref(model.layers[-1].kernel)
        del model
        keras.backend.clear_session()
        gc.collect()
        assert weights() is None

    for _ in range(2):
        once()
    settled = resident()
    for _ in range(4):
        once()
    assert resident() - settled < 60, "four models of 30 MB must not leave even two of them behind"


def test_eager_kernels_agree_with_the_compiled_program():
    """The same method on the same problem, run op by op in Python."""
    from tfig.problem import Problem

    weights = tf.constant(np.random.default_rng(0).normal(size=(192, 1)).astype("float32")) * 0.1

    def model(x):
        return tf.tanh(tf.reshape(x, [-1, 192]) @ weights)[:, 0]

    class Plain:
        def __call__(self, points):
            return model(points[0])

        def take(self, rows):
            return self

    x = zoo.images()
    seeds = tf.constant([[5, 0]] * 3)
    for method in (
        tfig.Gradient(), tfig.IntegratedGradients(7), tfig.IntegratedGradients(7, "adaptive", 0.001),
        tfig.SmoothGrad(tfig.IntegratedGradients(3), samples=4), tfig.VarGrad(samples=4), tfig.IGOS(4, 3, 3),
    ):  # fmt: skip
        baseline = 0 * x if method.default_baseline else ()
        problem = Problem(
            Plain(),
            (tf.constant(x),),
            (tf.constant(baseline),) if method.default_baseline else (),
            seeds,
            tf.constant(4),
        )
        eager, _ = method.attribute(problem)
        compiled = tfig.explain(model, x, method, baseline=0.0, seed=5, batch_size=4)
        np.testing.assert_allclose(eager[0], compiled.attributions, atol=1e-5 * np.abs(eager[0]).max())


def test_functions_run_eagerly_on_request_of_tensorflow_do_not_matter():
    model, x = zoo.build("sequential"), zoo.images()
    expected = tfig.explain(model, x, output="logits").attributions
    tf.config.run_functions_eagerly(True)
    try:
        found = tfig.explain(zoo.build("sequential"), x, output="logits").attributions
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_what_a_subclass_reads_from_itself_is_part_of_the_question():
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.top, self.factor = L.Dense(2), 1.0

        def call(self, x):
            return self.factor * self.top(x)

    model = Scaled()
    model(zoo.table())
    once = tfig.explain(model, zoo.table(), target=0).score
    model.factor = 3.0
    np.testing.assert_allclose(tfig.explain(model, zoo.table(), target=0).score, 3 * once, rtol=1e-5)


class Reading(keras.Model):
    """A call that reads numbers of every kind of place."""

    def __init__(self):
        super().__init__()
        self.dense, self.table, self.gain = L.Dense(3), {"gain": 1.0}, np.ones(3, "float32")
        self._private, self._settings, self.calls = 1.0, Settings(), 0

    def call(self, x):
        self.calls += 1
        return self._scaled(self.dense(x))

    def _scaled(self, y):
        return y * self.table["gain"] * self.gain * self._private * self._settings.gain


class Settings:
    gain = 1.0

    def __init__(self):
        self.gain = 1.0


CHANGES = {
    "a dict": lambda model: model.table.update({"gain": 2.0}),
    "an array in place": lambda model: model.gain.__setitem__(slice(None), 2.0),
    "a private number": lambda model: setattr(model, "_private", 2.0),
    "an object's number": lambda model: setattr(model._settings, "gain", 2.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_a_call_reads_is_a_new_question(change):
    model, x = Reading(), zoo.table()
    model(x)
    before = tfig.explain(model, x, "gradient", target=1).attributions
    calls = model.calls
    tfig.explain(model, x, "gradient", target=1)
    assert model.calls == calls  # what the call itself changes is none
    CHANGES[change](model)
    np.testing.assert_allclose(tfig.explain(model, x, "gradient", target=1).attributions, 2 * before, rtol=1e-5)


def test_what_cannot_be_seen_is_forgotten_on_request():
    class Place:
        __slots__ = ("value",)

    hidden = Place()
    hidden.value = 1.0

    def model(x):
        return x * hidden.value

    x = zoo.table()
    before = tfig.explain(model, x, "gradient", target=1).attributions
    np.testing.assert_array_equal(tfig.explain(model, x, "gradient", target=1).attributions, before)
    hidden.value = 3.0
    np.testing.assert_array_equal(tfig.explain(model, x, "gradient", target=1).attributions, before)
    tfig.forget(model)
    np.testing.assert_allclose(tfig.explain(model, x, "gradient", target=1).attributions, 3 * before)
    tfig.forget(zoo.build("regression"))
