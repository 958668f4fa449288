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


def has_gpu_kernel(node):
    for kernel in registered(node.op):
        types = {c.name: set(c.allowed_values.list.type) for c in kernel.constraint}
        if kernel.device_type in ("GPU", "DEFAULT") and all(
            node.attr[name].type in allowed for name, allowed in types.items()
        ):
            return True
    return False


def lacking(program):
    """(operation, its types) of each that could not run on a GPU."""
    return {
        (node.op, tuple(sorted(tf.as_dtype(a.type).name for a in node.attr.values() if a.type)))
        for node in nodes(program.run.graph.as_graph_def())
        if node.op not in NOT_NUMERIC and not has_gpu_kernel(node)
    }
