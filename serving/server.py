"""The embedded server: TensorFlow Serving's gRPC services in Python, for a laptop and for tests.

Production is TensorFlow Serving itself; the same SavedModels and the same client work with both.
"""

import concurrent.futures
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfig.serving import counters
from tfig.serving.counters import Counters
from tfig.serving.listening import Limits, check, credentials, socket
from tfig.serving.protocol import DEFAULT
from tfig.serving.servable import RequestError
from tfig.serving.versions import Model

log = logging.getLogger("tfig.serving")

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
State = get_model_status_pb2.ModelVersionStatus


def serve(
    directory: str | os.PathLike | Mapping[str, str | os.PathLike],
    port: int = 8500,
    *,
    host: str = "127.0.0.1",
    insecure: bool = False,
    certificate: str | os.PathLike | None = None,
    key: str | os.PathLike | None = None,
    client_ca: str | os.PathLike | None = None,
    max_message_bytes: int = 256 * 2**20,
    max_rows: int = 1024,
    max_requests: int = 64,
    poll: float = 1.0,
    metrics_port: int | None = None,
) -> "Server":
    """Serve models over gRPC, as TensorFlow Serving would; returns at once.

    PredictionService (Predict, GetModelMetadata), ModelService (GetModelStatus) and gRPC health, with TensorFlow
    Serving's status codes. New versions are picked up while it runs; requests in flight end on the version they began.

    Args:
        directory: of a model's versions (``directory/1``, ...), served under the directory's name; or
            name -> directory.
        port: 0 picks a free one; see `Server.port`.
        host: loopback by default, or "unix:PATH" of a socket. Another address needs a certificate, or `insecure`.
        insecure: allow plaintext on an address that others can reach.
        certificate, key: PEM files with which the server shows who it is (TLS).
        client_ca: PEM file; clients must then show a certificate signed by it (mutual TLS).
        max_message_bytes, max_rows, max_requests: of a request or answer; of a request; in flight together. Beyond,
            RESOURCE_EXHAUSTED.
        poll: seconds between looks for new versions.
        metrics_port: of an HTTP server, on the same host, that answers ``/monitoring/prometheus/metrics`` with counts
            and latencies in TensorFlow Serving's names; 0 picks a free one, see `Server.metrics_port`.

    Raises:
        ValueError: no model there, none that loads, or plaintext for others without `insecure`.
        OSError: the port is taken.

    >>> with tfig.serving.serve("models/digits", port=8500) as server:
    ...     server.wait()
    """
    check(host, port, insecure, certificate, key, client_ca)
    limits = Limits(max_message_bytes, max_rows, max_requests)

    def load() -> dict[str, Model]:
        return {name: _model(name, Path(folder), max_message_bytes) for name, folder in _named(directory).items()}

    return started(load, limits, host, port, credentials(certificate, key, client_ca), poll, metrics_port)


def started(
    load: Callable[[], dict[str, Any]],
    limits: Limits,
    host: str,
    port: int,
    shown: grpc.ServerCredentials | None,
    poll: float,
    metrics_port: int | None,
) -> "Server":
    """A server that listens, of the models that `load` gives once the port is its own."""
    models: dict[str, Any] = {}
    options = [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    # A thread for each request in flight, and some to turn the others away.
    pool = concurrent.futures.ThreadPoolExecutor(limits.requests + 4, thread_name_prefix="tfig-serving")
    server = grpc.server(pool, options=options)
    counted = counters.Counters()
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(models, limits, counted), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(models, counted), server)
    healthy = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    address = host if socket(host) else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address) if shown is None else server.add_secure_port(address, shown)
    except RuntimeError as error:
        others = "" if shown is None else ", or the certificate and key are no pair of PEM files"
        raise OSError(
            f"cannot listen on {address}: the port is taken, or the address is not of this machine{others}; pass "
            "another port, or 0 for a free one"
        ) from error
    models.update(load())
    metrics = None
    if metrics_port is not None:
        metrics = counters.serve(counted, "127.0.0.1" if socket(host) else host, metrics_port)
    return Server(server, models, healthy, bound, poll, metrics)


class Server:
    """A running server.

    Attributes:
        port: on which it listens.
        metrics_port: on which it shows its counters, or None.
    """

    def __init__(
        self, server: grpc.Server, models: dict[str, Model], healthy: Any, port: int, poll: float, metrics: Any = None
    ):
        self._server, self._models, self._health, self.port = server, models, healthy, port
        self._metrics, self.metrics_port = metrics, None if metrics is None else metrics.server_port
        self._over = threading.Event()
        self._stopped = threading.Event()
        for service in SERVICES:
            healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        server.start()
        self._watcher = threading.Thread(target=self._watch, args=(poll,), name="tfig-versions", daemon=True)
        self._watcher.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def _watch(self, poll: float) -> None:
        while not self._over.wait(poll):
            for model in self._models.values():
                try:
                    model.refresh()
                except Exception as error:  # the folder may be in the middle of a change; look again
                    log.warning("model %s: %s", model.name, error)

    def stop(self, grace: float = 30.0) -> None:
        """Take no more requests, answer those in flight for up to `grace` seconds, release the models."""
        self._over.set()
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()
        if self._metrics is not None:
            self._metrics.shutdown()
            self._metrics.server_close()
        self._watcher.join()
        for model in self._models.values():
            model.close()
        self._stopped.set()

    def wait(self, grace: float = 30.0) -> None:
        """Serve until SIGTERM, SIGINT or `stop`, then stop with `grace`; in the main thread."""
        asked = threading.Event()
        before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not asked.wait(0.2) and not self._stopped.is_set():
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if not self._stopped.is_set():
            self.stop(grace)


