"""Jobs: what is written is what explain says, whatever comes in between."""

import importlib.util
import multiprocessing
import os
import pathlib
import re
import resource
import shutil
import signal
import threading
import time

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from keras import layers as L

import tfig
from tfig.batch import table
from tfig.cli import main

duckdb = pytest.importorskip("duckdb")
pd = pytest.importorskip("pandas")
pq = pytest.importorskip("pyarrow.parquet")
import pyarrow as pa  # noqa: E402

ROWS = 40
IG = ["--method", "integrated_gradients"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("batch")
    keras.utils.set_random_seed(0)
    zoo.build("sequential").save(place / "model.keras")
    x = np.random.default_rng(0).uniform(0, 1, (ROWS, 8, 8, 3)).astype("float32")
    np.save(place / "rows.npy", x)
    x[7, 0, 0, 0] = np.nan
    x[30] = np.inf
    np.save(place / "bad.npy", x)
    keras.Sequential([keras.Input((3,), name="columns"), L.Dense(4, activation="relu"), L.Dense(2)]).save(
        place / "table.keras"
    )
    zoo.build("two_inputs").save(place / "two.keras")
    tokens = keras.Sequential([keras.Input((4,), dtype="int32"), L.Embedding(9, 3), L.Flatten(), L.Dense(2)])
    tokens.save(place / "tokens.keras")
    return place


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def asked(*arguments):
    """Run the command, which must end well."""
    assert main(["batch", *map(str, arguments)]) == 0


def refused(capsys, *arguments):
    """What it says in one line where it does not."""
    capsys.readouterr()
    assert main(["batch", *map(str, arguments)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tfig: ")]
    return line


def written(place):
    return pa.concat_tables([pq.read_table(path) for path in sorted(pathlib.Path(place).glob("*.parquet"))])


def together(place):
    return tfig.Explanation.concatenate(list(tfig.read(place)))


@pytest.fixture
def model():
    return keras.models.load_model("model.keras", compile=False)


def test_every_row_is_what_explain_says(model, tmp_path, capsys):
    asked("model.keras", "rows.npy", "-o", tmp_path, *IG, "--rows-per-file", 7)
    said = capsys.readouterr().out
    assert "40 rows: 40 explained, 0 failed" in said and "rows a second" in said
    assert len(list(tmp_path.glob("part-*.parquet"))) == 6
    x = np.load("rows.npy")
    found, expected = together(tmp_path), tfig.explain(model, x)
    assert found.trace["id"].tolist() == [f"rows.npy:{i}" for i in range(ROWS)]
    for name in ("target", "score", "baseline_score", "convergence_delta"):
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
    np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-6)
    assert found.method == "integrated_gradients" and dict(found.parameters) == dict(expected.parameters)
    assert found.x is None and found.provenance["model"] == expected.provenance["model"]
    worst = np.abs(expected.convergence_delta).argmax()
    assert f"(rows.npy:{worst})" in said

    # As engines read it, without tfig.
    frame = pd.read_parquet(tmp_path)
    assert len(frame) == ROWS and (frame["status"] == "ok").all()
    cell = frame["attributions"][3]
    array = np.frombuffer(cell["data"], cell["dtype"]).reshape(cell["shape"])
    np.testing.assert_array_equal(array, found.attributions[3])
    query = f"select count(*), max(score), any_value(attributions.shape) from '{tmp_path}/*.parquet'"
    count, top, shape = duckdb.sql(query).fetchall()[0]
    assert (count, shape) == (ROWS, [8, 8, 3]) and top == found.score.max()
    # In batches of any size, and of one file.
    assert [len(e) for e in tfig.read(tmp_path, batch_size=4)][:3] == [4, 3, 4]
    assert len(next(tfig.read(sorted(tmp_path.glob("*.parquet"))[1]))) == 7


def test_bad_rows_are_named_and_the_others_stay(tmp_path, capsys):
    asked("model.keras", "bad.npy", "-o", tmp_path / "bad", *IG)
    said = capsys.readouterr().out
    assert "38 explained, 2 failed" in said and "2 failed: input" in said and "NaN or infinite" in said
    asked("model.keras", "rows.npy", "-o", tmp_path / "good", *IG)
    bad, good = written(tmp_path / "bad").to_pylist(), written(tmp_path / "good").to_pylist()
    assert [i for i, row in enumerate(bad) if row["status"] == "failed"] == [7, 30]
    assert bad[7]["id"] == "bad.npy:7" and bad[7]["score"] is None and bad[7]["attributions"] is None
    for i in set(range(ROWS)) - {7, 30}:
        found, expected = (np.frombuffer(row[i]["attributions"]["data"], "float32") for row in (bad, good))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    # A token that is not in the vocabulary stops the model, not the job.
    x = np.random.default_rng(0).integers(0, 9, (20, 4))
    x[13, 2] = 99
    np.save(tmp_path / "tokens.npy", x)
    asked("tokens.keras", tmp_path / "tokens.npy", "-o", tmp_path / "tokens", *IG)
    assert "19 explained, 1 failed" in capsys.readouterr().out
    (row,) = [row for row in written(tmp_path / "tokens").to_pylist() if row["status"] == "failed"]
    assert row["id"] == "tokens.npy:13" and "vocabulary" in row["notes"]


def test_what_is_kept(model, tmp_path):
    x = np.load("rows.npy")
    e = tfig.explain(model, x)
    asked("model.keras", "rows.npy", "-o", tmp_path / "half", *IG, "--dtype", "float16")
    half, top = together(tmp_path / "half"), np.abs(e.attributions).max((1, 2, 3), keepdims=True)
    assert half.attributions.dtype == np.float32
    assert (np.abs(half.attributions - e.attributions) <= 2.0**-11 * top + 1e-6).all()
    asked("model.keras", "rows.npy", "-o", tmp_path / "maps", *IG, "--keep", "heatmap")
    maps = together(tmp_path / "maps")
    assert maps.attributions is None
    np.testing.assert_allclose(maps.heatmap(), e.heatmap(), atol=1e-6)
    asked("model.keras", "rows.npy", "-o", tmp_path / "pictures", *IG, "--keep", "picture")
    (picture, *_) = together(tmp_path / "pictures").trace["overlay_bytes"]
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(picture, "uint8"), 1), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - e[0].overlay()[0]).max() <= 1  # a rounding of the map is one of a colour
    sizes = [sum(f.stat().st_size for f in (tmp_path / n).glob("*.parquet")) for n in ("half", "maps")]
    assert max(sizes) < ROWS * 8 * 8 * 3 * 4


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2.0**-24), ("float16", 2.0**-11), ("int8", 1 / 254)])
@pytest.mark.parametrize("scale", [1e-200, 1e-36, 1.0, 1e30, 1e200])
def test_few_bits_are_of_the_largest_whatever_the_scale(scale, dtype, bound):
    """Off by half a unit in the largest's last place, or half of its 127th part; halves alone have 0 or inf."""
    computed = "float64" if dtype == "float32" or not 1e-40 < scale < 1e40 else "float32"
    map_ = (np.random.default_rng(0).normal(size=(5, 7)) * scale).astype(computed)
    about = dict.fromkeys(("about", "nest", "maps", "fields", "trace"))
    header = table.Header(kept="attributions", dtype=dtype, computed=computed, **about)
    cell = table._cell(map_, header)
    found = np.frombuffer(cell["data"], cell["dtype"]).astype("float64") * cell["scale"]
    assert cell["dtype"] == dtype and np.abs(found - map_.ravel()).max() <= bound * (1 + 1e-6) * np.abs(map_).max()
    back = table._array(cell, header)
    assert back.dtype == computed
    np.testing.assert_allclose(back.ravel(), found, rtol=1e-7, atol=1e-45)
    map_[0, 0] = np.nan
    assert np.isnan(table._array(table._cell(map_, header), header)).sum() == 1
    assert (table._array(table._cell(0 * np.ones_like(map_), header), header) == 0).all()


