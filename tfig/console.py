"""What commands share: their words, models from disk, image files in and out."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

from tfig.entry import Leaf
from tfig.explanation import Explanation

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


BASELINES = "zeros, black, white, mean, blur, uniform, gaussian, max_distance, boundary, or a number"


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


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option of where to write."""
    parser.add_argument(
        "-o",
        "--out",
        metavar="PNG",
        help="where to write; with several images their names are added (default: IMAGE.METHOD.png)",
    )


def class_of(option: str, text: str | None) -> int | str | None:
    """A class index or word, from an option's text.

    Raises:
        CommandError: it is neither.
    """
    if text is None or text in ("predicted", "runner_up"):
        return text
    try:
        return int(text)
    except ValueError:
        raise CommandError(f"{option} is {text!r}; it must be a class index, predicted or runner_up") from None


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


def check(paths: list[str]) -> None:
    """Refuse files that are not there, before any work.

    Raises:
        CommandError: naming the first.
    """
    for path in paths:
        if not Path(path).is_file():
            raise CommandError(f"no such image: {path!r}")


def read(paths: list[str], takes: list[Leaf], scale: str) -> np.ndarray:
    """Images as the model takes them, [B, H, W, C], channels in RGB order; black and white at `scale`, "LOW,HIGH".

    Raises:
        CommandError: a file is missing or no image, or the model does not take images.
    """
    low, high = _scale(scale)
    shape = takes[0].shape if len(takes) == 1 else ()
    if len(shape) != 4 or shape[-1] not in (1, 3):
        described = ", ".join(f"{leaf.name} {list(leaf.shape)}" for leaf in takes) or "unknown inputs"
        raise CommandError(
            f"the model takes {described}; the command line explains models of one image, [B, H, W, 1 or 3]."
        )
    rows = []
    for path in paths:
        pixels = _pixels(path, cv2.IMREAD_GRAYSCALE if shape[-1] == 1 else cv2.IMREAD_COLOR)
        height, width = shape[1] or pixels.shape[0], shape[2] or pixels.shape[1]
        if pixels.shape[:2] != (height, width):
            smaller = height * width < pixels.shape[0] * pixels.shape[1]
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        rows.append(low + (high - low) * pixels.reshape(height, width, shape[-1]).astype(np.float32) / 255)
    if len({row.shape for row in rows}) > 1:
        raise CommandError("the model takes images of any size, and these differ in size; explain them one at a time")
    return np.stack(rows)


def write(e: Explanation, paths: list[str], out: str | None, ending: str) -> None:
    """Write each row's overlay over its image, and its numbers (.npz), and print a line that says so.

    Raises:
        CommandError: it cannot be written.
    """
    for row, path in enumerate(paths):
        png = _destination(out, path, ending, len(paths) > 1)
        one = e[row]
        _write(png, one.overlay(_pixels(path, cv2.IMREAD_COLOR))[0])
        one.save(png.with_suffix(".npz"))
        target = "-" if e.target is None else e.target[row]
        delta = "-" if e.convergence_delta is None else f"{e.convergence_delta[row]:.3g}"
        notes = "".join(f" ({note})" for note in one.notes)
        print(f"{path}: class {target}, score {e.score[row]:.4g}, delta {delta} -> {png}{notes}")


def _pixels(path: str, mode: int) -> np.ndarray:
    """An image as uint8, [H, W, 3] in RGB order, or [H, W, 1]."""
    pixels = cv2.imread(path, mode)
    if pixels is None:
        raise CommandError(f"{path!r} is no image that OpenCV can read")
    return pixels[..., np.newaxis] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _scale(text: str) -> tuple[float, float]:
    try:
        *low, high = (float(part) for part in text.split(","))
        return (low[0], high) if len(low) == 1 else {0: (0.0, high)}[len(low)]
    except (ValueError, KeyError):
        raise CommandError(f"--scale is {text!r}; it must be LOW,HIGH, e.g. 0,1 or -1,1 or 0,255") from None


def _destination(out: str | None, image: str, ending: str, several: bool) -> Path:
    if out is None:
        return Path(f"{Path(image).stem}.{ending}.png")
    place = Path(out)
    known = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
    place = place if place.suffix.lower() in known else place.with_name(place.name + ".png")
    return place.with_name(f"{place.stem}.{Path(image).stem}{place.suffix}") if several else place


def _write(path: Path, rgb: np.ndarray) -> None:
    if not path.parent.is_dir():
        raise CommandError(f"no such directory: {str(path.parent)!r}")
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise CommandError(f"could not write {str(path)!r}")
