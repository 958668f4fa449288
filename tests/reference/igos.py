"""I-GOS, iGOS++ and meaningful perturbation of one image, as their definitions read, in eager TensorFlow and loops."""

import functools

import numpy as np
import tensorflow as tf


@functools.cache
def corners(tall, wide, size):
    """What each pixel takes of each cell, [size * size, tall * wide]: bilinear with aligned corners, pixel by pixel."""
    weights = np.zeros((size, size, tall, wide))
    for i in range(size):
        for j in range(size):
            u, v = (k * (side - 1) / max(size - 1, 1) for side, k in ((tall, i), (wide, j)))
            top, left = min(int(u), tall - 2), min(int(v), wide - 2)
            p, q = u - top, v - left
            weights[i, j, top, left] = (1 - p) * (1 - q)
            weights[i, j, top, left + 1] = (1 - p) * q
            weights[i, j, top + 1, left] = p * (1 - q)
            weights[i, j, top + 1, left + 1] = p * q
    return weights.reshape(size * size, -1)


def enlarge(mask, size):
    """mask [h, w] -> [size, size]."""
    mask = tf.convert_to_tensor(mask)
    flat = tf.linalg.matvec(tf.constant(corners(*mask.shape, size), mask.dtype), tf.reshape(mask, [-1]))
    return tf.reshape(flat, [size, size])


def igos(model, x, baseline, target, resolution, iterations, steps, l1=1.0, tv=20.0, beta=2.0):
    """One image without noise: (mask, losses, scores, steps taken)."""
    size = x.shape[0]

    def probability(mask):
        image = x * enlarge(mask, size)[..., None] + baseline * (1 - enlarge(mask, size)[..., None])
        return model(image[None])[0, target]

    def regulariser(mask, weight):
        rows, columns = mask[:-1] - mask[1:], mask[:, :-1] - mask[:, 1:]
        variation = tf.reduce_mean(tf.abs(rows) ** beta) + tf.reduce_mean(tf.abs(columns) ** beta)
        return weight * tf.reduce_mean(tf.abs(1 - mask)) + tv * variation

    mask = tf.ones([resolution, resolution], x.dtype)
    losses, scores, taken, first = [], [], [], None
    for i in range(iterations):
        with tf.GradientTape() as tape:
            tape.watch(mask)
            total = regulariser(mask, l1)
            for k in range(1, steps + 1):
                total += probability(k / steps * mask) / steps
        direction = tape.gradient(total, mask)
        here = float(probability(mask))
        first = here if first is None else first
        loss = float(regulariser(mask, l1)) + here
        step = 200.0
        while True:
            trial = tf.clip_by_value(mask - step * direction, 0, 1)
            value = float(probability(trial))
            if float(regulariser(trial, l1)) + value <= loss - 1e-4 * step * float(tf.reduce_sum(direction**2)):
                break
            if step < 1e-5:
                break
            step *= 0.2
        mask = trial
        losses.append(loss)
        scores.append(value)
        taken.append(step)
        if iterations > 3:
            if i == int(iterations / 2):
                l1 = l1 / 10 if abs(first - here) <= 0.001 else l1
            elif i == int(iterations / 1.25):
                l1 = l1 / 5 if abs(first - here) <= 0.01 else l1
    return np.array(mask), losses, scores, taken


def igos_plus_plus(model, x, baseline, target, resolution, iterations, steps, l1=1.0, tv=20.0, beta=2.0):
    """One image without noise: (product of the masks, losses, steps taken), as the authors' line search has it."""
    size = x.shape[0]

    def integrated(mask, kept, put):
        large, total = enlarge(mask, size)[..., None], 0.0
        for k in range(1, steps + 1):
            total += model((kept * (k / steps * large) + put * (1 - k / steps * large))[None])[0, target] / steps
        return total

    def score(delete, insert):
        product = delete * insert
        removed = integrated(product, x, baseline) + integrated(delete, x, baseline)
        return removed - integrated(product, baseline, x) - integrated(insert, baseline, x)

    def regulariser(product):
        large, gray, variation = enlarge(product, size), tf.reduce_mean(x, -1), 0.0
        for cut in (lambda m: m[1:] - m[:-1], lambda m: m[:, 1:] - m[:, :-1]):
            variation += tf.reduce_mean(tf.abs(cut(product)) ** beta) / 2
            variation += tf.reduce_mean(tf.abs(cut(large)) ** beta * tf.exp(-(cut(gray) ** 2) / 0.01)) / 2
        return l1 * tf.reduce_mean(tf.abs(1 - product)) + tv * variation

    masks = [tf.ones([resolution, resolution], x.dtype) for _ in range(2)]  # two, or a tape takes them for one
    losses, taken = [], []
    for _ in range(iterations):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(masks)
            scores, penalty = score(*masks), regulariser(masks[0] * masks[1])
        parts = zip(tape.gradient(scores, masks), tape.gradient(penalty, masks), strict=True)
        ways = [a / 2 + b for a, b in parts]
        loss, step = float(scores + penalty), 1000.0
        squares = sum(float(tf.reduce_sum(way**2)) for way in ways)
        while True:
            trial = [tf.clip_by_value(mask - step * way, 0, 1) for mask, way in zip(masks, ways, strict=True)]
            value = float(score(*trial) + regulariser(trial[0] * trial[1]))
            if value <= loss - 1e-4 * step * squares or step < 1e-5:
                break
            step *= 0.2
        masks = trial
        losses.append(loss)
        taken.append(step)
    return np.array(masks[0] * masks[1]), losses, taken