def example(**features):
    def feature(value):
        if isinstance(value, (bytes, str)):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[tf.compat.as_bytes(value)]))
        if np.asarray(value).dtype.kind == "f":
            return tf.train.Feature(float_list=tf.train.FloatList(value=np.ravel(value)))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(value)))

    return tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in features.items()}))


def maps(lines):
    return np.stack([np.frombuffer(cell["data"], cell["dtype"]) for cell in lines["attributions"].to_pylist()])


def test_every_kind_of_file_holds_the_same_rows(tmp_path, capsys):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 8, 8, 3), "uint8")
    files = [cv2.imencode(".png", cv2.cvtColor(one, cv2.COLOR_RGB2BGR))[1].tobytes() for one in pixels]
    names = [f"image {i}" for i in range(5)]
    x = pixels.astype("float32") / 255
    (tmp_path / "images" / "more").mkdir(parents=True)
    for i, one in enumerate(files):
        (tmp_path / "images" / f"{i}.png").write_bytes(one)
    with tf.io.TFRecordWriter(str(tmp_path / "encoded.tfrecord")) as writer:
        for name, one in zip(names, files, strict=True):
            writer.write(example(id=name, picture=one, label=3).SerializeToString())
    with tf.io.TFRecordWriter(str(tmp_path / "floats.tfrecord")) as writer:
        for one in x:
            writer.write(example(image=one).SerializeToString())
    table_ = {"id": names, "raw": [one.tobytes() for one in x], "file": files, "list": x.reshape(5, -1).tolist()}
    pq.write_table(pa.table(table_), tmp_path / "rows.parquet", row_group_size=2)
    np.save(tmp_path / "rows.npy", x)
    np.savez(tmp_path / "rows.npz", anything=x)

    def job_of(out, *inputs):
        asked("model.keras", *inputs, "-o", tmp_path / out, "--method", "gradient", "--rows-per-file", 3)
        return written(tmp_path / out)

    expected = job_of("npy", tmp_path / "rows.npy")
    same = {
        "npz": [tmp_path / "rows.npz"],
        "directory": [tmp_path / "images"],
        "pattern": [tmp_path / "images" / "*.png"],
        "encoded": [tmp_path / "encoded.tfrecord", "--column", "picture"],
        "floats": [tmp_path / "floats.tfrecord"],
        "raw": [tmp_path / "rows.parquet", "--column", "raw"],
        "file": [tmp_path / "rows.parquet", "--column", "file"],
        "list": [tmp_path / "rows.parquet", "--column", "list"],
    }
    for out, inputs in same.items():
        np.testing.assert_allclose(maps(job_of(out, *inputs)), maps(expected), atol=1e-6, err_msg=out)
    assert written(tmp_path / "encoded")["id"].to_pylist() == names
    assert written(tmp_path / "list")["id"].to_pylist() == names
    assert written(tmp_path / "pattern")["id"].to_pylist() == [str(tmp_path / "images" / f"{i}.png") for i in range(5)]
    assert written(tmp_path / "floats")["id"].to_pylist()[4] == "floats.tfrecord:4"
    # Several files, of several kinds, one behind the other.
    both = job_of("both", tmp_path / "rows.npy", tmp_path / "images", tmp_path / "floats.tfrecord")
    np.testing.assert_allclose(maps(both), np.tile(maps(expected), (3, 1)), atol=1e-6)


