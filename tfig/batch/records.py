"""Rows of values by name: TFRecord files of `tf.train.Example`, and Parquet."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from tfig import files
from tfig.batch.rows import OfFile, Reading, Row
from tfig.console import CommandError
from tfig.entry import Leaf

RECORDS = (".tfrecord", ".tfrecords")
TABLES = (".parquet", ".pq")


class _Featured(OfFile):
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
        return files.taken(files.rgb(pixels), leaf.shape, self.how.scale, self.how.preprocess)


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
