"""Explanations as Parquet: one row for each element, and back."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfig import archive, view
from tfig.explanation import ROWS, Explanation

OK, FAILED = "ok", "failed"
KEPT = ("attributions", "heatmap", "picture")
DTYPES = ("float32", "float16", "int8")
HEADER = b"tfig"
"""Under which a file's metadata says what all its rows have in common."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What all rows of a job have in common.

    Fields:
        about: method, parameters, layer, output, held, channels, class_names, provenance.
        kept: what is kept of a map: one of `KEPT`.
        dtype, computed: of what is kept (None: as it was computed), and of what was computed.
        nest: which columns hold the maps, and how they belong together.
        maps: names of these columns.
        fields, trace: dtypes of the numbers of a row, by column.
    """

    about: dict[str, Any]
    kept: str
    dtype: str | None
    computed: str
    nest: Any
    maps: list[str]
    fields: dict[str, str]
    trace: dict[str, str]

    @classmethod
    def of(cls, e: Explanation, kept: str, dtype: str | None) -> "Header":
        """What the rows of an explanation have in common, with others of the same question."""
        nest, arrays = _maps(e, kept)
        fields = {name: value.dtype.name for name in ROWS if (value := getattr(e, name)) is not None}
        trace = {name: value.dtype.name for name, value in e.trace.items() if value.ndim == 1 and value.dtype != "O"}
        trace.pop("status", None)
        computed = "uint8" if kept == "picture" else np.result_type(*arrays.values()).name
        return cls(archive.described(e), kept, dtype, computed, nest, list(arrays), fields, trace)

    @property
    def bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self)).encode()

    def schema(self) -> Any:
        """The columns of a Parquet file.

        * id: string, of the element.
        * target: int32, the class explained; null for a callable target.
        * score, baseline_score, convergence_delta: floats; null where there is none.
        * status: "ok" or "failed". notes: what speaks against trusting the row, or why it failed.
        * attributions (or heatmap): a struct of `data`, the numbers in the order of C, little endian, `shape`, `dtype`
          ("float32") and `scale`, by which numbers are multiplied; of several inputs a column each, attributions/NAME.
          Of pictures: `picture`, a PNG file.
        * trace/NAME: a method's diagnostics that are a number for each row.
        """
        import pyarrow as pa

        map_ = pa.struct(
            [("data", pa.binary()), ("shape", pa.list_(pa.int32())), ("dtype", pa.string()), ("scale", pa.float64())]
        )
        kind = pa.binary() if self.kept == "picture" else map_
        of = {name: pa.from_numpy_dtype(np.dtype(dtype)) for name, dtype in self.fields.items()}
        plain = {"target": pa.int32(), **dict.fromkeys(ROWS[1:], pa.float32())}
        return pa.schema(
            [
                ("id", pa.string()),
                *((name, of.get(name, plain[name])) for name in ROWS),
                ("status", pa.string()),
                ("notes", pa.string()),
                *((name, kind) for name in self.maps),
                *((f"trace/{name}", pa.from_numpy_dtype(np.dtype(dtype))) for name, dtype in self.trace.items()),
            ],
            metadata={HEADER: self.bytes},
        )


def rows(e: Explanation, ids: Sequence[str], header: Header) -> Iterator[dict[str, Any]]:
    """The rows of a table; one whose score is no number, or that a server refused, has failed."""
    _, arrays = _maps(e, header.kept)
    numbers = {name: getattr(e, name).tolist() for name in header.fields}
    numbers.update({f"trace/{name}": e.trace[name].tolist() for name in header.trace})
    noted = bool(e.notes)  # they are of any row: where all have none, each has none
    status = e.trace.get("status", np.zeros(len(e), np.int32))
    for i, name in enumerate(ids):
        notes = "; ".join(e[i].notes) if noted else ""
        if status[i] or not np.isfinite(e.score[i]):
            yield failed(name, notes or "the model's score is NaN or infinite")
            continue
        maps = {key: _cell(array[i], header) for key, array in arrays.items()}
        yield {"id": name, "status": OK, "notes": notes, **maps, **{key: value[i] for key, value in numbers.items()}}


def failed(name: str, reason: str) -> dict[str, Any]:
    """The row of what was not explained."""
    return {"id": name, "status": FAILED, "notes": reason}


def write(path: Path, table: list[dict[str, Any]], header: Header) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: there is no room.
    """
    import pyarrow as pa
    from pyarrow import parquet

    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            found = pa.Table.from_pylist(table, header.schema())
            parquet.write_table(found, file, compression="zstd", use_dictionary=["status", "notes"])
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def size(line: Mapping[str, Any]) -> int:
    """The bytes of the maps of a row."""
    cells = (cell.get("data", b"") if isinstance(cell, dict) else cell for cell in line.values())
    return sum(len(cell) for cell in cells if isinstance(cell, bytes))