def test_tables_and_several_inputs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 3)).astype("float32")
    model = keras.models.load_model("table.keras", compile=False)
    expected = tfig.explain(model, x).attributions
    lines = ["age,height,weight", *(",".join(map(repr, map(float, row))) for row in x)]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    named = dict(zip(["age", "height", "weight"], x.T, strict=True))
    pq.write_table(pa.table({"id": [f"person {i}" for i in range(5)], **named}), tmp_path / "rows.parquet")
    for kind in ("csv", "parquet"):
        asked("table.keras", tmp_path / f"rows.{kind}", "-o", tmp_path / kind, *IG)
        np.testing.assert_allclose(together(tmp_path / kind).attributions, expected, atol=1e-6)
    assert together(tmp_path / "parquet").trace["id"][4] == "person 4"

    case = zoo.ZOO["two_inputs"]
    image, columns = (
        case.x[name] if isinstance(case.x, dict) else case.x[i] for i, name in enumerate(["image", "table"])
    )
    e = tfig.explain(keras.models.load_model("two.keras", compile=False), {"image": image, "table": columns})
    np.savez(tmp_path / "two.npz", image=image, table=columns)
    flat = {"image": [one.tobytes() for one in image], "table": columns.tolist()}
    pq.write_table(pa.table(flat), tmp_path / "two.parquet")
    with tf.io.TFRecordWriter(str(tmp_path / "two.tfrecord")) as writer:
        for one, other in zip(image, columns, strict=True):
            writer.write(example(image=one, table=other).SerializeToString())
    for kind in ("npz", "parquet", "tfrecord"):
        asked("two.keras", tmp_path / f"two.{kind}", "-o", tmp_path / f"two_{kind}", *IG)
        found = together(tmp_path / f"two_{kind}")
        assert set(found.attributions) == {"image", "table"}
        for name in ("image", "table"):
            np.testing.assert_allclose(found.attributions[name], e.attributions[name], atol=1e-6)
    assert {"attributions/image", "attributions/table"} <= set(pd.read_parquet(tmp_path / "two_npz").columns)


@keras.saving.register_keras_serializable("batch")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.top = L.Dense(2)

    def call(self, x):
        return self.top(x)


