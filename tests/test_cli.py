"""The command line, run in this process and, once, as a process of its own."""

import pathlib
import re
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest
import zoo
from conftest import exported_by_keras
from keras import layers as L

import tfig
from tfig import console
from tfig.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    keras.utils.set_random_seed(0)
    model = zoo.build("sequential")
    model.save(place / "model.keras")
    model.save(place / "model.h5")
    exported_by_keras(model, place / "exported")
    grey = keras.Sequential([keras.Input((None, None, 1)), L.Conv2D(3, 3), L.GlobalAveragePooling2D(), L.Softmax()])
    grey.save(place / "grey.keras")
    zoo.build("two_inputs").save(place / "two.keras")
    for i in range(2):
        cv2.imwrite(str(place / f"image{i}.png"), np.random.default_rng(i).integers(0, 256, (20, 16, 3), "uint8"))
    cv2.imwrite(str(place / "dark.png"), np.zeros((8, 8, 3), "uint8"))
    (place / "text.png").write_text("not an image")
    return place


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("model", ["model.keras", "model.h5", "exported"])
def test_explain_writes_a_picture_and_the_numbers(model, folder, capsys):
    assert main(["explain", model, "image0.png", "image1.png", "-o", "out.png", "--scale", "-1,1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("class" in line and "score" in line and "delta" in line for line in lines)
    keras_model = keras.models.load_model("model.keras")
    for i in range(2):
        pixels = cv2.cvtColor(cv2.imread(f"image{i}.png"), cv2.COLOR_BGR2RGB)
        x = cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype("float32")[None] / 127.5 - 1
        e = tfig.Explanation.load(f"out.image{i}.npz")
        np.testing.assert_allclose(e.x, x, atol=1e-6)
        np.testing.assert_allclose(e.attributions, tfig.explain(keras_model, x).attributions, rtol=1e-3, atol=1e-6)
        shown = cv2.cvtColor(cv2.imread(f"out.image{i}.png"), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(shown, e.overlay(pixels)[0])
        assert f"class {e.target[0]}" in lines[i]


def test_what_takes_its_time_is_said(capsys, monkeypatch):
    monkeypatch.setattr(console, "PATIENCE", 0.0)
    assert main(["explain", "model.keras", "image0.png", "-o", "slow.png"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == ["compiling integrated_gradients for model.keras, once ...", "explaining 1 row(s) ..."]


def test_options_reach_the_question(capsys):
    asked = ["explain", "model.keras", "image0.png", "--method", "igos", "--target", "3", "--layer", "conv"]
    assert main([*asked, "--output", "probabilities", "--baseline", "mean", "--seed", "4", "-o", "igos"]) == 0
    e = tfig.Explanation.load("igos.npz")
    assert (e.method, e.layer, e.output, e.target[0]) == ("igos", "conv", "probabilities", 3)
    assert main(["explain", "model.keras", "image0.png", "--target", "1", "--against", "2", "--output", "logits"]) == 0
    e = tfig.Explanation.load("image0.integrated_gradients.npz")
    assert e.target[0] == 1 and e.trace["against"][0] == 2
    assert main(["explain", "grey.keras", "image0.png", "--method", "smoothgrad", "--batch-size", "3"]) == 0
    assert cv2.imread("image0.smoothgrad.png").shape == (20, 16, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.keras", "missing.png"], "no such image: 'missing.png'"),
        (["model.keras", "text.png"], "'text.png' is no image"),
        (["missing.keras", "image0.png"], "no such model: 'missing.keras'"),
        (["text.png", "image0.png"], "'text.png' is no model that loads"),
        (["model.keras", "image0.png", "--method", "integrate"], "no method is named 'integrate'"),
        (["model.keras", "image0.png", "--layer", "konv"], "no layer 'konv'"),
        (["model.keras", "image0.png", "--target", "44"], "target 44 is out of range"),
        (["model.keras", "image0.png", "--target", "cat"], "--target is 'cat'"),
        (["model.keras", "image0.png", "--baseline", "blurr"], "no baseline is named 'blurr'"),
        (["model.keras", "image0.png", "--scale", "1,2,3"], "--scale is '1,2,3'"),
        (["model.keras", "image0.png", "-o", "nowhere/a.png"], "no such directory"),
        (["two.keras", "image0.png"], "images are for models of one image"),
    ],
)
def test_errors_are_one_line_and_a_status(arguments, said, capsys):
    assert main(["explain", *arguments]) == 1
    captured = capsys.readouterr()
    assert said in captured.err and len(captured.err.splitlines()) == 1


@pytest.fixture(scope="module")
def tables(folder):
    table = keras.Sequential([keras.Input((3,)), L.Dense(4, activation="relu"), L.Dense(2, activation="softmax")])
    table.save(folder / "table.keras")
    columns = {"size": keras.Input((1,), name="size"), "colour": keras.Input((1,), name="colour", dtype="string")}
    looked_up = L.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot")(columns["colour"])
    keras.Model(columns, L.Dense(2)(L.Concatenate()([columns["size"], looked_up]))).save(folder / "columns.keras")
    (folder / "table.csv").write_text("a,b,c\n1,2,3\n4,5.5,-6\n")
    (folder / "columns.csv").write_text("colour,weight,size\nred,1,0.5\nblue,2,1.5\n")
    (folder / "words.csv").write_text("a,b,c\n1,two,3\n")
    (folder / "ragged.csv").write_text("a,b,c\n1,2\n")
    np.save(folder / "rows.npy", zoo.images())
    np.savez(folder / "two.npz", **zoo.ZOO["two_inputs"].x)
    np.save(folder / "objects.npy", np.array([{}], object))
    (folder / "names.txt").write_text("cat\ndog\nbird\nfish\n")
    (folder / "names.json").write_text('{"0": "cat", "1": "dog", "2": "bird", "3": "fish"}')
    (folder / "bad.json").write_text("{")
    (folder / "number.json").write_text("3")
    (folder / "pets.txt").write_text("cat\ndog\n")
    (folder / "numbers.csv").write_text("1,2,3\n4,5,6\n")


def test_arrays_and_tables_are_explained(tables, capsys):
    assert main(["explain", "model.keras", "rows.npy", "--method", "gradient"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3 and cv2.imread("rows.gradient.png") is not None
    e = tfig.Explanation.load("rows.gradient.npz")
    np.testing.assert_array_equal(e.x, zoo.images())
    assert main(["explain", "two.keras", "two.npz", "--method", "gradient", "-o", "two.png"]) == 0
    assert sorted(tfig.Explanation.load("two.npz").x) == sorted(zoo.ZOO["two_inputs"].x)
    assert main(["explain", "table.keras", "table.csv", "--classes", "pets.txt", "--target", "dog", "-o", "t.png"]) == 0
    assert "row 1: dog, score" in capsys.readouterr().out
    np.testing.assert_array_equal(tfig.Explanation.load("t.npz").x, [[1, 2, 3], [4, 5.5, -6]])
    asked = ["explain", "columns.keras", "columns.csv", "--method", "shapley_sampling", "--target", "0"]
    assert main([*asked, "-o", "c.html"]) == 0
    page = pathlib.Path("c.html").read_text()
    assert "colour = blue" in page and "size = 1.5" in page
    assert tfig.Explanation.load("c.npz").x["colour"].ravel().tolist() == ["red", "blue"]


def test_reports_names_and_preprocessing(tables, capsys):
    asked = ["image0.png", "image1.png", "--method", "gradient", "--classes"]
    assert (
        main(["explain", "model.keras", *asked, "names.json", "--target", "bird", "--against", "cat", "-o", "r.html"])
        == 0
    )
    assert "image1.png: bird rather than cat, score" in capsys.readouterr().out
    page = pathlib.Path("r.html").read_text()
    assert "Row 1: bird rather than cat" in page and 'width="16" height="20"' in page  # as the files have them
    compared = ["compare", "model.keras", "image0.png", "--methods", "gradient,lrp", "-o", "r2.html"]
    assert main(compared) == 0 and "epsilon_plus" in pathlib.Path("r2.html").read_text()
    for name, black in (("tf", [-1.0] * 3), ("mobilenet_v2", [-1.0] * 3), ("caffe", [-103.939, -116.779, -123.68])):
        assert (
            main(["explain", "model.keras", "dark.png", "--preprocess", name, "--method", "gradient", "-o", "p.png"])
            == 0
        )
        np.testing.assert_allclose(tfig.Explanation.load("p.npz").x[0, 0, 0], black, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["table.keras", "words.csv"],
            "column 'b' holds 'two' in line 2, which is no number, and the model takes float32",
        ),
        (["table.keras", "ragged.csv"], "'ragged.csv' is no table"),
        (["table.keras", "columns.csv"], "column 'colour' holds 'red' in line 2, which is no number"),
        (["model.keras", "table.csv"], "'table.csv' has 3 columns, a, b, c, and the model takes"),
        (
            ["columns.keras", "table.csv"],
            "which the model takes; it has ['a', 'b', 'c']",
        ),
        (["model.keras", "nowhere.npy"], "no such file: 'nowhere.npy'"),
        (["model.keras", "objects.npy"], "'objects.npy' cannot be read"),
        (["model.keras", "text.png", "--classes", "bad.json"], "'bad.json' is no JSON"),
        (["model.keras", "image0.png", "--classes", "nowhere.txt"], "no such file: 'nowhere.txt'"),
        (["model.keras", "rows.npy", "image0.png"], "'rows.npy' holds all rows; pass it alone"),
        (
            ["table.keras", "numbers.csv"],
            "'numbers.csv' begins with numbers, 1, 2, 3, ...; its first line must be names",
        ),
        (["model.keras", "image0.png", "--classes", "number.json"], "'number.json' holds no list and no dict of names"),
        (["grey.keras", "image0.png", "--preprocess", "tf"], "images of three channels, and the model takes 1"),
        (["model.keras", "rows.npy", "--preprocess", "tf"], "are for image files"),
        (
            ["model.keras", "image0.png", "--preprocess", "tff"],
            "--preprocess is 'tff'; it must be caffe, tf, torch, or",
        ),
        (["model.keras", "image0.png", "--classes", "names.txt", "--target", "wolf"], "a name of --classes"),
        (["model.keras", "image0.png", "-o", "nowhere/r.html"], "no such directory: 'nowhere'"),
    ],
)
def test_errors_of_files_are_one_line_and_a_status(tables, arguments, said, capsys):
    assert main(["explain", *arguments]) == 1
    captured = capsys.readouterr()
    assert said in captured.err and len(captured.err.splitlines()) == 1


def test_methods_lists_them_all(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and info.reference in printed for name, info in tfig.methods().items())


def test_as_a_process_it_says_one_line():
    call = "import sys, tfig_command; sys.exit(tfig_command.main())"
    done = subprocess.run(
        [sys.executable, "-c", call, "explain", "model.keras", "missing.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines() == ["tfig: no such image: 'missing.png'"]


def test_export_inspect_serve_and_query(capsys):
    asked = ["export", "model.keras", "models/img", "--explain", "integrated_gradients", "--explain", "slope=gradient"]
    assert main([*asked, "--output", "logits", "--no-warmup", "--max-batch-size", "8"]) == 0
    assert "models/img/1: explain (integrated_gradients), slope (gradient)" in capsys.readouterr().out
    assert main(["inspect", "models/img"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "float32[?, 8, 8, 3] -> output_0 float32[?, 4]",
        "explain: integrated_gradients(steps=64",
        "output logits, baseline zeros",
        "takes   x float32[?, 8, 8, 3]",
        "target int32[?]",
        "arXiv:1703.01365",
    ):
        assert words in printed
    assert main(["inspect", "exported"]) == 0
    assert "no explanations" in capsys.readouterr().out
    other = keras.models.load_model("model.keras")
    other.set_weights([2 * weight for weight in other.get_weights()])
    tfig.export(other, "other/img", {"slope": "gradient"}, warmup=False)
    with tfig.serving.serve("models/img", port=0) as server:
        address = f"127.0.0.1:{server.port}"
        contrast = ["--target", "2", "--against", "runner_up"]
        assert main(["query", address, "img", "image0.png", *contrast, "-o", "served.png"]) == 0
        assert "class 2" in capsys.readouterr().out
        served = tfig.Explanation.load("served.npz")
        assert main(["explain", "model.keras", "image0.png", *contrast, "--output", "logits", "-o", "local.png"]) == 0
        np.testing.assert_array_equal(served.attributions, tfig.Explanation.load("local.npz").attributions)
        np.testing.assert_array_equal(cv2.imread("served.png"), cv2.imread("local.png"))
        capsys.readouterr()
        assert main(["inspect", "img", "--server", address]) == 0
        printed = capsys.readouterr().out
        for words in (
            "version 1: AVAILABLE",
            "explain:",
            "takes   x float32[?, 8, 8, 3]",
            "target int32[?]",
            "heatmap",
        ):
            assert words in printed
        bounded = ["--clients", "3", "--seconds", "1", "--rows", "2"]
        assert main(["load", address, "img", *bounded, "--against", "models/img"]) == 0
        assert re.search(r"3 client\(s\): \d+ answers in \d s, .* p99 \d+ ms; 0 lost, 0 wrong", capsys.readouterr().out)
        assert main(["load", address, "img", *bounded, "--name", "slope", "--against", "other/img"]) == 1
        captured = capsys.readouterr()
        assert "0 lost, 0 wrong" not in captured.out and "lost or answered wrongly" in captured.err
        for arguments, said in (
            ([address, "nope", "image0.png"], "Servable not found"),
            ([address, "img", "image0.png", "--name", "igos"], "offers explain, slope"),
            ([address, "img", "missing.png"], "no such image"),
            (["127.0.0.1:1", "img", "image0.png", "--timeout", "0.3"], "check that the server runs"),
        ):
            assert main(["query", *arguments]) == 1
            captured = capsys.readouterr()
            assert said in captured.err and len(captured.err.splitlines()) == 1


def test_one_sigmoid_is_called_by_its_second_name(capsys):
    """The score is of class 1, in this process as of a server."""
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, keras.layers.Dense(1, "sigmoid")(keras.layers.GlobalAveragePooling2D()(x)))
    model.save("binary.keras")
    pathlib.Path("two.txt").write_text("healthy\nsick\n")
    tfig.export(model, "binary", {"why": "gradient"}, warmup=False, pictures=False)
    with tfig.serving.serve("binary", port=0) as server:
        for command in (["explain", "binary.keras"], ["query", f"127.0.0.1:{server.port}", "binary"]):
            assert main([*command, "image0.png", "--classes", "two.txt", "-o", "one.png"]) == 0
            said = capsys.readouterr().out
            assert "sick, score" in said and "healthy" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "missing.keras", "m", "--explain", "igos"], "no such model"),
        (["export", "model.keras", "m", "--explain", "igoss"], "did you mean 'igos'"),
        (["export", "model.keras", "m", "--explain", "igos", "--explain", "gradient"], "two explanations are named"),
        (["export", "model.keras", "m", "--explain", "conductance"], "pass layer="),
        (["serve", "nowhere", "--port", "0"], "no such directory"),
        (["load", "localhost:1", "m", "--clients", "0"], "--clients is 0"),
        (["guard", "127.0.0.1:1", "m", "--port", "0", "--seconds", "0.5"], "check that the server runs"),
        (["inspect", "m", "--server", "127.0.0.1:1", "--timeout", "0.3"], "check that the server runs"),
        (["serve", "exported", "--port", "0"], "pass the folder around it"),
        (["inspect", "nowhere"], "no SavedModel"),
    ],
)
def test_errors_of_serving_are_one_line_and_a_status(arguments, said, capsys):
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert said in captured.err and len(captured.err.splitlines()) == 1


def test_evaluate_writes_the_table(capsys):
    truth = np.zeros((20, 16, 3), "uint8")
    truth[5:15, 4:12] = 255
    for i in range(2):
        cv2.imwrite(f"truth{i}.png", truth)
    asked = ["evaluate", "model.keras", "image0.png", "image1.png", "--methods", "gradient,cam,lrp", "--target", "1"]
    chosen = ["--metrics", "deletion,relevance_mass", "--mask", "truth0.png", "--mask", "truth1.png"]
    for out in ("t.md", "t.csv", "t.png"):
        assert main([*asked, *chosen, "-o", out]) == 0
        shown = capsys.readouterr().out
    assert shown.startswith("| | deletion (lower is better) | relevance_mass") and shown.endswith("-> t.png\n")
    model, rows = keras.models.load_model("model.keras"), []
    for i in range(2):
        pixels = cv2.cvtColor(cv2.imread(f"image{i}.png"), cv2.COLOR_BGR2RGB)
        rows.append(cv2.resize(pixels, (8, 8), interpolation=cv2.INTER_AREA).astype("float32") / 255)
    mask = cv2.resize(truth[..., 0], (8, 8), interpolation=cv2.INTER_AREA) > 127
    methods = ["gradient", "cam", "lrp"]
    found = tfig.evaluate(model, np.stack(rows), methods, ["deletion", "relevance_mass"], mask, target=1)
    with open("t.csv") as file:
        assert file.read() == found.to_csv()
    with open("t.md") as file:
        assert file.read() == found.to_markdown() and found.to_markdown() in shown


def test_metrics_are_listed(capsys):
    assert main(["metrics"]) == 0
    shown = capsys.readouterr().out
    for name, metric in tfig.metrics.METRICS.items():
        assert f"{name}\n" in shown and metric.reference in shown and f"{metric.better} is better" in shown


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["-o", "t.txt"], "must end in .md, .csv or .png"),
        (["-o", "nowhere/t.md"], "no such directory"),
        (["--metrics", "deletions"], "no metric is named 'deletions'"),
        (["--metrics", "pointing_game"], "pass masks="),
        (["--mask", "image0.png", "--mask", "image1.png"], "1 images and 2 masks"),
        (["--mask", "nothing.png"], "no such image"),
    ],
)
def test_evaluate_says_what_is_wrong_in_one_line(asked, said, capsys):
    assert main(["evaluate", "model.keras", "image0.png", "--methods", "gradient", *asked]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tfig: ") and said in lines[0]