def blurred(mask, blur):
    """[size, size], blurred by as many taps as reach three deviations, mirrored at the borders."""
    reach = int(3 * blur)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * blur**2))
    taps = (taps / taps.sum())[:, None, None, None]
    image = tf.pad(mask, [[reach, reach]] * 2, "REFLECT")[None, ..., None]
    image = tf.nn.conv2d(image, taps, 1, "VALID")
    return tf.nn.conv2d(image, taps.transpose(1, 0, 2, 3), 1, "VALID")[0, ..., 0]


def meaningful_perturbation(model, x, baseline, target, resolution, iterations, rate, l1, tv, beta, blur):
    """One image that is not shifted: (mask, losses), by Adam as its paper writes it."""
    size = x.shape[0]
    mask = tf.ones([resolution, resolution], x.dtype)
    first, second, losses = tf.zeros_like(mask), tf.zeros_like(mask), []
    for t in range(1, iterations + 1):
        with tf.GradientTape() as tape:
            tape.watch(mask)
            large = blurred(enlarge(mask, size), blur)[..., None]
            loss = model((x * large + baseline * (1 - large))[None])[0, target] + l1 * tf.reduce_sum(tf.abs(1 - mask))
            loss += tv * tf.reduce_sum(tf.abs(mask[1:] - mask[:-1]) ** beta)
            loss += tv * tf.reduce_sum(tf.abs(mask[:, 1:] - mask[:, :-1]) ** beta)
        slope = tape.gradient(loss, mask)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        mask -= rate * (first / (1 - 0.9**t)) / (tf.sqrt(second / (1 - 0.999**t)) + 1e-8)
        mask = tf.clip_by_value(mask, 0, 1)
        losses.append(float(loss))
    return np.array(mask), losses


def shrunk(image, small):
    """[size, size] -> [small, small]: for each cell the mean of the pixels, weighed by what they take of it."""
    weights = corners(small, small, len(image)) if small > 1 else np.ones((image.size, 1))
    return (weights.T @ image.reshape(-1) / weights.sum(0)).reshape(small, small)


def settled(model, x, baseline, target, resolution, iterations, steps, *, both=False, penalty, blur=None):
    """One image without noise: (mask, losses, objective), placed and settled; `both`: as iGOS++ has it."""
    size = x.shape[0]

    def large(mask):
        return enlarge(mask, size) if blur is None else blur(enlarge(mask, size))

    def score(mask, kept, put):
        spread = large(mask)[..., None]
        return model((put + spread * (kept - put))[None])[0, target]

    first, closed = (score(value * tf.ones([resolution] * 2, x.dtype), x, baseline) for value in (1, 0))
    unit = abs(float(first - closed))

    def deleted(mask):
        return tf.maximum((score(mask, x, baseline) - first) / unit, -1.5)

    def inserted(mask):
        return tf.maximum((closed - score(mask, baseline, x)) / unit, -1.5)

    def objective(mask):
        gains = (deleted(mask) + inserted(mask)) / 2 if both else deleted(mask)
        return penalty(mask) + gains

    pulled = np.zeros((size, size))
    for k in range(1, steps + 1):
        spread = tf.ones([size, size], x.dtype)
        with tf.GradientTape() as tape:
            tape.watch(spread)
            value = model((baseline + k / steps * spread[..., None] * (x - baseline))[None])[0, target]
        pulled += np.array(tape.gradient(value, spread)) / steps
    half = -(-resolution // 2)
    broad = np.array(enlarge(shrunk(pulled, half), resolution))
    placed, order = (np.maximum(one, 0) / np.maximum(one, 0).max() for one in (broad, shrunk(pulled, resolution)))

    begun = [np.clip(1 - reach * placed, 0, 1) for reach in (1, 2, 4, 8, 16)] + [np.zeros_like(placed)]
    taken = [mask for mask in begun if float(deleted(tf.constant(mask))) <= -0.5]
    start = min(taken, key=lambda mask: float(objective(tf.constant(mask))))

    masks = [tf.constant(start) for _ in range(1 + both)]
    firsts, seconds = [np.zeros_like(start)] * 2, [np.zeros_like(start)] * 2
    sums, losses = [start.copy() for _ in masks], []
    for t in range(1, iterations + 1):
        with tf.GradientTape() as tape:
            tape.watch(masks)
            product = masks[0] * masks[1] if both else masks[0]
            loss = objective(product)
            if both:
                loss += (deleted(masks[0]) + inserted(masks[1])) / 2
        slopes = tape.gradient(loss, masks)
        losses.append(float(loss))
        for i, slope in enumerate(resolution**2 * np.array(one) for one in slopes):
            firsts[i] = 0.9 * firsts[i] + 0.1 * slope
            seconds[i] = 0.999 * seconds[i] + 0.001 * slope**2
            step = firsts[i] / (1 - 0.9**t) / (np.sqrt(seconds[i] / (1 - 0.999**t)) + 1e-8)
            masks[i] = tf.constant(np.clip(masks[i] - 0.03 * (1 - (t - 1) / iterations) * step, 0, 1))
            sums[i] = sums[i] + np.array(masks[i])
    mean = np.prod([one / (iterations + 1) for one in sums], 0)
    ends = [(1 - share) * mean + share * (1 - order) for share in (0.25, 0.2, 0.15, 0.1, 0.05, 0)]
    ends += [np.prod([np.array(mask) for mask in masks], 0), start]
    values = [float(objective(tf.constant(mask))) for mask in ends]
    best = min(values)
    chosen = next(i for i, value in enumerate(values) if value - best <= 0.15 * abs(best))
    return ends[chosen], losses, values[chosen]
