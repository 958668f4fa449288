"""Methods that optimise a mask."""

import dataclasses

import tensorflow as tf

from tfig.kernels import descent, mask, pair
from tfig.methods.checks import at_least, one_of, whole
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace
from tfig.sizes import beyond_rows, extent

CELLS = 28
"""The papers' masks have so many along an axis: settled ones are weighed as if all had."""

SEARCHES = ("paper", "settled")

SIDE = 224
"""The side of the images that a blur and a shift are given for."""


@dataclasses.dataclass(frozen=True)
class _Mask(Method):
    """What masks share: they stand over one leaf."""

    gives = "a mask of one input, 0 where it is kept and 1 where it is deleted: [B, ..., 1]"
    gradients = "anywhere"
    stochastic = True
    default_baseline = "blur"

    def like(self, problem: Problem) -> Leaves:
        """One channel at the masked leaf."""
        where = mask.canvas(problem.x)
        return tuple(leaf[..., :1] if i == where.leaf and where.rank else leaf for i, leaf in enumerate(problem.x))

    @staticmethod
    def opened(problem: Problem, enlarged: tf.Tensor) -> Leaves:
        """1 - M at the masked leaf, zeros elsewhere."""
        which, deleted = mask.canvas(problem.x).leaf, tf.nn.relu(1 - enlarged)  # M may be a rounding above 1
        return tuple(deleted if i == which else tf.zeros_like(leaf) for i, leaf in enumerate(problem.x))


