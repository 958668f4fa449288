"""Layer-wise relevance propagation through dense ReLU layers, element by element, as the papers write it."""

import numpy as np

EPSILON = 1e-6


def stable(z, epsilon=EPSILON):
    return z + epsilon if z >= 0 else z - epsilon


def shares(rule, a, w, b):
    """How much of one unit's relevance each input gets: inputs a [I], weights w [I] and bias b of the unit."""
    name, *numbers = rule
    z = [a[i] * w[i] for i in range(len(a))]
    if name == "epsilon":
        return [one / stable(sum(z) + b, numbers[0]) for one in z]
    if name == "gamma":
        gamma, total = numbers[0], sum(z) + b
        favoured = [one + gamma * max(one, 0) if total > 0 else one + gamma * min(one, 0) for one in z]
        bias = b + gamma * (max(b, 0) if total > 0 else min(b, 0))
        return [one / stable(sum(favoured) + bias) if total != 0 else 0.0 for one in favoured]
    if name == "alpha_beta":
        alpha, beta = numbers
        up, down = [max(one, 0) for one in z], [min(one, 0) for one in z]
        raising, lowering = stable(sum(up) + max(b, 0)), stable(sum(down) + min(b, 0))
        return [alpha * u / raising - (beta * d / lowering if beta else 0) for u, d in zip(up, down, strict=True)]
    if name == "z_box":
        low, high = numbers
        boxed = [a[i] * w[i] - low * max(w[i], 0) - high * min(w[i], 0) for i in range(len(a))]
        return [one / stable(sum(boxed)) for one in boxed]
    if name == "w_square":
        return [w[i] ** 2 / sum(v**2 for v in w) for i in range(len(a))]
    return [1 / len(a)] * len(a)  # flat


def relevance(x, layers, target, rules):
    """Relevance [F] of a row, for layers [(weights [I, J], bias [J])] with ReLUs between, and a rule for each layer."""
    activations = [np.asarray(x, "float64")]
    for i, (w, b) in enumerate(layers):
        z = activations[-1] @ w + b
        activations.append(np.maximum(z, 0) if i < len(layers) - 1 else z)
    above = np.zeros(len(activations[-1]))
    above[target] = activations[-1][target]
    for (w, b), a, rule in reversed(list(zip(layers, activations[:-1], rules, strict=True))):
        below = np.zeros(len(a))
        for j in range(w.shape[1]):
            below += above[j] * np.array(shares(rule, a, w[:, j], b[j]))
        above = below
    return above
