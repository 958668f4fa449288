"""What an exported model costs on this machine: to warm up, to hold, and to ask."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.serving import protocol
from tfig.serving.servable import Servable, proto

ROWS = (1, 8)
"""Of the questions that are timed."""


@dataclasses.dataclass(frozen=True)
class Sizing:
    """Measured in this process, alone.

    Fields:
        seconds: that the warm-up requests took, one after the other, as a server plays them.
        megabytes: by which this process grew meanwhile; None: it cannot be read here.
        milliseconds: of each signature that explains, and of ``serving_default``, for as many rows as `ROWS` says.
    """

    seconds: float
    megabytes: float | None
    milliseconds: dict[str, tuple[float, ...]]

    def __str__(self) -> str:
        """A table, and what to allow a server for its start."""
        own = self.milliseconds.get(protocol.DEFAULT, (float("nan"),) * len(ROWS))
        wide = max(map(len, self.milliseconds))
        lines = [f"{'':{wide}}  {'1 row':>10}  {'8 rows':>10}  {'a row, in answers of the model':>30}"]
        for name, (one, many) in self.milliseconds.items():
            lines.append(f"{name:{wide}}  {one:7.1f} ms  {many:7.1f} ms  {one / own[0]:30.0f}")
        held = "" if self.megabytes is None else f", and then holds {self.megabytes:.0f} MB more"
        return "\n".join([*lines, f"warms up in {self.seconds:.0f} s on this machine{held}"])


def recorded(folder: Path) -> Iterator[Any]:
    """The warm-up requests of an exported version, at most the thousand that a server plays."""
    path = folder / protocol.WARM_UP
    if not path.exists():
        return
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset(str(path)).take(1000).as_numpy_iterator():
        yield prediction_log_pb2.PredictionLog.FromString(record).predict_log.request


def measure(folder: Path) -> Sizing | None:
    """Warm an exported version up as a server would, and ask each explanation; None: it has no warm-up requests."""
    requests = list(recorded(folder))
    if not requests:
        return None
    with Servable(folder) as servable:
        begin, before = time.perf_counter(), _resident()
        for request in requests:
            servable.predict(request.model_spec.signature_name, request.inputs, request.output_filter)
        seconds, after = time.perf_counter() - begin, _resident()
        asked = {request.model_spec.signature_name: request for request in requests}
        names = [protocol.DEFAULT, *protocol.explanations(servable.signatures)]
        milliseconds = {
            name: tuple(_timed(servable, asked[name], rows) for rows in ROWS) for name in names if name in asked
        }
    grown = None if before is None or after is None else (after - before) / 2**20
    return Sizing(seconds, grown, milliseconds)


def _timed(servable: Servable, request: Any, rows: int) -> float:
    """Milliseconds of a question about some rows, once it is warm."""
    inputs = {name: proto(np.repeat(tf.make_ndarray(value), rows, 0)) for name, value in request.inputs.items()}
    taken = []
    for _ in range(2):
        begin = time.perf_counter()
        servable.predict(request.model_spec.signature_name, inputs, request.output_filter)
        taken.append(time.perf_counter() - begin)
    return 1000 * min(taken)


def _resident() -> float | None:
    """Bytes of memory that this process holds, where the system says so."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return 1024 * float(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1])
