"""Every block of code in the README and the docs runs, every command is known, and links lead somewhere."""

import pathlib
import re
import shlex
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfig
from tfig.cli import main, parser

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("tour", "index", "choosing", "serving"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDLESS = ("serve", "guard", "load")
"""Commands that run until they are stopped, or time."""


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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for block in code:
                if "localhost:8500" in block and server is None:
                    if not pathlib.Path("models/digits").exists():
                        tfig.export(names["model"], "models/digits", {"explain": "gradient"}, warmup=False)
                    server = tfig.serving.serve("models/digits", port=0)
                here = block.replace("localhost:8500", f"127.0.0.1:{server.port}" if server else "")
                exec(
                    compile(
                        here.replace('"explain": "gradient"}', '"explain": "gradient"}, warmup=False'), page, "exec"
                    ),
                    names,
                )
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
    """Those of the README, as they stand, up to the address of the server."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    model.save("model.keras")
    table = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    (tmp_path / "images").mkdir()
    for name in ("image.png", "a.jpg", "images/b.png"):
        cv2.imwrite(name, np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8"))
    (tmp_path / "names.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    (tmp_path / "table.csv").write_text("a,b,c\n1,2,3\n")
    table.save("table.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = None
        for page, line in COMMANDS:
            words = shlex.split(line)[1:]
            if page != "README.md" or words[0] in ENDLESS:
                continue
            words = [
                word
                for given in words
                for word in (sorted(map(str, tmp_path.glob(given))) if "*" in given else [given])
            ]
            if "table.csv" in words:
                words[1] = "table.keras"
            if words[0] == "query":
                server = tfig.serving.serve("models/digits", port=0)
                words[1] = f"127.0.0.1:{server.port}"
            try:
                assert main(words) == 0, (line, capsys.readouterr().err)
            finally:
                if server is not None:
                    server.stop()
    assert (tmp_path / "why.html").exists() and (tmp_path / "table.md").exists()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]
)
def test_its_links_lead_somewhere(page):
    made = re.compile(r"(api|metrics|inside|changes|methods/\w+)\.md")  # when the site is built
    for link in re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text()):
        if not link.startswith("http") and not made.fullmatch(link):
            assert (ROOT / page).parent.joinpath(link).exists(), link


NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def test_there_are_five_tutorials():
    assert [path.stem for path in NOTEBOOKS] == ["photographs", "series", "serving", "table", "text"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorials_run(path, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are the site's, not the repository's"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in shown if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) or "text/html" in output.get("data", {}) for output in shown)
