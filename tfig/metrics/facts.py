"""What one must know of a metric to read its numbers, and the list of all metrics."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import tensorflow as tf

from tfig.explanation import Explanation

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric, and how to read it.

    Fields:
        function: (Explanation, ...) -> [B], or an object whose `value` is [B].
        better: "higher" or "lower".
        range: of its values, in words.
        cost: model evaluations for each row, in words.
        reference: the paper.
        needs_mask: whether its second argument is a mask of where the truth lies.
    """

    function: Callable[..., Any]
    better: str
    range: str
    cost: str
    reference: str
    needs_mask: bool = False

    @property
    def summary(self) -> str:
        """The first line of its documentation."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


METRICS: dict[str, Metric] = {}
"""Every metric by name."""


def metric(
    *, better: str, range: str, cost: str, reference: str, needs_mask: bool = False
) -> Callable[[Function], Function]:
    """List a function among `METRICS`, and say in its documentation how to read it."""

    def listed(function: Function) -> Function:
        @functools.wraps(function)
        def checked(e: Explanation, *arguments: Any, **named: Any) -> Any:
            _check(function.__name__, e)
            return function(e, *arguments, **named)

        METRICS[function.__name__] = Metric(checked, better, range, cost, reference, needs_mask)
        lines = f"Range: {range}; {better} is better.\n    Cost: {cost}.\n    Source: {reference}."
        checked.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n    {lines}\n    "
        return cast(Function, checked)

    return listed


def _check(name: str, e: Any) -> None:
    """Raise ValueError for what is no explanation, or for attributions that are not finite."""
    if not isinstance(e, Explanation):
        raise ValueError(f"{name} measures an Explanation, as tfig.explain returns it, and got {type(e).__name__}.")
    if e.attributions is None:
        raise ValueError("the attributions were left out of this explanation.")
    leaves = [np.asarray(leaf).reshape(len(e), -1) for leaf in tf.nest.flatten(e.attributions)]
    broken = ~np.all([np.isfinite(leaf).all(1) for leaf in leaves], 0)
    if broken.any():
        rows = ", ".join(map(str, np.flatnonzero(broken)[:10]))
        raise ValueError(f"the attributions of row {rows} are NaN or infinite; leave such rows out: e[rows].")
