"""From a model to a SavedModel that explains itself under TensorFlow Serving."""

import json
import os
import shutil
import uuid
import warnings
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfig import entry, slices
from tfig.api import Explainer
from tfig.baselines import Arrays
from tfig.serving import audit, flat, protocol, trial
from tfig.serving.signatures import Served, function, names, predict
from tfig.version import VERSION

BATCHING = ("max_batch_size", "batch_timeout_micros", "num_batch_threads", "max_enqueued_batches")


def export(
    model: Any,
    directory: str | os.PathLike,
    explanations: Mapping[str, Any],
    *,
    output: str | None = None,
    layer: Any = None,
    baseline: Any = None,
    version: int | None = None,
    warmup: Any = True,
    batching: Mapping[str, Any] | None = None,
    fill_value: float | None = None,
    pictures: bool = True,
) -> Path:
    """Write a SavedModel that TensorFlow Serving serves unchanged and that explains its own answers.

    Beside ``serving_default``, which answers as the model's own export does, each explanation NAME is two signatures:
    NAME takes the model's inputs and explains each row's predicted class; NAME_at takes also ``target [B]`` (-1:
    predicted), ``contrast [B]`` (-1: none, -2: runner-up, -3: predicted), ``baseline [B or 1, ...]`` (a row of NaN: the
    default) and ``seed [B]``, each optional. Both return ``attributions``, ``target``, ``score``, ``baseline_score``,
    ``convergence_delta``, ``status`` (0 ok, 1 target out of range, 2 not finite), for images ``heatmap`` and
    ``overlay_bytes`` (PNG), and the method's diagnostics as ``trace_*``, each with a row a row. Of images NAME_heatmap
    and NAME_overlay answer a picture alone. Their programs are the ones that `tfig.explain` runs.

    Args:
        model: a built Keras model, the directory of a SavedModel, or a loaded SavedModel.
        directory: of the model's versions, as TensorFlow Serving polls it; the model is written to
            ``directory/version``, beside it first and then renamed.
        explanations: signature name -> method (object or name), or `tfig.Explainer` of the same model where each needs
            its own layer, output, target or baseline.
        output, layer, baseline: as in `tfig.explain`, for the explanations given as methods.
        version: a positive int; by default the one after the highest there is.
        warmup: write requests with which the server warms up; or a row of x to do it with, [1, ...], in place of zeros.
        batching: parameters of TensorFlow Serving's batching for this model (``max_batch_size``,
            ``batch_timeout_micros``, ``num_batch_threads``, ``max_enqueued_batches``, ``allowed_batch_sizes``).
        fill_value: what explanations answer in place of numbers that are not finite, for callers over REST, whose JSON
            has no NaN; ``status`` says which rows were not explained. None: NaN.
        pictures: whether explanations of images answer ``heatmap`` and ``overlay_bytes`` too. Without, a server warms
            up in a third of the time, and clients draw from the numbers.

    Returns:
        the folder of the new version.

    Raises:
        ValueError: it cannot be served, for the reason named, or what was given does not fit; nothing is left behind.
        FileExistsError: the version exists.

    >>> tfig.export(model, "models/digits", {"explain": tfig.IntegratedGradients()})
    """
    source = _source(model)
    structure = entry.interface(source)
    leaves: list[entry.Leaf] = tf.nest.flatten(structure)
    for leaf in leaves:
        if leaf.shape[0] is not None:
            raise ValueError(
                f"input {leaf.name!r} has a fixed batch size, {leaf.shape[0]}; rebuild the model with batch_size=None "
                "to serve any number of rows."
            )
    served = {
        name: _served(name, explainer, structure, leaves, fill_value, pictures)
        for name, explainer in _explainers(source, explanations, output, layer, baseline).items()
    }
    signatures = _own(model, source, structure)
    for name, one in served.items():
        for key, signature in one.signatures(name).items():
            if key in signatures or (key != name and key in served):
                raise ValueError(f"signature {key!r} exists already; choose another name for explanation {name!r}.")
            signatures[key] = signature

    module = tf.Module()
    module.held = _resources(source)
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{str(directory)!r} is a file; pass the directory of the model's versions.")
    text = None if batching is None else _batching(batching)
    if fill_value is not None and not np.isfinite(fill_value):
        raise ValueError(f"fill_value is {fill_value!r}; it must be a finite number, or None for NaN.")
    _next(directory, version)
    created = not directory.exists()
    hidden = directory / f".{uuid.uuid4().hex}"
    try:
        hidden.mkdir(parents=True)
        # Gradients that a method overrides cannot be saved as functions of their own.
        overridden = any(audit.overridden(one.posed.program.run.graph.as_graph_def()) for one in served.values())
        _save(module, hidden, signatures, not overridden)
        audit.check(hidden)
        flat.write(
            hidden,
            {
                name: (signatures[protocol.at(name)].get_concrete_function(), one.posed.program.run)
                for name, one in served.items()
            },
        )
        (hidden / protocol.DESCRIPTION).parent.mkdir(exist_ok=True)
        (hidden / protocol.DESCRIPTION).write_text(
            json.dumps(_described(model, source, served, set(signatures)), indent=1) + "\n"
        )
        if text is not None:
            (hidden / protocol.BATCHING).write_text(text)
        trial.run(hidden, directory.resolve().name, warmup, source, next(iter(served.values())))
        return _publish(hidden, directory, version)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        if created and not any(directory.iterdir()):
            directory.rmdir()