@dataclasses.dataclass(frozen=True)
class _Integrated(_Mask):
    """What I-GOS and iGOS++ share: their settings, and the two searches."""

    resolution: int = 28
    iterations: int = 15
    steps: int = 20
    l1: float = 1.0
    tv: float = 20.0
    tv_beta: float = 2.0
    noise: float = 0.2
    initial_step: float = 200.0
    shrink: float = 0.2
    armijo: float = 1e-4
    minimum_step: float = 1e-5
    search: str = "paper"
    learning_rate: float = 0.03

    def __post_init__(self):
        for name in ("resolution", "iterations", "steps"):
            whole(name, getattr(self, name), 1)
        for name in ("l1", "tv", "noise", "armijo"):
            at_least(name, getattr(self, name), 0)
        at_least("tv_beta", self.tv_beta, 1)
        one_of("search", self.search, SEARCHES)
        at_least("learning_rate", self.learning_rate, 0)
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink is {self.shrink!r}; it must lie between 0 and 1.")
        if not 0 < self.minimum_step <= self.initial_step:
            raise ValueError(f"minimum_step is {self.minimum_step!r}; it must be positive and at most initial_step.")

    def objective(self, problem: Problem) -> mask.Objective:
        """The objective, in the units of the search."""
        cells = CELLS if self.search == "settled" else None
        return mask.Objective(problem, mask.canvas(problem.x), self.tv, self.tv_beta, cells)

    def deviation(self, cost: mask.Objective) -> tf.Tensor:
        """Of the noise, [B]."""
        return self.noise * tf.math.reduce_std(cost.x, beyond_rows(cost.x))

    @property
    def line(self) -> mask.LineSearch:
        """The paper's search."""
        return mask.LineSearch(self.initial_step, self.shrink, self.armijo, self.minimum_step)

    def settled(self, ways: list[descent.Way], penalty: descent.Penalty) -> tuple[tf.Tensor, Trace]:
        """The mask that answers."""
        deviation = self.deviation(ways[0].cost)
        return descent.settle(
            ways, penalty, descent.noisy(ways[0].cost, deviation), resolution=self.resolution,
            iterations=self.iterations, steps=self.steps, deviation=deviation, rate=self.learning_rate,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class IGOS(_Integrated):
    """I-GOS: the small, smooth mask whose deletion lowers the score most, found by integrated-gradient descent.

    Minimises, for each row's own mask M in [0, 1] at `resolution`, enlarged linearly with aligned corners,

        l1 mean|1 - M| + tv (mean|dM/dx|**tv_beta + mean|dM/dy|**tv_beta) + F(x' + M (x - x'))

    along the gradient of the first two terms plus the integrated gradient of the third,
    mean{ F(x' + k/steps M (x - x') + e[k]) : k = 1...steps }, with a line search that starts at `initial_step`,
    shrinks by `shrink` and accepts a step by the Armijo condition on the un-integrated loss without noise, or once it
    is below `minimum_step`. The size penalty of a row is eased tenfold at half the iterations if its score has
    changed by at most 0.001, and fivefold at 4/5 of them if by at most 0.01.

    That is `search="paper"`, the authors' algorithm to the letter. It often says nothing: in front of a saturated score
    small deletions cost more than they gain, and it only shrinks. The name "igos" stands for a search that answers,
    ``IGOS(search="settled", iterations=100, tv=5.0)``. It minimises, with D = |F(x) - F(x')|,

        l1 mean|1 - M| + tv (mean|dM/dx|**tv_beta + mean|dM/dy|**tv_beta) + max((F(x' + M (x - x')) - F(x)) / D, -1.5)

    with slopes as if each axis had 28 cells, so that scores and images of any size and range need the same settings.
    The integrated gradient at x, at half the resolution, places the mask: as far closed as costs least where at least
    half of D is taken. From there Adam (rate `learning_rate`, falling to 0) may grow and shrink it, by the gradient at
    M under noise. Answered is the mean of its path, mixed with up to a quarter of the integrated gradient itself as
    long as 0.85 of the lowest objective is kept: within a closed region that tells the important from the rest. With
    l1 <= 1 the objective ends at most at 0, that of x itself, wherever F(x') < F(x). It takes `steps` + `iterations`
    gradients and 16 scores, 120 gradients by default; the paper's take 300.

    `attributions` is 1 - M, enlarged: what had to be deleted, [B, H, W, 1] ([B, T, 1] for sequences), in [0, 1]. Use
    the paper's search with probabilities: its penalties are set against a score between 0 and 1. Of several float
    inputs, the first with spatial axes is masked and the others get zeros; where none has any, each feature of the
    first, [B, F], has a mask of its own and no neighbours to be smooth with. Without spatial axes the default baseline
    is zeros.

    Fields:
        resolution: side of the mask; at most the image's.
        iterations: descent steps.
        steps: points of the integrated gradient.
        l1, tv, tv_beta: weights of size and roughness, exponent of roughness.
        noise: standard deviation of e, as a share of each row's standard deviation.
        initial_step, shrink, armijo, minimum_step: the paper's line search.
        search: "paper" or "settled".
        learning_rate: first step of the settled search, in masks.

    ``trace`` holds mask [B, h, w, 1]; losses [B, iterations], before each step; moved [B]: whether the mask changes the
    score by more than 1 % of what the baseline does; of the paper's search scores (after each step) and step_sizes
    (accepted), [B, iterations]; of the settled one objective [B]. Where the baseline scores as x does nothing can be
    deleted: the mask stays open, and the notes say so.

    >>> tfig.explain(model, x, "igos", output="probabilities", baseline="blur")
    """

    cost = "iterations + steps gradients, and 16 passes"
    name = "igos"
    reference = (
        "Qi, Khorram & Li, Visualizing Deep Networks by Optimizing with Integrated Gradients, 2020, arXiv:1905.00954"
    )

    @classmethod
    def default(cls) -> "IGOS":
        """Settled."""
        return cls(search="settled", iterations=100, tv=5.0)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The descent."""
        cost = self.objective(problem)
        if self.search == "settled":
            enlarged, trace = self.settled([descent.deletes(cost)], lambda one, m: one.penalty(m, self.l1))
        else:
            enlarged, trace = mask.igos(
                cost, self.line, resolution=self.resolution, iterations=self.iterations, steps=self.steps, l1=self.l1,
                deviation=self.deviation(cost),
            )  # fmt: skip
        return self.opened(problem, enlarged), trace


@dataclasses.dataclass(frozen=True)
class IGOSPlusPlus(_Integrated):
    """Two masks, one whose deletion lowers the score and one whose insertion raises it, and their product, by I-GOS.

    Descends on l1 mean|1 - P| + tv BTV(P) and the integrated scores del(P) - ins(P) + del(D) - ins(I), P = D I, with
    the terms' gradients halved; BTV is half roughness of the small mask, half of the enlarged one where x itself is
    smooth (exp(-d**2 / 0.01)). A step is taken if the noisy integrated loss falls enough. Attributions are 1 - P.

    That is `search="paper"`. The name "igos_plus_plus" stands for ``IGOSPlusPlus(search="settled", iterations=60,
    tv=5.0)``: placed and settled as in `IGOS`, with all scores in units of |F(x) - F(x')| and x's own steps in units of
    its range. It is chosen, and its objective reported, by l1 mean|1 - P| + tv BTV(P) + (del(P) - ins(P)) / 2.

    Fields:
        resolution, iterations, steps, l1, tv, tv_beta, noise, initial_step, shrink, armijo, minimum_step, search,
            learning_rate: as in `IGOS`.

    ``trace``: as in `IGOS`, without scores.

    >>> tfig.explain(model, x, "igos_plus_plus", output="probabilities")
    """

    initial_step: float = 1000.0

    cost = "4 iterations + steps gradients, and 32 passes"
    name = "igos_plus_plus"
    reference = (
        "Khorram, Lawson & Li, iGOS++: Integrated Gradient Optimized Saliency by Bilateral Perturbations, 2021, "
        "arXiv:2012.15783"
    )

    @classmethod
    def default(cls) -> "IGOSPlusPlus":
        """Settled."""
        return cls(search="settled", iterations=60, tv=5.0)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The descent."""
        cost = self.objective(problem)
        if self.search == "settled":
            way = descent.deletes(cost)
            both = [way, descent.inserts(way)]
            enlarged, trace = self.settled(both, lambda one, m: pair.bilateral(one, m, self.l1))
        else:
            costs = pair.Pair(cost, self.steps, self.deviation(cost), self.l1)
            enlarged, trace = pair.descend(costs, self.line, self.resolution, self.iterations)
        return self.opened(problem, enlarged), trace


@dataclasses.dataclass(frozen=True)
class MeaningfulPerturbation(_Mask):
    """The smallest smooth mask that lowers the score, by Adam.

    min{ l1 sum|1 - M| + tv sum|dM|**tv_beta + F(x M + x' (1 - M)) : M }, M enlarged, blurred, and the image shifted at
    random at each iteration. Attributions are 1 - M.

    That is `search="paper"`, whose penalties are sums, weighed for images of 224 pixels and probabilities. The name
    "meaningful_perturbation" stands for ``MeaningfulPerturbation(search="settled", iterations=100, learning_rate=0.03,
    l1=1.0, tv=5.0)``: the objective, the start and the end of `IGOS`, with this method's blur, shifts and exponent; its
    pixels are of an image of 224.

    Fields:
        resolution: of the mask, along each spatial axis, at most x's.
        iterations, learning_rate: of Adam.
        l1, tv, tv_beta: weights of size and roughness, exponent of roughness.
        blur: deviation of the blur of the enlarged mask, in pixels.
        shift: number of pixels the image may be shifted by, with 0 the first.
        search: "paper" or "settled".

    ``trace``: mask [B, h, w, 1], losses [B, iterations], moved [B]; of the settled search objective [B].

    >>> tfig.explain(model, x, "meaningful_perturbation", output="probabilities")
    """

    resolution: int = 28
    iterations: int = 300
    learning_rate: float = 0.1
    l1: float = 1e-4
    tv: float = 1e-2
    tv_beta: float = 3.0
    blur: float = 5.0
    shift: int = 4
    search: str = "paper"

    cost = "iterations + 20 gradients, and 16 passes"
    name = "meaningful_perturbation"
    reference = (
        "Fong & Vedaldi, Interpretable Explanations of Black Boxes by Meaningful Perturbation, 2017, arXiv:1704.03296"
    )

    def __post_init__(self):
        for name in ("resolution", "iterations"):
            whole(name, getattr(self, name), 1)
        whole("shift", self.shift, 0)
        for name in ("learning_rate", "l1", "tv", "blur"):
            at_least(name, getattr(self, name), 0)
        at_least("tv_beta", self.tv_beta, 1)
        one_of("search", self.search, SEARCHES)

    @classmethod
    def default(cls) -> "MeaningfulPerturbation":
        """Settled."""
        return cls(search="settled", iterations=100, learning_rate=0.03, l1=1.0, tv=5.0)

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The descent."""
        where = mask.canvas(problem.x)
        share: float | tf.Tensor = 1.0
        if self.search == "settled" and where.rank:
            side = extent(problem.x[where.leaf], 1)
            share = (side if isinstance(side, int) else tf.cast(side, problem.x[where.leaf].dtype)) / SIDE
        if self.blur and where.rank:
            where = dataclasses.replace(where, smooth=pair.smoothed(share * self.blur))
        cost = mask.Objective(problem, where, self.tv, self.tv_beta, CELLS if self.search == "settled" else None)
        if self.search == "settled":
            least = min(self.shift, 2)
            wide = isinstance(share, tf.Tensor)
            shift = tf.maximum(tf.round(share * self.shift), least) if wide else max(round(share * self.shift), least)
            enlarged, trace = descent.settle(
                [descent.deletes(cost)], lambda one, m: one.penalty(m, self.l1), pair.shifted(cost, shift),
                resolution=self.resolution, iterations=self.iterations, steps=IGOS.steps,
                deviation=tf.zeros([problem.rows], cost.x.dtype), rate=self.learning_rate,
            )  # fmt: skip
        else:
            draw = pair.shifted(cost, self.shift)
            enlarged, trace = pair.perturb(cost, self.l1, self.learning_rate, self.iterations, self.resolution, draw)
        return self.opened(problem, enlarged), trace
