"""Explanations on Apache Beam: where RunInference runs, on Dataflow, Flink, Spark or this machine.

Needs ``tfig[beam]``.
"""

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, PredictionResult, RunInference

from tfig import console
from tfig.api import Explainer
from tfig.batch.asking import apart
from tfig.explanation import Explanation
from tfig.problem import Method
from tfig.tally import Tally

EXPLAINED, FAILED = "explained", "failed"


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why an element was not explained."""

    reason: str


class Explanations(ModelHandler[Any, PredictionResult, Explainer]):
    """What `RunInference` needs to explain elements instead of predicting them.

    Each element is a row without the axis of rows: an array, or a dict of arrays by input; its result a
    `PredictionResult` whose inference is an `Explanation` of that row (without its explainer), or a `Failure` where the
    row has another shape or NaN, or the model stops at it. Which others are in a batch changes no more of a row than
    the rounding that `tfig.explain` promises. Give elements keys with `KeyedModelHandler`, or use `Explain`.

    Args:
        model: path of a .keras or .h5 file or a SavedModel directory, which every worker can read.
        method, target, output, layer, baseline, batch_size, seed, class_names: as `tfig.Explainer` takes them; values
            that pickle.
        min_batch_size, max_batch_size, max_batch_duration_secs, large_model, model_copies: as Beam's `ModelHandler`
            takes them. ``large_model=True`` loads the model once for all processes of a machine.

    >>> handler = tfig.beam.Explanations("digits.keras", "integrated_gradients", output="logits")
    >>> rows | RunInference(handler)
    """

    def __init__(
        self,
        model: str,
        method: str | Method = "integrated_gradients",
        *,
        target: Any = None,
        output: str | None = None,
        layer: str | None = None,
        baseline: Any = None,
        batch_size: int | None = None,
        seed: int = 0,
        class_names: Any = None,
        min_batch_size: int = 1,
        max_batch_size: int = 256,
        max_batch_duration_secs: int | None = None,
        large_model: bool = False,
        model_copies: int | None = None,
    ):
        super().__init__()
        self.model = model
        self.batching = {"min_batch_size": min_batch_size, "max_batch_size": max_batch_size}
        if max_batch_duration_secs is not None:
            self.batching["max_batch_duration_secs"] = max_batch_duration_secs
        self.large_model, self.copies = large_model, model_copies
        self.asked = dict(
            method=method, target=target, output=output, layer=layer, baseline=baseline, batch_size=batch_size,
            seed=seed, class_names=class_names,
        )  # fmt: skip

    def load_model(self) -> Explainer:
        """The explainer of the model."""
        try:
            return Explainer(console.load_model(self.model), **self.asked)
        except console.CommandError as error:
            raise ValueError(str(error)) from error

    def run_inference(
        self, batch: Sequence[Any], model: Explainer, inference_args: dict[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """Explain a batch of rows; its results in their order."""
        found: list[Any] = [None] * len(batch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # each row says its notes
            for which, answer in apart(model, batch):
                for place, i in enumerate(which):
                    found[i] = Failure(answer) if isinstance(answer, str) else _alone(answer, place)
        return [PredictionResult(row, answer, self.model) for row, answer in zip(batch, found, strict=True)]

    def batch_elements_kwargs(self) -> dict[str, Any]:
        """How Beam batches."""
        return self.batching

    def share_model_across_processes(self) -> bool:
        """Whether processes of a machine share a model."""
        return self.large_model or self.copies is not None

    def model_copies(self) -> int:
        """How many of them there are then."""
        return self.copies or 1

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Of the elements of a batch."""
        return sum(np.asarray(leaf).nbytes for row in batch for leaf in tf.nest.flatten(row))

    def get_metrics_namespace(self) -> str:
        """Under which Beam counts."""
        return "tfig"

    def update_model_path(self, model_path: str | None = None) -> None:
        """The model that Beam's ``model_metadata_pcoll`` names from now on."""
        self.model = self.model if model_path is None else model_path

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """There are none: the question is the handler's."""
        if inference_args:
            raise ValueError(f"inference_args is {inference_args!r}; pass what is asked to tfig.beam.Explanations.")


def _alone(e: Explanation, row: int) -> Explanation | Failure:
    """One row, which holds nothing of the others."""
    if not np.isfinite(e.score[row]):
        return Failure("the model's score is NaN or infinite")
    return dataclasses.replace(e[row], explainer=None)


class Explain(beam.PTransform):
    """(id, row) -> .explained, of (id, `Explanation` of the row), and .failed, of (id, reason): each id in one of them.

    >>> found = rows | tfig.beam.Explain(tfig.beam.Explanations("digits.keras"))
    >>> found.explained | ...
    >>> found.failed | beam.io.WriteToText("failed")
    """

    def __init__(self, handler: Explanations):
        super().__init__()
        self.handler = handler

    def expand(self, rows: Any) -> Any:
        """The two collections."""
        answers = rows | RunInference(KeyedModelHandler(self.handler))
        return answers | beam.ParDo(_Sorting()).with_outputs(FAILED, main=EXPLAINED)


class _Sorting(beam.DoFn):
    def process(self, element: tuple[Any, PredictionResult]) -> Iterable[Any]:
        key, result = element
        if isinstance(result.inference, Failure):
            yield beam.pvalue.TaggedOutput(FAILED, (key, result.inference.reason))
        else:
            yield key, result.inference


class Tallied(beam.CombineFn):
    """Explanations -> one `tfig.Tally`: what its arguments count, merged from everywhere.

    Elements are explanations, or (explanation, metrics), metrics a dict of numbers [B] by name.

    >>> found.explained | beam.Values() | beam.CombineGlobally(tfig.beam.Tallied(feature_names=columns))
    """

    def __init__(self, **arguments: Any):
        self.arguments = arguments
        Tally(**arguments)

    def create_accumulator(self) -> Tally:
        """Of nothing."""
        return Tally(**self.arguments)

    def add_input(self, accumulator: Tally, element: Any) -> Tally:
        """With one more."""
        return accumulator.add(*element) if isinstance(element, tuple) else accumulator.add(element)

    def merge_accumulators(self, accumulators: Iterable[Tally]) -> Tally:
        """Of several."""
        return self.create_accumulator().merge(*accumulators)

    def extract_output(self, accumulator: Tally) -> Tally:
        """As it is."""
        return accumulator
