"""Inputs as rows by number, however many there are: images, arrays, tables, records, read when they are asked for."""

import glob
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import tensorflow as tf

from tfig import files
from tfig.console import CommandError
from tfig.entry import Leaf

RECORDS = (".tfrecord", ".tfrecords")
TABLES = (".parquet", ".pq")


class Row(NamedTuple):
    """One element.

    Fields:
        id: by which it is found again.
        value: an array, or a dict of them by input, without the axis of rows; None where it cannot be read.
        reason: why it cannot.
    """

    id: str
    value: Any
    reason: str = ""


class Source(Protocol):
    """Rows in a fixed order."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """Rows start, ..., stop - 1; one that cannot be read is a `Row` with a reason."""

    def mark(self) -> str:
        """What changes when the rows do."""


class Reading(NamedTuple):
    """How files become what a model takes.

    Fields:
        takes: the model's inputs.
        scale, preprocess: of images, as `tfig.files.images` takes them.
        columns: the column or feature of each input, where it is not called as the input is.
    """

    takes: list[Leaf]
    scale: str = "0,1"
    preprocess: str | None = None
    columns: Mapping[str, str] = {}


def opened(paths: Sequence[str], how: Reading) -> Source:
    """The rows of files, patterns and directories of images, in this order.

    Raises:
        CommandError: nothing is there, or it does not fit what the model takes.
    """
    found = [path for given in paths for path in _expanded(given)]
    kinds = {Path(path).suffix.lower() for path in found}
    if kinds <= set(files.ARRAYS) and (how.scale != "0,1" or how.preprocess is not None):
        raise CommandError("--scale and --preprocess are for images; arrays and tables are taken as they are")
    if how.columns and not kinds & {*RECORDS, *TABLES}:
        raise CommandError(f"--column is for {', '.join((*RECORDS, *TABLES))} files")
    files.checked(how.scale, how.preprocess)
    parts: list[Source] = []
    pictures: list[str] = []
    for path in found:
        if Path(path).suffix.lower() in files.PICTURES:
            pictures.append(path)
            continue
        if pictures:
            parts.append(Pictures(pictures, how))
            pictures = []
        parts.append(_kind(path)(path, how))
    if pictures:
        parts.append(Pictures(pictures, how))
    tables = {part.path: part.head for part in parts if isinstance(part, (Table, Columns)) and part.head}
    for path, head in tables.items():
        first = next(iter(tables))
        if head != tables[first]:
            raise CommandError(f"{first!r} has columns {', '.join(tables[first])}, and {path!r} {', '.join(head)}")
    return parts[0] if len(parts) == 1 else Several(parts)


def _expanded(given: str) -> list[str]:
    place = Path(given)
    if place.is_dir():
        found = sorted(str(path) for path in place.rglob("*") if path.suffix.lower() in files.PICTURES)
        if not found:
            raise CommandError(f"{given!r} is a directory without images ({', '.join(files.PICTURES)})")
        return found
    if place.is_file():
        return [given]
    if glob.has_magic(given):
        found = sorted(path for path in glob.glob(given, recursive=True) if Path(path).is_file())
        if not found:
            raise CommandError(f"no file matches {given!r}")
        return found
    raise CommandError(f"no such file or directory: {given!r}")


def _kind(path: str) -> Any:
    suffix = Path(path).suffix.lower()
    if suffix in files.ARRAYS:
        return Table if suffix == ".csv" else Arrays
    if suffix in RECORDS:
        return Records
    if suffix in TABLES:
        return Columns
    known = (*files.PICTURES, *files.ARRAYS, *RECORDS, *TABLES)
    raise CommandError(f"{path!r} ends in none of {', '.join(known)}")


class Several:
    """Sources one behind the other."""

    def __init__(self, parts: list[Source]):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """As `Source` says."""
        begin = 0
        for part, end in zip(self.parts, self.ends, strict=True):
            if start < end and stop > begin:
                yield from part.read(max(start - begin, 0), min(stop, int(end)) - begin)
            begin = int(end)

    def mark(self) -> str:
        """As `Source` says."""
        return _digest(*(part.mark() for part in self.parts))


class Pictures:
    """Image files, each a row that is called by its path."""

    def __init__(self, paths: list[str], how: Reading):
        self.paths, self.how = paths, how

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """As `Source` says."""
        for path in self.paths[start:stop]:
            try:
                yield Row(path, files.images([path], self.how.takes, self.how.scale, self.how.preprocess).x[0])
            except (CommandError, OSError) as error:
                yield Row(path, None, str(error))

    def mark(self) -> str:
        """As `Source` says."""
        return _digest(*(_file(path) for path in self.paths))


class _OfFile:
    """Rows of one file, called FILE:NUMBER."""

    def __init__(self, path: str, how: Reading):
        self.path, self.how = path, how

    def name(self, number: int) -> str:
        """Of a row without a name of its own."""
        return f"{Path(self.path).name}:{number}"

    def mark(self) -> str:
        """As `Source` says."""
        return _file(self.path)


class Arrays(_OfFile):
    """An .npy file, read where it lies, or an .npz by input."""

    def __init__(self, path: str, how: Reading):
        super().__init__(path, how)
        try:
            found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
            if hasattr(found, "files"):
                with found:
                    found = {name: found[name] for name in found.files}
        except (ValueError, OSError, EOFError) as error:
            raise CommandError(f"{path!r} cannot be read: {error}") from error
        if isinstance(found, dict) and len(found) == 1 and len(how.takes) < 2:
            (found,) = found.values()
        sizes = {len(np.atleast_1d(value)) for value in tf.nest.flatten(found)}
        if len(sizes) != 1:
            raise CommandError(f"the arrays of {path!r} have different numbers of rows: {sorted(sizes)}")
        self.values, (self.rows,) = found, sizes

    def __len__(self) -> int:
        return self.rows

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """As `Source` says."""
        several = isinstance(self.values, dict)
        for i in range(start, stop):
            row = {name: np.asarray(value[i]) for name, value in self.values.items()} if several else self.values[i]
            yield Row(self.name(i), row if several else np.asarray(row))


class Table(_OfFile):
    """A .csv file with a line of names."""

    def __init__(self, path: str, how: Reading):
        super().__init__(path, how)
        found = files.read([path], how.takes, "0,1")
        self.values, self.ids, self.head = found.x, found.names, found.feature_names
        self.rows = len(self.ids)

    def name(self, number: int) -> str:
        """What its column of names says."""
        given = self.ids[number]
        return super().name(number) if given == f"row {number}" else given

    __len__, read = Arrays.__len__, Arrays.read


class _Featured(_OfFile):
    """Rows of values by name, of which some are the model's inputs."""

    def read_off(self, number: int, values: Mapping[str, Any]) -> Row:
        """A row of values by name."""
        name = next((str(_text(values[key])) for key in files.IDS if values.get(key) is not None), self.name(number))
        try:
            found = {leaf.name: self._leaf(leaf, values) for leaf in self.how.takes}
        except (ValueError, CommandError) as error:
            return Row(name, None, str(error))
        return Row(name, found if len(found) > 1 else next(iter(found.values())))

    def _leaf(self, leaf: Leaf, values: Mapping[str, Any]) -> np.ndarray:
        return self.fitted(leaf, values[self.column(leaf, values)])

    def column(self, leaf: Leaf, values: Mapping[str, Any]) -> str:
        """What an input is called among the values.

        Raises:
            ValueError: it is not there.
        """
        wanted = self.how.columns.get(leaf.name, leaf.name)
        if wanted in values:
            return wanted
        others = [key for key in values if key not in files.IDS]
        if len(self.how.takes) == 1 and leaf.name not in self.how.columns and len(others) == 1:
            return others[0]
        raise ValueError(
            f"{self.path!r} has {', '.join(values) or 'nothing'}, and no {wanted!r}, which the model takes; say which "
            f"it is: --column {leaf.name}=NAME"
        )

    def fitted(self, leaf: Leaf, value: Any) -> np.ndarray:
        """A value as an input takes it: numbers in its shape, the file of an image decoded, bytes as its numbers.

        Raises:
            ValueError: it does not fit.
        """
        shape = leaf.shape[1:]
        if leaf.dtype == "string":
            return np.array(_text(value) if isinstance(value, bytes) else value, dtype=object).reshape(_known(shape))
        if isinstance(value, bytes):
            dtype = np.dtype(tf.as_dtype(leaf.dtype).as_numpy_dtype)
            known = [one for one in shape if one is not None]
            size = dtype.itemsize * math.prod(known) if len(known) == len(shape) else -1
            if len(value) != size:
                return self._decoded(leaf, value)
            value = np.frombuffer(value, dtype)
        array = np.asarray(value)
        if array.dtype == object:
            array = np.stack([np.asarray(part) for part in value])
        try:
            return array.reshape(_known(shape)) if array.ndim != len(shape) else array
        except ValueError:
            raise ValueError(f"{leaf.name!r} holds {array.size} numbers, and the model takes {list(shape)}") from None

    def _decoded(self, leaf: Leaf, value: bytes) -> np.ndarray:
        grey = leaf.shape[-1] == 1
        pixels = cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f"{leaf.name!r} holds {len(value)} bytes, which are no image that OpenCV can read")
        pixels = pixels[..., np.newaxis] if grey else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        return files.taken(pixels, leaf.shape, self.how.scale, self.how.preprocess)


