"""The methods by name: what each is, and the object that a name stands for."""

import dataclasses
import difflib

from tfig.methods import REGISTRY
from tfig.problem import Method


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """What `tfig.methods` says of a method.

    Fields:
        summary: what it is.
        reference: the paper.
        complete: whether attributions sum to F(x) - F(x').
        stochastic: whether it draws noise from the seed.
        baseline: name of its default baseline; None where it has none.
        needs: what it asks of the caller beyond a model and x.
        gives: what attributions have an entry for: each of x, each position with all channels at once, ...
        cost: evaluations of the model for each row, in words and by the names of its hyper-parameters.
        switches: whether it explains integers, strings and booleans too, by switching them to a baseline of their kind.
        principles: which principles of Taylor interactions it keeps, of "123", as derived here; None: not derived.
    """

    summary: str
    reference: str
    complete: bool
    stochastic: bool
    baseline: str | None
    needs: str
    gives: str
    cost: str
    switches: bool
    principles: str | None


def methods() -> dict[str, MethodInfo]:
    """Every method by name: what it is, its paper, whether it is complete, what it needs."""
    return {name: _info(method) for name, method in REGISTRY.items()}


def _info(kind: type[Method]) -> MethodInfo:
    method = kind()
    summary = (kind.__doc__ or "").strip().splitlines()[0]
    return MethodInfo(
        summary,
        method.reference,
        method.complete,
        method.stochastic,
        method.default_baseline,
        method.needs,
        method.gives,
        method.cost,
        method.switches,
        method.principles,
    )


def method_named(method: str | Method) -> Method:
    """The method object that a name stands for (`Method.default`); a method object as it is.

    Raises:
        ValueError: unknown name, with close matches.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, type) and issubclass(method, Method):
        return method()
    if not isinstance(method, str):
        raise ValueError(
            f"method is {type(method).__name__}; pass a name, as {list(REGISTRY)[2]!r}, or a method object."
        )
    if method not in REGISTRY:
        word = str(method).lower()
        initials = [name for name in REGISTRY if "".join(part[0] for part in name.split("_")) == word]
        close = initials or difflib.get_close_matches(word, REGISTRY, 3, 0.4) or list(REGISTRY)
        raise ValueError(f"no method is named {method!r}; did you mean {' or '.join(map(repr, close))}?")
    return REGISTRY[method].default()
