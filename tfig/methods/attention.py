"""Maps of what a transformer's tokens attended to. Attention is not attribution: it says where, not what for."""

import dataclasses

import tensorflow as tf

from tfig.kernels.attention import among
from tfig.methods.cam import folded
from tfig.network import Leaves
from tfig.problem import Method, Problem, Trace


@dataclasses.dataclass(frozen=True)
class _Tokens(Method):
    """What maps over tokens share: how they are read, and their shape."""

    grid: tuple[int, int] | None = dataclasses.field(default=None, kw_only=True)

    gives = "a value for each token, [B, T, 1], or patch, [B, h, w, 1]"
    needs = "a model with self-attention; layer= what gives its tokens, [B, T, E]"

    def like(self, problem: Problem) -> Leaves:
        """Tokens, or a grid of patches."""
        return (folded(problem, problem.x[0][..., :1], self.grid),)

    def read(self, problem: Problem, relation: tf.Tensor, slope: tf.Tensor) -> Leaves:
        """Rows of `relation` [B, T, T], each by the length of the score's slope by the last attention's row."""
        weights = tf.sqrt(tf.reduce_sum(tf.square(slope), [1, 3]))
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
        tokens = tf.cast(tf.einsum("bi,bij->bj", weights, relation), problem.x[0].dtype)
        return (folded(problem, tokens[..., tf.newaxis], self.grid),)


@dataclasses.dataclass(frozen=True)
class AttentionRollout(_Tokens):
    """Attention multiplied through the layers, half of each token staying where it is.

    A_l = (mean{ attention : heads } + 1) / 2; the map is the row of A_L ... A_1 of the token that the score reads: each
    token's, by the length of the slope of F by the last attention's row (so a class token's, the last token's, or the
    mean). Of the class it knows nothing else. It sums to 1, and shows what could have been mixed, not what for:
    attention is not attribution (Jain & Wallace 2019, arXiv:1902.10186).

    Fields:
        grid: (h, w) of patches to fold tokens to, without the first T - h w (class tokens); None: a square, where
            tokens come from an image.

    Raises ValueError where x is no sequence of tokens, or without attention among just these.

    >>> tfig.explain(model, x, "attention_rollout", layer="embeddings")
    """

    cost = "1 pass"
    name = "attention_rollout"
    reference = "Abnar & Zuidema, Quantifying Attention Flow in Transformers, 2020, arXiv:2005.00928"

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The row of the product."""
        attention, slopes = among(problem, self.name)
        rolled = tf.eye(tf.shape(attention[0])[-1], batch_shape=[problem.rows], dtype=attention[0].dtype)
        for one in attention:
            mixed = tf.reduce_mean(one, 1)
            rolled = (tf.matmul(mixed, rolled) + rolled) / 2
        return self.read(problem, rolled, slopes[-1]), {}


@dataclasses.dataclass(frozen=True)
class GradientWeightedAttention(_Tokens):
    """Attention weighed by the slope of the score by it, where positive, added up through the layers.

    R = 1, then R + mean{ relu(dF/dA A) : heads } R for each layer A; the map is the row of the token that the score
    reads, as in `AttentionRollout`. It depends on the class. Never negative; values are not followed, only attention,
    and attention is not attribution (Jain & Wallace 2019, arXiv:1902.10186).

    Fields:
        grid: (h, w) of patches to fold tokens to, without the first T - h w (class tokens); None: a square, where
            tokens come from an image.

    Raises ValueError where x is no sequence of tokens, or without attention among just these.

    >>> tfig.explain(model, x, "gradient_weighted_attention", output="logits", layer="embeddings")
    """

    cost = "1 gradient"
    name = "gradient_weighted_attention"
    reference = (
        "Chefer, Gur & Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder "
        "Transformers, 2021, arXiv:2103.15679, eq. 5 and 6"
    )

    def attribute(self, problem: Problem) -> tuple[Leaves, Trace]:
        """The row of the sum."""
        attention, slopes = among(problem, self.name)
        relation = tf.eye(tf.shape(attention[0])[-1], batch_shape=[problem.rows], dtype=attention[0].dtype)
        for one, slope in zip(attention, slopes, strict=True):
            relation += tf.matmul(tf.reduce_mean(tf.nn.relu(one * slope), 1), relation)
        return self.read(problem, relation, slopes[-1]), {}