def _save(module: tf.Module, folder: Path, signatures: Mapping[str, Any], gradients: bool) -> None:
    """A SavedModel; for whoever loads it, with the gradients that the model defines itself, where they can be saved."""
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=gradients)
    try:
        tf.saved_model.save(module, os.fspath(folder), signatures, options)
    except ValueError as error:
        if not gradients or "gradient" not in str(error):
            raise
        warnings.warn(
            "a gradient that the model defines itself (tf.custom_gradient), or that an explanation of it overrides, "
            "cannot be saved, so that the export answers, but whoever loads it with TensorFlow cannot differentiate "
            f"it: {str(error)[:200]}",
            stacklevel=3,
        )
        _save(module, folder, signatures, False)


def _source(model: Any) -> Any:
    """The model or loaded SavedModel."""
    if isinstance(model, (str, os.PathLike)):
        if Path(model).suffix in (".keras", ".h5"):
            raise ValueError(f"{str(model)!r} is a file of weights and layers; pass keras.models.load_model of it.")
        if versions(Path(model)) and not (Path(model) / "saved_model.pb").exists():
            raise ValueError(f"{str(model)!r} holds versions {sorted(versions(Path(model)))}; pass the folder of one.")
        audit.read(Path(model))
        return tf.saved_model.load(os.fspath(model))
    if isinstance(model, keras.Model) or entry.serving_signature(model) is not None:
        return model
    raise ValueError(
        f"model is {type(model).__name__}, which says neither what it takes nor where its weights are; pass a Keras "
        "model or a SavedModel directory."
    )


def _explainers(
    source: Any, explanations: Mapping[str, Any], output: str | None, layer: Any, baseline: Any
) -> dict[str, Explainer]:
    if not isinstance(explanations, Mapping) or not explanations:
        raise ValueError(
            f"explanations is {explanations!r}; pass a dict of signature name to method, e.g. "
            '{"explain": tfig.IntegratedGradients()}.'
        )
    if any(one is not None for one in (output, layer, baseline)) and all(
        isinstance(asked, Explainer) for asked in explanations.values()
    ):
        raise ValueError("output=, layer= and baseline= are for explanations given as methods; an Explainer has them.")
    found = {}
    for name, asked in explanations.items():
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name.startswith("__"):
            raise ValueError(f"explanation name {name!r} is no name of a signature; use letters, digits and _.")
        if isinstance(asked, Explainer):
            if asked.model is not source:
                raise ValueError(f"explanation {name!r} is an Explainer of another model; make it of the one exported.")
            found[name] = asked
            continue
        try:
            found[name] = Explainer(source, asked, output=output, layer=layer, baseline=baseline)
        except ValueError as error:
            raise ValueError(f"explanation {name!r}: {error}") from error
    return found


