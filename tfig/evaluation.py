"""Many methods under many metrics: a table with confidence intervals."""

import csv
import dataclasses
import difflib
import functools
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfig import baselines
from tfig import metrics as measures
from tfig.comparison import compare, named, reason
from tfig.metrics import METRICS, Curve
from tfig.problem import Method
from tfig.summary import interval

DEFAULT: dict[str, Callable[..., Any]] = {
    "deletion": measures.deletion,
    "insertion": measures.insertion,
    "sensitivity_n": measures.sensitivity_n,
    "infidelity": functools.partial(measures.infidelity, normalize=True),
    "max_sensitivity": measures.max_sensitivity,
    "model_randomisation": measures.model_randomisation,
    "sparseness": measures.sparseness,
}
"""Metrics evaluated where none are named: of each property one or two."""

LOCALISED = ("pointing_game", "relevance_mass")
"""Beside them, where masks are given."""

LIKE_WITH_LIKE = ("sensitivity_n", "faithfulness_correlation", "pixel_flipping", "infidelity")
"""Metrics that would else take each explanation's own baseline."""


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What `tfig.evaluate` returns: rows are methods, columns are metrics.

    Fields:
        values: by method and metric, [B], a number for each row of x.
        curves: by method and metric, those of `tfig.metrics.Curve`.
        better: by metric, "higher" or "lower"; "" where it is not known.
        refused: why a method or a metric did not answer, by (method, metric), or (method, "") for all metrics.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    curves: Mapping[str, Mapping[str, Curve]]
    better: Mapping[str, str]
    refused: Mapping[tuple[str, str], str]

    @property
    def methods(self) -> list[str]:
        """Names of the rows."""
        return list(self.values)

    @property
    def metrics(self) -> list[str]:
        """Names of the columns."""
        return list(self.better)

    def mean(self, method: str, metric: str) -> float:
        """The mean over rows of x that have a number; NaN where none has."""
        values = self._known(method, metric)
        return float(values.mean()) if len(values) else float("nan")

    def interval(self, method: str, metric: str, confidence: float = 0.95) -> tuple[float, float]:
        """(low, high) of the mean: quantiles of means of rows drawn anew with replacement (Efron's bootstrap).

        NaN of fewer than two rows, which say nothing of others.
        """
        return interval(self._known(method, metric), confidence)

    def _known(self, method: str, metric: str) -> np.ndarray:
        values = np.asarray(self.values[method].get(metric, ()), np.float64)
        return values[~np.isnan(values)]

    def best(self, metric: str) -> list[str]:
        """The method with the best mean, and those whose interval reaches it; none where no direction is known."""
        known = [name for name in self.methods if len(self._known(name, metric))]
        if not known or not self.better[metric]:
            return []
        sign = 1 if self.better[metric] == "higher" else -1
        top = max(known, key=lambda name: sign * self.mean(name, metric))
        edge = self.mean(top, metric)
        reach = {name: self.interval(name, metric) for name in known}
        return [name for name in known if name == top or reach[name][0] <= edge <= reach[name][1]]

    def heading(self, metric: str) -> str:
        """A metric, and which way is better."""
        way = self.better[metric]
        return f"{metric} ({way} is better)" if way else metric

    def cell(self, method: str, metric: str) -> str:
        """The mean and its 95 % interval, as tables show them; nothing where no row has a number."""
        mean, (low, high) = self.mean(method, metric), self.interval(method, metric)
        spread = "" if np.isnan(low) else f" [{low:.3g}, {high:.3g}]"
        return "" if np.isnan(mean) else f"{mean:.3g}{spread}"

    def __repr__(self) -> str:
        lost = f"; {len(self.refused)} refused" if self.refused else ""
        return f"<Evaluation of {', '.join(self.methods)} by {', '.join(self.metrics)}{lost}>"

    def to_markdown(self, path: str | os.PathLike | None = None) -> str:
        """The table, each mean with its 95 % interval; bold: the best, and what reaches it. Also written to `path`."""
        lines = ["| | " + " | ".join(map(self.heading, self.metrics)) + " |"]
        lines.append("|---|" + "---|" * len(self.metrics))
        best = {metric: self.best(metric) for metric in self.metrics}
        for method in self.methods:
            cells = []
            for metric in self.metrics:
                shown = self.cell(method, metric)
                cells.append(f"**{shown}**" if method in best[metric] else shown)
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        notes = [
            f"* {method}{f', {metric}' if metric else ''}: {why}"
            for (method, metric), why in self.refused.items()
            if method in self.values and (not metric or metric in self.better)
        ]
        lines += ["", *notes] if notes else []
        return _written("\n".join(lines) + "\n", path)

    def to_csv(self, path: str | os.PathLike | None = None) -> str:
        """One line for each method and metric: mean, interval, number of rows, direction. Also written to `path`."""
        file = io.StringIO()
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["method", "metric", "mean", "low", "high", "rows", "better", "refused"])
        for method in self.methods:
            for metric in self.metrics:
                numbers = (self.mean(method, metric), *self.interval(method, metric))
                shown = ["" if np.isnan(number) else f"{number:.6g}" for number in numbers]
                why = self.refused.get((method, metric), self.refused.get((method, ""), ""))
                table.writerow([method, metric, *shown, len(self._known(method, metric)), self.better[metric], why])
        return _written(file.getvalue(), path)

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Curves, mean over rows, with a panel for each metric that has them; and the table. Saved to `path` if given.

        Returns:
            the matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed (``pip install tfig[plot]``).
        """
        from tfig.plots import scores

        return scores.table(self, path)


def evaluate(
    model: Any,
    x: Any,
    methods: Sequence[str | Method] | Mapping[str, str | Method],
    metrics: str | Sequence[str | Callable[..., Any]] | Mapping[str, str | Callable[..., Any]] | None = None,
    masks: Any = None,
    *,
    progress: bool = False,
    **arguments: Any,
) -> Evaluation:
    """Explain x by many methods, and measure every explanation.

    Args:
        model, x: as in `tfig.explain`.
        methods: names or method objects; or a mapping of the names to show to them.
        metrics: names of `tfig.metrics.METRICS`; or a mapping of the names to show to names or functions
            Explanation -> [B] (of two arguments where they need masks: pass them by a closure). None: of each property
            one or two, and with masks two of localisation. So that a column compares like with like, metrics by name
            that remove positions put zeros in their place, or `baseline` where it is given; functions do as written.
        masks: where the truth lies, as in `tfig.metrics.pointing_game`.
        progress: print what each metric will cost, and each method and metric as it is done, with its seconds.
        arguments: of `tfig.explain`: target, output, layer, baseline, batch_size, seed.

    Returns:
        an `Evaluation`; what a method or metric cannot answer is in its ``refused``, with the reason.

    Raises:
        ValueError: unknown names, metrics that need masks without any, or no method can answer.

    >>> tfig.evaluate(model, x, ["gradient", "integrated_gradients", "igos"], output="probabilities").to_markdown()
    """
    wanted = asked(metrics, masks, arguments.get("baseline"))
    told = _Told(progress)
    told.costs(list(named(methods)), {name: cost for name, (_, _, cost) in wanted.items()})
    found = compare(model, x, methods, **arguments)
    told.done(f"{len(found.explanations)} explanations")
    values: dict[str, dict[str, np.ndarray]] = {name: {} for name in named(methods)}
    curves: dict[str, dict[str, Curve]] = {name: {} for name in values}
    refused = {(name, ""): why for name, why in found.refused.items()}
    for method, e in found.explanations.items():
        for metric, (function, _, _) in wanted.items():
            try:
                answer = function(e)
                if isinstance(answer, Curve):
                    curves[method][metric] = answer
                values[method][metric] = np.asarray(getattr(answer, "value", answer), np.float64)
                if values[method][metric].shape != (len(e),):
                    shape = list(values[method].pop(metric).shape)
                    refused[method, metric] = f"it gave shape {shape} for {len(e)} rows; it must give one number a row."
            except Exception as error:  # a user's function must not cost the rest of the table
                refused[method, metric] = reason(error)
            told.done(f"{method}: {metric}")
    return Evaluation(values, curves, {name: better for name, (_, better, _) in wanted.items()}, refused)


class _Told:
    """What is printed on the way, if anything is."""

    def __init__(self, shown: bool):
        self.shown, self.since = shown, time.monotonic()

    def costs(self, methods: list[str], costs: Mapping[str, str]) -> None:
        """What each metric asks for."""
        if self.shown:
            print(f"of each of {len(methods)} methods ({', '.join(methods)}) and each row of x:")
            print("\n".join(f"  {metric}: {cost}" for metric, cost in costs.items() if cost), flush=True)

    def done(self, what: str) -> None:
        """What is done, and in how many seconds."""
        now = time.monotonic()
        if self.shown:
            print(f"{what} ({now - self.since:.1f} s)", flush=True)
        self.since = now


def asked(metrics: Any, masks: Any, baseline: Any) -> dict[str, tuple[Callable[..., Any], str, str]]:
    """By the name to show: (Explanation -> [B], which way is better, what it costs)."""
    if metrics is None:
        metrics = {**DEFAULT, **{name: name for name in LOCALISED if masks is not None}}
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    given = metrics if isinstance(metrics, Mapping) else {getattr(one, "__name__", one): one for one in metrics}
    if not given:
        raise ValueError(f"metrics is empty; choose among {', '.join(METRICS)}.")
    found = {}
    for shown, metric in given.items():
        if isinstance(metric, str) and metric not in METRICS:
            close = difflib.get_close_matches(metric, METRICS, 3) or list(METRICS)
            raise ValueError(f"no metric is named {metric!r}; did you mean {', '.join(close)}?")
        function = METRICS[metric].function if isinstance(metric, str) else metric
        if shown in LIKE_WITH_LIKE and (isinstance(metric, str) or metric is DEFAULT.get(shown)):
            plain_start = not isinstance(baseline, (type(None), baselines.Dataset, baselines.AtLayer))
            function = functools.partial(function, baseline=baseline if plain_start else "zeros")
        plain = function
        while isinstance(plain, functools.partial):
            plain = plain.func
        facts = next((one for one in METRICS.values() if one.function is plain), None)
        if facts is not None and facts.needs_mask:
            if masks is None:
                raise ValueError(f"{shown} measures against a mask of where the truth lies; pass masks= (--mask).")
            function = functools.partial(_masked, function, masks)
        found[shown] = (function, facts.better if facts else "", facts.cost if facts else "")
    return found


def _masked(function: Callable[..., Any], masks: Any, e: Any) -> Any:
    return function(e, masks)


def _written(text: str, path: str | os.PathLike | None) -> str:
    if path is not None:
        Path(path).write_text(text)
    return text