def _answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """A servicer's method whose refusals become gRPC statuses."""

    def call(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        begin, code, words = time.monotonic(), grpc.StatusCode.OK, ""
        try:
            return method(self, request, context)
        except RequestError as error:
            code, words = grpc.StatusCode[error.code], str(error)
        except Exception:  # a bug here must not look like the client's
            log.exception("%s failed", method.__name__)
            code, words = grpc.StatusCode.INTERNAL, "internal error; the server's log has the details"
        finally:
            named = request.model_spec.name if request.model_spec.name in self.models else ""
            self.counters.add(named, method.__name__, code.name, time.monotonic() - begin)
        context.abort(code, words)
        raise AssertionError  # abort raises

    return call


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models: dict[str, Model], limits: Limits, counters: Counters):
        self.models, self.limits, self.counters = models, limits, counters

    @_answering
    def Predict(self, request, context):
        with self.limits.request(), _addressed(self.models, request) as (number, servable):
            self.limits.check_rows(request.inputs)
            spec = request.model_spec
            asked = spec.signature_name, request.inputs, request.output_filter, context.time_remaining()
            found = servable.predict(*asked)
            answer = predict_pb2.PredictResponse(outputs=found)
            self.limits.check_answer(answer)
            answer.model_spec.name = spec.name
            answer.model_spec.version.value = number
            answer.model_spec.signature_name = spec.signature_name or DEFAULT
            return answer

    @_answering
    def GetModelMetadata(self, request, context):
        if not request.HasField("model_spec"):
            raise RequestError("INVALID_ARGUMENT", "Missing ModelSpec")
        if not request.metadata_field:
            raise RequestError("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise RequestError("INVALID_ARGUMENT", f"Metadata field {field} is not supported")
        with _addressed(self.models, request) as (number, servable):
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.model_spec.name = request.model_spec.name
            answer.model_spec.version.value = number
            answer.metadata["signature_def"].Pack(signatures)
            return answer


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models: dict[str, Model], counters: Counters):
        self.models, self.counters = models, counters

    @_answering
    def GetModelStatus(self, request, context):
        if not request.HasField("model_spec"):
            raise RequestError("INVALID_ARGUMENT", "Missing ModelSpec")
        name = request.model_spec.name
        if name not in self.models:
            raise RequestError("NOT_FOUND", f"Could not find any versions of model {name}")
        model = self.models[name]
        states = {number: (State.END, "") for number in model.ended}
        states.update({number: (State.END, failed.reason) for number, failed in model.failed.items()})
        states.update({number: (State.AVAILABLE, "") for number in model.loaded})
        if request.model_spec.HasField("version"):
            asked = request.model_spec.version.value
            if asked not in states:
                raise RequestError("NOT_FOUND", f"Could not find version {asked} of model {name}")
            states = {asked: states[asked]}
        answer = get_model_status_pb2.GetModelStatusResponse()
        for number, (state, reason) in sorted(states.items(), reverse=True):
            status = answer.model_version_status.add(version=number, state=state)
            status.status.error_code = error_codes_pb2.UNKNOWN if reason else error_codes_pb2.OK
            status.status.error_message = reason
        return answer


@contextlib.contextmanager
def _addressed(models: dict[str, Model], request: Any) -> Iterator[tuple[int, Any]]:
    """The version that a request's model_spec stands for."""
    if not request.HasField("model_spec"):
        raise RequestError("INVALID_ARGUMENT", "Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise RequestError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    if spec.version_label:
        raise RequestError("INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}")
    version = spec.version.value if spec.HasField("version") else None
    if spec.name not in models:
        asked = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
        raise RequestError("NOT_FOUND", f"Servable not found for request: {asked}")
    with models[spec.name].servable(version) as found:
        yield found


def _named(directory: Any) -> dict[str, str | os.PathLike]:
    if not isinstance(directory, Mapping):
        return {Path(directory).resolve().name: directory}
    if not directory:
        raise ValueError("directory is an empty mapping; pass name -> directory for at least one model.")
    return dict(directory)


def _model(name: str, directory: Path, largest: int) -> Model:
    """A model with its highest version loaded."""
    if not directory.is_dir():
        raise ValueError(f"no such directory: {str(directory)!r}")
    if (directory / "saved_model.pb").exists():
        raise ValueError(f"{str(directory)!r} is a version; pass the folder around it, {str(directory.parent)!r}.")
    model = Model(name, directory, largest)
    model.refresh()
    if not model.loaded:
        reasons = "; ".join(f"version {number}: {failed.reason}" for number, failed in model.failed.items())
        raise ValueError(f"{str(directory)!r} has no version that loads ({reasons or 'no folder named by a number'}).")
    return model
