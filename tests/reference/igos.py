"""I-GOS for one image, step by step as the definition reads, in eager TensorFlow and Python loops."""

import numpy as np
import tensorflow as tf


def enlarge(mask, size):
    """Bilinear with aligned corners, pixel by pixel; mask [h, w] -> [size, size]."""
    rows = []
    for i in range(size):
        columns = []
        for j in range(size):
            u, v = (k * (mask.shape[a] - 1) / max(size - 1, 1) for a, k in ((0, i), (1, j)))
            top, left = min(int(u), mask.shape[0] - 2), min(int(v), mask.shape[1] - 2)
            p, q = u - top, v - left
            columns.append(
                (1 - p) * ((1 - q) * mask[top, left] + q * mask[top, left + 1])
                + p * ((1 - q) * mask[top + 1, left] + q * mask[top + 1, left + 1])
            )
        rows.append(tf.stack(columns))
    return tf.stack(rows)


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
