"""How a server listens, and how much it takes at once: the same for models on disk and for one behind."""

import contextlib
import ipaddress
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc

from tfig.serving.servable import RequestError


def check(host: str, port: Any, insecure: bool, certificate: Any, key: Any, client_ca: Any) -> None:
    """Refuse where a server would listen in a way that nobody can want."""
    if not insecure and certificate is None and not _loopback(host):
        raise ValueError(
            f"host {host!r} can be reached by others in plaintext; pass certificate= and key= for TLS, or "
            "insecure=True."
        )
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        raise ValueError("TLS needs certificate= and key= together, and client_ca= needs both.")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 2**16:
        raise ValueError(f"port is {port!r}; it must be an int from 0 (a free one) to 65535.")


def socket(host: str) -> bool:
    """Whether it is the path of a socket of this machine."""
    return host.startswith("unix:")


def _loopback(host: str) -> bool:
    if socket(host):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def credentials(certificate: Any, key: Any, client_ca: Any) -> grpc.ServerCredentials | None:
    """What a server shows of itself, from PEM files; None: plaintext."""
    if certificate is None or key is None:
        return None
    roots = None if client_ca is None else Path(client_ca).read_bytes()
    pair = [(Path(key).read_bytes(), Path(certificate).read_bytes())]
    return grpc.ssl_server_credentials(pair, roots, require_client_auth=roots is not None)


class Limits:
    """How much is taken at once."""

    def __init__(self, message_bytes: int, rows: int, requests: int):
        for name, value in (("max_message_bytes", message_bytes), ("max_rows", rows), ("max_requests", requests)):
            if value < 1:
                raise ValueError(f"{name} is {value!r}; it must be at least 1.")
        self.message_bytes, self.rows, self.requests = message_bytes, rows, requests
        self._free = threading.Semaphore(requests)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """A place among the requests in flight.

        Raises:
            RequestError: there is none.
        """
        if not self._free.acquire(blocking=False):
            raise RequestError("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
        try:
            yield
        finally:
            self._free.release()

    def check_rows(self, inputs: Mapping[str, Any]) -> None:
        """Refuse too many rows, and none."""
        for alias, tensor in inputs.items():
            rows = tensor.tensor_shape.dim[0].size if tensor.tensor_shape.dim else 1
            if rows == 0:
                raise RequestError("INVALID_ARGUMENT", f"input {alias} has zero rows: there is nothing to answer.")
            if rows > self.rows:
                raise RequestError(
                    "RESOURCE_EXHAUSTED", f"input {alias} has {rows} rows; at most {self.rows} are taken."
                )

    def check_answer(self, answer: Any) -> None:
        """Refuse an answer that is too large to send."""
        if answer.ByteSize() > self.message_bytes:
            raise RequestError(
                "RESOURCE_EXHAUSTED",
                f"the answer has {answer.ByteSize()} bytes; at most {self.message_bytes} are sent. Ask for fewer "
                "rows or, by output_filter, fewer outputs.",
            )
