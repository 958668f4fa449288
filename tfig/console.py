"""What commands share: their words, and models from disk."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfig import naming
from tfig.api import Explainer
from tfig.score import Contrast

PATIENCE = 2.0
"""Seconds after which a command says what it is waiting for."""


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on the terminal what takes its time, if it does."""
    said = threading.Timer(PATIENCE, print, [f"{what} ..."], {"file": sys.stderr, "flush": True})
    said.start()
    try:
        yield
    finally:
        said.cancel()


class CommandError(Exception):
    """What is said in one line before exiting with status 1."""


BASELINES = "zeros, black, white, mean, blur, uniform, gaussian, max_distance, boundary, vocabulary, or a number"


def add_target(parser: argparse.ArgumentParser) -> None:
    """The option of which class is explained."""
    parser.add_argument(
        "--target", metavar="CLASS", help="class index, or name of --classes; default: the predicted one"
    )


def add_against(parser: argparse.ArgumentParser) -> None:
    """The option of rather than which class it is explained."""
    parser.add_argument(
        "--against", metavar="CLASS", help="explain CLASS rather than this one: an index, predicted or runner_up"
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options of where a question is posed, of what is read off the model, and of what is absent."""
    parser.add_argument("--layer", help="name of the layer whose output is explained")
    parser.add_argument("--output", choices=["logits", "probabilities"], help="default: what the model emits")
    parser.add_argument("--baseline", help=BASELINES)


def add_scale(parser: argparse.ArgumentParser) -> None:
    """The option of the values that images are read as."""
    parser.add_argument(
        "--scale",
        metavar="LOW,HIGH",
        default="0,1",
        help="what black and white are for the model (default: %(default)s), e.g. -1,1 or 0,255",
    )


def add_preprocess(parser: argparse.ArgumentParser) -> None:
    """The option of what is done to images."""
    parser.add_argument(
        "--preprocess", metavar="NAME",
        help="in place of --scale, preprocess_input of keras.applications: caffe, tf, torch, or as resnet50",
    )  # fmt: skip


def add_out(parser: argparse.ArgumentParser) -> None:
    """The options of where to write, and of what classes are called."""
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="a .png; with several images their names are added (default: INPUT.METHOD.png); or a report, .html",
    )
    add_classes(parser)


def add_classes(parser: argparse.ArgumentParser) -> None:
    """The option of what classes are called."""
    parser.add_argument(
        "--classes", metavar="FILE", help="names of classes: one a line, or a .json list or dict by number"
    )


def class_of(option: str, text: str | None, names: Any = None) -> Any:
    """A class index, name or word, from an option's text; of one of several outputs, OUTPUT:CLASS.

    Raises:
        CommandError: it is none of them.
    """
    known = naming.numbered(names)
    if text is not None and ":" in text and text not in known:
        output, _, rest = text.rpartition(":")
        return (int(output) if output.isdigit() else output), class_of(option, rest, names)
    if text is None or text in ("predicted", "runner_up"):
        return text
    if text in known:
        return known[text]
    try:
        return int(text)
    except ValueError:
        listed = ", a name of --classes" if known else ""
        raise CommandError(f"{option} is {text!r}; it must be a class index{listed}, predicted or runner_up") from None


def baseline_of(text: str | None) -> str | float | None:
    """A baseline's name or number, from an option's text."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def load_model(path: str) -> Any:
    """A Keras model from a .keras or .h5 file, or a loaded SavedModel from a directory.

    Raises:
        CommandError: there is none, or it does not load.
    """
    place = Path(path)
    if not place.exists():
        raise CommandError(f"no such model: {path!r}")
    try:
        if place.is_dir():
            return tf.saved_model.load(path)
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # whatever the loaders raise, the user gets one line
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CommandError(
            f"{path!r} is no model that loads (.keras, .h5 or SavedModel directory): {reason}"
        ) from error


def explainer(model: Any, options: argparse.Namespace, names: Any, devices: Any = None) -> Explainer:
    """What the options of a command ask of a model."""
    target: Any = class_of("--target", options.target, names)
    if options.against is not None:
        against: Any = class_of("--against", options.against, names)
        target = Contrast("predicted" if target is None else target, against)
    return Explainer(
        model, options.method, target=target, output=options.output, layer=options.layer,
        baseline=baseline_of(options.baseline), batch_size=options.batch_size, seed=options.seed, class_names=names,
        devices=devices,
    )  # fmt: skip