def test_tables_of_whole_numbers_of_names_and_of_other_orders(tmp_path, capsys):
    """As .npy would be: whole numbers are not rounded, fractions are no tokens, and columns keep their names."""
    big = 2**53
    ids = keras.Sequential([
        keras.Input((2,), dtype="int64"), L.IntegerLookup(vocabulary=[big, big + 1, 7], output_mode="multi_hot"),
        L.Dense(2),
    ])  # fmt: skip
    ids.save(tmp_path / "ids.keras")
    (tmp_path / "ids.csv").write_text(f"u,v\n{big + 1},7\n{big},7\n")
    given = ["--method", "feature_ablation", "--baseline", "7"]
    asked(tmp_path / "ids.keras", tmp_path / "ids.csv", "-o", tmp_path / "ids", *given)
    (found,) = tfig.read(tmp_path / "ids")
    x = np.array([[big + 1, 7], [big, 7]])
    expected = tfig.explain(keras.models.load_model(tmp_path / "ids.keras"), x, "feature_ablation", baseline=7)
    np.testing.assert_allclose(found.score, expected.score, atol=1e-6)
    assert abs(expected.score[0] - expected.score[1]) > 1e-3
    (tmp_path / "ids.csv").write_text(f"u,v\n{big + 1},\n{big},7\n")
    assert "above 2^53 beside" in refused(capsys, tmp_path / "ids.keras", tmp_path / "ids.csv", "-o", tmp_path / "no")
    (tmp_path / "tokens.csv").write_text("id,a,b,c,d\nx,1,2,3,4\ny,1.9,2,3,4\nz,1,,3,4\n")
    asked("tokens.keras", tmp_path / "tokens.csv", "-o", tmp_path / "tokens", *IG)
    x, y, z = written(tmp_path / "tokens").to_pylist()
    assert x["status"] == "ok" and "fractions" in y["notes"] and "NaN" in z["notes"]
    (tmp_path / "rows.csv").write_text("id,a,b,c\nx,1,2,3\ny,1,,3\nz,4,5,6\n")
    asked("table.keras", tmp_path / "rows.csv", "-o", tmp_path / "rows", *IG)
    said = [(row["id"], row["status"]) for row in written(tmp_path / "rows").to_pylist()]
    assert said == [("x", "ok"), ("y", "failed"), ("z", "ok")]
    (tmp_path / "word.csv").write_text("a,b,c\n1,2,3\n4,five,6\n")
    (tmp_path / "turned.csv").write_text("c,b,a\n1,2,3\n")
    for files, said in ((["word"], "'five' in line 3"), (["rows", "turned"], "has columns a, b, c, and")):
        paths = [tmp_path / f"{name}.csv" for name in files]
        assert said in refused(capsys, "table.keras", *paths, "-o", tmp_path / "no")

    model = Subclassed()
    model(zoo.table(2, 3))
    model.save(tmp_path / "own.keras")
    np.save(tmp_path / "own.npy", zoo.table(4, 3))
    np.save(tmp_path / "complex.npy", zoo.table(4, 3) + 1j)
    asked(tmp_path / "own.keras", tmp_path / "own.npy", "-o", tmp_path / "own", *IG)
    np.testing.assert_allclose(together(tmp_path / "own").score, tfig.explain(model, zoo.table(4, 3)).score, atol=1e-6)
    assert "is an array of complex" in refused(capsys, "table.keras", tmp_path / "complex.npy", "-o", tmp_path / "no")
    two = keras.Input((3,), name="x")
    keras.Model(two, {"p": L.Dense(2, name="p")(two), "q": L.Dense(3, name="q")(two)}).save(tmp_path / "outputs.keras")
    asked(tmp_path / "outputs.keras", tmp_path / "own.npy", "-o", tmp_path / "q", *IG, "--target", "q:2")
    assert (together(tmp_path / "q").target == 2).all()


def test_what_cannot_be_read_is_a_row_that_failed(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((8, 8, 3), 40 * i, "uint8"))
    (tmp_path / "images" / "3.png").write_bytes(b"not an image")
    asked("model.keras", tmp_path / "images", "-o", tmp_path / "one", *IG)
    assert "5 explained, 1 failed" in capsys.readouterr().out
    row = written(tmp_path / "one").to_pylist()[3]
    assert row["id"].endswith("3.png") and "no image that OpenCV can read" in row["notes"]

    x = zoo.images(6)
    path = tmp_path / "rows.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, one in enumerate(x):
            if i == 1:
                writer.write(b"\xff\xff no example")
            elif i == 2:
                writer.write(example(image=one[:4]).SerializeToString())
            else:
                writer.write(example(image=one).SerializeToString())
    path.write_bytes(path.read_bytes()[:-100])  # cut off within the last record
    asked("model.keras", path, "-o", tmp_path / "records", "--method", "gradient")
    assert "3 explained, 3 failed" in capsys.readouterr().out
    reasons = [row["notes"] for row in written(tmp_path / "records").to_pylist()]
    assert "no tf.train.Example" in reasons[1] and "holds 96 numbers" in reasons[2]
    assert "what follows cannot be read" in reasons[5]


