"""Keras callbacks: explanations while a model learns."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import view
from tfig.api import Explainer
from tfig.catalogue import method_named
from tfig.evaluation import asked
from tfig.explanation import Explanation
from tfig.methods.checks import whole
from tfig.plots import canvas, sheet
from tfig.plots.panel import Words
from tfig.problem import Method


class Explain(keras.callbacks.Callback):
    """At the end of each n-th epoch, explanations of the same rows to TensorBoard.

    Images: the map over each row (red speaks for the target, blue against it), as ``METHOD/row N``; of what is no
    image the figure of `Explanation.plot`, which needs matplotlib. Scalars: the mean of F(x), as ``METHOD/score``, and
    of each metric, as ``METHOD/NAME``. They lie beside what `keras.callbacks.TensorBoard` writes, in a run
    "explanations".

    Args:
        x: the rows, as in `tfig.explain`; a few.
        method: name or method object.
        log_dir: TensorBoard's.
        every: epochs from one explanation to the next; the last epoch has one too.
        metrics: names of `tfig.metrics`, or functions Explanation -> [B], by name or in a list.
        masks: where the truth lies, for metrics of localisation.
        tokens, feature_names, channel_names: as in `Explanation.plot`.
        arguments: of `tfig.explain`: target, output, layer, baseline, batch_size, seed, class_names.

    Attributes:
        last: the last explanation.

    Raises:
        ValueError: a method or metric is unknown, or `every` is no whole number from 1 on; when it is made, before any
            training. Names that do not fit are warned of when they are drawn.

    >>> model.fit(x, y, callbacks=[tfig.callbacks.Explain(x[:4], "grad_cam", log_dir="logs", every=5)])
    """

    def __init__(
        self,
        x: Any,
        method: str | Method = "integrated_gradients",
        *,
        log_dir: str | os.PathLike = "logs",
        every: int = 1,
        metrics: str | Sequence[str | Callable[..., Any]] | Mapping[str, str | Callable[..., Any]] = (),
        masks: Any = None,
        tokens: Any = None,
        feature_names: Any = None,
        channel_names: Any = None,
        **arguments: Any,
    ):
        super().__init__()
        whole("every", every)
        self.x, self.method, self.arguments = x, method_named(method), arguments
        self.every, self.log_dir = every, os.fspath(log_dir)
        self.metrics = asked(metrics, masks, arguments.get("baseline")) if metrics else {}
        self.words = Words(tokens, feature_names, channel_names)
        self.last: Explanation | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the event file."""
        self._explainer = Explainer(self.model, self.method, **self.arguments)
        self._epoch = self._explained = -1
        self._writer = tf.summary.create_file_writer(os.path.join(self.log_dir, "explanations"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Explain, and write, where it is an n-th epoch."""
        self._epoch = epoch
        if (epoch + 1) % self.every == 0:
            self._write(epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Explain the last epoch, where it was not; close the event file."""
        if self._explained != self._epoch:
            self._write(self._epoch)
        self._writer.close()

    def _write(self, epoch: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an untrained model each epoch would say the same
            e = self.last = self._explainer(self.x)
            means = {name: _mean(function(e)) for name, (function, _, _) in self.metrics.items()}
        self._explained = epoch
        with self._writer.as_default(step=epoch):
            for row, image in enumerate(self._pictures(e)):
                tf.summary.image(f"{e.method}/row {row}", image[np.newaxis])
            for name, value in {"score": _mean(e.score), **means}.items():
                tf.summary.scalar(f"{e.method}/{name}", value)
        self._writer.flush()

    def _pictures(self, e: Explanation) -> list[np.ndarray]:
        """What there is to show: a name that does not fit must not end the training."""
        try:
            return pictures(e, self.words)
        except (ValueError, ImportError) as error:
            warnings.warn(f"no pictures of epoch {self._epoch}: {error}", stacklevel=2)
            return []


def pictures(e: Explanation, words: Words) -> list[np.ndarray]:
    """A picture [H, W, 3], uint8, of each row: the map over an image, or the figure of what is none."""
    parts = sheet.parts(e, words=words)
    if [part.kind for part in parts] == ["image"] and parts[0].panels[0].x is not None:
        return [view.paint(panel.map, panel.x, 0.8, panel.top) for panel in parts[0].panels if panel.x is not None]
    figures = (sheet.page(e, parts, [row]) for row in range(min(len(e), sheet.ROWS)))
    return [tf.io.decode_png(canvas.png(figure, 100), channels=3).numpy() for figure in figures]


def _mean(answer: Any) -> float:
    values = np.asarray(getattr(answer, "value", answer), np.float64)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
