"""The command tfig batch."""

import argparse
import collections
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from tfig import console
from tfig.batch import job, running, table
from tfig.batch.asking import asking
from tfig.console import CommandError
from tfig.serving import connection

PATIENCE = 10.0
"""Seconds between two lines of progress, where lines cannot be written over."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser of `tfig`."""
    one = commands.add_parser(
        "batch",
        help="explain as many rows as there are, to Parquet files",
        description="Explain as many rows as there are, to Parquet files. A job that was stopped goes on where it was "
        "when the same command is given again.",
    )
    one.add_argument(
        "inputs", metavar="MODEL INPUT", nargs="+",
        help="a .keras or .h5 file or a SavedModel directory (not with --server); image files, patterns and "
        "directories, .npy, .npz, .csv, .tfrecord, .parquet",
    )  # fmt: skip
    one.add_argument("-o", "--out", metavar="DIR", required=True, help="where files are written")
    one.add_argument("--method", help="as listed by 'tfig methods' (default: integrated_gradients)")
    console.add_target(one)
    console.add_against(one)
    console.add_place(one)
    console.add_scale(one)
    console.add_preprocess(one)
    console.add_classes(one)
    one.add_argument("--batch-size", type=int, metavar="N", help="rows the model evaluates together")
    one.add_argument("--seed", type=int, help="seed of the noise (default: 0, or as exported)")
    one.add_argument(
        "--column", metavar="[INPUT=]NAME", action="append",
        help="which column or feature of .parquet or .tfrecord files an input is; default: of its own name",
    )  # fmt: skip
    one.add_argument(
        "--keep", choices=table.KEPT, default="attributions",
        help="of each map: all, channels summed, or a picture over the image (default: %(default)s)",
    )  # fmt: skip
    one.add_argument("--dtype", choices=table.DTYPES, help="of what is kept (default: as computed)")
    one.add_argument("--rows-per-file", type=int, metavar="N", help="default: about 64 MB, at most 1000 rows")
    one.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each with a model of its own")
    one.add_argument(
        "--devices", metavar="NAME,NAME",
        help="among which rows are split, each with the weights, such as GPU:0,GPU:1 (default: all GPUs)",
    )  # fmt: skip
    one.add_argument("--runner", metavar="NAME", help="an Apache Beam runner: DirectRunner, DataflowRunner, ...")
    one.add_argument("--runner-option", metavar="NAME=VALUE", action="append", help="of the runner; may be repeated")
    one.add_argument("--server", metavar="ADDRESS", help="ask TensorFlow Serving at host:port, or unix:PATH, instead")
    one.add_argument("--model", dest="model_name", metavar="NAME", help="of the model on the server")
    one.add_argument("--name", help="of the explanation on the server (default: explain, or the only one)")
    one.add_argument("--version", type=int, metavar="N", help="of the model on the server; default: the latest")
    one.add_argument("--requests", type=int, default=8, metavar="N", help="on their way at once (default: %(default)s)")
    connection.add(one)
    one.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Explain what has not been explained yet, and say how it went."""
    _check(options)
    with console.waiting("loading, and explaining a first row"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # notes are written beside the answers
        who = asking(options)
        source = job.reading(options, who)
        whole = job.prepared(options, who, source)
    missing = whole.missing
    if len(missing) < whole.files:
        print(f"{whole.files - len(missing)} of {whole.files} files are there already")
    work = job.Work(whole, who, source)
    begin, done, peak = time.perf_counter(), 0, {os.getpid(): job.memory()}
    progress = Progress(sum(stop - start for start, stop in map(whole.span, missing)))
    try:
        for told in running.running(work, options):
            done += told.rows
            if told.process:
                peak[told.process] = told.memory
            progress(told.rows, told.failed)
    except KeyboardInterrupt:
        raise CommandError(f"stopped; {_finished(whole)}, and the same command goes on") from None
    except OSError as error:
        raise CommandError(f"{options.out!r}: {error.strerror or error}; {_finished(whole)}") from error
    except CommandError as error:
        raise CommandError(f"{error}; {_finished(whole)}") from error
    finally:
        progress.end()
    seconds = time.perf_counter() - begin
    _tell(whole)
    rate = f"{done / seconds:,.1f} rows a second, {seconds:,.1f} s; " if done else ""
    own, *others = (f"{size / 2**20:,.0f} MB" for size in peak.values())
    held = f"at most {own} held" + (f", and {', '.join(others)} by workers" if others else "")
    print(f"{rate}{held} -> {options.out}")


def _check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, before any work."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise CommandError("tfig batch needs pyarrow: pip install tfig[batch]") from None
    if options.server is None:
        options.model, *options.inputs = options.inputs
        if not options.inputs:
            raise CommandError("pass the model, then its inputs: tfig batch MODEL INPUT... --out DIR")
        options.seed = options.seed or 0
        options.method = options.method or "integrated_gradients"
        _refuse(options, ("model_name", "name", "version"), "is of a model on a server; it needs --server")
    else:
        options.model = None
        if options.model_name is None:
            raise CommandError("--server needs --model, the model's name there")
        _refuse(
            options, ("method", "output", "layer", "batch_size", "devices"),
            "was settled when the model was exported; --name says which of its explanations is asked",
        )  # fmt: skip
        if options.workers > 1 or options.runner is not None:
            raise CommandError("a server is asked from one process; --requests says how many are on their way")
    for name in ("workers", "requests", "rows_per_file", "batch_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise CommandError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if options.dtype is not None and options.keep == "picture":
        raise CommandError("--dtype is of numbers, and pictures have none")
    place = Path(options.out)
    if place.is_file():
        raise CommandError(f"--out is {options.out!r}, which is a file; it must be a directory")


def _refuse(options: argparse.Namespace, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise CommandError(f"--{name.removesuffix('_name').replace('_', '-')} {reason}")


def _finished(whole: job.Job) -> str:
    return f"{whole.files - len(whole.missing)} of {whole.files} files are finished and stay"


def _tell(whole: job.Job) -> None:
    """How many rows there are, what failed and why, and how far the worst sum is off."""
    reasons: collections.Counter[str] = collections.Counter()
    noted: collections.Counter[str] = collections.Counter()
    answered, worst, which = 0, -1.0, ""
    for columns in table.diagnostics(whole.path(number) for number in range(whole.files)):
        for name, delta, status, notes in zip(*columns, strict=True):
            if status != table.OK:
                reasons[notes] += 1
                continue
            answered += 1
            if notes:
                noted[notes] += 1
            if delta is not None and abs(delta) > worst:
                worst, which = abs(delta), name
    failed = sum(reasons.values())
    print(f"{answered + failed:,} rows: {answered:,} explained, {failed:,} failed")
    for reason, times in reasons.most_common(5):
        print(f"    {times:,} failed: {reason[:200]}")
    if len(reasons) > 5:
        print(f"    and {len(reasons) - 5} reasons more")
    for note, times in noted.most_common(2):
        print(f"    {times:,} noted: {note[:200]}")
    if worst >= 0:
        print(f"    worst convergence_delta {worst:.3g} ({which})")


class Progress:
    """A line that says how far a job is, and how long it will take."""

    def __init__(self, rows: int):
        self.rows, self.begin, self.done, self.failed, self.said = rows, time.perf_counter(), 0, 0, 0.0
        self.alive = sys.stderr.isatty()

    def __call__(self, rows: int, failed: int) -> None:
        """More are done."""
        self.done, self.failed = self.done + rows, self.failed + failed
        seconds = time.perf_counter() - self.begin
        if not self.alive and seconds - self.said < PATIENCE:
            return
        self.said = seconds
        left = seconds / self.done * (self.rows - self.done)
        failures = f", {self.failed:,} failed" if self.failed else ""
        line = f"{self.done:,} of {self.rows:,} rows{failures}, {self.done / seconds:,.1f} a second, {_long(left)} left"
        print(f"\r{line:70}" if self.alive else line, end="" if self.alive else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self.alive and self.done:
            print(file=sys.stderr)


def _long(seconds: float) -> str:
    """A time in the largest unit that it fills."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{np.ceil(seconds):.0f} s"