def diagnostics(paths: Iterable[Path]) -> Iterator[tuple[list[Any], ...]]:
    """Ids, convergence deltas, statuses and notes of files."""
    from pyarrow import parquet

    names = ["id", "convergence_delta", "status", "notes"]
    for path in paths:
        found = parquet.read_table(path, columns=names, partitioning=None)
        yield tuple(found[name].to_pylist() for name in names)


def read(place: str | os.PathLike, *, batch_size: int = 1024) -> Iterator[Explanation]:
    """Stream what `tfig batch` wrote: an `Explanation` of at most `batch_size` rows after the other.

    Args:
        place: the directory, or one of its files.

    Returns:
        explanations of the rows that did not fail, in their order, without x; ``trace["id"]`` says which they are. Maps
        that differ in shape come apart. Of heat maps and pictures, which stand for the attributions, ``heatmap()`` and
        ``trace["overlay_bytes"]`` give what there is.

    Raises:
        ImportError: pyarrow is not installed (``pip install tfig[batch]``).
        ValueError: there are no such files.

    >>> for e in tfig.read("explained"):
    ...     print(e.trace["id"], e.score)
    """
    import pyarrow as pa
    from pyarrow import parquet

    place = Path(place)
    paths = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    if not paths or not paths[0].is_file():
        raise ValueError(f"{os.fspath(place)!r} holds no .parquet files; pass a directory written by 'tfig batch'.")
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{os.fspath(path)!r} is no Parquet file: {error}") from error
        held = (file.schema_arrow.metadata or {}).get(HEADER)
        if held is None:
            raise ValueError(f"{os.fspath(path)!r} was not written by 'tfig batch'.")
        header = Header(**json.loads(held))
        for batch in file.iter_batches(batch_size):
            yield from _explanations(batch.to_pylist(), header)


def _explanations(table: list[dict[str, Any]], header: Header) -> Iterator[Explanation]:
    """Of the rows of a table, as many together as are alike in shape."""
    together: list[dict[str, Any]] = []
    known: Any = None
    for row in table:
        if row["status"] != OK:
            continue
        shapes = None if header.kept == "picture" else [row[name]["shape"] for name in header.maps]
        if together and shapes != known:
            yield _explanation(together, header)
            together = []
        known = shapes
        together.append(row)
    if together:
        yield _explanation(together, header)


def _explanation(table: list[dict[str, Any]], header: Header) -> Explanation:
    def column(name: str, dtype: Any) -> np.ndarray:
        return np.array([row[name] for row in table], dtype)

    trace: dict[str, Any] = {name: column(f"trace/{name}", dtype) for name, dtype in header.trace.items()}
    trace["id"] = np.array([row["id"] for row in table])
    nest = None
    if header.kept == "picture":
        trace["overlay_bytes"] = column(header.maps[0], object)
    else:
        found = {name: np.stack([_array(row[name], header) for row in table]) for name in header.maps}
        nest = archive.unpacked(header.nest, found)
    if header.kept == "heatmap":
        trace, nest = {**trace, "heatmap": nest}, None
    numbers = {name: column(name, header.fields[name]) if name in header.fields else None for name in ROWS}
    return archive.undescribed(header.about, attributions=nest, x=None, trace=trace, **numbers)


def _maps(e: Explanation, kept: str) -> tuple[Any, dict[str, Any]]:
    """(how what is kept of the maps belongs together, columns of it)."""
    if kept == "picture":
        return None, {"picture": [view.png(one) for one in e.overlay()]}
    arrays: dict[str, np.ndarray] = {}
    return archive.packed(kept, e.attributions if kept == "attributions" else e.heatmap(), arrays), arrays


def _cell(map_: Any, header: Header) -> Any:
    if header.kept == "picture":
        return map_
    dtype, scale = np.dtype(header.dtype or map_.dtype), 1.0
    if dtype.itemsize < map_.dtype.itemsize:
        finite = np.isfinite(map_)
        if dtype == np.int8 and not finite.all():
            dtype = np.dtype(np.float16)  # which has NaN
        # Each map has a unit of its own: of halves, which end at 65504 and 6e-8, a power of two, which rounds nothing.
        largest = float(np.abs(map_[finite]).max(initial=0)) or 1.0
        scale = largest / 127 if dtype == np.int8 else 2.0 ** min(math.frexp(largest)[1], 1023)
        map_ = np.round(map_ / scale) if dtype == np.int8 else map_ / scale
    array = np.ascontiguousarray(map_, dtype.newbyteorder("<"))
    return {"data": array.tobytes(), "shape": array.shape, "dtype": dtype.name, "scale": scale}


def _array(cell: Mapping[str, Any], header: Header) -> np.ndarray:
    """A map, in the type in which it was computed."""
    array = np.frombuffer(cell["data"], np.dtype(cell["dtype"]).newbyteorder("<")).reshape(cell["shape"])
    return (array.astype("float64") * cell["scale"]).astype(header.computed)
