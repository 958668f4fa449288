"""Rows by number, and how files become them."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tfig.entry import Leaf


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


class OfFile:
    """Rows of one file, called FILE:NUMBER."""

    def __init__(self, path: str, how: Reading):
        self.path, self.how = path, how

    def name(self, number: int) -> str:
        """Of a row without a name of its own."""
        return f"{Path(self.path).name}:{number}"

    def mark(self) -> str:
        """As `Source` says."""
        return file_mark(self.path)


def file_mark(path: str) -> str:
    """What changes when a file does."""
    return f"{path} {Path(path).stat().st_size}"


def digest(*parts: str) -> str:
    """Of several marks one."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