def test_a_job_that_was_stopped_goes_on(tmp_path, capsys, monkeypatch):
    command = ["model.keras", "rows.npy", *IG, "--rows-per-file", 7]
    asked(*command, "-o", tmp_path / "whole")
    write, count = table.write, []

    def stopping(*arguments):
        count.append(None)
        if len(count) == 3:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(table, "write", stopping)
    assert "stopped; 2 of 6 files are finished and stay" in refused(capsys, *command, "-o", tmp_path / "stopped")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("*.parquet")}
    assert len(times) == 2
    asked(*command, "-o", tmp_path / "stopped")
    assert "2 of 6 files are there already" in capsys.readouterr().out
    assert times.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").iterdir()}.items()
    assert written(tmp_path / "stopped").equals(written(tmp_path / "whole"))
    # What is finished is not done again, and another question is not mixed in.
    asked(*command, "-o", tmp_path / "whole")
    assert "rows a second" not in capsys.readouterr().out
    other = ["model.keras", "rows.npy", "-o", tmp_path / "whole", "--method", "gradient"]
    assert "holds another job (method" in refused(capsys, *other)
    assert "holds another job (other inputs" in refused(capsys, "model.keras", "bad.npy", "-o", tmp_path / "whole", *IG)
    for i, change in enumerate([_brighter, _linear]):
        changed = keras.models.load_model("model.keras", compile=False)
        change(changed)
        changed.save(tmp_path / f"{i}.keras")
        assert "(other model" in refused(capsys, tmp_path / f"{i}.keras", "rows.npy", "-o", tmp_path / "whole", *IG)


def _brighter(model):
    model.layers[0].bias.assign(model.layers[0].bias + 1e-3)


def _linear(model):
    model.layers[-1].activation = keras.activations.linear


