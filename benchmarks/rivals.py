"""How each package is asked for a map: the same network, images, classes and number of evaluations.

What a package makes of its maps for the eye is left out, where its parts can be called without. Packages that take one
class, or one image, a call are called so.
"""

import dataclasses
import logging
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import tfig

Ask = Callable[[], np.ndarray]
NOISE = 0.15
GRID = 4
KERNEL_WIDTH = 0.25
COUNT = tf.Variable(0, dtype=tf.int64, trainable=False)
"""Rows that have passed a counted network."""


class Counted(keras.layers.Layer):
    """The identity; adds the rows that pass to COUNT."""

    def call(self, x):
        """x itself."""
        with tf.control_dependencies([COUNT.assign_add(tf.shape(x, tf.int64)[0])]):
            return tf.identity(x)


@dataclasses.dataclass(frozen=True)
class Net:
    """A network, its images and what is asked of it.

    Fields:
        model: a functional Keras model.
        softmax: the same weights with a softmax at the end, for a peer that cannot do without.
        layer: of the last feature maps.
        samples: of masks and of coalitions.
        patch: (window, strides) of the three rows of occlusion.
        batches: sizes tried for peers.
    """

    name: str
    model: keras.Model
    softmax: keras.Model
    x: np.ndarray
    labels: np.ndarray
    layer: str
    steps: int
    draws: int
    masks: int
    coalitions: int
    patch: tuple[tuple[int, int], ...]
    batches: tuple[int, ...] = (32, 64, 128, 256, 1024)

    @property
    def hot(self) -> np.ndarray:
        """Labels as rows of zeros and a one."""
        return np.eye(self.model.output.shape[-1], dtype=np.float32)[self.labels]

    @property
    def sigma(self) -> float:
        """The noise in absolute terms, where a peer takes it so."""
        return NOISE * float(np.mean(np.ptp(self.x, axis=(1, 2, 3))))

    def few(self, rows: int) -> "Net":
        """The first images alone."""
        return dataclasses.replace(self, x=self.x[:rows], labels=self.labels[:rows])

    def counted(self) -> "Net":
        """The same, with evaluations counted."""
        models = {}
        for name in ("model", "softmax"):
            leaf = keras.Input(self.x.shape[1:])
            models[name] = keras.Model(leaf, getattr(self, name)(Counted()(leaf)))
        return dataclasses.replace(self, **models)

    def cells(self) -> np.ndarray:
        """A grid of segments, [H, W]."""
        side = self.x.shape[1]
        index = np.arange(side) * GRID // side
        return (index[:, np.newaxis] * GRID + index).astype(np.int32)

    def classes(self) -> list[tuple[int, np.ndarray]]:
        """Each label with the places of its images, for peers that take one class a call."""
        return [(int(one), np.flatnonzero(self.labels == one)) for one in np.unique(self.labels)]


def ours(net: Net, method, **options) -> Ask:
    """tfig as it comes: its own batch size."""
    explainer = tfig.Explainer(net.model, method, target=net.labels, **options)
    return lambda: np.asarray(explainer(net.x).attributions)


def scattered(net: Net, of_class: Callable[[np.ndarray, int], np.ndarray]) -> Ask:
    """One call for each class, its maps put back in the images' order."""

    def ask() -> np.ndarray:
        parts = [(places, np.asarray(of_class(net.x[places], label))) for label, places in net.classes()]
        found = np.zeros([len(net.x), *parts[0][1].shape[1:]], np.float32)
        for places, part in parts:
            found[places] = part
        return found

    return ask


def xplique(kind: str, **fixed) -> Callable[[Net, int], Ask]:
    """An explainer of Xplique; options that are functions are asked of the net."""

    def make(net: Net, batch: int) -> Ask:
        import xplique.attributions

        options = {name: value(net) if callable(value) else value for name, value in fixed.items()}
        explainer = getattr(xplique.attributions, kind)(net.model, batch_size=batch, **options)
        return lambda: np.asarray(explainer.explain(net.x, net.hot))

    return make


