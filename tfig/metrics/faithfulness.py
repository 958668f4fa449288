"""Faithfulness: does the score change as much as the explanation says it should?"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfig.explanation import Explanation
from tfig.kernels import coalition
from tfig.kernels.expectation import each, fork, normal, spread, uniform
from tfig.methods.checks import at_least, one_of, whole
from tfig.metrics import probe
from tfig.metrics.facts import metric
from tfig.network import Leaves
from tfig.problem import Problem, Trace, per_row, row_sum


@dataclasses.dataclass(frozen=True)
class _Perturbed(probe.Probe):
    kind: str
    samples: int
    noise: float
    widest: int
    slopes: bool

    stochastic: ClassVar[bool] = True

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """I . phi, F(x) - F(x - I), and whether I moves anything, for every I, [B, samples]."""
        clean, count = problem.at_x, len(problem.x)

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, ...]:
            change = self.perturbation(p, sample, p.sides[count:])
            ways = change
            if not self.slopes:  # the share of the way to the baseline that each entry goes
                ways = tuple(tf.math.divide_no_nan(i, x - b) for i, x, b in zip(change, p.x, p.baseline, strict=True))
            products = tuple(tf.cast(i, phi.dtype) * phi for i, phi in zip(ways, p.sides[:count], strict=True))
            moved = tuple(x - i for x, i in zip(p.x, change, strict=True))
            size = row_sum(tuple(map(tf.abs, change)))
            return row_sum(products), tf.gather(clean, row) - p.score(moved), size

        like = (tf.zeros([problem.rows]), clean, clean)
        return (), dict(zip(("dots", "falls", "sizes"), each(problem, self.samples, like, term), strict=True))

    def perturbation(self, p: Problem, sample: tf.Tensor, given: Leaves) -> Leaves:
        """I for each leaf."""
        if self.kind == "given":
            return tuple(tf.cast(tf.gather(i, sample, batch_dims=1), x.dtype) for i, x in zip(given, p.x, strict=True))
        seeds = [fork(p.seed, tf.fill(tf.shape(sample), -2 - i)) for i in range(len(p.x))]
        if self.kind == "gaussian":
            return tuple(
                per_row(self.noise * spread(x), x) * normal(seed, sample, x) for x, seed in zip(p.x, seeds, strict=True)
            )
        leaves = []
        for x, b, seed in zip(p.x, p.baseline, seeds, strict=True):
            sides = coalition.positions(x)
            draw = uniform(seed, sample, tf.zeros([tf.shape(sample)[0], len(sides) + 1]))
            width = 1 + tf.cast(draw[:, 0] * self.widest, tf.int32)
            inside = tf.ones_like(x[..., :1])
            for axis, side in enumerate(sides):
                size = tf.minimum(width, side)
                begin = tf.cast(draw[:, axis + 1] * tf.cast(side - size + 1, tf.float32), tf.int32)
                place = tf.range(side)
                held = (place >= begin[:, tf.newaxis]) & (place < (begin + size)[:, tf.newaxis])
                shape = [-1, *[1] * axis, side, *[1] * (len(sides) - axis)]
                inside *= tf.cast(tf.reshape(held, shape), x.dtype)
            leaves.append(inside * (x - b))
        return tuple(leaves)


@metric(
    better="lower",
    range="0 to infinity, in squares of F",
    cost="samples",
    reference="Yeh et al., On the (In)fidelity and Sensitivity of Explanations, 2019, arXiv:1901.09392",
)
def infidelity(
    e: Explanation, *, perturbation: Any = "gaussian", samples: int = 1000, noise: float = 0.2, widest: int = 10,
    normalize: bool = False, baseline: Any = None, output: str | None = None, seed: Any = 0, model: Any = None,
    multiply_by_inputs: bool | None = None,
) -> np.ndarray:  # fmt: skip
    """mean{ (I . phi - (F(x) - F(x - I)))**2 : I }: how well phi foretells what perturbations do.

    Maps that hold differences already (integrated gradients, Shapley values) are multiplied by I / (x - x'), as Captum
    does for what it calls multiplied by inputs; entries where x = x' count nothing. Which a map is its method declares.

    Args:
        perturbation: of x by I: "gaussian"; "square", patches set to the baseline; or arrays I [S, B, ...] in the
            nest of x (S takes the place of `samples`).
        samples: I drawn for each row; the authors draw 1,000 to 10,000.
        noise: deviation of the Gaussian, as a share of each row's max - min.
        widest: squares have sides of 1 to `widest` positions.
        normalize: first scale phi by the factor that makes the mean smallest, as the authors do.
        baseline: of the squares; by default the explanation's own, else zeros.
        output, model: as in `deletion`.
        seed: of the perturbations, as in `tfig.explain`.
        multiply_by_inputs: whether phi holds differences, rather than slopes; None: as its method declares. Arrays I
            are multiplied with phi as they are, unless it is True.

    Returns:
        [B]; NaN where nothing was moved, as by noise that is a share of a constant row. Maps with one value a position
        are shared among its channels.

    Raises:
        ValueError: squares without spatial axes, arrays of another shape.
    """
    asked = probe.question(e, model)
    if asked.method.picks_layer and not asked.method.of_input:
        raise ValueError("infidelity compares entries of x, and this map is of a layer's positions; use deletion.")
    fed = probe.entered(e, [_like(phi, x) for phi, x in zip(probe.parts(e), _points(e, asked), strict=True)])
    kind = perturbation if isinstance(perturbation, str) else "given"
    if isinstance(perturbation, str):
        one_of("perturbation", kind, ("gaussian", "square"))
    if kind == "square" and not all(phi.ndim > 2 for phi in fed):
        raise ValueError("perturbation='square' needs spatial axes; pass 'gaussian' or arrays.")
    if kind == "given":
        given = [np.moveaxis(np.asarray(one, np.float32), 0, 1) for one in _last(e, tf.nest.flatten(perturbation))]
        given = [one[..., np.newaxis] if one.ndim == 2 else one for one in given]
        if [one.shape[2:] for one in given] != [phi.shape[1:] for phi in fed] or len(given[0]) != len(e):
            raise ValueError(
                f"perturbation has shapes {[list(np.shape(one)) for one in tf.nest.flatten(perturbation)]}; it must be "
                f"[S, B, ...] with x's {[list(phi.shape) for phi in fed]}."
            )
        fed, samples = [*fed, *given], given[0].shape[1]
    whole("samples", samples, 1)
    whole("widest", widest, 1)
    at_least("noise", noise, 0)
    declared = kind == "given" or probe.is_slope(e)
    slope = declared if multiply_by_inputs is None else not multiply_by_inputs
    found = probe.measure(
        e, _Perturbed(kind, samples, noise, widest, slope), fed, model=model, output=output, seed=seed,
        baseline=probe.OWN if baseline is None else baseline,
    )  # fmt: skip
    dots, falls = found["dots"].astype(np.float64), found["falls"].astype(np.float64)
    if normalize:
        squares = (dots**2).mean(1)
        dots = (
            dots * np.where(squares > 0, (dots * falls).mean(1) / np.where(squares > 0, squares, 1), 1)[:, np.newaxis]
        )
    moved = (found["sizes"] > 0).any(1)
    return np.where(moved, ((dots - falls) ** 2).mean(1), np.nan)


def _last(e: Explanation, arrays: list[Any]) -> list[Any]:
    """Arrays [S, B, ...] with channels last, as methods have them."""
    axes = e.channels.get("attributions", ())
    if len(axes) != len(arrays):
        return arrays
    return [np.moveaxis(one, 2, -1) if axis == 1 else one for one, axis in zip(arrays, axes, strict=True)]


def _points(e: Explanation, asked: Any) -> Sequence[np.ndarray | None]:
    """The rows explained of each leaf, where attributions may have fewer channels than they."""
    if probe.at_layer(e):
        return [None] * len(probe.parts(e))
    if e.layer is not None and not probe.of_input(e):
        raise ValueError("infidelity compares entries of x, and this map is of a layer's positions; use deletion.")
    return [x for i, x in enumerate(probe.points(e)) if i not in e.held]


def _like(phi: np.ndarray, x: np.ndarray | None) -> np.ndarray:
    """A map of positions shared among the channels of x."""
    if x is None or phi.shape == x.shape:
        return phi
    return np.broadcast_to(phi / x.shape[-1], x.shape)


@dataclasses.dataclass(frozen=True)
class _Subsets(probe.Probe):
    sizes: tuple[int, ...]
    samples: int

    stochastic: ClassVar[bool] = True
    switches: ClassVar[bool] = True

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """sum{ phi_i : i in S } and F(x) - F(x without S), for every S, [B, sizes * samples]."""
        clean = problem.at_x

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            size = tf.gather(tf.constant(self.sizes), sample // self.samples)
            chosen = coalition.chosen(p, p.seed, sample, size)
            mass = row_sum(tuple(tf.where(s, phi, 0.0) for s, phi in zip(chosen, p.sides, strict=True)))
            kept = tuple(1 - tf.cast(coalition.channelled(x, s), p.dtype) for s, x in zip(chosen, p.x, strict=True))
            return mass, tf.gather(clean, row) - p.score(coalition.blend(p, kept))

        masses, falls = each(problem, len(self.sizes) * self.samples, (tf.zeros([problem.rows]), clean), term)
        return (), {"masses": masses, "falls": falls}


def _correlations(
    e: Explanation, sizes: Sequence[int], samples: int, baseline: Any, output: str | None, seed: Any, model: Any
) -> np.ndarray:
    """Pearson's correlation over random sets of each size, [B, sizes]; 0 where either side does not vary."""
    leaves = probe.maps(e)
    count = sum(leaf[0].size for leaf in leaves)
    for size in sizes:
        whole("n", size, 1)
        if size > count:
            raise ValueError(f"n is {size}, and there are {count} positions.")
    whole("samples", samples, 2)
    if not len(sizes):
        raise ValueError("n is empty; pass a number of positions, or several.")
    found = probe.measure(
        e, _Subsets(tuple(map(int, sizes)), samples), leaves, model=model, output=output, seed=seed,
        baseline=probe.OWN if baseline is None else baseline,
    )  # fmt: skip
    pair = [found[name].reshape(len(e), len(sizes), samples).astype(np.float64) for name in ("masses", "falls")]
    a, b = (values - values.mean(-1, keepdims=True) for values in pair)
    spread_ = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    # Sums of the same numbers in another order differ by rounding, which is no variation.
    still = [(c**2).sum(-1) <= 1e-10 * (values**2).sum(-1) for c, values in zip((a, b), pair, strict=True)]
    return np.where(still[0] | still[1], 0.0, (a * b).sum(-1) / np.where(spread_ > 0, spread_, 1))


@metric(
    better="higher",
    range="-1 to 1",
    cost="samples for each n",
    reference="Ancona et al., Towards Better Understanding of Gradient-based Attribution Methods, 2018, "
    "arXiv:1711.06104",
)
def sensitivity_n(
    e: Explanation, n: int | Sequence[int] | None = None, *, samples: int = 100, baseline: Any = None,
    output: str | None = None, seed: Any = 0, model: Any = None,
) -> np.ndarray:  # fmt: skip
    """The correlation, over random sets S of n positions, of sum{ phi_i : i in S } with F(x) - F(x without S).

    Args:
        n: how many positions are removed together, or several such numbers; None: eight, evenly spaced in their
            logarithm from 1 to 4/5 of the positions, and the mean of the correlations.
        samples: sets of each size.
        baseline: in place of what is removed; by default the explanation's own, else zeros.
        output, model: as in `deletion`.
        seed: of the sets, as in `tfig.explain`.

    Returns:
        [B]; for several n [B, len(n)]. 0 where the map or the score does not vary.
    """
    if n is None:
        count = sum(leaf[0].size for leaf in probe.maps(e))
        sizes = sorted(set(np.geomspace(1, max(1, 0.8 * count), 8).round().astype(int).tolist()))
        return _correlations(e, sizes, samples, baseline, output, seed, model).mean(1)
    several = _correlations(e, np.atleast_1d(n).tolist(), samples, baseline, output, seed, model)
    return several[:, 0] if np.ndim(n) == 0 else several


@metric(
    better="higher",
    range="-1 to 1",
    cost="samples",
    reference="Bhatt, Weller & Moura, Evaluating and Aggregating Feature-based Model Explanations, 2020, "
    "arXiv:2005.00631",
)
def faithfulness_correlation(
    e: Explanation, *, subset_size: int | None = None, samples: int = 100, baseline: Any = None,
    output: str | None = None, seed: Any = 0, model: Any = None,
) -> np.ndarray:  # fmt: skip
    """`sensitivity_n` for sets of one size.

    Args:
        subset_size: by default a tenth of the positions.
        samples, baseline, output, seed, model: as in `sensitivity_n`.

    Returns:
        [B].
    """
    count = sum(leaf[0].size for leaf in probe.maps(e))
    size = max(1, count // 10) if subset_size is None else subset_size
    return _correlations(e, [size], samples, baseline, output, seed, model)[:, 0]


@dataclasses.dataclass(frozen=True)
class _Seen(probe.Probe):
    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """F of what the map lets through."""
        masks = tuple(coalition.channelled(x, m) for x, m in zip(problem.x, problem.sides, strict=True))
        return (), {"seen": problem.score(coalition.blend(problem, masks))}


def _seen(e: Explanation, baseline: Any, output: str | None, model: Any) -> tuple[np.ndarray, np.ndarray]:
    """(F(x), F(x seen through the map)), [B] each; the map is its positive part over its largest value."""
    leaves = [np.maximum(leaf, 0) for leaf in probe.maps(e)]
    top = probe.flat(leaves).max(1)
    scale = np.where(top > 0, 1 / np.where(top > 0, top, 1), 0).astype(np.float32)
    masks = [leaf * scale.reshape(-1, *[1] * (leaf.ndim - 1)) for leaf in leaves]
    found = probe.measure(
        e, _Seen(), masks, model=model, output=output, baseline="zeros" if baseline is None else baseline
    )
    return found["score"], found["seen"]


@metric(
    better="lower",
    range="0 to 1 for probabilities",
    cost="1",
    reference="Chattopadhyay et al., Grad-CAM++, 2018, arXiv:1710.11063",
)
def average_drop(e: Explanation, *, baseline: Any = None, output: str | None = None, model: Any = None) -> np.ndarray:
    """max(0, F(x) - F(m x + (1 - m) x')) / |F(x)|, m the map's positive part over its largest value.

    A share of one; its mean over rows is the paper's average drop. Give probabilities: of logits it means little.

    Args:
        baseline: x', by default zeros.
        output, model: as in `deletion`.

    Returns:
        [B].
    """
    whole_, seen = _seen(e, baseline, output, model)
    size = np.abs(whole_)
    return np.where(size > 0, np.maximum(whole_ - seen, 0) / np.where(size > 0, size, 1), 0)


@metric(
    better="higher",
    range="0 or 1",
    cost="1",
    reference="Chattopadhyay et al., Grad-CAM++, 2018, arXiv:1710.11063",
)
def increase(e: Explanation, *, baseline: Any = None, output: str | None = None, model: Any = None) -> np.ndarray:
    """Whether the score rises when x is seen through its map: F(m x + (1 - m) x') > F(x), with m as in `average_drop`.

    Args:
        baseline, output, model: as in `average_drop`.

    Returns:
        [B], 0.0 or 1.0.
    """
    whole_, seen = _seen(e, baseline, output, model)
    return (seen > whole_).astype(np.float64)
