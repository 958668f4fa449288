"""What a model takes: its inputs by name, shape and dtype, and the user's x checked against them."""

import dataclasses
import difflib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import slices
from tfig.layout import moved


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One input of a model: its name, shape (None: any) and dtype, and the dtype it is explained in.

    Half-precision inputs are explained in float32 and cast where they enter the model, so that a path or a noise is
    not rounded to eleven bits. Integers, booleans and strings are held constant, but for methods that only put parts of
    x in place of others: for these they are `switched`. Of `padded` ones 0 is no token, and stays.

    So that one dtype holds from its entry to its exit, a program whose model computes in float64 anywhere is `precise`.
    `channels` is the axis of its channels, -1 or 1. Everything between a program's entry and its exit has them last.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    channels: int = -1
    precise: bool = False
    switched: bool = False
    padded: bool = False

    @property
    def floating(self) -> bool:
        """Whether it holds floats."""
        return tf.as_dtype(self.dtype).is_floating

    @property
    def explained(self) -> bool:
        """Whether this input is attributed."""
        return self.floating or self.switched

    @property
    def compute_dtype(self) -> str:
        """The dtype in which tfig computes with this input."""
        if not self.floating:
            return self.dtype
        return "float64" if self.precise or self.dtype == "float64" else "float32"

    @property
    def looks_turned(self) -> bool:
        """Whether its shape is that of images with channels first."""
        few = [size in (1, 2, 3, 4) for size in self.shape]
        return self.floating and len(self.shape) > 3 and few[1] and not few[-1]

    @property
    def inner(self) -> "Leaf":
        """The leaf as methods see it: channels last, and one number a row as a row of one."""
        if len(self.shape) == 1:
            return dataclasses.replace(self, shape=(*self.shape, 1))
        if self.channels == -1:
            return self
        return dataclasses.replace(self, shape=(self.shape[0], *self.shape[2:], self.shape[1]), channels=-1)

    def inner_of(self, value: Any) -> Any:
        """A tensor or array of it as methods see it."""
        return value[:, np.newaxis] if len(value.shape) == 1 else moved(value, self.channels)

    def outer_of(self, value: Any) -> Any:
        """The same as the user has it."""
        single = len(self.shape) == 1 and len(value.shape) == 2
        return value[:, 0] if single else moved(value, self.channels, back=True)

    def shaped(self, shape: Sequence[int]) -> "Leaf":
        """The leaf of this very shape, whatever the number of rows."""
        return dataclasses.replace(self, shape=(self.shape[0], *shape[1:]))

    @property
    def spec(self) -> tf.TensorSpec:
        """The input of a compiled program that carries this leaf."""
        return tf.TensorSpec([None, *self.shape[1:]], self.compute_dtype, name=self.name)


def serving_signature(model: Any) -> Callable[..., dict[str, tf.Tensor]] | None:
    """The signature by which a loaded SavedModel is called, or None for anything else."""
    if hasattr(model, "structured_input_signature"):
        return model
    signatures = None if isinstance(model, keras.Layer) else getattr(model, "signatures", None)
    if not signatures:
        return None
    return signatures["serving_default"] if "serving_default" in signatures else next(iter(signatures.values()))


def declared(model: Any) -> dict[str, Leaf]:
    """The inputs a model says it takes, by name and in its order; empty where it does not say."""
    signature = serving_signature(model)
    if signature is not None:
        specs = signature.structured_input_signature[1]  # type: ignore[attr-defined]
        return {name: Leaf(name, tuple(spec.shape), spec.dtype.name) for name, spec in specs.items()}
    if not isinstance(model, keras.Model):
        return {}
    try:
        inputs = model.inputs if isinstance(model, keras.Sequential) else model.input
    except (AttributeError, ValueError):  # a subclassed model declares none
        return {}
    if isinstance(inputs, dict):
        return {name: Leaf(name, tuple(one.shape), one.dtype) for name, one in inputs.items()}
    return {
        one.name: Leaf(one.name, tuple(one.shape), one.dtype)
        for one in ([] if inputs is None else tf.nest.flatten(inputs))
    }


