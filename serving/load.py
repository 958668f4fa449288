"""A bounded load on a server, and how it fared: latencies, what was lost, what was wrong."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.entry import Leaf
from tfig.serving import protocol
from tfig.serving.answers import ServingError
from tfig.serving.client import Client
from tfig.serving.export import latest
from tfig.serving.servable import Servable, proto

SIZE = 64
"""Of axes whose size the model leaves open."""


@dataclasses.dataclass(frozen=True)
class Fared:
    """What became of questions that were asked one after the other by each of several clients.

    Fields:
        seconds: that it took.
        latencies: of the questions answered, [n], in seconds.
        wrong: how many of these were answered otherwise than expected.
        lost: how many were not answered, by the status.
    """

    seconds: float
    latencies: np.ndarray
    wrong: int
    lost: dict[str, int]

    def __str__(self) -> str:
        """One line of it."""
        if not self.latencies.size:
            return f"nothing answered in {self.seconds:.0f} s; lost {self.lost}"
        p50, p95, p99 = (1000 * np.quantile(self.latencies, q) for q in (0.5, 0.95, 0.99))
        lost = sum(self.lost.values())
        kinds = f" ({', '.join(f'{code} {count}' for code, count in sorted(self.lost.items()))})" if lost else ""
        return (
            f"{self.latencies.size} answers in {self.seconds:.0f} s, {self.latencies.size / self.seconds:.1f} a "
            f"second; p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms; {lost} lost{kinds}, {self.wrong} wrong"
        )


def run(
    connect: Callable[[], Client],
    ask: Callable[[Client], Any],
    clients: int,
    seconds: float,
    expected: np.ndarray | None = None,
    bound: float = 1e-5,
) -> Fared:
    """Ask for some seconds, each client on a connection of its own.

    Args:
        connect: makes a client; how patient it is says what counts as lost.
        ask: a question, answered by an array.
        expected: its answer; None: nothing is compared.
        bound: how far from it an answer may lie, of its largest value.
    """
    end = time.monotonic() + seconds

    def one(_: int) -> tuple[list[float], int, list[str]]:
        latencies, wrong, lost = [], 0, []
        with connect() as client:
            while time.monotonic() < end:
                begin = time.monotonic()
                try:
                    found = ask(client)
                except ServingError as error:
                    lost.append(error.code.name)
                    continue
                latencies.append(time.monotonic() - begin)
                wrong += expected is not None and not _close(found, expected, bound)
        return latencies, wrong, lost

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        each = list(pool.map(one, range(clients)))
    names = [name for _, _, lost in each for name in lost]
    return Fared(
        time.monotonic() - began,
        np.array([latency for latencies, _, _ in each for latency in latencies]),
        sum(wrong for _, wrong, _ in each),
        {name: names.count(name) for name in set(names)},
    )


def _close(found: np.ndarray, expected: np.ndarray, bound: float) -> bool:
    return found.shape == expected.shape and bool(np.abs(found - expected).max() <= bound * np.abs(expected).max())


def sample(leaves: list[Leaf], rows: int) -> dict[str, np.ndarray]:
    """Rows to ask about, the same each time: uniform on [0, 1), zeros of what is no float, empty strings."""
    rng = np.random.default_rng(0)
    found = {}
    for leaf in leaves:
        shape = [rows, *(size or SIZE for size in leaf.shape[1:])]
        kind = tf.as_dtype(leaf.dtype)
        values = rng.uniform(size=shape) if kind.is_floating else np.zeros(shape)
        found[leaf.name] = np.full(shape, b"", object) if kind == tf.string else values.astype(kind.as_numpy_dtype)
    return found


def local(directory: Path, name: str, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """The attributions that an exported model on this machine answers, in one row of numbers."""
    with Servable(latest(directory)) as servable:
        found = servable.predict(name, {alias: proto(value) for alias, value in x.items()})
    return flat({key: tf.make_ndarray(found[key]) for key in protocol.parts(protocol.ATTRIBUTIONS, found).values()})


def flat(maps: Any) -> np.ndarray:
    """Attributions, of one input or of several by name, in one row of numbers."""
    return (
        np.concatenate([np.ravel(maps[key]) for key in sorted(maps)]) if isinstance(maps, Mapping) else np.ravel(maps)
    )
