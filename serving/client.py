"""Clients of TensorFlow Serving that ask for explanations: blocking, and for asyncio."""

import asyncio
import functools
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from tfig.explanation import Explanation
from tfig.serving import answers, questions
from tfig.serving.answers import ServedExplanation, ServingError, VersionStatus


class _Asking:
    """What both clients are made with."""

    _kind: Any = grpc

    def __init__(
        self,
        address: str,
        model: str,
        version: int | None = None,
        timeout: float = 60.0,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        ca: Any = None,
        certificate: Any = None,
        key: Any = None,
        rows: int = 32,
        request_bytes: int = 64 * 2**20,
        max_message_bytes: int = 2**31 - 1,
        retries: int | None = None,
    ):
        if not isinstance(timeout, (int, float)) or timeout <= 0:
            raise ValueError(f"timeout is {timeout!r}; it must be positive, in seconds.")
        self.address, self.timeout, self.retries = address, timeout, retries
        self._questions = questions.Questions(model, version, rows, request_bytes)
        made = questions.channel(address, max_message_bytes, credentials, ca, certificate, key)
        self._made: Any = made
        self._known: Any = None

    @functools.cached_property
    def _channel(self) -> Any:
        # Opened at first use: that of asyncio belongs to the loop it is opened in.
        return self._made(self._kind)

    @functools.cached_property
    def _predictions(self) -> Any:
        return prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    @functools.cached_property
    def _models(self) -> Any:
        return model_service_pb2_grpc.ModelServiceStub(self._channel)

    def _forget(self, code: grpc.StatusCode) -> None:
        """Read the metadata again next time, where another version may have taken the place of the known one."""
        if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT):
            self._known = None


class Client(_Asking):
    """Asks a TensorFlow Serving (or `tfig.serving.serve`) for a model's answers and their explanations.

    It always sets a deadline, raises gRPC's receive limit, splits many rows into requests, and asks again until the
    deadline, with growing pauses, where the server is away or has no thread free. It reads the model's metadata once,
    and sends every option it sends at all with a row for each row, so that it works under batching too.

    Args:
        address: "host:port", or "unix:PATH" of a socket.
        model, version: as the server names them; None: its latest version.
        timeout: seconds for each request, its repetitions included.
        credentials: gRPC's, or None: plaintext, unless `ca` or `certificate` is given.
        ca, certificate, key: PEM files: who signs the server's certificate; the client's own, for mutual TLS.
        rows, request_bytes: of one request, at most; a server that batches takes no more rows than its
            ``max_batch_size``.
        max_message_bytes: of an answer.
        retries: times a request is repeated, at most; None: as often as `timeout` allows.

    Raises (in every method):
        ServingError: with the gRPC status as ``code``, saying what to do.
        ValueError: what was given does not fit the model.

    >>> client = tfig.serving.Client("localhost:8500", model="digits")
    >>> e = client.explain(x, "explain", target=3)
    """

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def explain(
        self,
        x: Any,
        name: str = "explain",
        target: Any = None,
        contrast: Any = None,
        baseline: Any = None,
        seed: Any = None,
        outputs: Any = None,
        *,
        return_bad_rows: bool = False,
    ) -> Explanation:
        """What `tfig.explain` returns, from the server.

        Args:
            x: array [B, ...], or a dict that names the model's inputs.
            name: of the explanation, as exported.
            target: None (as exported: the predicted class), a class, one for each row, or `tfig.Contrast`.
            contrast: explain the target rather than this class: a class, one for each row, "runner_up", "predicted";
                None: none, or as exported where `target` is None too.
            baseline: number or array as in `tfig.explain`, or a dict of them; None: as exported.
            seed: int, or one for each row; None: as exported, which is 0 unless an `Explainer` said otherwise.
            outputs: names of the tensors wanted, as `explanations` lists them; those without a place in an
                `Explanation` (``heatmap``, ``overlay_bytes``) are in its ``trace``. None: all numbers, no pictures. A
                picture alone is asked of the signature that answers nothing else; what was not wanted is dropped.
            return_bad_rows: return rows that could not be explained, as NaN and with ``trace["status"]``, instead of
                raising.
        """
        plan = functools.partial(
            self._questions.explain, x=x, name=name, target=target, contrast=contrast, baseline=baseline, seed=seed,
            outputs=outputs,
        )  # fmt: skip
        found = [self._ask(self._predictions.Predict, request) for request in self._planned(plan)]
        return answers.explanation(found, name, x, outputs, return_bad_rows)

    def predict(self, x: Any) -> Any:
        """The model's own answer: an array, or a dict of them for several outputs."""
        plan = functools.partial(self._questions.predict, x=x)
        return answers.nest([self._ask(self._predictions.Predict, request) for request in self._planned(plan)])

    def explanations(self) -> dict[str, ServedExplanation]:
        """The explanations the model offers: their inputs, options and outputs, from the server's metadata."""
        return answers.described(self._signatures())

    def status(self) -> list[VersionStatus]:
        """The versions of the model on the server, newest first."""
        return answers.statuses(self._ask(self._models.GetModelStatus, self._questions.status()))

    def _planned(self, plan: Any) -> Iterator[Any]:
        """Requests by the metadata; where they do not fit what is known, by metadata read anew."""
        known = self._known
        try:
            return questions.begun(plan(self._signatures()))
        except (ValueError, ServingError):
            if known is None:
                raise
        self._known = None
        return questions.begun(plan(self._signatures()))

    def _signatures(self) -> Any:
        if self._known is None:
            answer = self._ask(self._predictions.GetModelMetadata, self._questions.metadata())
            self._known = answers.signature_map(answer)
        return self._known

    def _ask(self, call: Any, request: Any) -> Any:
        try:
            return questions.ask(call, request, self.timeout, self.retries, self.address)
        except ServingError as error:
            self._forget(error.code)
            raise


