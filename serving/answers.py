"""What a client makes of a server's answers and refusals."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tfig.entry import Leaf, generated
from tfig.explanation import Explanation
from tfig.score import NOTHING
from tfig.serving import protocol

ADVICE = {
    "UNAVAILABLE": "check that the server runs at this address, and whether it speaks TLS",
    "DEADLINE_EXCEEDED": "raise timeout=, send fewer rows, or export with fewer steps",
    "RESOURCE_EXHAUSTED": "send fewer rows at a time (rows=), ask for fewer outputs (outputs=), or wait",
    "NOT_FOUND": "check the model's name and version with Client.status() or 'tfig inspect'",
    "FAILED_PRECONDITION": "the server's model has no such explanation; Client.explanations() lists them",
    "INVALID_ARGUMENT": "what was sent does not fit the signature; Client.explanations() says what it takes",
    "UNAUTHENTICATED": "pass the server's CA as ca=, and certificate= and key= where it asks for yours",
    "INTERNAL": "the server failed at this model; its log says more",
}

REASONS = (
    (
        "larger than maximum input batch size",
        "the server batches no more rows than it says here: pass rows= up to it",
    ),
    ("larger than max", "ask for fewer rows at a time (rows=) or raise max_message_bytes= of whoever refuses it"),
    ("equal 0th-dimension size", "a server that batches wants a row of every input and option for each row"),
    ("batch scheduling queue", "the server's queue is full: raise timeout=, max_enqueued_batches, or its replicas"),
)
"""By words of the message, where they say more than the status."""

UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "andshake", "peer did not return a certificate", "CERTIFICATE_REQUIRED")
"""In messages of connections that fail for their certificates."""


class ServingError(Exception):
    """A question that was not answered.

    Attributes:
        code: the `grpc.StatusCode`; INVALID_ARGUMENT where single rows could not be explained.
        rows: indices of these rows, else None.
    """

    def __init__(self, code: grpc.StatusCode, message: str, rows: list[int] | None = None):
        super().__init__(message)
        self.code, self.rows = code, rows


@dataclasses.dataclass(frozen=True)
class ServedExplanation:
    """What a server's metadata say of an explanation.

    Fields:
        inputs: shape and dtype of the model's own inputs, by name; None in a shape: any size.
        options: what else may be sent, likewise.
        outputs: names of what is answered.
    """

    inputs: dict[str, tuple[list[int | None], str]]
    options: dict[str, tuple[list[int | None], str]]
    outputs: list[str]


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """A version of a model on a server: its number, its state ("AVAILABLE", "LOADING", "END", ...), its error."""

    version: int
    state: str
    error: str = ""


def failed(error: grpc.RpcError, address: str) -> ServingError:
    """The error to raise for gRPC's."""
    code, details = error.code(), error.details() or ""
    advice = next((say for words, say in REASONS if words in details), ADVICE.get(code.name, "see the server's log"))
    if untrusted(details):
        advice = (
            "the certificates do not fit: pass as ca= who signed the server's, which is for its host name, and "
            "certificate= and key= where it asks for yours"
        )
    return ServingError(code, f"{address} answered {code.name}: {details.strip()} ({advice})")


def untrusted(details: str) -> bool:
    """Whether a connection failed for its certificates, which no waiting mends."""
    return any(words in details for words in UNTRUSTED)


def signature_map(answer: Any) -> Any:
    """The signatures in an answer to `Questions.metadata`."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    return signatures.signature_def


def described(signatures: Mapping[str, Any]) -> dict[str, ServedExplanation]:
    """The explanations a model offers."""
    return {
        name: ServedExplanation(
            {alias: spec(info) for alias, info in sorted(signatures[name].inputs.items())},
            {alias: spec(info) for alias, info in sorted(full.inputs.items()) if alias not in signatures[name].inputs},
            sorted(full.outputs),
        )
        for name, full in protocol.explanations(signatures).items()
    }


def statuses(answer: Any) -> list[VersionStatus]:
    """The versions in an answer to `Questions.status`, newest first."""
    kind = get_model_status_pb2.ModelVersionStatus.State
    return [
        VersionStatus(one.version, kind.Name(one.state), one.status.error_message)
        for one in sorted(answer.model_version_status, key=lambda one: -one.version)
    ]


def spec(info: Any) -> tuple[list[int | None], str]:
    """Shape (None: any size) and dtype of a tensor in a signature."""
    return [None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim], tf.as_dtype(info.dtype).name


def nest(answers: list[Any]) -> Any:
    """The model's own outputs: an array, or a dict of them."""
    joined = _joined(answers)
    return next(iter(joined.values())) if len(joined) == 1 else joined


