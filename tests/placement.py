"""Which operations of a compiled program have no kernel for GPUs."""

import functools

import tensorflow as tf
from tensorflow.python.framework import kernels

# Ops without a kernel on any device by nature: they mark edges of a function or are resolved before placement.
NOT_NUMERIC = {"Placeholder", "NoOp"}


def nodes(graph_def):
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


@functools.cache
def registered(op):
    return kernels.get_registered_kernels_for_op(op).kernel


@functools.cache
def has_gpu_kernel(op, types):
    given = dict(types)
    for kernel in registered(op):
        allowed = {c.name: set(c.allowed_values.list.type) for c in kernel.constraint}
        if kernel.device_type in ("GPU", "DEFAULT") and all(given.get(name, 0) in a for name, a in allowed.items()):
            return True
    return False


def lacking(program):
    """(operation, its types) of each that could not run on a GPU."""
    kinds = {
        (node.op, tuple(sorted((name, a.type) for name, a in node.attr.items() if a.type)))
        for node in nodes(program.run.graph.as_graph_def())
        if node.op not in NOT_NUMERIC
    }
    named = {kind: tuple(tf.as_dtype(one).name for _, one in kind[1]) for kind in kinds}
    return {(op, named[op, types]) for op, types in kinds if not has_gpu_kernel(op, types)}
