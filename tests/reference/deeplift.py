"""DeepLIFT through dense ReLU layers, with the positive and the negative contributions apart, unit by unit."""

import numpy as np


def relu(z):
    return max(z, 0.0)


def contributions(x, x0, layers, target, cancel):
    """Contributions [F] of a row x from x0, for layers [(weights, bias)] with ReLUs between."""
    positive, negative = np.maximum(x - x0, 0), np.minimum(x - x0, 0)
    below = x0.astype("float64")
    ways = []  # of each layer: multipliers of its inputs' positive and negative parts, as matrices
    for i, (w, b) in enumerate(layers):
        up, down = np.maximum(w, 0), np.minimum(w, 0)
        raised, lowered = positive @ up + negative @ down, positive @ down + negative @ up
        start = below @ w + b
        after_up, after_down = np.ones_like(raised), np.ones_like(raised)
        if i < len(layers) - 1:
            for j in range(len(start)):
                z0, p, n = start[j], raised[j], lowered[j]
                if cancel:
                    gain = (relu(z0 + p) - relu(z0) + relu(z0 + p + n) - relu(z0 + n)) / 2
                    loss = (relu(z0 + n) - relu(z0) + relu(z0 + p + n) - relu(z0 + p)) / 2
                    after_up[j] = gain / p if p else 0
                    after_down[j] = loss / n if n else 0
                else:
                    rest = p + n
                    after_up[j] = after_down[j] = (relu(z0 + rest) - relu(z0)) / rest if rest else 0
        ways.append((up, down, after_up, after_down))
        positive, negative = raised * after_up, lowered * after_down
        below = np.maximum(start, 0) if i < len(layers) - 1 else start
    m_up = m_down = np.eye(len(below))[target]
    for up, down, after_up, after_down in reversed(ways):
        m_up, m_down = m_up * after_up, m_down * after_down
        m_up, m_down = up @ m_up + down @ m_down, down @ m_up + up @ m_down
    return m_up * np.maximum(x - x0, 0) + m_down * np.minimum(x - x0, 0)
