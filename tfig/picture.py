"""Pictures of maps, as TensorFlow operations on whole batches: the same in a program, in a served model and at home."""

import tensorflow as tf

WARM, COLD = (178, 24, 43), (33, 102, 172)
"""RGB of evidence for the target (red) and against it (blue)."""

CLIP = 0.99
"""Quantile of |map| shown in full colour: a single outlier does not wash out the rest."""

LUMA = (4899, 9617, 1868)
"""Weights of red, green and blue in grey, over 2**14 (ITU-R BT.601)."""


def heatmap(attributions: tf.Tensor, size: tf.Tensor | None = None) -> tf.Tensor:
    """Channels summed, [B, H, W, C] -> [B, H, W], enlarged linearly to `size` (H, W) if given."""
    if size is not None:
        return tf.image.resize(tf.reduce_sum(attributions, -1, keepdims=True), size)[..., 0]
    return tf.reduce_sum(attributions, -1)


def full(maps: tf.Tensor) -> tf.Tensor:
    """The value [B] shown in full colour: the 99th percentile of each map's magnitude; 1 where all are zeros."""
    maps = tf.convert_to_tensor(maps)
    flat = tf.sort(tf.reshape(tf.abs(maps), [tf.shape(maps)[0], -1]))
    last = tf.shape(flat)[1] - 1
    place = CLIP * tf.cast(last, maps.dtype)
    under = tf.minimum(tf.cast(tf.floor(place), tf.int32), last)
    low, high = flat[:, under], flat[:, tf.minimum(under + 1, last)]
    most = low + (high - low) * (place - tf.cast(under, maps.dtype))
    most = tf.where(most > 0, most, flat[:, -1])
    return tf.where(most > 0, most, 1)


def strength(maps: tf.Tensor, top: float | None = None) -> tf.Tensor:
    """Maps [B, ...] scaled to [-1, 1], each by `top` or by the 99th percentile of its magnitude; zeros stay zeros."""
    if top is not None:
        return tf.clip_by_value(maps / top, -1, 1)
    return tf.clip_by_value(maps / tf.reshape(full(maps), [-1, *[1] * (len(maps.shape) - 1)]), -1, 1)


def pixels(images: tf.Tensor) -> tf.Tensor:
    """Images [B, H, W, C] of any range as uint8 RGB [B, H, W, 3].

    uint8 stays as it is; within 0 to 1 and within 0 to 255 these are black and white; else each image's own range is
    stretched. Other than three channels: the first, in grey.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype != tf.uint8:
        images = tf.cast(images, tf.float32)
        images = tf.where(tf.math.is_finite(images), images, 0)
        low, high = (f(images, [1, 2, 3], keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
        unit, byte = (low >= 0) & (high <= 1), (low >= 0) & (high <= 255)
        black = tf.where(unit | byte, 0.0, low)
        white = tf.where(unit, 1.0, tf.where(byte, 255.0, high))
        scaled = (images - black) / tf.maximum(white - black, 1e-12) * 255
        images = tf.cast(tf.clip_by_value(scaled, 0, 255), tf.uint8)
    return images if images.shape[-1] == 3 else tf.tile(images[..., :1], [1, 1, 1, 3])


def paint(maps: tf.Tensor, images: tf.Tensor, alpha: float, top: float | None = None) -> tf.Tensor:
    """Maps [B, H, W] over images [B, H, W, C], uint8 RGB [B, H, W, 3]; images are greyed, so colour means the map."""
    parts = tf.cast(pixels(images), tf.int32) * tf.constant(LUMA)
    grey = tf.cast((tf.reduce_sum(parts, -1, keepdims=True) + 2**13) // 2**14, tf.float32)
    maps = tf.cast(tf.where(tf.math.is_finite(maps), maps, 0), tf.float32)
    scaled = strength(maps, top)[..., tf.newaxis]
    colour = tf.where(scaled >= 0, tf.constant(WARM, tf.float32), tf.constant(COLD, tf.float32))
    opacity = alpha * tf.abs(scaled)
    return tf.cast(tf.clip_by_value(grey * (1 - opacity) + colour * opacity + 0.5, 0, 255), tf.uint8)
