"""A job: rows in files of Parquet, each written whole or not at all, so that what was stopped goes on where it was."""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfig.batch import table
from tfig.batch.asking import Asking, apart, asking
from tfig.batch.rows import Reading, Row, Source
from tfig.batch.sources import opened
from tfig.batch.table import Header
from tfig.console import CommandError
from tfig.explanation import Explanation

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

RECORD = "_job.json"
"""The file that says what a directory is of; engines that read Parquet skip what begins with an underscore."""
FILE_BYTES = 64 * 2**20
"""Of a file, about."""
FILE_ROWS = 1000
"""Of a file, at most: what a job that is stopped does again."""
TRIED = 20
"""Rows looked at for one that can be explained, before a job begins."""
ABANDONED = 3600.0
"""Seconds after which what a killed process had begun to write is removed."""
ASKED = (
    "method", "target", "against", "output", "layer", "baseline", "seed", "scale", "preprocess", "column", "keep",
    "dtype", "name",
)  # fmt: skip
"""Options that change the answers."""


class Job(NamedTuple):
    """What is written where.

    Fields:
        options: of the command.
        place: the directory.
        rows, per_file: of all, and of one file.
        header: what all rows have in common.
    """

    options: argparse.Namespace
    place: Path
    rows: int
    per_file: int
    header: Header

    @property
    def files(self) -> int:
        """Of files."""
        return -(-self.rows // self.per_file)

    def path(self, number: int) -> Path:
        """Of a file."""
        return self.place / f"part-{number:05d}-of-{self.files:05d}.parquet"

    def span(self, number: int) -> tuple[int, int]:
        """The first row of a file, and the one behind its last."""
        return number * self.per_file, min((number + 1) * self.per_file, self.rows)

    @property
    def missing(self) -> list[int]:
        """Files that are not there yet."""
        return [number for number in range(self.files) if not self.path(number).exists()]


def reading(options: argparse.Namespace, who: Asking) -> Source:
    """The rows of the command's files."""
    names = [leaf.name for leaf in who.takes]
    if not names:
        raise CommandError("the model does not say what it takes; save one that has been called on data")
    columns = {}
    for text in options.column or ():
        name, _, column = text.rpartition("=")
        columns[name or (names[0] if len(names) == 1 else "")] = column
    if not set(columns) <= set(names):
        raise CommandError(f"--column is {', '.join(options.column)}; the model takes {', '.join(names)}: INPUT=NAME")
    return opened(options.inputs, Reading(who.takes, options.scale, options.preprocess, columns))


def prepared(options: argparse.Namespace, who: Asking, source: Source) -> Job:
    """The job of a directory: begun, or begun before with the same question to the same model and rows.

    Raises:
        CommandError: the directory is of another one, or no row can be explained.
    """
    place = Path(options.out)
    asked = {name: getattr(options, name) for name in ASKED}
    asked |= {"model": who.mark, "inputs": source.mark(), "rows": len(source)}
    record = place / RECORD
    if record.exists():
        known = json.loads(record.read_text())
        different = [name for name, value in asked.items() if known["asked"].get(name) != value]
        if different:
            said = "; ".join(
                f"other {name}"
                if name in ("model", "inputs")
                else f"{name} {known['asked'].get(name)!r}, not {asked[name]!r}"
                for name in different[:3]
            )
            raise CommandError(f"{options.out!r} holds another job ({said}); choose another --out, or remove it")
        for draft in place.glob(".part-*"):
            if time.time() - draft.stat().st_mtime > ABANDONED:
                draft.unlink(missing_ok=True)
        return Job(options, place, len(source), known["per_file"], Header(**known["header"]))
    if not len(source):
        raise CommandError("there are no rows")
    if place.exists() and any(place.glob("*.parquet")):
        raise CommandError(f"{options.out!r} holds Parquet files of something else; choose another --out")
    header, size = _tried(options, who, source)
    per_file = options.rows_per_file or int(np.clip(FILE_BYTES // size, 1, FILE_ROWS))
    place.mkdir(parents=True, exist_ok=True)
    job = Job(options, place, len(source), per_file, header)
    draft = place / f".{RECORD}.{os.getpid()}"
    draft.write_text(json.dumps({"asked": asked, "per_file": per_file, "header": dataclasses.asdict(header)}, indent=1))
    os.replace(draft, record)
    return job


def _tried(options: argparse.Namespace, who: Asking, source: Source) -> tuple[Header, int]:
    """(what the rows will have in common, the bytes of one), by the first that can be explained."""
    reasons: Counter[str] = Counter()
    for row in source.read(0, min(TRIED, len(source))):
        if row.value is None:
            reasons[row.reason] += 1
            continue
        try:
            e = who(tf.nest.map_structure(lambda leaf: leaf[np.newaxis], row.value))
        except ValueError as error:
            reasons[str(error)] += 1
            continue
        header = Header.of(e, options.keep, options.dtype)
        (line,) = table.rows(e, [row.id], header)
        if line["status"] == table.OK:
            return header, max(1, table.size(line))
        reasons[line["notes"]] += 1
    ((reason, times),) = reasons.most_common(1)
    raise CommandError(f"none of the first {sum(reasons.values())} rows can be explained; {times} of them: {reason}")


Answers = list[tuple[list[int], Explanation | str]]
"""Which of the rows that could be read, and their explanation, or why there is none."""


def lines(rows: Sequence[Row], answers: Answers, header: Header) -> list[dict[str, Any]]:
    """The lines of a file, in the order of its rows."""
    found: list[Any] = [table.failed(row.id, row.reason) for row in rows]
    readable = [i for i, row in enumerate(rows) if row.value is not None]
    for which, answer in answers:
        ids = [rows[readable[i]].id for i in which]
        if isinstance(answer, str):
            those = [table.failed(name, answer) for name in ids]
        else:
            those = list(table.rows(answer, ids, header))
        for i, line in zip(which, those, strict=True):
            found[readable[i]] = line
    return found


class Told(NamedTuple):
    """What is told of a file that has been written: by which process, and how much it has held, where that is known."""

    number: int
    rows: int
    failed: int
    memory: int
    process: int


class Work:
    """Files of a job, written one after the other in one process."""

    def __init__(self, job: Job, who: Asking, source: Source):
        self.job, self.who, self.source = job, who, source

    @classmethod
    def begun(cls, job: Job) -> "Work":
        """In a process of its own, with a model of its own."""
        who = asking(job.options)
        return cls(job, who, reading(job.options, who))

    def rows(self, number: int) -> list[Row]:
        """Of a file."""
        return list(self.source.read(*self.job.span(number)))

    def ask(self, rows: list[Row]) -> Answers:
        """Explain them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # notes are written beside the answers
            answers = list(apart(self.who, [row.value for row in rows if row.value is not None]))
        self.who.check()
        return answers

    def write(self, number: int, rows: list[Row], answers: Answers) -> Told:
        """Write a file."""
        written = lines(rows, answers, self.job.header)
        table.write(self.job.path(number), written, self.job.header)
        failed = sum(line["status"] != table.OK for line in written)
        return Told(number, len(written), failed, memory(), os.getpid())

    def __call__(self, numbers: Sequence[int]) -> Iterator[Told]:
        """Write files: while rows are explained, those of the next file are read and those of the last are written."""
        with concurrent.futures.ThreadPoolExecutor(1) as reader, concurrent.futures.ThreadPoolExecutor(1) as writer:
            ahead = [reader.submit(self.rows, number) for number in numbers[:1]]
            behind: list[concurrent.futures.Future[Told]] = []
            for number, following in zip(numbers, [*numbers[1:], None], strict=False):
                rows = ahead.pop().result()
                if following is not None:
                    ahead.append(reader.submit(self.rows, following))
                answers = self.ask(rows)
                if behind:
                    yield behind.pop().result()
                behind.append(writer.submit(self.write, number, rows, answers))
            for last in behind:
                yield last.result()


def memory() -> int:
    """The most that this process has held, in bytes; 0 where the system does not say."""
    if resource is None:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
