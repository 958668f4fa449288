"""The same question, asked of many methods."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfig.api import explain
from tfig.catalogue import method_named
from tfig.explanation import Explanation
from tfig.problem import Method


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What `tfig.compare` returns.

    Fields:
        explanations: by the name of the method, or the name it was given.
        refused: why a method did not answer, by name: no rule for a layer, nothing to average over, ...
    """

    explanations: Mapping[str, Explanation]
    refused: Mapping[str, str]

    def __getitem__(self, name: str) -> Explanation:
        return self.explanations[name]

    def __repr__(self) -> str:
        lost = f"; refused: {', '.join(self.refused)}" if self.refused else ""
        nothing = f"; empty: {', '.join(self.empty)}" if self.empty else ""
        return f"<Comparison of {', '.join(self.explanations)}{nothing}{lost}>"

    @property
    def empty(self) -> list[str]:
        """The explanations whose maps are zero, or no number, everywhere; their `notes` say why."""

        def blank(leaf: Any) -> bool:
            return not (np.isfinite(leaf) & (leaf != 0)).any()

        return [
            name
            for name, e in self.explanations.items()
            if e.attributions is not None and all(map(blank, tf.nest.flatten(e.attributions)))
        ]

    def plot(self, path: str | os.PathLike | None = None, image: Any = None) -> Any:
        """A labelled grid: a row for each of at most 8 rows of x, a column for each method; saved to `path` if given.

        Returns:
            the matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed (``pip install tfig[plot]``).
            ValueError: the explanations are of no image.
        """
        from tfig.plots import grid

        return grid.grid(self.explanations, path, image)


def compare(
    model: Any, x: Any, methods: Sequence[str | Method] | Mapping[str, str | Method], **arguments: Any
) -> Comparison:
    """Ask many methods the same question.

    Args:
        model, x: as in `tfig.explain`.
        methods: names or method objects; or a mapping of the names to show to them.
        arguments: of `tfig.explain`: target, output, layer, baseline, batch_size, seed, progress. Methods that read a
            layer take their default one where none is given.

    Returns:
        a `Comparison`; a method that cannot answer is in its ``refused``, with the reason.

    Raises:
        ValueError: no method is given, an unknown one, or none can answer.

    >>> tfig.compare(model, x, ["integrated_gradients", "grad_cam", "igos"], output="logits").plot("compared.png")
    """
    explanations, refused = {}, {}
    for name, method in named(methods).items():
        try:
            explanations[name] = explain(model, x, method, **arguments)
        except Exception as error:  # one method's fault is not the others'
            refused[name] = reason(error)
    if not explanations:
        raise ValueError(f"no method answered: {next(iter(refused))}: {next(iter(refused.values()))}")
    return Comparison(explanations, refused)


def reason(error: Exception) -> str:
    """Why something was not answered: what tfig says, or what went wrong."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def named(methods: Sequence[str | Method] | Mapping[str, str | Method]) -> dict[str, Method]:
    """Method objects by the name to show.

    Raises:
        ValueError: no method is given, an unknown one, or several of one name.
    """
    if isinstance(methods, (str, Method)):
        methods = [methods]
    if isinstance(methods, Mapping):
        pairs = list(methods.items())
    else:
        pairs = [(method if isinstance(method, str) else method_named(method).name, method) for method in methods]
    if not pairs:
        raise ValueError("methods is empty; pass names or method objects, as 'tfig methods' lists them.")
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"methods have one name twice: {names}; pass a mapping of names to methods.")
    return {name: method_named(method) for name, method in pairs}