def test_a_full_disk_leaves_what_was_finished(tmp_path, capsys, monkeypatch):
    """Files may not grow beyond a few thousand bytes, as where there is no room."""
    write = table.write

    def small(path, *arguments):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        if "00002" in path.name:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit[1]))
        try:
            write(path, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    monkeypatch.setattr(table, "write", small)
    command = ["model.keras", "rows.npy", *IG, "--rows-per-file", 7, "-o", tmp_path / "out"]
    assert "too large; 2 of 6 files are finished and stay" in refused(capsys, *command)
    assert {path.name[:10] for path in (tmp_path / "out").iterdir()} == {"_job.json", "part-00000", "part-00001"}
    monkeypatch.setattr(table, "write", write)
    asked(*command)
    assert len(together(tmp_path / "out")) == ROWS


def test_a_model_that_changes_ends_the_job(tmp_path, capsys, monkeypatch):
    shutil.copy("model.keras", tmp_path / "model.keras")
    write = table.write

    def changing(path, *arguments):
        write(path, *arguments)
        if "00001" in path.name:
            os.utime(tmp_path / "model.keras", (1, 1))

    monkeypatch.setattr(table, "write", changing)
    command = [tmp_path / "model.keras", "rows.npy", *IG, "--rows-per-file", 7, "-o", tmp_path / "out"]
    # What was explained before the change may still be written behind it.
    assert re.search(
        "has changed while it was being asked; [23] of 6 files are finished and stay", refused(capsys, *command)
    )


def test_what_does_not_fit_is_said_before_any_work(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "narrow.npy", zoo.images(3)[:, :4])
    np.save(tmp_path / "none.npy", zoo.images(3)[:0])
    pq.write_table(pa.table({"a": [1.0], "b": [2.0]}), tmp_path / "ab.parquet")
    (tmp_path / "broken.parquet").write_text("no")
    pq.write_table(pa.table({"a": [1.0]}), tmp_path / "empty" / "x.parquet")
    cases = [
        (["nowhere.keras", "rows.npy"], "no such model"),
        (["model.keras"], "pass the model, then its inputs"),
        (["model.keras", "nowhere"], "no such file or directory: 'nowhere'"),
        (["model.keras", "*.jpeg"], "no file matches"),
        (["model.keras", tmp_path / "empty"], "directory without images"),
        (["model.keras", "table.keras"], "ends in none of"),
        (["model.keras", tmp_path / "narrow.npy"], "none of the first 3 rows can be explained"),
        (["model.keras", tmp_path / "none.npy"], "there are no rows"),
        (["table.keras", tmp_path / "ab.parquet"], "--column"),
        (["table.keras", tmp_path / "ab.parquet", "--column", "c=a"], "the model takes columns"),
        (["table.keras", tmp_path / "broken.parquet"], "cannot be read"),
        (["two.keras", "rows.npy"], "takes 2 inputs"),
        (["model.keras", "rows.npy", "--workers", "0"], "--workers is 0; it must be at least 1"),
        (["model.keras", "rows.npy", "--target", "9"], "out of range"),
        (["model.keras", "rows.npy", "--keep", "picture", "--dtype", "float16"], "pictures have none"),
        (["rows.npy", "--server", "localhost:1"], "--server needs --model"),
        (["rows.npy", "--server", "localhost:1", "--model", "m", "--method", "lrp"], "--method was settled when"),
        (["model.keras", "rows.npy", "--model", "m"], "--model is of a model on a server"),
        (["model.keras", "rows.npy", "--scale", "-1,1"], "are for images"),
        (["model.keras", "rows.npy", "--column", "x"], "--column is for .tfrecord"),
    ]
    for arguments, expected in cases:
        assert expected in refused(capsys, *arguments, "-o", tmp_path / "out"), arguments
        assert not (tmp_path / "out").exists()
    assert "which is a file" in refused(capsys, "model.keras", "rows.npy", "-o", tmp_path / "file")
    assert "Parquet files of something else" in refused(capsys, "model.keras", "rows.npy", "-o", tmp_path / "empty")
    with pytest.raises(ValueError, match="holds no"):
        next(tfig.read(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="was not written by"):
        next(tfig.read(tmp_path / "ab.parquet"))


def test_workers_write_the_same_and_one_that_is_killed_is_replaced(tmp_path, capsys):
    asked("model.keras", "rows.npy", "-o", tmp_path / "one", *IG, "--rows-per-file", 4)
    killed = []

    def kill():
        while not killed and not (tmp_path / "two" / "part-00009-of-00010.parquet").exists():
            if list((tmp_path / "two").glob("part*")):
                worker = multiprocessing.active_children()[0]
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker)
            time.sleep(0.005)

    threading.Thread(target=kill).start()
    asked("model.keras", "rows.npy", "-o", tmp_path / "two", *IG, "--rows-per-file", 4, "--workers", 2)
    out = capsys.readouterr().out
    assert killed and "40 rows: 40 explained, 0 failed" in out and "by workers" in out
    found, expected = together(tmp_path / "two"), together(tmp_path / "one")
    assert len(list((tmp_path / "two").glob("part*"))) == 10
    np.testing.assert_array_equal(found.trace["id"], expected.trace["id"])
    for name in ("score", "convergence_delta", "attributions"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)


def test_a_fleet_answers_the_same(model, tmp_path, capsys):
    tfig.export(model, tmp_path / "models" / "images", {"explain": "integrated_gradients"}, warmup=False)
    with tfig.serving.serve(str(tmp_path / "models" / "images"), port=0) as server:
        fleet = ["--server", f"127.0.0.1:{server.port}", "--model", "images", "--rows-per-file", 16]
        asked("bad.npy", "-o", tmp_path / "fleet", *fleet)
        assert "38 explained, 2 failed" in capsys.readouterr().out
        asked("model.keras", "bad.npy", "-o", tmp_path / "here", *IG)
        found, expected = together(tmp_path / "fleet"), together(tmp_path / "here")
        np.testing.assert_array_equal(found.trace["id"], expected.trace["id"])
        np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-6)
        (tmp_path / "fleet" / "part-00001-of-00003.parquet").unlink()
        address = ["--server", f"127.0.0.1:{server.port}", "--model"]
        assert "NOT_FOUND" in refused(capsys, "rows.npy", "-o", tmp_path / "no", *address, "nobody")
        other = ["images", "--name", "other"]
        assert "offers explain; pass --name" in refused(capsys, "rows.npy", "-o", tmp_path / "no", *address, *other)
    away = refused(capsys, "bad.npy", "-o", tmp_path / "fleet", *fleet, "--timeout", "1")
    assert "UNAVAILABLE" in away or "DEADLINE" in away


TALLIED = zoo.table(60, 3)