class AsyncClient(_Asking):
    """`Client` for asyncio: the same arguments and methods, to be awaited.

    >>> async with tfig.serving.AsyncClient("localhost:8500", model="digits") as client:
    ...     e = await client.explain(x)
    """

    _kind = grpc.aio

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def explain(
        self,
        x: Any,
        name: str = "explain",
        target: Any = None,
        contrast: Any = None,
        baseline: Any = None,
        seed: Any = None,
        outputs: Any = None,
        *,
        return_bad_rows: bool = False,
    ) -> Explanation:
        """As `Client.explain`."""
        plan = functools.partial(
            self._questions.explain, x=x, name=name, target=target, contrast=contrast, baseline=baseline, seed=seed,
            outputs=outputs,
        )  # fmt: skip
        found = [await self._ask(self._predictions.Predict, request) for request in await self._planned(plan)]
        return answers.explanation(found, name, x, outputs, return_bad_rows)

    async def predict(self, x: Any) -> Any:
        """As `Client.predict`."""
        plan = functools.partial(self._questions.predict, x=x)
        requests = await self._planned(plan)
        return answers.nest([await self._ask(self._predictions.Predict, request) for request in requests])

    async def explanations(self) -> dict[str, ServedExplanation]:
        """As `Client.explanations`."""
        return answers.described(await self._signatures())

    async def status(self) -> list[VersionStatus]:
        """As `Client.status`."""
        return answers.statuses(await self._ask(self._models.GetModelStatus, self._questions.status()))

    async def _planned(self, plan: Any) -> Iterator[Any]:
        known = self._known
        try:
            return questions.begun(plan(await self._signatures()))
        except (ValueError, ServingError):
            if known is None:
                raise
        self._known = None
        return questions.begun(plan(await self._signatures()))

    async def _signatures(self) -> Any:
        if self._known is None:
            answer = await self._ask(self._predictions.GetModelMetadata, self._questions.metadata())
            self._known = answers.signature_map(answer)
        return self._known

    async def _ask(self, call: Any, request: Any) -> Any:
        patience = questions.Patience(self.timeout, self.retries)
        while True:
            try:
                return await call(request, **patience.options)
            except grpc.RpcError as error:
                wait = patience.pause(error)
                self._forget(error.code())
                if wait is None:
                    raise answers.failed(patience.reason or error, self.address) from error
            await asyncio.sleep(wait)
