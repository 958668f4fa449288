"""A SavedModel loaded as TensorFlow Serving loads it: a session over its graph, with no Python function in the path."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.serving.protocol import DEFAULT

DAY = 86400
"""Seconds; without a deadline gRPC names one in the far future."""

LONGEST = 1024
"""Characters of an error that TensorFlow Serving sends."""


class RequestError(Exception):
    """A request that is not answered.

    Attributes:
        code: name of the gRPC status.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message[:LONGEST])
        self.code = code


class Signatures:
    """The signatures of a model, and what is sent to them checked as TensorFlow Serving would, and before it.

    Attributes:
        signatures: `SignatureDef`s by name.
        largest: bytes of the largest tensor taken.
    """

    def __init__(self, signatures: Mapping[str, Any], largest: int):
        self.largest = largest
        self.signatures: dict[str, Any] = {
            name: signature for name, signature in signatures.items() if name != "__saved_model_init_op"
        }

    def checked(
        self, signature: str, inputs: Mapping[str, Any], output_filter: Iterable[str]
    ) -> tuple[str, dict[str, np.ndarray], list[str]]:
        """(the signature's name, arrays of its inputs, the outputs wanted).

        Raises:
            RequestError: with the status and words of TensorFlow Serving.
        """
        name = signature or DEFAULT
        if name not in self.signatures:
            raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        definition = self.signatures[name]
        return name, self._arrays(definition, inputs), self._wanted(definition, list(output_filter))

    def _arrays(self, definition: Any, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        takes, defaults = definition.inputs, getattr(definition, "defaults", {})
        missing, extra = sorted(set(takes) - set(inputs) - set(defaults)), sorted(set(inputs) - set(takes))
        if extra or (missing and not defaults):
            sent = sorted(inputs)
            raise RequestError(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(sent)}!={len(takes)} len({{{','.join(sent)}}}) != "
                f"len({{{','.join(sorted(takes))}}}). Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}.",
            )
        if missing:
            raise RequestError(
                "INVALID_ARGUMENT",
                f"Signature input alias: {missing[0]}(feed name: {takes[missing[0]].name}) not found in request and no "
                f"default value provided. Inputs expected to be in the request {{{','.join(sorted(inputs))}}}, or "
                f"default input alias set: {','.join(sorted(defaults))}",
            )
        arrays = {}
        for position, alias in enumerate(sorted(inputs)):
            arrays[alias] = self._array(position, alias, takes[alias], inputs[alias])
        return arrays

    def _array(self, position: int, alias: str, takes: Any, sent: Any) -> np.ndarray:
        """The array in a `TensorProto`, checked as the session of TensorFlow Serving and `tf.ensure_shape` would."""
        sizes = [dim.size for dim in sent.tensor_shape.dim]
        try:
            kind, wanted = tf.as_dtype(sent.dtype), tf.as_dtype(takes.dtype)
            if sent.tensor_shape.unknown_rank or min(sizes, default=0) < 0 or not _fits(sizes, kind, self.largest):
                raise ValueError(sizes)
            array = tf.make_ndarray(sent)
        except Exception as error:  # a corrupt message fails in any way
            raise RequestError("INVALID_ARGUMENT", f"tensor parsing error: {alias}") from error
        if kind != wanted:
            raise RequestError(
                "INVALID_ARGUMENT",
                f"Expects arg[{position}] to be {_shown(wanted)} but {_shown(kind)} is provided",
            )
        shape = tf.TensorShape(takes.tensor_shape)
        if not shape.is_compatible_with(array.shape):
            expected = ",".join("?" if size is None else str(size) for size in shape)
            given = ",".join(map(str, array.shape))
            raise RequestError(
                "INVALID_ARGUMENT",
                f"Shape of tensor {alias} [{given}] is not compatible with expected shape [{expected}].",
            )
        return array

    def _wanted(self, definition: Any, output_filter: list[str]) -> list[str]:
        for alias in output_filter:
            if alias not in definition.outputs:
                raise RequestError(
                    "INVALID_ARGUMENT",
                    f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                    f"{{{','.join(sorted(definition.outputs))}}}.",
                )
            if output_filter.count(alias) > 1:
                raise RequestError("INVALID_ARGUMENT", f"duplicate output tensor alias: {alias}")
        return output_filter or sorted(definition.outputs)


class Servable(Signatures):
    """One version of a model: its signatures, and their answers to tensors as they are sent.

    Args:
        folder: of the version, with ``saved_model.pb`` in it.
        largest: bytes of the largest tensor taken.

    Raises:
        ValueError: it does not load; the message says why.
    """

    def __init__(self, folder: str | os.PathLike, largest: int = 2**31 - 1):
        self.folder = Path(folder)
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        try:
            with _quiet():
                graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        except Exception as error:  # whatever the loader raises, the reason is in its message
            self._session.close()
            raise ValueError(f"{str(folder)!r} is no SavedModel that loads: {error}") from error
        super().__init__(graph.signature_def, largest)
        self._open = True
        self._using = 0
        self._free = threading.Condition()

    def __enter__(self) -> "Servable":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Release the session once requests in flight are answered."""
        with self._free:
            self._open = False
            self._free.wait_for(lambda: not self._using)
            self._session.close()

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """While open, it is not released; whether it still could be held."""
        with self._free:
            if not self._open:
                held = False
            else:
                held, self._using = True, self._using + 1
        try:
            yield held
        finally:
            if held:
                with self._free:
                    self._using -= 1
                    self._free.notify_all()

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        output_filter: Iterable[str] = (),
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """The answer of a signature to tensors (`TensorProto`), by output name.

        Args:
            signature: its name; "" stands for ``serving_default``.
            inputs: name -> `TensorProto`; those with defaults may be left out.
            output_filter: the outputs wanted; all, if empty.
            seconds: after which the work is stopped.

        Raises:
            RequestError: with the status and words of TensorFlow Serving.
        """
        name, arrays, wanted = self.checked(signature, inputs, output_filter)
        definition = self.signatures[name]
        feed = {definition.inputs[alias].name: array for alias, array in arrays.items()}
        options = None
        if seconds is not None:
            options = tf.compat.v1.RunOptions(timeout_in_ms=max(1, int(min(seconds, DAY) * 1000)))
        try:
            found = self._session.run([definition.outputs[alias].name for alias in wanted], feed, options)
        except tf.errors.OpError as error:
            raise RequestError(_status(error.error_code), error.message) from error
        return {alias: proto(value) for alias, value in zip(wanted, found, strict=True)}


def proto(value: Any) -> Any:
    """An array as a `TensorProto`, its numbers in one block of bytes."""
    return tf.make_tensor_proto(value, tf.string if np.asarray(value).dtype.kind == "O" else None)


def _fits(sizes: list[int], kind: tf.DType, largest: int) -> bool:
    """Whether a tensor of these sizes may be unpacked: a message of ten bytes can claim any size."""
    return int(np.prod(sizes, dtype=object)) * (kind.size or 1) <= largest


def _shown(kind: tf.DType) -> str:
    """A dtype in TensorFlow Serving's words."""
    return {"float32": "float", "float64": "double", "float16": "half"}.get(kind.name, kind.name)


def _status(code: int) -> str:
    names = {getattr(tf.errors, name): name for name in dir(tf.errors) if name.isupper()}
    return names.get(code, "UNKNOWN")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to load SavedModels in another way: this one is what TensorFlow Serving does."""
    logger = tf.get_logger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
