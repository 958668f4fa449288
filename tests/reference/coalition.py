"""Coalition methods on one row, element by element, as the papers write them."""

import itertools
import math

import cv2
import numpy as np
from sklearn import linear_model


def shapley(value, count):
    """Exact Shapley values of a game value(set of players)."""
    found = np.zeros(count)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for chosen in itertools.combinations(others, size):
                found[i] += weight * (value({*chosen, i}) - value(set(chosen)))
    return found


def occlusion(score, x, baseline, window, stride):
    """Mean score difference of the windows that cover each position of an image [H, W, C]."""
    height, width, _ = x.shape
    sums, counts = np.zeros((height, width)), np.zeros((height, width))
    for top in range(math.ceil(max(height - window, 0) / stride) + 1):
        for left in range(math.ceil(max(width - window, 0) / stride) + 1):
            rows = slice(top * stride, min(top * stride + window, height))
            columns = slice(left * stride, min(left * stride + window, width))
            blocked = x.copy()
            blocked[rows, columns] = baseline[rows, columns]
            sums[rows, columns] += score(x) - score(blocked)
            counts[rows, columns] += 1
    return sums / counts


def guided_ig(gradient, x, baseline, steps, fraction, distance):
    """Guided integrated gradients of one row [F]: a literal walk."""
    at, attribution = baseline.astype("float64").copy(), np.zeros(len(x))
    total = np.abs(x - baseline).sum()
    for step in range(steps):
        actual = gradient(at)
        grad = actual.copy()
        alpha = (step + 1) / steps
        low = baseline + max(alpha - distance, 0) * (x - baseline)
        high = baseline + min(alpha + distance, 1) * (x - baseline)
        target, gamma = total * (1 - alpha), math.inf
        while gamma > 1:
            old = at.copy()
            late = np.abs(x - at) > np.abs(x - low)
            at[late] = low[late]
            current = np.abs(at - x).sum()
            if math.isclose(target, current, rel_tol=1e-9, abs_tol=1e-9):
                attribution += (at - old) * actual
                break
            grad[at == high] = math.inf
            limit = np.quantile(np.abs(grad), fraction, method="lower")
            chosen = (np.abs(grad) <= limit) & (grad != math.inf)
            reach = (np.abs(at - high) * chosen).sum()
            gamma = (current - target) / reach if reach > 0 else math.inf
            if gamma > 1:
                at[chosen] = high[chosen]
            else:
                at[chosen] = (at + gamma * (high - at))[chosen]
            attribution += (at - old) * actual
            if not chosen.any():
                break
    return attribution


def ranked_regions(attribution, maps, least):
    """XRAI's ranking of one row: attribution [H, W], maps [H, W, K]; literal sets of positions."""
    masks = [maps[..., k] == number for k in range(maps.shape[-1]) for number in np.unique(maps[..., k])]
    taken, shown = np.zeros(attribution.shape, bool), np.full(attribution.shape, np.nan)
    while True:
        fresh = [mask & ~taken for mask in masks]
        fresh = [mask for mask in fresh if mask.sum() >= least]
        if not fresh:
            break
        best = max(fresh, key=lambda mask: attribution[mask].mean())
        shown[best] = attribution[best].mean()
        taken |= best
    if (~taken).any():
        shown[~taken] = attribution[~taken].mean()
    return shown


def rise(score, x, baseline, grids, shifts, probability):
    """RISE of one image [H, W, C]: grids [N, s, s] of zeros and ones, enlarged by OpenCV, cut out at shifts [N, 2]."""
    height, width, _ = x.shape
    found = np.zeros((height, width))
    for grid, shift in zip(grids, shifts, strict=True):
        cells = len(grid)
        tall, broad = math.ceil(height / cells), math.ceil(width / cells)
        large = cv2.resize(grid, ((cells + 1) * broad, (cells + 1) * tall), interpolation=cv2.INTER_LINEAR)
        top, left = int(shift[0] * tall), int(shift[1] * broad)
        mask = large[top : top + height, left : left + width]
        found += score(x * mask[..., None] + baseline * (1 - mask[..., None])) * mask
    return found / len(grids) / probability


def lime(score, x, baseline, present, width, alpha):
    """LIME of one row [F]: scikit-learn's ridge regression on the coalitions `present` [N, F]."""
    values = [score(np.where(row > 0, x, baseline)) for row in present]
    cosine = [row.sum() / max(math.sqrt(len(row)) * math.sqrt(row.sum()), 1e-12) for row in present]
    weights = np.exp(-((1 - np.array(cosine)) ** 2) / width**2)
    return linear_model.Ridge(alpha=alpha).fit(present, values, sample_weight=weights).coef_
