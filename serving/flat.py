"""The graph that a session runs: what an explanation computes is there once, as operations, not as calls of functions.

For each set of outputs that a session is first asked for, it copies its graph, with all functions that any signature
reaches, from one pass of its optimiser to the next. Operations that these outputs do not need are gone after the first
pass; functions stay to the last, so that each set would pay for every explanation there is.
"""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfig.serving import protocol


def write(folder: Path, explanations: Mapping[str, tuple[Any, Any]]) -> None:
    """Lay explanations out in a SavedModel's graph; its functions, which are what Python loads, lose equal constants.

    Args:
        folder: of the SavedModel.
        explanations: of each the signature that takes every option, and what that calls, both traced.
    """
    path = folder / "saved_model.pb"
    model = SavedModel.FromString(path.read_bytes())
    for meta in model.meta_graphs:
        laid = [node for name, (full, called) in explanations.items() for node in _turn(meta, name, full, called)]
        meta.graph_def.node.extend(_merged(laid))
        # What the gradients that a model defines itself need is known by name.
        needed = [node.captured_tensor for node in meta.object_graph_def.nodes if node.HasField("captured_tensor")]
        for function in meta.graph_def.library.function:
            kept = {value.split(":")[0] for value in function.ret.values()}
            kept |= {_node(one) for one in needed if one.concrete_function == function.signature.name}
            _replace(function.node_def, _merged(list(function.node_def), kept))
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
        for i, one in enumerate(node.input):
            name = one.removeprefix("^").split(":")[0]
            node.input[i] = one.replace(name, same.get(name, name), 1)
    return left


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