def xplique_cells(net: Net) -> Callable:
    """The grid as Xplique asks for it."""
    cells = tf.constant(net.cells())
    return lambda image: cells


def blank(net: Net) -> np.ndarray:
    """Zeros for each channel."""
    return np.zeros(net.x.shape[-1], np.float32)


def near(net: Net) -> Callable:
    """tfig's weights of coalitions, for Xplique's LIME."""

    def kernel(original, coalitions, perturbed):
        present = tf.reduce_mean(tf.cast(coalitions, tf.float32), 1)
        return tf.exp(-((1 - tf.sqrt(present)) ** 2) / KERNEL_WIDTH**2)

    return kernel


def ridge(net: Net):
    """tfig's linear model."""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=1.0)


class Compiled:
    """A model as tf-keras-vis asks for it, its calls compiled: the package itself calls the model eagerly."""

    def __init__(self, model: keras.Model):
        self.inputs, self.outputs = model.inputs, model.outputs
        self._call = tf.function(lambda x, training: model(x, training=training), reduce_retracing=True)

    def __call__(self, x, training: bool = False):
        """The outputs."""
        return self._call(x[0] if isinstance(x, list) else x, training)


def chosen(net: Net) -> Callable:
    """Each image's own class, as a score of tf-keras-vis."""
    return lambda outputs: tf.gather(outputs, net.labels, batch_dims=1)


def vis_smooth(wrap: Callable = lambda model: model) -> Callable[[Net, int], Ask]:
    """SmoothGrad of tf-keras-vis without its pictures: all images at once, sample by sample."""

    def make(net: Net, batch: int) -> Ask:
        from tf_keras_vis.saliency import Saliency

        saliency, plain = Saliency(wrap(net.model)), {"gradient_modifier": None, "normalize_map": False}
        draw = {"smooth_samples": net.draws, "smooth_noise": NOISE, "keepdims": True}
        return lambda: np.asarray(saliency(chosen(net), net.x, **draw, **plain))

    return make


def vis_cam(net: Net, batch: int) -> Ask:
    """Grad-CAM of tf-keras-vis at the layer's resolution."""
    from tf_keras_vis.gradcam import Gradcam

    cam, plain = Gradcam(net.model), {"expand_cam": False, "normalize_cam": False}
    place = {"penultimate_layer": net.layer, "seek_penultimate_conv_layer": False}
    return lambda: np.asarray(cam(chosen(net), net.x, **place, **plain))


def explain_ig(net: Net, batch: int) -> Ask:
    """The part of tf-explain's integrated gradients before the picture, times x; no batch size can be given."""
    from tf_explain.core.integrated_gradients import IntegratedGradients as Peer

    def of_class(x: np.ndarray, label: int) -> np.ndarray:
        path = Peer.generate_interpolations(x, net.steps).astype(np.float32)
        return x * Peer.get_integrated_gradients(path, net.model, tf.constant(label), net.steps)

    return scattered(net, of_class)


def explain_smooth(net: Net, batch: int) -> Ask:
    """tf-explain's SmoothGrad before the picture: of the cross-entropy, so its sign is turned."""
    from tf_explain.core.smoothgrad import SmoothGrad as Peer

    def of_class(x: np.ndarray, label: int) -> np.ndarray:
        noisy = Peer.generate_noisy_images(x, net.draws, net.sigma).astype(np.float32)
        return -Peer.get_averaged_gradients(noisy, net.softmax, tf.constant(label), net.draws)

    return scattered(net, of_class)


def explain_cam(net: Net, batch: int) -> Ask:
    """tf-explain's Grad-CAM before the picture, without guided gradients."""
    from tf_explain.core.grad_cam import GradCAM as Peer

    def of_class(x: np.ndarray, label: int) -> np.ndarray:
        found = Peer.get_gradients_and_filters(net.model, x, net.layer, label, use_guided_grads=False)
        return np.maximum(np.stack(Peer.generate_ponderated_output(*found)), 0)

    return scattered(net, of_class)


