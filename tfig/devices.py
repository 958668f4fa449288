"""Several devices at once: rows are split over them, each has a program of its own, nothing is exchanged."""

import collections
import concurrent.futures
import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from tfig.tracing import placed

T = TypeVar("T")
R = TypeVar("R")


def strategy(model: Any) -> tf.distribute.Strategy | None:
    """The `MirroredStrategy` that keeps a copy of a model on each of several devices."""
    found = getattr(model, "distribute_strategy", None)
    mirrored = isinstance(found, tf.distribute.MirroredStrategy) and found.num_replicas_in_sync > 1
    return found if mirrored else None


def mirrored(devices: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """A scope in which a Keras model that is loaded has its weights on each of several devices."""
    return tf.distribute.MirroredStrategy(list(devices)).scope() if len(devices) > 1 else contextlib.nullcontext()


def named(model: Any, given: Sequence[str] | None) -> tuple[str, ...]:
    """The devices that a model is asked on: those given, or its strategy's; none where TensorFlow chooses.

    Raises:
        ValueError: there is no such device.
    """
    if given is None:
        mirrored = strategy(model)
        return () if mirrored is None else tuple(mirrored.extended.worker_devices)
    if isinstance(given, str) or not given:
        raise ValueError(f"devices is {given!r}; pass a list of names, such as ['GPU:0', 'GPU:1'].")
    known = {_short(device.name): device.name for device in tf.config.list_logical_devices()}
    missing = [name for name in given if _short(name) not in known]
    if missing:
        raise ValueError(f"there is no device {missing[0]!r}; there are {', '.join(known)}.")
    return tuple(known[_short(name)] for name in given)


@contextlib.contextmanager
def first(devices: Sequence[str], model: Any) -> Iterator[None]:
    """Programs made here are for the first of several devices."""
    with placed(devices[0], strategy(model)) if devices else contextlib.nullcontext():
        yield


def spread(ask: Callable[[T], R], parts: Iterable[T], devices: Sequence[str], model: Any) -> Iterator[R]:
    """What is answered of each part, in their order, each asked on the device that is free first."""
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for device in devices:
        free.put(device)
    mirrored = strategy(model)

    def one(part: T) -> R:
        device = free.get()
        try:
            with placed(device, mirrored):
                return ask(part)
        finally:
            free.put(device)

    ahead: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(len(devices)) as pool:
        for part in parts:
            ahead.append(pool.submit(one, part))
            if len(ahead) > len(devices):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _short(name: str) -> str:
    """ "GPU:0", of any way to write it."""
    return ":".join(name.removeprefix("/").replace("device:", "").split("/")[-1].upper().split(":")[-2:])
