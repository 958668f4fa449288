"""TensorFlow's C API by ctypes: the loader and the session that TensorFlow Serving uses, with no Python in the path."""

import ctypes as c
import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

FOLDER = pathlib.Path(tf.__file__).parent
P = c.c_void_p


class Output(c.Structure):
    _fields_ = [("operation", P), ("index", c.c_int)]


def library():
    names = [("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"), ("libtensorflow_framework.2.dylib",) * 2]
    first, second = next(pair for pair in names if (FOLDER / pair[0]).exists())
    c.CDLL(str(FOLDER / first), mode=c.RTLD_GLOBAL)
    return c.CDLL(str(FOLDER / second), mode=c.RTLD_GLOBAL)


class Failed(Exception):
    pass


class Loaded:
    """A SavedModel folder, loaded through the C API."""

    def __init__(self, folder):
        self.lib, self.folder = library(), folder
        model = SavedModel.FromString((pathlib.Path(folder) / "saved_model.pb").read_bytes())
        self.signatures = model.meta_graphs[0].signature_def
        self.graph, self.status = self.call("TF_NewGraph", P)(), self.call("TF_NewStatus", P)()
        load = self.call("TF_LoadSessionFromSavedModel", P, P, P, c.c_char_p, c.POINTER(c.c_char_p), c.c_int, P, P, P)
        options = self.call("TF_NewSessionOptions", P)()
        tags = (c.c_char_p * 1)(b"serve")
        self.session = load(options, None, str(folder).encode(), tags, 1, self.graph, None, self.status)
        self.check()

    def call(self, name, result, *arguments):
        function = getattr(self.lib, name)
        function.restype, function.argtypes = result, list(arguments)
        return function

    def check(self):
        if self.call("TF_GetCode", c.c_int, P)(self.status):
            raise Failed(self.call("TF_Message", c.c_char_p, P)(self.status).decode())

    def close(self):
        self.call("TF_DeleteSession", None, P, P)(self.session, self.status)
        self.call("TF_DeleteGraph", None, P)(self.graph)

    def output(self, info):
        name, index = info.name.split(":")
        operation = self.call("TF_GraphOperationByName", P, P, c.c_char_p)(self.graph, name.encode())
        return Output(operation, int(index))

    def tensor(self, array):
        array = np.ascontiguousarray(array)
        kind = tf.as_dtype(array.dtype).as_datatype_enum
        make = self.call("TF_AllocateTensor", P, c.c_int, c.POINTER(c.c_int64), c.c_int, c.c_size_t)
        made = make(kind, (c.c_int64 * array.ndim)(*array.shape), array.ndim, array.nbytes)
        c.memmove(self.call("TF_TensorData", P, P)(made), array.ctypes.data, array.nbytes)
        return made

    def array(self, tensor):
        size = self.call("TF_TensorByteSize", c.c_size_t, P)(tensor)
        kind = tf.as_dtype(self.call("TF_TensorType", c.c_int, P)(tensor)).as_numpy_dtype
        rank = self.call("TF_NumDims", c.c_int, P)(tensor)
        shape = [self.call("TF_Dim", c.c_int64, P, c.c_int)(tensor, i) for i in range(rank)]
        data = c.string_at(self.call("TF_TensorData", P, P)(tensor), size)
        self.call("TF_DeleteTensor", None, P)(tensor)
        return np.frombuffer(data, kind).reshape(shape)

    def run(self, signature, **inputs):
        """The numeric outputs of a signature; optional inputs may be left out."""
        definition = self.signatures[signature]
        wanted = [name for name, info in sorted(definition.outputs.items()) if info.dtype != tf.string.as_datatype_enum]
        feeds = [self.output(definition.inputs[name]) for name in inputs]
        tensors = [self.tensor(value) for value in inputs.values()]
        fetches = [self.output(definition.outputs[name]) for name in wanted]
        results = (P * len(wanted))()
        many = c.POINTER(Output), c.POINTER(P), c.c_int
        run = self.call("TF_SessionRun", None, P, P, *many, *many, P, c.c_int, P, P)
        run(
            self.session, None, (Output * len(feeds))(*feeds), (P * len(feeds))(*tensors), len(feeds),
            (Output * len(wanted))(*fetches), results, len(wanted), None, 0, None, self.status,
        )  # fmt: skip
        for tensor in tensors:
            self.call("TF_DeleteTensor", None, P)(tensor)
        self.check()
        return {name: self.array(tensor) for name, tensor in zip(wanted, results, strict=True)}