def _served(
    name: str, explainer: Explainer, structure: Any, leaves: list[entry.Leaf], fill: float | None, pictures: bool
) -> Served:
    """An explanation posed to one row of zeros: its program, and what it is fed by default."""
    if np.ndim(explainer.seed):
        raise ValueError(f"explanation {name!r} has a seed for each row; export it with one seed.")
    free = [leaf for leaf in leaves if None in leaf.shape[1:]]
    if free and explainer.method.stepwise and slices.loops(explainer.model):
        raise ValueError(
            f"explanation {name!r} ({explainer.method.name}) unrolls loops over time, so that what is served is for "
            f"one number of steps, and input {free[0].name!r} takes any: {list(free[0].shape)}. Export a model with a "
            "fixed number of steps and the same weights, or another method."
        )
    empty = [
        np.zeros([1, *(size or 1 for size in leaf.shape[1:])], tf.as_dtype(leaf.compute_dtype).as_numpy_dtype)
        for leaf in leaves
    ]
    try:
        posed = explainer.anywhere().pose(structure, empty, explainer.target)
    except (ValueError, TypeError) as error:
        advice = ""
        if isinstance(error, TypeError) or "radient" in type(error).__name__:
            advice = " (was it saved with experimental_custom_gradients=False?)"
        several = " (what is given at export holds for every row: pass one)" if "row" in str(error) else ""
        if free and "shape" in str(error):
            several = (
                f" (input {free[0].name!r} takes {list(free[0].shape)}, and 1 stands for what is free: give a rule, or "
                "one number, in place of arrays, or export a model of one size)"
            )
        raise ValueError(f"explanation {name!r} cannot be made: {error}{advice}{several}") from error
    if explainer.method.sides(empty):
        raise ValueError(
            f"explanation {name!r} calls a Python function on each row, which a served model cannot; pass segments as "
            "a map, or, but for xrai, as the size of a grid."
        )
    if posed.aside:
        raise ValueError(
            f"explanation {name!r} has a target that takes arrays beside the outputs, which a server's callers cannot "
            "send; make what it needs an input and an output of the model."
        )
    if (posed.target < -1).any():
        raise ValueError(
            f"explanation {name!r} is of the runner-up, which callers ask for as contrast; export it without target=."
        )
    return Served(explainer, leaves, names(leaves), posed, fill, pictures)


def _own(model: Any, source: Any, structure: Any) -> dict[str, Any]:
    """The model's own signatures."""
    if isinstance(source, keras.Model):
        return {protocol.DEFAULT: predict(source, structure)}
    known = getattr(source, "signatures", None) or {protocol.DEFAULT: source}
    defaults = {}
    if isinstance(model, (str, os.PathLike)):
        definitions = audit.read(Path(model)).signature_def
        defaults = {name: dict(getattr(definitions[name], "defaults", {})) for name in known if name in definitions}
    return {name: _again(one, defaults.get(name, {})) for name, one in known.items()}


def _again(signature: Any, defaults: Mapping[str, Any]) -> Any:
    """A loaded signature to be saved again; one with optional inputs would lose their defaults."""
    if not defaults:
        return signature
    specs = signature.structured_input_signature[1]
    ordered = sorted(specs, key=lambda name: (name in defaults, name))
    values = {name: tf.constant(tf.make_ndarray(value)) for name, value in defaults.items()}
    named = {name: tf.TensorSpec(specs[name].shape, specs[name].dtype, name=name) for name in ordered}
    return function(signature, named, values)


def _resources(source: Any) -> Any:
    """What the saved module must hold: raw variables, since a Keras variable is saved as a second one; tables."""
    if not isinstance(source, keras.Model):
        return source
    held: list[Any] = [variable.value for variable in source.variables]
    for layer in [source, *slices.layers(source)]:
        held += [
            value
            for value in vars(layer).values()
            if isinstance(value, (tf.Variable, tf.saved_model.experimental.TrackableResource))
        ]
    return list({id(value): value for value in held}.values())


def _next(directory: Path, version: int | None) -> int:
    """The version to write: the one asked for, or the one after the highest.

    Raises:
        ValueError, FileExistsError: it is no version, or it exists.
    """
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or not 0 < version < 2**63):
        raise ValueError(f"version is {version!r}; it must be a positive int of 63 bits.")
    known = versions(directory)
    if version in known:
        raise FileExistsError(f"version {version} exists in {str(directory)!r}; leave version= out for the next one.")
    return version or max(known, default=0) + 1


