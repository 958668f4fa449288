"""What a client sends: the same for the blocking and the async client."""

import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from tfig import arguments, baselines
from tfig.entry import column, generated, one_short
from tfig.score import AGAINST_PREDICTED, NOTHING, PREDICTED, RUNNER_UP, Contrast
from tfig.serving import answers, protocol
from tfig.serving.answers import ServingError, spec
from tfig.serving.servable import proto

LONGEST_PAUSE = 1.0
"""Seconds between two questions, at most; also between two attempts to connect."""


def again(error: grpc.RpcError) -> bool:
    """Whether another moment may answer what was not answered."""
    details = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return not answers.untrusted(details)
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "Threadpool Exhausted" in details


class Patience:
    """When to ask again, of one question: until its time is over, with growing pauses of random length.

    Attributes:
        reason: why it was not answered the last time, or None.
    """

    def __init__(self, timeout: float, retries: int | None):
        self._end, self._retries, self._attempt = time.monotonic() + timeout, retries, 0
        self.reason: grpc.RpcError | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Of the call: a deadline, since nothing else stops a server; once refused, it waits to be connected."""
        return {"timeout": max(self._left, 0.001), "wait_for_ready": self.reason is not None}

    @property
    def _left(self) -> float:
        return self._end - time.monotonic()

    def pause(self, error: grpc.RpcError) -> float | None:
        """Seconds to wait before asking again; None: the question has failed, for `reason`."""
        late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and self.reason is not None
        if not late:
            self.reason = error
        wait = min(0.1 * 2**self._attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        self._attempt += 1
        over = self._retries is not None and self._attempt > self._retries
        return wait if again(error) and not over and wait < self._left else None


def ask(call: Callable[..., Any], request: Any, timeout: float, retries: int | None, address: str) -> Any:
    """The answer to a request, asked again while another moment may answer it.

    Raises:
        ServingError: there is none.
    """
    patience = Patience(timeout, retries)
    while True:
        try:
            return call(request, **patience.options)
        except grpc.RpcError as error:
            wait = patience.pause(error)
            if wait is None:
                raise answers.failed(patience.reason or error, address) from error
        time.sleep(wait)


def begun(requests: Iterator[Any]) -> Iterator[Any]:
    """The same requests, the first of them made already: what does not fit is refused now."""
    return itertools.chain([next(requests)], requests)


def channel(
    address: str, max_message_bytes: int, credentials: Any, ca: Any, certificate: Any, key: Any
) -> Callable[[Any], Any]:
    """What opens a channel of a kind (`grpc` or `grpc.aio`), with TLS where credentials or files are given.

    Raises:
        ValueError: an address without port that is no socket's, or files that do not go together.
    """
    socket = isinstance(address, str) and address.startswith("unix:")
    if not socket and (not isinstance(address, str) or "//" in address or not address.rpartition(":")[2].isdecimal()):
        raise ValueError(f"address is {address!r}; pass host:port, e.g. 'localhost:8500', or unix:PATH of a socket.")
    options = [
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", int(1000 * LONGEST_PAUSE)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    ]
    if (certificate is None) != (key is None):
        raise ValueError("mutual TLS needs certificate= and key= together.")
    if ca is not None or certificate is not None:
        if credentials is not None:
            raise ValueError("credentials= and files (ca=, certificate=, key=) are both given; pass one of them.")
        files = (None if path is None else Path(path).read_bytes() for path in (ca, key, certificate))
        credentials = grpc.ssl_channel_credentials(*files)
    if credentials is None:
        return lambda kind: kind.insecure_channel(address, options)
    return lambda kind: kind.secure_channel(address, credentials, options)


@dataclasses.dataclass(frozen=True)
class Questions:
    """Requests to a model on a server, and readings of their answers.

    Fields:
        model, version: as the server names them; the latest version, if None.
        rows: of a request, at most.
        request_bytes: of the inputs of a request, about.
    """

    model: str
    version: int | None
    rows: int
    request_bytes: int

    def __post_init__(self):
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"model is {self.model!r}; pass the name by which the server knows it.")
        if not isinstance(self.version, (int, type(None))):
            raise ValueError(f"version is {self.version!r}; pass an int, or None for the latest.")
        for name in ("rows", "request_bytes"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be at least 1.")

    def metadata(self) -> Any:
        """The request for the model's signatures."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._address(request.model_spec)
        return request

    def status(self) -> Any:
        """The request for the states of the model's versions."""
        request = get_model_status_pb2.GetModelStatusRequest()
        self._address(request.model_spec)
        return request

    def _address(self, spec: Any) -> None:
        spec.name = self.model
        if self.version is not None:
            spec.version.value = self.version

    def explain(
        self, signatures: Mapping[str, Any], x: Any, name: str, target: Any, contrast: Any, baseline: Any, seed: Any,
        outputs: Any,
    ) -> Iterator[Any]:  # fmt: skip
        """The requests, each about some rows of x."""
        known = protocol.explanations(signatures)
        if name not in known:
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"model {self.model!r} has no explanation {name!r}; it has {list(known) or 'none'}.",
            )
        inputs = arrays(signatures[name], x)
        rows = len(next(iter(inputs.values())))
        exported = tf.make_ndarray(known[name].defaults[protocol.SEED])
        seed = exported[0] if seed is None else seed
        said = any(value is not None for value in (target, contrast, baseline)) or np.any(np.asarray(seed) != exported)
        definition = known[name] if said else signatures[name]
        sent = inputs if not said else inputs | options(definition, inputs, rows, target, contrast, baseline, seed)
        signature, wanted = protocol.at(name) if said else name, wanted_outputs(definition, outputs)
        # A server keeps a copy of the graph for each set of outputs it is asked for: only those it has warmed up.
        asked = protocol.numbers(definition.outputs)
        if not wanted <= set(asked):
            alone = [key for key in protocol.pictured(name).values() if key in signatures and not said]
            signature = next((key for key in alone if wanted <= set(signatures[key].outputs)), signature)
            asked = []
        yield from self._requests(signature, sent, rows, asked)

    def predict(self, signatures: Mapping[str, Any], x: Any) -> Iterator[Any]:
        """The requests for the model's own answer."""
        inputs = arrays(signatures[protocol.DEFAULT], x)
        yield from self._requests(protocol.DEFAULT, inputs, len(next(iter(inputs.values()))), [])

    def _requests(self, signature: str, sent: Mapping[str, np.ndarray], rows: int, wanted: list[str]) -> Iterator:
        size = max(1, min(self.rows, self.request_bytes // max(1, sum(a[:1].nbytes for a in sent.values()))))
        for start in range(0, rows, size):
            span = slice(start, min(start + size, rows))
            request = predict_pb2.PredictRequest(output_filter=wanted)
            self._address(request.model_spec)
            request.model_spec.signature_name = signature
            for alias, array in sent.items():
                request.inputs[alias].CopyFrom(proto(array[span]))
            yield request


def arrays(definition: Any, x: Any) -> dict[str, np.ndarray]:
    """The user's x as the required inputs of a signature, by name.

    Raises:
        ValueError: it does not fit.
    """
    takes = {name: spec(definition.inputs[name]) for name in sorted(definition.inputs)}
    if isinstance(x, Mapping):
        if set(x) != set(takes):
            raise ValueError(f"x names inputs {sorted(x)}, and the model takes {list(takes)}.")
        given = dict(x)
    elif len(takes) == 1:
        given = dict(zip(takes, x if isinstance(x, (list, tuple)) and len(x) == 1 else [x], strict=True))
    elif isinstance(x, (list, tuple)) and set(takes) == set(map(generated, range(len(x)))):
        given = {generated(i): part for i, part in enumerate(x)}
    else:
        raise ValueError(f"the model takes inputs {list(takes)}; pass x as a dict that names them.")
    found = {name: _array(name, given[name], *takes[name]) for name in takes}
    if len({len(array) for array in found.values()}) > 1:
        raise ValueError(f"inputs have different numbers of rows: { {name: len(a) for name, a in found.items()} }.")
    return found


def _array(name: str, value: Any, shape: list[int | None], dtype: str) -> np.ndarray:
    array = column(np.asarray(value), shape)
    if len(array.shape) != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        hint = one_short(array.shape, shape)
        raise ValueError(f"input {name!r} has shape {list(array.shape)}, and the model takes {shape}.{hint}")
    if len(array) == 0:
        raise ValueError(f"input {name!r} has zero rows: there is nothing to ask.")
    if dtype == "string":
        return array.astype(object)
    if array.dtype.kind == "f" and tf.as_dtype(dtype).is_integer and (array != np.round(array)).any():
        raise ValueError(f"input {name!r} holds fractions, and the model takes {dtype}.")
    return array.astype(tf.as_dtype(dtype).as_numpy_dtype)


def options(
    definition: Any, inputs: Mapping[str, np.ndarray], rows: int, target: Any, contrast: Any, baseline: Any, seed: Any
) -> dict[str, np.ndarray]:
    """Every option of a signature, explicitly and with a row for each row, so that batching servers take it too.

    Raises:
        ValueError: an option that this explanation does not have, or that does not fit.
    """
    if isinstance(target, Contrast):
        if contrast is not None:
            raise ValueError("target is a Contrast, and contrast= is given too; pass one of them.")
        target, contrast = target.a, target.b
    elif target is not None and contrast is None:
        contrast = NOTHING  # a new target is asked for itself, as in process
    found: dict[str, np.ndarray] = {}
    words = {"predicted": PREDICTED}
    others = {"runner_up": RUNNER_UP, "predicted": AGAINST_PREDICTED}
    for name, value, codes in ((protocol.TARGET, target, words), (protocol.CONTRAST, contrast, others)):
        if name in definition.inputs:
            found[name] = _codes(name, value, rows, codes, definition.defaults)
        elif value is not None:
            raise ValueError(f"{name} is {value!r}, and this explanation is of a score of its own: it takes none.")
    found[protocol.SEED] = _per_row(protocol.SEED, seed, rows)
    takes = protocol.parts(protocol.BASELINE, definition.inputs)
    if baseline is not None and not takes:
        raise ValueError(
            "this explanation takes no baseline from callers: its method has none, or it was fixed at export."
        )
    if isinstance(baseline, Mapping) and set(baseline) - {name or "" for name in takes}:
        raise ValueError(f"baseline names {sorted(baseline)}, and the explained inputs are {sorted(map(str, takes))}.")
    if baseline is not None and not isinstance(baseline, Mapping) and len(takes) > 1 and np.ndim(baseline):
        raise ValueError(f"baseline is one array, and there are several inputs {sorted(map(str, takes))}; pass a dict.")
    for name, alias in takes.items():
        like = inputs[name] if name is not None else next(a for n, a in inputs.items() if n in definition.inputs)
        part = baseline.get(name) if isinstance(baseline, Mapping) else baseline
        kind = tf.as_dtype(definition.inputs[alias].dtype).as_numpy_dtype
        if isinstance(part, baselines.Baseline) or (isinstance(part, str) and like.dtype != object):
            raise ValueError(f"baseline {part!r} is computed at export; to a server pass a number or an array.")
        own = tf.make_ndarray(definition.defaults[alias])
        filled = own if part is None else baselines.fit(alias, part, like.astype(kind))
        found[alias] = np.ascontiguousarray(np.broadcast_to(filled, like.shape))
    return found


def _codes(name: str, value: Any, rows: int, words: Mapping[str, int], defaults: Mapping[str, Any]) -> np.ndarray:
    if value is None:
        default = tf.make_ndarray(defaults[name]) if name in defaults else np.array([NOTHING], np.int32)
        return np.repeat(default, rows)
    if isinstance(value, str):
        if value not in words:
            raise ValueError(
                f"{name} is {value!r}; pass a class, one for each row, or {' or '.join(map(repr, words))}."
            )
        return np.full(rows, words[value], np.int32)
    return _per_row(name, value, rows)


def _per_row(name: str, value: Any, rows: int) -> np.ndarray:
    return np.ascontiguousarray(arguments.per_row(name, value, rows))


def wanted_outputs(definition: Any, outputs: Any) -> set[str]:
    """The outputs to ask for: by default the numbers, from which pictures are drawn at home.

    Raises:
        ValueError: one that the explanation does not answer.
    """
    names = sorted(definition.outputs)
    if outputs is None:
        return set(protocol.numbers(names))
    outputs = [outputs] if isinstance(outputs, str) else outputs
    unknown = set(outputs) - set(names)
    if unknown:
        raise ValueError(f"no outputs {sorted(unknown)}; this explanation answers {names}.")
    return {*outputs, protocol.SCORE, protocol.STATUS}