def explain_occlusion(net: Net, batch: int) -> Ask:
    """tf-explain's maps before the picture: 1 - p under grey windows side by side."""
    from tf_explain.core.occlusion_sensitivity import OcclusionSensitivity

    peer, window = OcclusionSensitivity(batch_size=batch), net.patch[2][0]
    keras.utils.disable_interactive_logging()
    pairs = list(zip(net.x, net.labels, strict=True))
    return lambda: np.stack([peer.get_sensitivity_map(net.model, x, label, window) for x, label in pairs])


def called(net: Net) -> Callable:
    """What PAIR's methods ask of a model, compiled."""
    from saliency.core import base

    shape = net.x.shape[1:]
    spec = [tf.TensorSpec([None, *shape]), tf.TensorSpec([], tf.int32)]
    inner = keras.Model(net.model.inputs, [net.model.get_layer(net.layer).output, net.model.output])

    @tf.function(input_signature=spec)
    def slope(x, label):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            score = tf.gather(net.model(x, training=False), label, axis=1)
        return tape.gradient(score, x)

    @tf.function(input_signature=spec)
    def score(x, label):
        return tf.gather(net.model(x, training=False), label, axis=1)

    @tf.function(input_signature=spec)
    def maps(x, label):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            activation, outputs = inner(x, training=False)
            value = tf.gather(outputs, label, axis=1)
        return activation, tape.gradient(value, activation)

    def call(x, call_model_args=None, expected_keys=None) -> dict:
        x = np.asarray(x, np.float32)
        if expected_keys == [base.INPUT_OUTPUT_GRADIENTS]:
            return {base.INPUT_OUTPUT_GRADIENTS: slope(x, call_model_args)}
        if expected_keys == [base.OUTPUT_LAYER_VALUES]:
            return {base.OUTPUT_LAYER_VALUES: score(x, call_model_args)}
        activation, gradient = maps(x, call_model_args)
        return {base.CONVOLUTION_LAYER_VALUES: activation, base.CONVOLUTION_OUTPUT_GRADIENTS: gradient}

    return call


def pair(mask: Callable) -> Callable[[Net, int], Ask]:
    """A method of PAIR, image by image; mask: (saliency.core, net, batch) -> (x, call, label) -> map."""

    def make(net: Net, batch: int) -> Ask:
        import saliency.core

        one, call = mask(saliency.core, net, batch), called(net)
        labels = [tf.constant(label, tf.int32) for label in net.labels]
        return lambda: np.stack([one(x, call, label) for x, label in zip(net.x, labels, strict=True)])

    return make


def pair_ig(core, net: Net, batch: int) -> Callable:
    """PAIR's integrated gradients: a batch of steps at a time."""
    peer = core.IntegratedGradients()
    return lambda x, call, label: peer.GetMask(x, call, label, x_steps=net.steps, batch_size=batch)


def pair_smooth(core, net: Net, batch: int) -> Callable:
    """PAIR's SmoothGrad: one gradient a call."""
    peer = core.GradientSaliency()
    options = {"stdev_spread": NOISE, "nsamples": net.draws, "magnitude": False}
    return lambda x, call, label: peer.GetSmoothedMask(x, call, label, **options)


def pair_cam(core, net: Net, batch: int) -> Callable:
    """PAIR's Grad-CAM at the layer's resolution."""
    peer = core.GradCam()
    return lambda x, call, label: peer.GetMask(x, call, label, should_resize=False, three_dims=False)


def pair_occlusion(core, net: Net, batch: int) -> Callable:
    """PAIR's occlusion: windows at every position, one forward pass a call."""
    peer, (window, _) = core.Occlusion(), net.patch[1]
    return lambda x, call, label: peer.GetMask(x, call, label, size=window)[..., :1]


