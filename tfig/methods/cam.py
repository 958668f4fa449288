"""Class activation maps: a layer's feature maps, weighed and summed."""

import dataclasses
import math
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tfig import anatomy
from tfig.kernels.coalition import like as positions_of
from tfig.kernels.expectation import total
from tfig.kernels.gradient import gradient_at_x, value_and_gradient
from tfig.kernels.passage import along
from tfig.kernels.rectified import overridden
from tfig.network import Leaves
from tfig.problem import Gradients, Method, Problem, Trace
from tfig.score import Score

CLASS_TOKENS = 2
"""How many tokens may stand before those of an image's patches."""


@dataclasses.dataclass(frozen=True)
class _Map(Method):
    """What maps share: the layer they read, and their shape.

    Fields:
        grid: (h, w) of patches to fold tokens [B, T, C] to, without the first T - h w (class tokens); None: a square,
            where the model's input is an image.
    """

    needs_layer = True
    gradients: ClassVar[Gradients] = "x"
    cost = "1 gradient"
    gives = "a value for each position of the layer: [B, h, w, 1]"
    picks_layer = True
    grid: tuple[int, int] | None = dataclasses.field(default=None, kw_only=True)

    needs = "a layer with spatial axes (default: the last)"

    def like(self, problem: Problem) -> Leaves:
        """Maps over positions."""
        maps = positions_of(problem)
        return self.placed(problem, maps[0]) if len(maps) == 1 else maps

    def placed(self, problem: Problem, weighed: tf.Tensor) -> Leaves:
        """A map [B, ..., 1]; of tokens that are patches of an image, on their grid."""
        return (folded(problem, weighed, self.grid) if len(weighed.shape) == 3 else weighed,)

    @staticmethod
    def maps(problem: Problem) -> tuple[tf.Tensor, tf.Tensor]:
        """(activation A [B, ..., C], dF/dA)."""
        return _activation(problem), gradient_at_x(problem)[0]


def folded(problem: Problem, tokens: tf.Tensor, grid: tuple[int, int] | None) -> tf.Tensor:
    """[B, T, 1] as [B, h, w, 1] where tokens are patches of an image, without the class tokens before them.

    Args:
        grid: (h, w); None: a square, where the model's input is an image and T is a square and at most two more.

    Raises:
        ValueError: there are fewer tokens than the grid has.
    """
    count = tokens.shape[1]
    if grid is None:
        image = problem.source is not None and len(problem.source.x) == 1 and len(problem.source.x[0].shape) == 4
        side = math.isqrt(count or 0)
        if not image or count is None or count - side**2 > CLASS_TOKENS:
            return tokens
        grid = side, side
    if count is not None and count < math.prod(grid):
        raise ValueError(f"grid is {grid}, {math.prod(grid)} patches, and the layer gives {count} tokens.")
    return tf.reshape(tokens[:, -math.prod(grid) :], [-1, *grid, 1])


def _activation(problem: Problem) -> tf.Tensor:
    """The feature maps [B, ..., C].

    Raises:
        ValueError: the layer has none.
    """
    activation = problem.x[0]
    if len(problem.x) > 1 or len(activation.shape) < 3:
        shapes = ", ".join(str(leaf.shape.as_list()) for leaf in problem.x)
        raise ValueError(f"a class activation map needs feature maps, [B, H, W, C], and the layer gives {shapes}.")
    return activation


def _over_positions(tensor: tf.Tensor) -> list[int]:
    return list(range(1, len(tensor.shape) - 1))