def versions(directory: Path) -> dict[int, Path]:
    """The version folders of a model, as TensorFlow Serving reads their names."""
    folders = directory.iterdir() if directory.is_dir() else iter(())
    named = {int(folder.name): folder for folder in folders if folder.name.isdecimal() and folder.is_dir()}
    return {number: folder for number, folder in named.items() if number < 2**63}


def latest(directory: Path) -> Path:
    """The folder of a model's highest version; of a version itself that one."""
    known = versions(directory)
    return known[max(known)] if known and not (directory / "saved_model.pb").exists() else directory


def _publish(hidden: Path, directory: Path, version: int | None) -> Path:
    """Rename the finished folder into place; where another exporter was faster, to the next version."""
    while True:
        final = directory / str(_next(directory, version))
        try:
            os.rename(hidden, final)
            return final
        except OSError:
            if not final.exists():
                raise


def _described(model: Any, source: Any, served: Mapping[str, Served], signatures: Set[str]) -> dict[str, Any]:
    """What ``assets.extra/tfig.json`` says."""
    one = next(iter(served.values()))
    return {
        "tfig": VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "model": getattr(source, "name", type(source).__name__),
        "inputs": {
            name: {"shape": list(leaf.shape), "dtype": leaf.dtype, "explained": leaf.explained}
            for name, leaf in zip(one.names, one.leaves, strict=True)
        },
        "statuses": {str(code): meaning for code, meaning in protocol.STATUSES.items()},
        "explanations": _described_before(model)
        | {
            name: {
                "signatures": [key for key in protocol.kin(name) if key in signatures],
                **_described_one(explanation),
            }
            for name, explanation in served.items()
        },
    }


def _described_before(model: Any) -> dict[str, Any]:
    """What the directory of a SavedModel says of the explanations that it has already."""
    if not isinstance(model, (str, os.PathLike)) or not (Path(model) / protocol.DESCRIPTION).exists():
        return {}
    return json.loads((Path(model) / protocol.DESCRIPTION).read_text())["explanations"]


def _described_one(served: Served) -> dict[str, Any]:
    explainer = served.explainer
    method, given = explainer.method, explainer.baseline
    shown = method.default_baseline if given is None else given
    if isinstance(shown, (Arrays, np.ndarray, list, tuple, dict)):
        shown = type(shown).__name__ + " given at export"
    return {
        "method": method.name,
        "parameters": method.parameters,
        "reference": method.reference,
        "complete": method.complete,
        "layer": None if served.posed.layer is None else served.posed.layer.name,
        "output": explainer.output,
        "target": None if explainer.target is None else repr(explainer.target),
        "baseline": None if shown is None else str(shown),
        "seed": int(explainer.seed),
        "options": {
            option: {"shape": [None, *value.shape[1:].as_list()], "dtype": value.dtype.name}
            for option, value in served.options.items()
        },
    }


def _batching(given: Mapping[str, Any]) -> str:
    """``batching_params.pbtxt``, in protobuf's text format."""
    unknown = set(given) - {*BATCHING, "allowed_batch_sizes"}
    if unknown:
        raise ValueError(f"batching has no {sorted(unknown)}; it takes {[*BATCHING, 'allowed_batch_sizes']}.")
    sizes = list(given.get("allowed_batch_sizes", ()))
    largest = given.get("max_batch_size")
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != largest):
        raise ValueError(f"allowed_batch_sizes is {sizes}; it must rise and end with max_batch_size, {largest}.")
    for name, value in [*given.items(), *(("allowed_batch_sizes", size) for size in sizes)]:
        least = 0 if name == "batch_timeout_micros" else 1
        if not isinstance(value, (list, tuple)) and (not isinstance(value, int) or value < least):
            raise ValueError(f"batching has {name} {value!r}; it must be an int of at least {least}.")
    lines = [f"{name} {{ value: {int(given[name])} }}" for name in BATCHING if name in given]
    return "\n".join([*lines, *(f"allowed_batch_sizes: {int(size)}" for size in sizes), ""])
