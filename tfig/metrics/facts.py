"""What one must know of a metric to read its numbers, and the list of all metrics."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

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
        METRICS[function.__name__] = Metric(function, better, range, cost, reference, needs_mask)
        lines = f"Range: {range}; {better} is better.\n    Cost: {cost}.\n    Source: {reference}."
        function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n    {lines}\n    "
        return function

    return listed