def _weighed(activation: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """sum{ weights[k] activation[k] : channels k }, [B, ..., 1]."""
    return tf.reduce_sum(weights * activation, -1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class CAM(_Map):
    """The feature maps weighed by the class's weights, where global average pooling and a dense layer end the network.

    sum{ w[k, c] A[k] : channels k }: the logit, but for its bias, is the mean of the map.

    Raises ValueError where something else stands between the layer and the logits.

    >>> tfig.explain(model, x, "cam")
    """

    name = "cam"
    reference = "Zhou et al., Learning Deep Features for Discriminative Localization, 2016, arXiv:1512.04150"
    needs = "a network that ends in global average pooling and one dense layer"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The map."""
        activation = _activation(problem)
        score = problem.score.logits if isinstance(problem.score, Score) else problem.score
        (_, gradients), passage = along(problem.rerule, problem.x, lambda: value_and_gradient(score, problem.x))
        calls = [passage.owner.get(op.name) for op in passage.operations if op.type not in anatomy.MOVING]
        after = [call.part for call in dict.fromkeys(calls) if call is not None]
        kinds = [type(part).__name__ for part in after]
        pooled = len(after) > 1 and kinds[0].startswith("GlobalAveragePooling") and kinds[1] == "Dense"
        if not (pooled and all(map(_opened, after[1:]))):
            raise ValueError(
                f"CAM is defined where global average pooling and one dense layer follow, and here follow {kinds}; "
                "pass the layer just before the pooling, or use tfig.GradCAM."
            )
        weights = tf.reduce_sum(gradients[0], _over_positions(activation), keepdims=True)
        return self.placed(problem, _weighed(activation, weights)), {}


def _opened(part: Any) -> bool:
    """Whether a layer adds nothing to the logits but a softmax or sigmoid, which is opened."""
    ends = (keras.activations.linear, keras.activations.softmax, keras.activations.sigmoid)
    return isinstance(part, keras.layers.Softmax) or getattr(part, "activation", None) in ends


@dataclasses.dataclass(frozen=True)
class GradCAM(_Map):
    """The feature maps weighed by the mean of their gradient.

    relu(sum{ mean{ dF/dA[i, j, k] : i, j } A[k] : channels k }).

    Fields:
        relu: keep what speaks for the class only.

    >>> tfig.explain(model, x, tfig.GradCAM(), output="logits", layer="conv5_block3_out")
    """

    relu: bool = True

    name = "grad_cam"
    principles = "23"
    reference = "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks, 2017, arXiv:1610.02391"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The map."""
        activation, gradient = self.maps(problem)
        weighed = _weighed(activation, tf.reduce_mean(gradient, _over_positions(activation), keepdims=True))
        return self.placed(problem, tf.nn.relu(weighed) if self.relu else weighed), {}


@dataclasses.dataclass(frozen=True)
class GradCAMPlusPlus(_Map):
    """The feature maps weighed so that several places of one class count alike.

    relu(sum{ w[k] A[k] }), w[k] = sum{ alpha[i, j, k] relu(g[i, j, k]) : i, j },
    alpha = g**2 / (2 g**2 + g**3 sum A[k]), g = dS/dA, S the logit. The paper's factor exp(S), the same for the
    whole map, is left out: it overflows.

    >>> tfig.explain(model, x, "grad_cam_plus_plus")
    """

    name = "grad_cam_plus_plus"
    reference = "Chattopadhyay et al., Grad-CAM++: Improved Visual Explanations, 2018, arXiv:1710.11063"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The map."""
        score = problem.score.logits if isinstance(problem.score, Score) else problem.score
        activation, g = self.maps(problem.replace(score=score))
        axes = _over_positions(activation)
        below = 2 * g**2 + g**3 * tf.reduce_sum(activation, axes, keepdims=True)
        alpha = tf.math.divide_no_nan(g**2, below)
        weights = tf.reduce_sum(alpha * tf.nn.relu(g), axes, keepdims=True)
        return self.placed(problem, tf.nn.relu(_weighed(activation, weights))), {}


@dataclasses.dataclass(frozen=True)
class LayerCAM(_Map):
    """The feature maps weighed, position by position, by what is positive of their gradient: sharp at early layers.

    relu(sum{ relu(dF/dA[i, j, k]) A[i, j, k] : channels k }).

    >>> tfig.explain(model, x, "layer_cam", layer="block3_conv3")
    """

    name = "layer_cam"
    reference = "Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, 2021"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The map."""
        activation, gradient = self.maps(problem)
        return self.placed(problem, tf.nn.relu(_weighed(activation, tf.nn.relu(gradient)))), {}


@dataclasses.dataclass(frozen=True)
class ScoreCAM(_Map):
    """The feature maps weighed by the score of x where each map lets it through; no gradient.

    relu(sum{ w[k] A[k] : channels k }), w = softmax{ F(x * scaled(A[k])) : k }, each map enlarged to x and scaled to
    0...1. Costs a score for each channel.

    >>> tfig.explain(model, x, "score_cam")
    """

    cost = "a pass for each channel of the layer"
    gradients = None
    name = "score_cam"
    reference = "Wang et al., Score-CAM: Score-Weighted Visual Explanations for CNNs, 2020, arXiv:1910.01279"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The map."""
        activation, source = _activation(problem), problem.cut
        if len(source.x) != 1 or len(source.x[0].shape) != 4 or len(activation.shape) != 4:
            raise ValueError("score_cam masks one image [B, H, W, C] by feature maps; the model has others.")
        channels = activation.shape[-1]

        def term(p: Problem, sample: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
            inner = p.cut
            one = tf.gather(tf.gather(activation, row), sample, axis=3, batch_dims=1)[..., tf.newaxis]
            large = tf.cast(tf.image.resize(one, tf.shape(inner.x[0])[1:3]), one.dtype)
            low, high = (end(large, [1, 2], keepdims=True) for end in (tf.reduce_min, tf.reduce_max))
            scaled = tf.math.divide_no_nan(large - low, high - low)
            masked = (inner.x[0] * scaled,)
            value = inner.at(p.score, masked, inner.constants)(inner.features(masked, inner.constants))
            return value[:, tf.newaxis] * tf.one_hot(sample, channels, dtype=value.dtype)

        scores = total(problem, channels, tf.zeros([problem.rows, channels], activation.dtype), term)
        weights = tf.nn.softmax(scores)[:, tf.newaxis, tf.newaxis]
        return self.placed(problem, tf.nn.relu(_weighed(activation, weights))), {}


@dataclasses.dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided backpropagation times the Grad-CAM map, enlarged: fine detail where the class is.

    As sharp, and as doubtful, as guided backpropagation (Adebayo et al. 2018). The map is of x, read at a layer.

    >>> tfig.explain(model, x, "guided_grad_cam", output="logits")
    """

    cost = "2 gradients"
    name = "guided_grad_cam"
    reference = "Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks, 2017, arXiv:1610.02391"
    needs_layer = True
    picks_layer = True
    of_input = True
    slope = True
    needs = "a model with ReLUs; a layer with spatial axes (default: the last)"

    def like(self, problem: Problem) -> Leaves:
        """Maps of x."""
        return problem.cut.x

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The product."""
        source = problem.cut
        (weights,), _ = GradCAM().attribute(problem)
        if len(source.x) != 1 or len(source.x[0].shape) != 4:
            raise ValueError("guided_grad_cam explains one image [B, H, W, C]; the model takes others.")

        def score(points: Leaves) -> tf.Tensor:
            return source.at(problem.score, points, source.constants)(source.features(points, source.constants))

        (guided,) = overridden(score, source.x, "guided", self.name)
        return (guided * tf.cast(tf.image.resize(weights, tf.shape(guided)[1:3]), guided.dtype),), {}
