"""A saved model's first requests: asked of it before it is published, and written down for the server to begin with."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfig import entry
from tfig.serving import protocol
from tfig.serving.servable import RequestError, Servable, proto
from tfig.serving.signatures import Served, positional

SIZES = (32, 64, 128, 224, 299)
"""Tried for axes of unknown size, when a row to warm up with is wanted."""


def run(folder: Path, name: str, wanted: Any, source: Any, served: Served) -> None:
    """Ask each signature for one row, as the server will, and write these requests down for it.

    Raises:
        ValueError: a signature does not answer.
    """
    rows = _rows(source, served.leaves, wanted)
    with Servable(folder) as servable:
        offered = protocol.explanations(servable.signatures)
        # The fullest signature stands for all of an explanation.
        lesser = {key for name in offered for key in protocol.kin(name) if key != protocol.at(name)}
        for row in rows:
            sent = _sent(served, row)
            requests = {
                key: {alias: proto(sent[alias]) for alias in definition.inputs if alias in sent}
                for key, definition in servable.signatures.items()
                if set(definition.inputs) - set(definition.defaults) <= set(sent)
            }
            try:
                for key, inputs in requests.items():
                    if key not in lesser:
                        servable.predict(key, inputs)
            except RequestError as error:
                if len(rows) > 1:
                    continue
                raise ValueError(f"signature {key!r} does not run: {error}") from error
            if wanted is not False:
                _write(folder / protocol.WARM_UP, name, requests, servable.signatures)
            return
    warnings.warn(
        f"no warm-up requests were written: inputs have axes of unknown size, and none of {list(SIZES)} runs; pass a "
        "row as warmup=x[:1].",
        stacklevel=3,
    )


def _rows(source: Any, leaves: list[entry.Leaf], wanted: Any) -> list[list[np.ndarray]]:
    """Rows to try, the leaves of each: the one given, or zeros; of several sizes where the model leaves them open."""
    if not isinstance(wanted, bool):
        return [[value[:1] for value in entry.read(source, wanted)[1]]]
    sizes = SIZES if any(None in leaf.shape[1:] for leaf in leaves) else (1,)
    nothing = [b"" if leaf.dtype == "string" else 0 for leaf in leaves]
    return [
        [
            np.full([1, *(n or size for n in leaf.shape[1:])], zero, tf.as_dtype(leaf.dtype).as_numpy_dtype)
            for leaf, zero in zip(leaves, nothing, strict=True)
        ]
        for size in sizes
    ]


def _sent(served: Served, row: list[np.ndarray]) -> dict[str, np.ndarray]:
    """A row by every name its leaves have: in the explanations, and in the model's own signature."""
    wire = positional(len(row))
    own = [leaf.name for leaf in served.leaves]
    cast = [
        value.astype(tf.as_dtype(leaf.dtype).as_numpy_dtype) for value, leaf in zip(row, served.leaves, strict=True)
    ]
    return {name: value for names_ in (wire, own, served.names) for name, value in zip(names_, cast, strict=True)}


def _write(path: Path, name: str, requests: Mapping[str, Mapping[str, Any]], signatures: Mapping[str, Any]) -> None:
    """Warm-up requests, as TensorFlow Serving reads them at load: with all outputs, and with those our client asks for.

    A session prepares itself anew for each set of outputs.
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ImportError("warm-up requests need tfig[serving] (pip install), or pass warmup=False.") from error
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        asked = protocol.asked(signatures)
        for key, inputs in requests.items():
            for wanted in asked[key]:
                request = predict_pb2.PredictRequest(inputs=inputs, output_filter=wanted)
                request.model_spec.name, request.model_spec.signature_name = name, key
                log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
                writer.write(log.SerializeToString())