def test_tallies_are_exact_in_any_order():
    model = keras.Sequential([keras.Input((3,)), L.Dense(8, activation="tanh"), L.Dense(4)])
    e = tfig.explain(model, TALLIED, baseline=0.0)
    names, marks = ["age", "height", "weight"], np.random.default_rng(0).normal(size=60)
    whole = tfig.Tally(feature_names=names).add(e, {"mark": marks})
    for i, name in enumerate(names):
        for target in (None, *whole.targets):
            rows = np.ones(60, bool) if target is None else e.target == target
            values = np.abs(e.attributions[rows, i].astype("float64"))
            assert whole.count(name, target) == rows.sum()
            np.testing.assert_allclose(whole.mean(name, target), values.mean(), rtol=1e-15)
            low, high = whole.interval(name, target)
            reach = 1.959963984540054 * values.std(ddof=1) / np.sqrt(len(values))
            np.testing.assert_allclose([low, high], [values.mean() - reach, values.mean() + reach], rtol=1e-12)
    np.testing.assert_allclose(whole.mean("mark"), marks.mean(), rtol=1e-15)
    # Of parts in another order, over a wire: the same doubles.
    order = np.random.default_rng(1).permutation(60)
    parts = [
        tfig.Tally(feature_names=names).add(e[rows], {"mark": marks[rows]}) for rows in np.split(order, [7, 20, 21])
    ]
    merged = tfig.Tally().merge(parts[2], parts[0]).add_json(parts[3].to_json()).merge(parts[1])
    for name in (*names, "mark"):
        assert merged.mean(name) == whole.mean(name)
        assert merged.interval(name, e.target[0]) == whole.interval(name, e.target[0])
    assert merged.to_markdown() == whole.to_markdown() and "| mark |" in whole.to_markdown()
    with pytest.raises(ValueError, match="nothing is called"):
        whole.mean("weigth")
    with pytest.raises(ValueError, match="it must be"):
        whole.add(e, {"mark": marks[:3]})


def test_sums_that_cancel_and_numbers_of_any_size_are_exact():
    from fractions import Fraction

    from tfig.tally import Moments

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=500) * 10.0 ** rng.integers(-12, 12, 500), [1e16, 1.0, -1e16]])
    parts = [Moments.of(part) for part in np.array_split(rng.permutation(values), 9)]
    total = sum(parts, Moments())
    exact = sum(map(Fraction, values))
    assert total.mean == float(exact / len(values))
    spread = (sum(Fraction(v) ** 2 for v in values) - exact**2 / len(values)) / (len(values) - 1)
    np.testing.assert_allclose(total.error, float(spread / len(values)) ** 0.5, rtol=1e-14)
    shifted = Moments.of(1e9 + np.array([1.0, 2.0, 3.0]))  # where one pass in doubles loses all of the spread
    np.testing.assert_allclose(shifted.error, 1 / np.sqrt(3), rtol=1e-14)


def test_tallies_of_regions_and_words(model):
    x = np.load("rows.npy")
    e = tfig.explain(model, x)
    regions = np.zeros((8, 8), int)
    regions[2:5, 2:6] = 3
    tally = tfig.Tally(regions=regions, region_names={3: "heart"}).add(e[:10]).add(e[10:])
    inside = np.abs(e.heatmap())[:, 2:5, 2:6].sum((1, 2), dtype="float64")
    np.testing.assert_allclose(tally.mean("heart"), inside.mean(), rtol=1e-12)
    assert {"region 0", "channel 0"} <= set(tally.features)
    with pytest.raises(ValueError, match="it must fit one"):
        tfig.Tally(regions=np.zeros((3, 3), int)).add(e)
    tokens = keras.models.load_model("tokens.keras", compile=False)
    ids = np.random.default_rng(0).integers(1, 9, (20, 4))
    words = tfig.explain(tokens, ids)
    tally = tfig.Tally(tokens=[f"w{i}" for i in range(9)]).add(words)
    of = np.abs(words.heatmap())[ids == 5]
    assert tally.count("w5") == len(of)
    np.testing.assert_allclose(tally.mean("w5"), of.astype("float64").mean(), rtol=1e-12)
    some = (ids == 5) & (words.target == 1)[:, None]
    np.testing.assert_allclose(tally.mean("w5", 1), np.abs(words.heatmap())[some].astype("float64").mean(), rtol=1e-12)


beam_runs = pytest.mark.skipif(importlib.util.find_spec("apache_beam") is None, reason="needs apache-beam")


