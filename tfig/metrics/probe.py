"""How metrics ask a model: as methods that measure instead of attributing, posed and compiled like any other."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfig import baselines, entry, view
from tfig.api import Explainer
from tfig.explanation import Explanation
from tfig.methods import REGISTRY, Gradient
from tfig.problem import Method
from tfig.score import At, Contrast


@dataclasses.dataclass(frozen=True)
class Probe(Method):
    """A method that attributes nothing: what it measures is in its trace, what it is fed in ``problem.sides``.

    Fields:
        given: shapes and dtypes of what it is fed, ((...), dtype) without rows.
    """

    given: tuple[tuple[tuple[int, ...], str], ...] = dataclasses.field(default=(), kw_only=True)

    name: ClassVar[str] = "this metric"
    reference: ClassVar[str] = ""
    default_baseline: ClassVar[str | None] = "zeros"

    def side_specs(self, leaves):
        """What `measure` feeds."""
        return [tf.TensorSpec([None, *shape], dtype) for shape, dtype in self.given]


OWN = object()
"""The baseline that an explanation stands against, else zeros."""


def measure(
    e: Explanation,
    probe: Probe,
    fed: list[np.ndarray],
    *,
    model: Any = None,
    output: str | None = None,
    baseline: Any = None,
    seed: Any = 0,
) -> dict[str, np.ndarray]:
    """Pose a probe where an explanation was posed, and run it in chunks: its trace, score and baseline_score by name.

    Args:
        fed: arrays [B, ...] for each row.
        output: read off the model; by default what was explained.
        baseline: as in `tfig.explain`, or `OWN`.

    Raises:
        ValueError: the model gives another score than the explanation's, or its own baseline is not known.
    """
    asked = question(e, model)
    if isinstance(baseline, baselines.Dataset):
        raise ValueError("metrics take one baseline a row, not a Dataset; pass e.g. baseline='mean'.")
    known = model if isinstance(model, Explainer) else e.explainer
    start = _own_baseline(e, known) if baseline is OWN else baseline
    probe = dataclasses.replace(probe, given=tuple((side.shape[1:], side.dtype.name) for side in fed))
    explainer = Explainer(
        asked.model, probe, output=output or asked.output, layer=_layer(e, asked), baseline=start, seed=seed,
        batch_size=asked.batch_size,
    )  # fmt: skip
    structure, leaves = entry.read(asked.model, rows(e))
    posed = explainer.pose(structure, leaves, target(e, asked), e.held)
    parts = []
    for _, answer in explainer.answers(posed, leaves, fed):
        found = {**answer["trace"], "score": answer["score"]}
        if "baseline_score" in answer:
            found["baseline_score"] = answer["baseline_score"]
        parts.append({name: value.numpy() for name, value in found.items()})
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if output in (None, e.output):
        _same("F(x)", found["score"], e.score)
        if baseline is OWN and known is None and e.baseline_score is not None:
            _same("F(x'), from zeros,", found["baseline_score"], e.baseline_score)
    return found


def _layer(e: Explanation, asked: Explainer) -> Any:
    """Where it is measured: the layer explained, also where the method chose it; None for the input."""
    if not at_layer(e):
        return None
    return e.layer if asked.layer is None else asked.layer


def _same(what: str, now: np.ndarray, then: np.ndarray) -> None:
    """Raise ValueError where a model, or a question that was not kept, gives other numbers than the explanation's."""
    with np.errstate(invalid="ignore"):
        other = np.abs(now - then) > 0.02 * np.maximum(np.abs(then), 1e-6 + 0.1 * np.abs(then).max())
    if other.any():
        row = int(np.argmax(other))
        raise ValueError(
            f"{what} of row {row} is {now[row]:.5g}, and the explanation's is {then[row]:.5g}: model, target, output "
            "or baseline are not those it was made with; pass model=tfig.Explainer(...) as it was, or baseline=."
        )


def question(e: Explanation, model: Any) -> Explainer:
    """The question that an explanation answers: its own, or posed to `model`, a model or an `Explainer`.

    Raises:
        ValueError: it knows no model, and none is given.
    """
    if isinstance(model, Explainer):
        return model
    if model is not None:
        return Explainer(model, _method(e) or Gradient(), output=e.output, layer=e.layer)
    if e.explainer is None:
        raise ValueError(
            "this explanation was loaded, served, or picked from rows with seeds or baselines of their own, and knows "
            "no model; pass model=."
        )
    return e.explainer


def again(e: Explanation, model: Any) -> Explainer:
    """The explainer that can answer the question of an explanation for other rows, of the same targets.

    Raises:
        ValueError: it knows no model, or no method.
    """
    asked = question(e, model)
    if model is not None and not isinstance(model, Explainer) and _method(e) is None:
        raise ValueError(
            f"the explanation is by {e.method!r}, which is no method of tfig; pass model=tfig.Explainer(model, ...)."
        )
    explainer = asked.about(target(e, asked))
    if model is not None:
        here = flat(parts(quietly(explainer, rows(e))))
        there = flat(parts(e))
        if here.shape != there.shape or np.linalg.norm(here - there) > 0.05 * np.linalg.norm(there):
            raise ValueError(
                "the model's explanation of x is another than this one: method, baseline, seed, target or weights are "
                "not those it was made with; pass model=tfig.Explainer(...) as it was."
            )
    return explainer


