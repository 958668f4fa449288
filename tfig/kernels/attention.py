"""The attention among tokens, as a traced model computes it: every softmax by whose output a matrix is multiplied."""

import tensorflow as tf

from tfig import anatomy
from tfig.anatomy import wide
from tfig.kernels.passage import Passage, along
from tfig.problem import Problem
from tfig.score import Score


def among(problem: Problem, name: str) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """(attention A [B, heads, T, T], dF/dA) of each layer in their order, among the T tokens of x.

    Args:
        name: of the method, for errors.

    Raises:
        ValueError: x is no sequence of tokens, or the model has no attention, or has some among others than these.
    """
    tokens = problem.x[0]
    if len(problem.x) > 1 or len(tokens.shape) != 3:
        shapes = ", ".join(str(leaf.shape.as_list()) for leaf in problem.x)
        raise ValueError(f"{name} needs tokens, [B, T, E], and these are {shapes}; pass layer= what gives the tokens.")
    score = problem.score.unscaled() if isinstance(problem.score, Score) else problem.score
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(problem.x)
        value, passage = along(problem.rerule, problem.x, lambda: score(problem.x))
    found = attending(passage)
    if not found:
        raise ValueError(f"{name} reads attention, and behind these tokens the model has none; use another method.")
    sizes = {tuple(one.shape.as_list()[-2:]) for one in found}
    if any(size != (tokens.shape[1],) * 2 for size in sizes if None not in (*size, tokens.shape[1])):
        raise ValueError(
            f"{name} follows attention among the {tokens.shape[1]} tokens of x, and the model has some of "
            f"{sorted(f'{a} to {b}' for a, b in sizes)}; pass layer= what gives the tokens, or use another method."
        )
    slopes = tape.gradient(value, found, unconnected_gradients="zero")
    return [_by_head(one) for one in found], [_by_head(one) for one in slopes]


def attending(passage: Passage) -> list[tf.Tensor]:
    """The softmaxes that are factors of a product of matrices."""
    origin: dict[str, tf.Tensor] = {}
    found: dict[str, tf.Tensor] = {}
    for op in passage.operations:
        free = passage.free(op)
        if op.type == "Softmax":
            origin[op.outputs[0].name] = op.outputs[0]
        elif len(free) == 1 and anatomy.kind(op, free) in ("moving", "scale", "shift"):
            before = origin.get(op.inputs[free[0]].name)
            if before is not None:
                origin.update({out.name: before for out in op.outputs})
        elif op.type in anatomy.PRODUCTS and len(free) == 2:
            found.update({origin[one.name].name: origin[one.name] for one in op.inputs if one.name in origin})
    return list(found.values())


def _by_head(attention: tf.Tensor) -> tf.Tensor:
    """[B, heads, T, T]."""
    return wide(attention)[:, tf.newaxis] if len(attention.shape) == 3 else wide(attention)
