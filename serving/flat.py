"""The graph that a session runs: what an explanation computes is there once, as operations, not as calls of functions.

For each set of outputs that a session is first asked for, it copies its graph, with all functions that any signature
reaches, from one pass of its optimiser to the next. Operations that these outputs do not need are gone after the first
pass; functions stay to the last, so that each set would pay for every explanation there is. Much of a copy's time
goes into strings: what only explanations are made of has short names, and no shapes that follow from others.
"""

import itertools
import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfig.serving import audit, protocol


def write(folder: Path, explanations: Mapping[str, tuple[Any, Any]]) -> None:
    """Lay explanations out in a SavedModel's graph; its functions, which are what Python loads, lose equal constants.

    What the model itself is asked for keeps its names.

    Args:
        folder: of the SavedModel.
        explanations: of each the signature that takes every option, and what that calls, both traced.
    """
    path = folder / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    for meta in model.meta_graphs:
        graph, library = meta.graph_def, meta.graph_def.library
        laid = _merged([node for name, one in explanations.items() for node in _turn(meta, name, *one)])
        names = _shorten(laid, {node.name for node in graph.node})
        for definition in meta.signature_def.values():
            for one in definition.outputs.values():
                one.name = _renamed(one.name, names)
        own = _reached(graph.node, library) - _reached(laid, library)
        graph.node.extend(laid)
        # What the gradients that a model defines itself need is known by name.
        needed = [node.captured_tensor for node in meta.object_graph_def.nodes if node.HasField("captured_tensor")]
        for function in library.function:
            called = function.signature.name
            known = {_node(one) for one in needed if one.concrete_function == called}
            kept = {value.split(":")[0] for value in function.ret.values()} | known
            _replace(function.node_def, _merged(list(function.node_def), kept))
            if called not in own and not known:
                for node in function.node_def:
                    if node.name not in kept:
                        node.attr.pop("_output_shapes", None)
                names = _shorten(function.node_def)
                for outputs in (function.ret, function.control_ret):
                    outputs.update({name: _renamed(one, names) for name, one in outputs.items()})
        for nodes in (graph.node, *(function.node_def for function in library.function)):
            for node in nodes:
                if node.op == "Const":
                    _shrink(node.attr["value"].tensor)
    path.write_bytes(model.SerializeToString(deterministic=True))
    # It tells of the graph that was.
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _turn(meta: Any, name: str, signature: Any, called: Any) -> list[Any]:
    """All signatures of an explanation become inputs and outputs of the same operations, which are returned.

    An option that a signature does not take is a placeholder with a default, which holds.
    """
    full = meta.signature_def[protocol.at(name)]
    kin = [meta.signature_def[key] for key in protocol.kin(name) if key in meta.signature_def]
    call = next(node for node in meta.graph_def.node if node.name == _node(next(iter(full.outputs.values()))))
    # A signature is saved in a wrapper, which knows arguments by name and calls it with them in their order.
    wrapper = next(one for one in meta.graph_def.library.function if one.signature.name == _called(call))
    given = dict(zip((one.name for one in wrapper.signature.input_arg), call.input, strict=True))
    inner = next(node for node in wrapper.node_def if _called(node))
    data = [given[one] for one in inner.input if one in given]
    laid, outputs = _laid(call.name, signature.graph, data, {called.name.decode(): called.graph})

    gone = {_node(one) for each in kin for side in (each.inputs, each.outputs) for one in side.values()}
    gone -= {_node(one) for one in full.inputs.values()}
    _replace(meta.graph_def.node, [node for node in meta.graph_def.node if node.name not in gone])
    for alias, tensor in zip(sorted(full.outputs), outputs, strict=True):
        full.outputs[alias].name = tensor
    for each in kin:
        for side, whole in ((each.inputs, full.inputs), (each.outputs, full.outputs)):
            for alias, one in side.items():
                one.CopyFrom(whole[alias])
    return laid