def interface(model: Any) -> Any:
    """The nest of inputs a model takes, a `Leaf` at each place: what `read` finds in x, where there is no x.

    Raises:
        ValueError: the model does not say what it takes.
    """
    takes = declared(model)
    if serving_signature(model) is not None:
        return takes if len(takes) > 1 else next(iter(takes.values()))
    if isinstance(model, keras.Model) and takes:
        leaves = iter(takes.values())
        if isinstance(model, keras.Sequential) or len(takes) == 1:
            return _precise(model, next(leaves))
        nest = takes if isinstance(model.input, dict) else tf.nest.map_structure(lambda _: next(leaves), model.input)
        return _precise(model, nest)
    built = model.get_build_config() if isinstance(model, keras.Model) and model.built else None
    if not built:
        raise ValueError(
            f"{type(model).__name__} does not say what shapes it takes; pass a Keras model that has been called on "
            "data."
        )
    shapes = built["input_shape"] if "input_shape" in built else next(iter(built["shapes_dict"].values()))
    return _precise(model, _shapes(shapes, model.input_dtype, itertools.count()))


def _precise(model: keras.Model, leaves: Any) -> Any:
    found = slices.precise(model)
    return tf.nest.map_structure(lambda leaf: dataclasses.replace(leaf, precise=found), leaves)


def _shapes(shapes: Any, dtype: str, counter: Iterator[int], name: str | None = None) -> Any:
    """A nest of shapes as a nest of leaves, named by their keys, or x, x_1, ... in their order."""
    if isinstance(shapes, dict):
        return {key: _shapes(shapes[key], dtype, counter, key) for key in sorted(shapes)}
    if all(size is None or isinstance(size, int) for size in shapes):
        number = next(counter)
        return Leaf(name or generated(number), (None, *shapes[1:]), dtype)
    return type(shapes)(_shapes(part, dtype, counter) for part in shapes)


def generated(number: int) -> str:
    """The name of an input that has none of its own: x, x_1, ..."""
    return f"x_{number}" if number else "x"


def read(model: Any, x: Any) -> tuple[Any, list[np.ndarray]]:
    """Check the user's `x` against what the model takes.

    Returns:
        the nest of x with a `Leaf` at each place, and the leaves as arrays in the dtype they are explained in.

    Raises:
        ValueError: unbuilt model, inputs missing or unknown, wrong rank or shape, zero or unequal rows, NaN or inf.
    """
    if isinstance(model, keras.Layer) and not model.built:
        raise ValueError(
            f"model {model.name!r} is not built, so it has no weights yet; call it on data or load weights first."
        )
    takes = declared(model)
    names = _names(model, x, takes)
    arrays = [value if isinstance(value, np.ndarray) else np.asarray(value) for value in tf.nest.flatten(x)]
    leaves, values, precise = [], [], slices.precise(model)
    for name, array in zip(names, arrays, strict=True):
        leaf, value = _read_leaf(name, array, takes.get(name), isinstance(model, keras.Layer), precise)
        leaves.append(leaf)
        values.append(value)
    rows = {leaf.name: len(value) for leaf, value in zip(leaves, values, strict=True)}
    if len(set(rows.values())) > 1:
        raise ValueError(f"inputs have different numbers of rows: {rows}; row i of each belongs together.")
    return tf.nest.pack_sequence_as(x, leaves), values


def _names(model: Any, x: Any, takes: dict[str, Leaf]) -> list[str]:
    """The name of each leaf of x, in the order in which it is flattened."""
    if isinstance(x, dict):
        if takes and set(x) != set(takes):
            unknown, missing = sorted(set(x) - set(takes)), sorted(set(takes) - set(x))
            close = {name: difflib.get_close_matches(name, takes, 1) for name in unknown}
            hint = "".join(f"; did you mean {match[0]!r} for {name!r}?" for name, match in close.items() if match)
            raise ValueError(f"the model takes {list(takes)}; unknown in x: {unknown}, missing: {missing}{hint}")
        if len(tf.nest.flatten(x)) == len(x):
            return sorted(x)
    count = len(tf.nest.flatten(x)) if isinstance(x, (list, tuple, dict)) else 1
    if count > 1 and serving_signature(model) is not None:
        raise ValueError(f"a SavedModel names its inputs and has no order; pass x as a dict with {list(takes)}.")
    if takes and len(takes) != count:
        raise ValueError(
            f"the model takes {len(takes)} inputs {list(takes)}, and x has {count}; pass them as a list or a dict"
            f"{'. Of a pair (x, y) pass x alone.' if isinstance(x, tuple) and count == 2 else '.'}"
        )
    return list(takes) if takes else [generated(i) for i in range(count)]


