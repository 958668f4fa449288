"""Who answers: this process, or a fleet of TensorFlow Serving."""

import argparse
import concurrent.futures
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfig import console, entry, files, provenance
from tfig.console import CommandError
from tfig.devices import mirrored, named
from tfig.entry import Leaf
from tfig.explanation import Explanation
from tfig.serving import connection

REQUESTED = 32
"""Rows of a request."""


class Asking(Protocol):
    """What explains rows.

    Attributes:
        takes: the inputs of the model.
    """

    takes: list[Leaf]

    @property
    def mark(self) -> str:
        """What changes when the answers do."""

    def __call__(self, x: Any) -> Explanation:
        """Explain x.

        Raises:
            ValueError: rows of it cannot be explained.
            CommandError: nothing can.
        """

    def check(self) -> None:
        """Raise CommandError where the model is not the one that was asked before."""


def asking(options: argparse.Namespace) -> Asking:
    """As the options say."""
    return Fleet(options) if options.server else Local(options)


class Local:
    """The model, in this process."""

    def __init__(self, options: argparse.Namespace):
        self.path = options.model
        self.file = _stamp(self.path)
        names = files.class_names(options.classes)
        gpus = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
        places = named(None, options.devices.split(",") if options.devices else gpus or None)
        with mirrored(places):
            model = console.load_model(options.model)
        self.explainer = console.explainer(model, options, names, places or None)
        self.takes = _taken(model)

    @functools.cached_property
    def mark(self) -> str:
        """As `Asking` says; workers are not asked for it."""
        return f"{provenance.weights(self.explainer.model)}; {_made(self.path, self.explainer.model)}"

    def __call__(self, x: Any) -> Explanation:
        """As `Asking` says."""
        return self.explainer(x)

    def check(self) -> None:
        """As `Asking` says."""
        if _stamp(self.path) != self.file:
            raise CommandError(f"{self.path!r} has changed while it was being asked")


class Fleet:
    """A model on servers behind one address, with many requests on their way."""

    def __init__(self, options: argparse.Namespace):
        from tfig.serving import ServingError

        self.options, self.error = options, ServingError
        server, model = options.server, options.model_name
        self.client = connection.client(options, server, model, rows=REQUESTED, version=options.version)
        self.names = files.class_names(options.classes)
        try:
            name, self.takes = connection.offered(self.client, options.name, model, server)
        except ServingError as error:
            raise CommandError(str(error)) from error
        target, against = (console.class_of(f"--{w}", getattr(options, w), self.names) for w in ("target", "against"))
        self.ask = functools.partial(
            self.client.explain, name=name, target=target, contrast=against,
            baseline=console.baseline_of(options.baseline), seed=options.seed, return_bad_rows=True,
        )  # fmt: skip
        self.pool = concurrent.futures.ThreadPoolExecutor(options.requests)
        self.mark = self._versions()

    def __call__(self, x: Any) -> Explanation:
        """As `Asking` says: a request has its rows again while others are on their way; no more wait than there are."""
        rows = len(tf.nest.flatten(x)[0])
        spans = [slice(start, start + REQUESTED) for start in range(0, rows, REQUESTED)]
        parts = [tf.nest.map_structure(lambda leaf, span=span: leaf[span], x) for span in spans]
        try:
            return Explanation.concatenate(list(self.pool.map(self.ask, parts)))
        except self.error as error:
            if error.code.name == "INVALID_ARGUMENT":
                raise ValueError(str(error)) from error
            raise CommandError(str(error)) from error

    def check(self) -> None:
        """As `Asking` says."""
        if self._versions() != self.mark:
            raise CommandError(f"the version of {self.options.model_name!r} on {self.options.server} has changed")

    def _versions(self) -> str:
        """Which versions answer; the latest, where none is asked for."""
        try:
            ready = [one.version for one in self.client.status() if one.state == "AVAILABLE"]
        except self.error as error:
            raise CommandError(str(error)) from error
        return f"{self.options.model_name} {self.options.version or max(ready, default=0)}"


def apart(ask: Callable[[Any], Explanation], values: Sequence[Any]) -> Iterator[tuple[list[int], Explanation | str]]:
    """Explain single rows together: (which of them, their explanation), or why they have none.

    Rows alike in shape go together. Where some cannot be explained, halves of them are tried, until it stands alone.
    """
    alike: dict[tuple, list[int]] = {}
    for i, value in enumerate(values):
        alike.setdefault(tuple(np.shape(leaf) for leaf in tf.nest.flatten(value)), []).append(i)
    waiting = list(alike.values())
    while waiting:
        group = waiting.pop()
        try:
            yield group, ask(tf.nest.map_structure(lambda *leaves: np.stack(leaves), *(values[i] for i in group)))
        except ValueError as error:
            if len(group) == 1:
                yield group, str(error).replace(" in row 0", "")
            else:
                waiting += [group[: len(group) // 2], group[len(group) // 2 :]]


def _taken(model: Any) -> list[Leaf]:
    """The inputs of a model, as it declares them or has been built for them; none where it does not say."""
    try:
        return list(entry.declared(model).values()) or tf.nest.flatten(entry.interface(model))
    except ValueError:
        return []


def _made(path: str, model: Any) -> str:
    """What a model is beside its weights, in a few letters."""
    graph = Path(path) / "saved_model.pb"
    made = graph.read_bytes() if graph.is_file() else model.to_json().encode()
    return hashlib.sha256(made).hexdigest()[:16]


def _stamp(path: str) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of the files of a model."""
    place = Path(path)
    parts = sorted(place.rglob("*")) if place.is_dir() else [place]
    try:
        return tuple((str(part), part.stat().st_size, part.stat().st_mtime_ns) for part in parts if part.is_file())
    except FileNotFoundError:
        return ()