def alibi_ig(method: str) -> Callable[[Net, int], Ask]:
    """Alibi's integrated gradients by one of its rules."""

    def make(net: Net, batch: int) -> Ask:
        from alibi.explainers import IntegratedGradients

        peer = IntegratedGradients(net.model, method=method, n_steps=net.steps, internal_batch_size=batch)
        return lambda: np.asarray(peer.explain(net.x, target=net.labels.tolist()).attributions[0])

    return make


def alibi_kernel(net: Net, batch: int) -> Ask:
    """Alibi's KernelShap, which wraps SHAP's."""
    from alibi.explainers import KernelShap

    logging.getLogger("alibi").setLevel(logging.ERROR)
    empty, whole = np.zeros([1, GRID**2]), np.ones([1, GRID**2])

    def one(index: int) -> np.ndarray:
        peer = KernelShap(masked(net, index, batch))
        peer.fit(empty)
        options = {"nsamples": net.coalitions, "l1_reg": False, "silent": True}
        return np.asarray(peer.explain(whole, **options).shap_values[0])[0][net.cells()][..., np.newaxis]

    return lambda: np.stack([one(index) for index in range(len(net.x))])


def shap_gradient(net: Net, batch: int) -> Ask:
    """SHAP's GradientExplainer over one reference, zeros: integrated gradients at random nodes."""
    import shap

    peer = shap.GradientExplainer(net.model, np.zeros_like(net.x[:1]), batch_size=batch)
    which = {"ranked_outputs": net.labels[:, np.newaxis], "output_rank_order": "custom"}
    return lambda: np.asarray(peer.shap_values(net.x, nsamples=net.steps, rseed=0, **which)[0])[..., 0]


def masked(net: Net, index: int, batch: int) -> Callable[[np.ndarray], np.ndarray]:
    """An image's score as a function of which cells are kept, compiled, a batch at a time."""
    cells, x = tf.constant(net.cells()), tf.constant(net.x[index])
    score = forward(net.model)
    label = int(net.labels[index])

    def f(kept: np.ndarray) -> np.ndarray:
        parts = [score(tf.constant(kept[i : i + batch], tf.float32), cells, x) for i in range(0, len(kept), batch)]
        return np.concatenate([part.numpy() for part in parts])[:, label]

    return f


FORWARD: dict[int, Callable] = {}


def forward(model: keras.Model) -> Callable:
    """(kept [N, cells], cells, x) -> outputs; traced once a model."""
    if id(model) not in FORWARD:

        @tf.function(reduce_retracing=True)
        def call(kept, cells, x):
            return model(tf.gather(kept, cells, axis=1)[..., tf.newaxis] * x, training=False)

        FORWARD[id(model)] = call
    return FORWARD[id(model)]


def shap_kernel(net: Net, batch: int) -> Ask:
    """SHAP's KernelExplainer over the cells of each image."""
    import shap

    empty, whole = np.zeros([1, GRID**2]), np.ones([1, GRID**2])

    def one(index: int) -> np.ndarray:
        peer = shap.KernelExplainer(masked(net, index, batch), empty)
        values = peer.shap_values(whole, nsamples=net.coalitions, l1_reg=False, silent=True)
        return np.asarray(values)[0][net.cells()][..., np.newaxis]

    return lambda: np.stack([one(index) for index in range(len(net.x))])


def folded(maps: np.ndarray, side: int | None = None) -> np.ndarray:
    """Maps [N, H, W(, C)] as [N, features], brought to a side where a peer has enlarged them."""
    maps = np.asarray(maps, np.float64)
    maps = maps[..., np.newaxis] if maps.ndim == 3 else maps
    if side is not None and maps.shape[1] != side:
        maps = tf.image.resize(maps, [side, side], method="bicubic").numpy()
    return maps.reshape(len(maps), -1)