def explanation(answers: list[Any], name: str, x: Any, outputs: Any, return_bad_rows: bool) -> Explanation:
    """The answers to the requests of one question as one explanation, of the outputs wanted; None: of all.

    Raises:
        ServingError: rows could not be explained, unless they are wanted all the same.
    """
    found = _joined(answers)
    if outputs is not None:
        names = [outputs] if isinstance(outputs, str) else outputs
        wanted = {*names, protocol.SCORE, protocol.STATUS, protocol.TARGET}
        found = {alias: value for alias, value in found.items() if alias in wanted}
    status = found.pop(protocol.STATUS)
    bad = np.flatnonzero(status)
    if bad.size and not return_bad_rows:
        reasons = "; ".join(
            f"row {', '.join(map(str, np.flatnonzero(status == code)[:10]))}: "
            f"{protocol.STATUSES.get(int(code), f'status {code}')}"
            for code in np.unique(status[bad])
        )
        raise ServingError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{bad.size} of {len(status)} rows were not explained: {reasons} (mend these rows, or pass "
            "return_bad_rows=True)",
            [int(row) for row in bad],
        )
    x = _packed(x)
    maps = {end: found.pop(alias) for end, alias in protocol.parts(protocol.ATTRIBUTIONS, list(found)).items()}
    fields: dict[str, Any] = {
        word: found.pop(word, None)
        for word in (protocol.TARGET, protocol.SCORE, protocol.BASELINE_SCORE, protocol.DELTA)
    }
    against = found.pop(protocol.CONTRAST, None)
    trace = {alias.removeprefix(protocol.TRACE): value for alias, value in found.items()}
    if against is not None and (against != NOTHING).any():
        trace["against"] = against
    if bad.size:
        trace[protocol.STATUS] = status
    attributions = _shaped(maps, x)
    names = sorted(x) if isinstance(x, Mapping) else list(map(generated, range(len(x)))) if isinstance(x, list) else []
    held = tuple(i for i, name in enumerate(names) if name not in maps) if {*names} & {*maps} else ()
    return Explanation(
        attributions=attributions, method=name, trace=trace, x=x, channels=_channels(attributions, x), held=held,
        **fields,
    )  # fmt: skip


def _channels(attributions: Any, x: Any) -> dict[str, tuple[int, ...]]:
    """The axes of channels, as far as shapes tell: a server does not say them."""

    def axes(nest: Any) -> tuple[int, ...]:
        leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(nest)]
        return tuple(1 if Leaf("", leaf.shape, "float32").looks_turned else -1 for leaf in leaves)

    found = {"attributions": axes(attributions), "x": axes(x)}
    return found if 1 in found["x"] else {}


def _shaped(maps: dict[str | None, np.ndarray], x: Any) -> Any:
    """Maps by input as the nest of x: inputs that are not explained get zeros."""
    if None in maps:
        return maps[None]
    if not maps:
        return None
    if all(end is not None and end.isdecimal() for end in maps):  # the outputs of a layer
        return [maps[end] for end in sorted(maps, key=lambda end: int(end or 0))]
    if isinstance(x, Mapping):
        return {name: maps.get(name, np.zeros(np.shape(leaf), np.float32)) for name, leaf in x.items()}
    return [maps.get(generated(i), np.zeros(np.shape(leaf), np.float32)) for i, leaf in enumerate(x)]


def _packed(x: Any) -> Any:
    """The user's x with arrays at its leaves."""
    if isinstance(x, Mapping):
        return {name: np.asarray(leaf) for name, leaf in x.items()}
    if isinstance(x, (list, tuple)) and x and all(np.ndim(leaf) for leaf in x) and not np.isscalar(x[0][0]):
        return type(x)(map(np.asarray, x))
    return np.asarray(x)


def _joined(answers: list[Any]) -> dict[str, np.ndarray]:
    return {
        alias: np.concatenate([tf.make_ndarray(answer.outputs[alias]) for answer in answers])
        for alias in sorted(answers[0].outputs)
    }