def quietly(explainer: Explainer, x: Any) -> Explanation:
    """The explanation of rows that nobody asked about, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return explainer(x)


def target(e: Explanation, asked: Explainer) -> Any:
    """What was explained, as it was resolved: classes, contrasts, or the callable."""
    given = asked.target
    if e.target is None:
        return given
    head = (given[0],) if isinstance(given, tuple) else ()
    inner = given[1] if head else given
    found = At(_classes(e), inner.where) if isinstance(inner, At) else _classes(e)
    return (*head, found) if head else found


def _classes(e: Explanation) -> Any:
    against = e.trace.get("against")
    if e.target is None or against is None or (against < 0).all():
        return e.target
    return Contrast(e.target, against)


def rows(e: Explanation) -> Any:
    """The rows explained.

    Raises:
        ValueError: they were left out.
    """
    if e.x is None:
        raise ValueError("x was left out of this explanation, and metrics need it.")
    return e.x


def points(e: Explanation) -> list[np.ndarray]:
    """The leaves of the rows explained, channels last."""
    rows(e)
    return [np.asarray(leaf) for leaf in tf.nest.flatten(e.channels_last("x"))]


def at_layer(e: Explanation) -> bool:
    """Whether it speaks of a layer's units; if not, of the input, to whose size maps of positions are enlarged."""
    if e.layer is None or of_input(e):
        return False
    over_image = isinstance(e.x, np.ndarray) and e.x.ndim == 4 and e.x.dtype.kind == "f"
    maps = e.channels_last("attributions")
    return not (over_image and isinstance(maps, np.ndarray) and maps.shape[-1] == 1)


def parts(e: Explanation) -> list[np.ndarray]:
    """Attributions of each leaf explained, float32 [B, ...], channels last."""
    leaves = tf.nest.flatten(e.channels_last("attributions"))
    if e.layer is not None:
        return [np.asarray(leaf, np.float32) for leaf in leaves]
    return [np.asarray(leaf, np.float32) for i, leaf in enumerate(leaves) if i not in e.held]


def maps(e: Explanation) -> list[np.ndarray]:
    """Attributions of each position of each leaf: channels summed, enlarged to the input; float32 [B, ...]."""
    return entered(e, [view.heatmap(leaf, None if at_layer(e) else e.channels_last("x")) for leaf in parts(e)])


def entered(e: Explanation, leaves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays [B, ...] of the leaves explained, as methods have these: one number a row is a row of one, [B, 1]."""
    return [leaf[:, np.newaxis] if leaf.ndim == 1 and not at_layer(e) else leaf for leaf in leaves]


def flat(leaves: list[np.ndarray]) -> np.ndarray:
    """All leaves of a row one after the other, float64 [B, M]."""
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1).astype(np.float64)


def order(values: np.ndarray) -> np.ndarray:
    """Each entry's place in the order of falling values, int32 [B, M]; of equals, the first comes first."""
    return np.argsort(np.argsort(-values, 1, kind="stable"), 1).astype(np.int32)


def places(e: Explanation) -> tuple[list[np.ndarray], int]:
    """(each position's place in the order of falling attribution, int32 [B, ...] for each leaf; their number).

    Of equals, the first comes first.
    """
    leaves = maps(e)
    place = order(flat(leaves))
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    split = np.split(place, ends, 1)
    return [part.reshape(leaf.shape) for part, leaf in zip(split, leaves, strict=True)], place.shape[1]


def _own_baseline(e: Explanation, explainer: Explainer | None) -> Any:
    if explainer is None or explainer.method.default_baseline is None or (e.layer is not None and not at_layer(e)):
        return "zeros"
    own = explainer.method.default_baseline if explainer.baseline is None else explainer.baseline
    if isinstance(own, baselines.Dataset) or (isinstance(own, str) and own == "dataset"):
        return "zeros"
    return "zeros" if isinstance(own, str) and own == "blur" and not spatial(e) else own


def spatial(e: Explanation) -> bool:
    """Whether every input has spatial axes."""
    return all(leaf.ndim > 2 for leaf in tf.nest.flatten(rows(e)))


def _method(e: Explanation) -> Method | None:
    """The method as it was asked, or by its name and hyper-parameters, where both are known."""
    if e.explainer is not None:
        return e.explainer.method
    return _built({"method": e.method, **e.parameters}) if e.method in REGISTRY else None


def of_input(e: Explanation) -> bool:
    """Whether its method reads a layer, and speaks of the input all the same."""
    method = _method(e)
    return method is not None and method.of_input


def is_slope(e: Explanation) -> bool:
    """Whether attributions are slopes, per unit of x, rather than shares of the score; unknown methods' are."""
    method = _method(e)
    return method is None or method.slope


def _built(parameters: Mapping[str, Any]) -> Method:
    values = {name: _built(value) if isinstance(value, Mapping) and "method" in value else value
              for name, value in parameters.items() if name != "method"}  # fmt: skip
    return REGISTRY[parameters["method"]](**values)