class Records(_Featured):
    """A TFRecord file of `tf.train.Example`."""

    def __init__(self, path: str, how: Reading):
        super().__init__(path, how)
        self.broken = ""
        self.rows = 0
        try:
            for _ in tf.data.TFRecordDataset(path, buffer_size=2**23):
                self.rows += 1
        except tf.errors.OpError as error:
            self.broken = re.sub(r"\{\{.*\}\} *", "", error.message.splitlines()[0])

    def __len__(self) -> int:
        return self.rows + bool(self.broken)

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """As `Source` says."""
        known = tf.data.TFRecordDataset(self.path, buffer_size=2**23).skip(start).take(min(stop, self.rows) - start)
        for i, record in enumerate(known, start):
            try:
                example = tf.train.Example.FromString(record.numpy())
            except Exception as error:  # protobuf's own kinds differ from version to version
                yield Row(self.name(i), None, f"no tf.train.Example: {error}")
                continue
            yield self.read_off(i, {name: _values(feature) for name, feature in example.features.feature.items()})
        if self.broken and stop > self.rows:
            yield Row(self.name(self.rows), None, f"this record and what follows cannot be read: {self.broken}")


class Columns(_Featured):
    """A Parquet file: a column for each input (numbers, lists of them, or files of images), or one for each feature."""

    def __init__(self, path: str, how: Reading):
        super().__init__(path, how)
        from pyarrow import ArrowInvalid, parquet

        try:
            self.file = parquet.ParquetFile(path, memory_map=True)
        except (ArrowInvalid, OSError) as error:
            raise CommandError(f"{path!r} cannot be read: {error}") from error
        names = [name for name in self.file.schema_arrow.names if name not in files.IDS]
        self.head = names if self._is_table(names) else None
        groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.metadata.num_row_groups)]
        self.ends = np.cumsum(groups, dtype=np.int64)

    def __len__(self) -> int:
        return int(self.file.metadata.num_rows)

    def read(self, start: int, stop: int) -> Iterator[Row]:
        """As `Source` says."""
        first = int(np.searchsorted(self.ends, start, "right"))
        number = int(self.ends[first - 1]) if first else 0
        for group in range(first, len(self.ends)):
            if number >= stop:
                return
            for batch in self.file.iter_batches(1024, [group]):
                inside = slice(max(start - number, 0), max(stop - number, 0))
                for i, values in enumerate(batch.to_pylist()[inside], number + inside.start):
                    yield self.read_off(i, values)
                number += len(batch)

    def _is_table(self, names: list[str]) -> bool:
        """Whether its columns are the features of the only input."""
        (leaf, *others) = self.how.takes
        alone = not others and not self.how.columns and leaf.name not in names
        return alone and leaf.shape[1:] == (len(names),) and len(names) > 1

    def _leaf(self, leaf: Leaf, values: Mapping[str, Any]) -> np.ndarray:
        if self.head is not None:
            empty = [name for name in self.head if values[name] is None]
            if empty:
                raise ValueError(f"nothing in {', '.join(empty)}")
            return np.array([values[name] for name in self.head])
        name = self.column(leaf, values)
        if values[name] is None:
            raise ValueError(f"nothing in {name}")
        return self.fitted(leaf, values[name])


def _values(feature: Any) -> Any:
    """What a feature of an Example holds: numbers, or bytes."""
    kind = feature.WhichOneof("kind")
    if kind == "bytes_list":
        held = list(feature.bytes_list.value)
        return held[0] if len(held) == 1 else held
    return np.array(getattr(feature, kind).value) if kind else np.zeros(0)


def _text(value: Any) -> Any:
    value = value[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _known(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """A shape of which one size may be unknown, as NumPy writes that."""
    return tuple(-1 if size is None else size for size in shape)


def _file(path: str) -> str:
    return f"{path} {Path(path).stat().st_size}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