@beam_runs
def test_run_inference_explains(model, tmp_path):
    """On the runner of this machine: every element in one of two places, each as explain says, with its own id."""
    import apache_beam as beam
    from apache_beam.ml.inference.base import PredictionResult, RunInference
    from apache_beam.testing.util import assert_that, equal_to

    import tfig.beam

    x = np.load("bad.npy")
    rows = [*enumerate(x), (99, x[0, :4])]
    e = tfig.explain(model, np.load("rows.npy"), output="logits")
    handler = tfig.beam.Explanations("model.keras", output="logits", max_batch_size=16)

    def right(pair):
        i, one = pair
        assert len(one) == 1 and one.explainer is None
        np.testing.assert_allclose(one.attributions[0], e.attributions[i], atol=1e-6)
        np.testing.assert_allclose(one.score[0], e.score[i], atol=1e-6)
        return i

    def strength(tally):
        values = np.abs(np.delete(e.attributions, [7, 30], 0).astype("float64").sum((1, 2)))
        np.testing.assert_allclose(tally[0].mean("channel 1"), values[:, 1].mean(), rtol=1e-6)
        assert tally[0].count("channel 1") == 38

    with beam.Pipeline() as pipeline:
        given = pipeline | beam.Create(rows)
        found = given | tfig.beam.Explain(handler)
        assert_that(found.explained | beam.Map(right), equal_to([i for i in range(ROWS) if i not in (7, 30)]), "right")
        told = found.failed | beam.MapTuple(lambda i, reason: (i, "NaN or infinite" in reason))
        assert_that(told, equal_to([(7, True), (30, True), (99, False)]), "failed")
        tally = found.explained | beam.Values() | beam.CombineGlobally(tfig.beam.Tallied())
        assert_that(tally, strength, "tally")
        plain = pipeline | "rows" >> beam.Create(list(x[:3])) | RunInference(handler)
        assert_that(plain | beam.Map(lambda r: isinstance(r, PredictionResult)), equal_to([True] * 3), "plain")
    with pytest.raises(ValueError, match="inference_args"):
        handler.validate_inference_args({"target": 3})
    with pytest.raises(ValueError, match="no such model"):
        tfig.beam.Explanations("nowhere.keras").load_model()


@beam_runs
def test_a_side_input_changes_the_model_and_processes_share_one(model, tmp_path):
    import apache_beam as beam
    from apache_beam.ml.inference.base import KeyedModelHandler, ModelMetadata, RunInference
    from apache_beam.testing.util import assert_that

    import tfig.beam

    x = np.load("rows.npy")[:4]
    _brighter(model)
    model.save(tmp_path / "newer.keras")
    newer, older = tfig.explain(model, x), tfig.explain(keras.models.load_model("model.keras", compile=False), x)

    def those_of(e):
        def right(found):
            np.testing.assert_allclose(sorted(one.inference.score[0] for one in found), sorted(e.score), atol=1e-6)

        return right

    with beam.Pipeline() as pipeline:
        told = pipeline | "newer" >> beam.Create([ModelMetadata(str(tmp_path / "newer.keras"), "newer")])
        given = pipeline | beam.Create(list(x))
        found = given | RunInference(tfig.beam.Explanations("model.keras"), model_metadata_pcoll=told)
        assert_that(found, those_of(newer), "of the newer")
        keyed = KeyedModelHandler(tfig.beam.Explanations("model.keras", large_model=True))
        shared = pipeline | "keyed" >> beam.Create(list(enumerate(x))) | "shared" >> RunInference(keyed)
        assert_that(shared | beam.Values(), those_of(older), "of the older")
    assert np.abs(newer.score - older.score).max() > 1e-5


@beam_runs
def test_a_runner_writes_the_same_files(tmp_path, capsys):
    command = ["model.keras", "bad.npy", *IG, "--rows-per-file", 16]
    asked(*command, "-o", tmp_path / "here")
    asked(*command, "-o", tmp_path / "beam", "--runner", "DirectRunner")
    assert "38 explained, 2 failed" in capsys.readouterr().out
    assert written(tmp_path / "beam").equals(written(tmp_path / "here"))
    (tmp_path / "beam" / "part-00001-of-00003.parquet").unlink()
    assert "NoSuchRunner stopped" in refused(capsys, *command, "-o", tmp_path / "beam", "--runner", "NoSuchRunner")
    asked(*command, "-o", tmp_path / "beam", "--runner", "DirectRunner")
    assert "2 of 3 files are there already" in capsys.readouterr().out
    assert written(tmp_path / "beam").equals(written(tmp_path / "here"))