def _laid(prefix: str, graph: Any, given: Sequence[str], bodies: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """(operations in place of a call, the tensors it answers).

    What answers nothing and has to be run, an assertion, is what a traced function's own outputs wait for.
    """
    fed = {tensor.op.name: one for tensor, one in zip(graph.inputs, given, strict=True)}
    known = {f"{name}:0": one for name, one in fed.items()}
    laid: list[Any] = []

    def there(tensor: str) -> str:
        if tensor.startswith("^"):
            return f"^{prefix}/{tensor[1:]}"
        tensor = tensor if ":" in tensor else f"{tensor}:0"
        return known.get(tensor, f"{prefix}/{tensor}")

    for node in graph.as_graph_def().node:
        if node.name in fed:
            continue
        inputs = [there(one) for one in node.input if one.removeprefix("^") not in fed or one in fed]
        # What is colocated with an argument would be so with nothing.
        said = {name: value for name, value in node.attr.items() if name != "_class"}
        copy = NodeDef(name=f"{prefix}/{node.name}", op=node.op, input=inputs, device=node.device, attr=said)
        body = bodies.get(_called(node))
        if body is not None:
            data = [one for one in inputs if not one.startswith("^")]
            inside, answers = _laid(copy.name, body, data, bodies)
            known |= {f"{node.name}:{i}": one for i, one in enumerate(answers)}
            laid += inside
            # Those who waited for the call wait for what it does.
            copy = NodeDef(name=copy.name, op="NoOp", input=[f"^{copy.name}/{op.name}" for op in body.control_outputs])
        laid.append(copy)
    return laid, [there(tensor.name) for tensor in graph.outputs]


def _merged(nodes: list[Any], kept: Set[str] = frozenset()) -> list[Any]:
    """The operations with each constant once, whoever needs it; but those whose names are `kept` stay."""
    first: dict[bytes, str] = {}
    same = {}
    for node in nodes:
        if node.op == "Const" and not node.input and node.name not in kept:
            value = NodeDef(device=node.device, attr=node.attr).SerializeToString(deterministic=True)
            same[node.name] = first.setdefault(value, node.name)
    left = [node for node in nodes if same.get(node.name, node.name) == node.name]
    for node in left:
        _replace(node.input, [_renamed(one, same) for one in node.input])
    return left


def _shorten(nodes: Sequence[Any], taken: Set[str] = frozenset()) -> dict[str, str]:
    """Give operations short names, returned by those they had: how many are before them, and what they end in.

    Their order stays: by it the optimiser decides what it multiplies first.
    """
    order = sorted(node.name for node in nodes)
    wide = len(f"{len(order):x}")
    for first in itertools.count(1):
        names = {name: f"{'S' * first}{i:0{wide}x}/{_end(name)}" for i, name in enumerate(order)}
        if taken.isdisjoint(names.values()):
            break
    for node in nodes:
        node.name = names[node.name]
        _replace(node.input, [_renamed(one, names) for one in node.input])
        if "_class" in node.attr:
            beside = [one.decode().removeprefix("loc:@") for one in node.attr["_class"].list.s]
            _replace(node.attr["_class"].list.s, [f"loc:@{names.get(one, one)}".encode() for one in beside])
    return names


def _end(name: str) -> str:
    """What an operation is called, behind the layer that it is of, for errors to tell."""
    *scopes, last = name.split("/")
    return "/".join([*[scope for scope in scopes if "PartitionedCall" not in scope][-1:], last])


def _renamed(tensor: str, names: Mapping[str, str]) -> str:
    """What an operation takes, a tensor or its turn after another, where some operations have other names."""
    name = tensor.removeprefix("^").split(":")[0]
    return tensor.replace(name, names.get(name, name), 1)


def _reached(nodes: Sequence[Any], library: Any) -> set[str]:
    """The names of the functions that operations call, and these in turn."""
    return {name for name, _ in audit.reached(GraphDef(node=nodes, library=library)) if name}


def _shrink(tensor: Any) -> None:
    """Write a tensor of one number throughout as that number; a baseline is as large as an input."""
    count = math.prod(axis.size for axis in tensor.tensor_shape.dim)
    one = tensor.tensor_content[: len(tensor.tensor_content) // max(count, 1)]
    if one and count > 1 and tensor.tensor_content == one * count:
        kind = tf.as_dtype(tensor.dtype)
        number = np.frombuffer(one, kind.as_numpy_dtype)[0]
        tensor.CopyFrom(tf.make_tensor_proto(number, kind, [axis.size for axis in tensor.tensor_shape.dim]))


def _replace(field: Any, nodes: list[Any]) -> None:
    """Put nodes in the place of those in a repeated field."""
    del field[:]
    field.extend(nodes)


def _called(node: Any) -> str:
    """The name of the function that a node calls, or ""; asked for an attribute that is not there, a node gets it."""
    return node.attr["f"].func.name if "f" in node.attr else ""


def _node(tensor: Any) -> str:
    """The name of the node that gives a tensor of a signature."""
    return tensor.name.split(":")[0]
