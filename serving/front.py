"""What stands between callers one does not trust and a TensorFlow Serving: only what fits a signature passes.

A TensorFlow Serving takes any tensor from anybody: one of a resource, of 56 bytes, ends its process, a new set of
outputs makes it keep one more copy of the graph, and nobody but the caller says when it may stop.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

from tfig.serving import answers, protocol, questions
from tfig.serving.listening import Limits, check, credentials
from tfig.serving.servable import RequestError, Signatures, proto
from tfig.serving.server import Server, started

log = logging.getLogger("tfig.serving")


def guard(
    address: str,
    models: Sequence[str],
    port: int = 8500,
    *,
    signatures: Sequence[str] | None = None,
    host: str = "127.0.0.1",
    insecure: bool = False,
    certificate: str | os.PathLike | None = None,
    key: str | os.PathLike | None = None,
    client_ca: str | os.PathLike | None = None,
    max_message_bytes: int = 16 * 2**20,
    max_rows: int = 32,
    max_requests: int = 64,
    seconds: float = 60.0,
    metrics_port: int | None = None,
    server_ca: str | os.PathLike | None = None,
    server_certificate: str | os.PathLike | None = None,
    server_key: str | os.PathLike | None = None,
) -> Server:
    """Stand in front of a TensorFlow Serving and pass on what it can answer; returns at once.

    Passed are Predict requests to known models and signatures whose tensors have the names, types and shapes of the
    signature, at most `max_rows` rows and `seconds` to live, for all outputs or for a set the export warms up;
    GetModelMetadata, GetModelStatus and health are answered here. What is refused gets TensorFlow Serving's status.

    Args:
        address: of the server behind, "host:port" or "unix:PATH".
        models: the names of those that may be asked.
        signatures: that may be asked; None: all.
        port, host, insecure, certificate, key, client_ca, max_message_bytes, max_rows, max_requests, metrics_port: as
            in `serve`.
        seconds: a request may take, at most; and how long the server behind is waited for at the start.
        server_ca, server_certificate, server_key: PEM files for the server behind, as a `Client`'s.

    Raises:
        ServingError: the server behind does not say what a model takes.
        ValueError, OSError: as in `serve`.

    >>> with tfig.serving.guard("localhost:8501", ["digits"], port=8500) as server:
    ...     server.wait()
    """
    check(host, port, insecure, certificate, key, client_ca)
    limits = Limits(max_message_bytes, max_rows, max_requests)
    opened = questions.channel(address, 2**31 - 1, None, server_ca, server_certificate, server_key)(grpc)

    def load() -> dict[str, Any]:
        return {name: Remote(opened, address, name, signatures, max_message_bytes, seconds) for name in models}

    return started(load, limits, host, port, credentials(certificate, key, client_ca), 2.0, metrics_port)


class Remote:
    """A model on a server behind, as `tfig.serving.versions.Model` is one on disk: its latest version."""

    failed: Mapping[int, Any] = {}

    def __init__(
        self,
        channel: grpc.Channel,
        address: str,
        name: str,
        allowed: Sequence[str] | None,
        largest: int,
        seconds: float,
    ):
        self._channel, self._address, self.name = channel, address, name
        self._allowed, self._largest, self._seconds = allowed, largest, seconds
        self._questions = questions.Questions(name, None, 1, 1)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.loaded: list[int] = []
        self.ended: list[int] = []
        self._look(None)

    def refresh(self) -> None:
        """Look again which version there is, and what it takes; of a server that is away nothing is available."""
        try:
            self._look(0)
        except answers.ServingError:
            self.loaded, self.ended = [], sorted({*self.loaded, *self.ended})
            raise

    def _look(self, retries: int | None) -> None:
        """Ask the server behind, again as often as that."""
        states = answers.statuses(self._ask(self._models.GetModelStatus, self._questions.status(), retries))
        metadata = self._ask(self._predictions.GetModelMetadata, self._questions.metadata(), retries)
        found = answers.signature_map(metadata)
        kept = {name: one for name, one in found.items() if self._allowed is None or name in self._allowed}
        self.loaded = [one.version for one in states if one.state == "AVAILABLE"]
        self.ended = [one.version for one in states if one.state != "AVAILABLE"]
        self._checks, self._asked = Signatures(kept, self._largest), protocol.asked(found)

    def _ask(self, call: Callable[..., Any], request: Any, retries: int | None) -> Any:
        return questions.ask(call, request, self._seconds, retries, self._address)

    @contextlib.contextmanager
    def servable(self, version: int | None) -> Iterator[tuple[int, "Remote"]]:
        """The model itself.

        Raises:
            RequestError: another version than the latest is asked for.
        """
        latest = max(self.loaded, default=0)
        if version not in (None, latest):
            raise RequestError("NOT_FOUND", f"version {version} is not served here; leave it out for the latest.")
        yield latest, self

    @property
    def signatures(self) -> dict[str, Any]:
        """What may be asked."""
        return self._checks.signatures

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        output_filter: Iterable[str] = (),
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """As `tfig.serving.servable.Servable.predict`, answered by the server behind."""
        name, arrays, wanted = self._checks.checked(signature, inputs, output_filter)
        sets = [sorted(one or self.signatures[name].outputs) for one in self._asked[name]]
        if sorted(wanted) not in sets:
            raise RequestError(
                "INVALID_ARGUMENT", f"outputs {sorted(wanted)} are no set that is served here; ask for one of {sets}."
            )
        request = predict_pb2.PredictRequest(output_filter=[] if len(wanted) == len(sets[0]) else wanted)
        request.model_spec.name, request.model_spec.signature_name = self.name, name
        for alias, array in arrays.items():  # written anew: of what was sent nothing that was not checked goes on
            request.inputs[alias].CopyFrom(proto(array))
        try:
            answer = self._predictions.Predict(request, timeout=min(seconds or self._seconds, self._seconds))
        except grpc.RpcError as error:
            # Where the server behind is to be found is no business of callers.
            away = error.code() is grpc.StatusCode.UNAVAILABLE
            if away:
                log.warning("model %s is away: %s", self.name, error.details())
            words = "the server behind this one is away" if away else error.details() or ""
            raise RequestError(error.code().name, words) from error
        return dict(answer.outputs)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