def gathered(model: Any, dataset: tf.data.Dataset) -> Any:
    """All rows of a data set, of single examples or of batches, of x or of (x, y).

    Raises:
        ValueError: it has no end.
    """
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("x is a data set without end; pass dataset.take(batches), or explain it by Explainer.map.")
    if isinstance(dataset.element_spec, tuple):
        dataset = dataset.map(lambda x, *rest: x)
    takes = [leaf.shape[1:] for leaf in declared(model).values()]
    specs = [tuple(spec.shape) for spec in tf.nest.flatten(dataset.element_spec)]
    if () in specs or any(spec == takes_ for spec, takes_ in zip(specs, takes, strict=False)):
        dataset = dataset.batch(256)
    parts = list(dataset.as_numpy_iterator())
    return tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *parts)


def whole(leaf: Any) -> Any:
    """A leaf of a batch; of one that is spread over replicas all their rows."""
    return np.concatenate(leaf.values) if isinstance(leaf, tf.distribute.DistributedValues) else leaf


def column(array: np.ndarray, takes: Sequence[int | None]) -> np.ndarray:
    """A column of a table [B] as [B, 1], where the model takes that, as Keras does; anything else as it is."""
    return array[:, np.newaxis] if array.ndim == 1 and list(takes)[1:] == [1] else array


def one_short(shape: Sequence[int], takes: Sequence[int | None]) -> str:
    """What to do with an array of one axis too few: a single example, or a column of a table."""
    if len(shape) != len(takes) - 1:
        return ""
    if len(shape) == 1 and takes[1] == 1:
        return " A column of a table needs an axis of its own: x[:, None]."
    return " A single example needs a batch axis: x[None]."


def _read_leaf(
    name: str, array: np.ndarray, takes: Leaf | None, keras_model: bool, precise: bool
) -> tuple[Leaf, np.ndarray]:
    kind = array.dtype
    if takes is None:
        floating = kind.kind == "f" or kind == np.uint8 or kind.name == "bfloat16"
        dtype = (keras.config.floatx() if keras_model or kind.kind != "f" else kind.name) if floating else kind.name
        dtype = "string" if kind.kind in "OSU" else dtype
        takes = Leaf(name, (None, *array.shape[1:]), dtype)
    shown = list(takes.shape)
    array = column(array, shown) if keras_model else array
    if array.ndim != len(shown):
        hint = one_short(array.shape, shown)
        raise ValueError(f"input {name!r} has shape {list(array.shape)}, and the model takes {shown}.{hint}")
    if any(want is not None and want != got for want, got in zip(shown[1:], array.shape[1:], strict=True)):
        raise ValueError(f"input {name!r} has shape {list(array.shape)}, and the model takes {shown}.")
    if len(array) == 0:
        raise ValueError(f"input {name!r} has zero rows: there is nothing to explain.")
    leaf = Leaf(
        name,
        (None, *(want if want is None else got for want, got in zip(shown[1:], array.shape[1:], strict=True))),
        takes.dtype,
        precise=precise,
    )
    if leaf.dtype == "string":
        return leaf, array
    if kind.kind in "OSU" or (kind.kind == "c" and not tf.as_dtype(leaf.dtype).is_complex):
        raise ValueError(f"input {name!r} is an array of {kind.name}; the model takes {leaf.dtype}.")
    if kind.kind in "fc" and not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
        raise ValueError(
            f"input {name!r} is NaN or infinite in row {', '.join(map(str, bad[:5]))}; clean the data first."
        )
    if not leaf.explained and kind.kind == "f" and (array != np.round(array)).any():
        raise ValueError(f"input {name!r} holds fractions, and the model takes {leaf.dtype}.")
    value = array.astype(tf.as_dtype(leaf.compute_dtype).as_numpy_dtype, copy=False)
    if not leaf.floating and (value != array).any():
        raise ValueError(
            f"input {name!r} runs from {array.min()} to {array.max()}, which does not fit into {leaf.dtype}."
        )
    return leaf, value
