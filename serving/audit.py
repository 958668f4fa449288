"""What TensorFlow Serving cannot run, found in a saved graph before it is shipped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
XLA = {"XlaLaunch", "XlaLaunchV2", "_XlaCompile", "_XlaRun"}
RANDOM = {
    "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "ParameterizedTruncatedNormal",
    "RandomGamma", "RandomPoisson", "RandomPoissonV2", "RandomShuffle", "Multinomial", "StatefulUniform",
    "StatefulUniformInt", "StatefulUniformFullInt", "StatefulStandardNormal", "StatefulStandardNormalV2",
    "StatefulTruncatedNormal", "StatefulRandomBinomial", "RngReadAndSkip",
}  # fmt: skip


def read(folder: Path) -> Any:
    """The `MetaGraphDef` of a SavedModel.

    Raises:
        ValueError: there is none.
    """
    try:
        model = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        return next(graph for graph in model.meta_graphs if "serve" in graph.meta_info_def.tags)
    except Exception as error:
        raise ValueError(f"{str(folder)!r} holds no SavedModel for serving (saved_model.pb): {error}") from error


def check(folder: Path) -> None:
    """Refuse what loads and then fails, or answers differently each time.

    Raises:
        ValueError: the graph runs Python, or XLA, or draws random numbers that no seed decides.
    """
    for function, node in reached(read(folder).graph_def):
        inside = f"op {node.name!r} ({node.op})" + (f" in {function!r}" if function else "")
        if node.op in PYTHON:
            raise ValueError(
                f"the model runs Python, which a served model cannot: {inside}; write that step in TensorFlow "
                "operations (tf.py_function and tf.numpy_function do not serve)."
            )
        if node.op in XLA or node.attr["_XlaMustCompile"].b:
            raise ValueError(
                f"the model is compiled by XLA, which TensorFlow Serving does not run: {inside}; remove "
                "jit_compile=True."
            )
        if node.op in RANDOM:
            raise ValueError(
                f"the model draws random numbers that no seed decides, so it answers differently each time: {inside}; "
                "use tf.random.stateless_* or switch it off at inference."
            )


def reached(graph: Any) -> Iterator[tuple[str, Any]]:
    """(function name, node) of every node that the signatures can reach; "" names the graph itself."""
    library = {function.signature.name: function for function in graph.library.function}
    waiting, seen = [("", list(graph.node))], {""}
    while waiting:
        name, nodes = waiting.pop()
        for node in nodes:
            yield name, node
            called = [value.func.name for value in node.attr.values() if value.HasField("func")]
            called += [func.name for value in node.attr.values() for func in value.list.func]
            called += [node.op] if node.op in library else []
            for callee in called:
                if callee in library and callee not in seen:
                    seen.add(callee)
                    function = library[callee]
                    if function.attr["_XlaMustCompile"].b:
                        node.attr["_XlaMustCompile"].b = True
                        yield name, node
                    waiting.append((callee, list(function.node_def)))


def overridden(graph: Any) -> bool:
    """Whether a method overrides the gradient of some operation in a graph; the model may have gradients of its own."""
    return any(node.attr["_gradient_op_type"].s.startswith(b"tfig_") for _, node in reached(graph))
