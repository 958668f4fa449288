"""Metrics on one row, position by position, as their papers write them. Maps are [M] or [H, W]."""

import math

import numpy as np


def curve(score, x, absent, attribution, step, inserting):
    """Scores of one row as positions, in groups of `step`, are replaced (or brought back) from the highest down."""
    order = sorted(range(attribution.size), key=lambda i: (-attribution.flat[i], i))
    at = (absent if inserting else x).astype("float64").copy()
    source, found, shown = x if inserting else absent, [], []
    flat, values = at.reshape(attribution.size, -1), source.reshape(attribution.size, -1)
    found.append(score(at))
    for begin in range(0, len(order), step):
        for i in order[begin : begin + step]:
            flat[i] = values[i]
        found.append(score(at))
        shown.append(len(order[begin : begin + step]))
    return np.array(found), shown


def rise_area(scores):
    """As RISE's code has it."""
    return (sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


def igos_area(scores, sizes):
    """As iGOS++'s code has it, with the last step's score."""
    return sum(score * size for score, size in zip(scores[1:], sizes, strict=True)) / sum(sizes)


def infidelity(score, x, attribution, perturbations, normalize):
    dots = [float((i * attribution).sum()) for i in perturbations]
    falls = [score(x) - score(x - i) for i in perturbations]
    beta = 1.0
    if normalize:
        beta = np.mean([a * b for a, b in zip(dots, falls, strict=True)]) / np.mean([a * a for a in dots])
    return np.mean([(beta * a - b) ** 2 for a, b in zip(dots, falls, strict=True)])


def subset_correlation(score, x, absent, attribution, subsets):
    """Pearson's correlation of sum{ attribution : S } and score(x) - score(x without S) over `subsets`."""
    sums, falls = [], []
    for subset in subsets:
        without = x.astype("float64").copy()
        flat, values = without.reshape(attribution.size, -1), absent.reshape(attribution.size, -1)
        for i in subset:
            flat[i] = values[i]
        sums.append(sum(attribution.flat[i] for i in subset))
        falls.append(score(x) - score(without))
    return np.corrcoef(sums, falls)[0, 1]


def seen(x, absent, attribution):
    """x through its map."""
    mask = np.maximum(attribution, 0) / np.maximum(attribution, 0).max()
    mask = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
    return mask * x + (1 - mask) * absent


def sensitivities(explain, x, moves):
    """(max, mean, Lipschitz) of the changes of an explanation [.] over y = x + move."""
    here, shares, slopes = explain(x), [], []
    for move in moves:
        change = math.sqrt(((explain(x + move) - here) ** 2).sum())
        shares.append(change / math.sqrt((here**2).sum()))
        slopes.append(change / math.sqrt((move**2).sum()))
    return max(shares), sum(shares) / len(shares), max(slopes)


def ssim(a, b, taps=11, sigma=1.5, top=2.0):
    """Structural similarity of two images, window by window (Wang et al., 2004)."""
    taps = min(taps, *a.shape)
    along = np.exp(-((np.arange(taps) - (taps - 1) / 2) ** 2) / (2 * sigma**2))
    window = np.outer(along, along) / np.outer(along, along).sum()
    first, second, found = (0.01 * top) ** 2, (0.03 * top) ** 2, []
    for i in range(a.shape[0] - taps + 1):
        for j in range(a.shape[1] - taps + 1):
            p, q = a[i : i + taps, j : j + taps], b[i : i + taps, j : j + taps]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            cov = (window * (p - mp) * (q - mq)).sum()
            found.append((2 * mp * mq + first) * (2 * cov + second) / ((mp**2 + mq**2 + first) * (vp + vq + second)))
    return np.mean(found)


def gini(values):
    """Half the mean difference of all pairs, over the mean."""
    values = np.abs(values).ravel()
    return np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())


def entropy(values):
    shares = [abs(v) / np.abs(values).sum() for v in values.ravel()]
    return -sum(p * math.log(p) for p in shares if p > 0)


def localisation(attribution, mask):
    """(pointing game, relevance mass, relevance rank)."""
    order = sorted(range(attribution.size), key=lambda i: (-attribution.flat[i], i))
    size = int(mask.sum())
    positive = [max(v, 0) for v in attribution.ravel()]
    mass = sum(v for v, m in zip(positive, mask.ravel(), strict=True) if m) / sum(positive)
    return float(mask.flat[order[0]]), mass, sum(bool(mask.flat[i]) for i in order[:size]) / size


def non_sensitivity(attribution, ignored):
    """The share of positions in one of two sets only: those without attribution, and those ignored."""
    silent = {i for i, value in enumerate(attribution.ravel()) if value == 0}
    return len(silent ^ set(ignored)) / attribution.size
