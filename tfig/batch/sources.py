"""Inputs as rows by number, however many there are: images, arrays, tables, records, read when they are asked for."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfig import files
from tfig.batch.records import RECORDS, TABLES, Columns, Records
from tfig.batch.rows import OfFile, Reading, Row, Source, digest, file_mark
from tfig.console import CommandError


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
        return digest(*(part.mark() for part in self.parts))


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
        return digest(*(file_mark(path) for path in self.paths))


class Arrays(OfFile):
    """An .npy file, read where it lies, or an .npz by input."""

    def __init__(self, path: str, how: Reading):
        super().__init__(path, how)
        found = files.arrays_of(path, how.takes, "r")
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


class Table(OfFile):
    """A .csv file with a line of names."""

    def __init__(self, path: str, how: Reading):
        super().__init__(path, how)
        found = files.table(path, how.takes)
        self.values, self.ids, self.head = found.x, found.names, found.feature_names
        self.rows = len(self.ids)

    def name(self, number: int) -> str:
        """What its column of names says."""
        given = self.ids[number]
        return super().name(number) if given == f"row {number}" else given

    __len__, read = Arrays.__len__, Arrays.read
