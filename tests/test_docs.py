"""Every block of code in the README and the docs runs, every command is known, and links lead somewhere."""

import json
import pathlib
import re
import shlex
import warnings

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfig
from tfig.cli import main, parser
from tfig.serving import trial

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("tour", "index", "choosing", "serving", "scale"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, kind):
    return [code for found, code in FENCE.findall((ROOT / page).read_text()) if found == kind]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    h = image = keras.Input((8, 8, 3), name="image")
    for name in ("conv4", "conv5"):
        h = L.Conv2D(4, 3, padding="same", activation="relu", name=name)(h)
    built = keras.Model(image, L.Dense(10, activation="softmax")(L.Flatten()(h)), name="digits")
    built.compile("adam", "sparse_categorical_crossentropy")
    return built


@pytest.fixture
def names(model, tmp_path, monkeypatch):
    """What the pages take as given, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "run", lambda *_: None)  # what they export they ask
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype("float32")
    masks = np.zeros((4, 8, 8), bool)
    masks[:, 2:5, 2:5] = True
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(2)
    return {"model": model, "x": x, "y": np.arange(4), "masks": masks, "dataset": dataset, "tfig": tfig}


@pytest.mark.parametrize("page", PAGES)
def test_its_blocks_run_in_their_order(page, names):
    code = blocks(page, "python")
    assert code
    server = None
    if any("tfig.read(" in block for block in code):
        names["model"].save("model.keras")
        np.save("rows.npy", names["x"])
        assert main(["batch", "model.keras", "rows.npy", "-o", "explained", "--method", "gradient"]) == 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for block in code:
                if "localhost:8500" in block and server is None:
                    if not pathlib.Path("models/digits").exists():
                        tfig.export(names["model"], "models/digits", {"explain": "gradient"}, warmup=False)
                    server = tfig.serving.serve("models/digits", port=0)
                here = block.replace("localhost:8500", f"127.0.0.1:{server.port}" if server else "")
                exec(compile(here, page, "exec"), names)
    finally:
        if "client" in names:
            names["client"].close()
        if server is not None:
            server.stop()


COMMANDS = [
    (page, line)
    for page in ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    for block in blocks(page, "sh")
    for whole in block.splitlines()
    for line in re.sub(r"[\[\]]", "", whole.split("  #")[0].split("   #")[0]).split(";")
    if line.strip().startswith("tfig ")
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_its_commands_are_known(page, line):
    parser().parse_args(shlex.split(line)[1:])


def test_its_commands_run(model, tmp_path, monkeypatch, capsys):
    """The README's explanations, as they stand; `test_cli` runs the other commands."""
    monkeypatch.chdir(tmp_path)
    model.save("model.keras")
    keras.Sequential([keras.Input((3,)), L.Dense(2)]).save("table.keras")
    for name in ("image.png", "a.jpg"):
        cv2.imwrite(name, np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8"))
    (tmp_path / "names.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    (tmp_path / "table.csv").write_text("a,b,c\n1,2,3\n")
    lines = [line for page, line in COMMANDS if page == "README.md" and line.startswith("tfig explain")]
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.replace("*.jpg", "a.jpg"))[1:]
        if "table.csv" in words:
            words[1] = "table.keras"
        assert main(words) == 0, (line, capsys.readouterr().err)
    assert (tmp_path / "why.html").exists()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_its_links_lead_somewhere(page):
    made = re.compile(r"(api|metrics|inside|changes|methods/\w+)\.md")  # when the site is built
    for link in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text()):
        if not link.startswith("http") and not made.fullmatch(link):
            assert (ROOT / page).parent.joinpath(link).exists(), link


def test_tutorials_hold_no_outputs():
    """`scripts/docs` runs them, strictly, and shows what they print."""
    notebooks = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
    assert [path.stem for path in notebooks] == ["photographs", "series", "serving", "table", "text"]
    for path in notebooks:
        cells = json.loads(path.read_text())["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
