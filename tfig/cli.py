"""The command line: tfig explain, tfig methods."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

from tfig import api, network
from tfig.score import Contrast
from tfig.version import VERSION

BASELINES = "zeros, black, white, mean, blur, uniform, gaussian, max_distance, boundary, or a number"


class CommandError(Exception):
    """What is said in one line before exiting with status 1."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `tfig`."""
    top = argparse.ArgumentParser(
        prog="tfig", description="Explain Keras models: which parts of the input made the model say this?"
    )
    top.add_argument("--version", action="version", version=f"tfig {VERSION}")
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "explain",
        help="explain a model's answer for images",
        description="Explain a model's answer for images: writes an overlay PNG and the numbers (.npz) for each.",
    )
    one.add_argument("model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel directory")
    one.add_argument("images", metavar="IMAGE", nargs="+", help="image files, resized to the model's input")
    one.add_argument(
        "--method", default="integrated_gradients", help="as listed by 'tfig methods' (default: %(default)s)"
    )
    one.add_argument("--target", metavar="CLASS", help="class index; default: the predicted class of each image")
    one.add_argument(
        "--against", metavar="CLASS", help="explain CLASS rather than this one: an index, predicted or runner_up"
    )
    one.add_argument("--layer", help="name of the layer whose output is explained")
    one.add_argument("--output", choices=["logits", "probabilities"], help="default: what the model emits")
    one.add_argument("--baseline", help=BASELINES)
    one.add_argument(
        "--scale",
        metavar="LOW,HIGH",
        default="0,1",
        help="what black and white are for the model (default: %(default)s), e.g. -1,1 or 0,255",
    )
    one.add_argument("--batch-size", type=int, metavar="N", help="rows the model evaluates together")
    one.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    one.add_argument(
        "-o",
        "--out",
        metavar="PNG",
        help="where to write; with several images their names are added (default: IMAGE.METHOD.png)",
    )
    one.set_defaults(run=run_explain)
    listing = commands.add_parser(
        "methods", help="list the methods", description="List the methods: what each is, its paper, what it needs."
    )
    listing.set_defaults(run=run_methods)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run `tfig`; returns the exit status: 0, or 1 after a one-line error (2 for a misspelt command, from argparse)."""
    options = parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        options.run(options)
    except (CommandError, ValueError) as error:
        print(f"tfig: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def run_methods(options: argparse.Namespace) -> None:
    """Print what `tfig.methods` says."""
    for name, info in api.methods().items():
        marks = [mark for mark, on in (("complete", info.complete), ("draws noise", info.stochastic)) if on]
        marks += [f"baseline {info.baseline}"] if info.baseline and info.baseline != "dataset" else []
        marks += [f"needs {info.needs}"] if info.needs else []
        print(f"{name}\n    {info.summary}\n    {'; '.join(marks) or 'no baseline'}\n    {info.reference}")


def run_explain(options: argparse.Namespace) -> None:
    """Explain images and write overlay and numbers for each."""
    for image in options.images:
        if not Path(image).is_file():
            raise CommandError(f"no such image: {image!r}")
    low, high = _scale(options.scale)
    target: Any = _class("--target", options.target)

    method = api.method_named(options.method)
    model = load_model(options.model)
    x = read_images(options.images, model, low, high)
    if options.against is not None:
        against: Any = _class("--against", options.against)
        target = Contrast("predicted" if target is None else target, against)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notes are printed beside the answer
        e = api.explain(
            model, x, method, target=target, output=options.output, layer=options.layer,
            baseline=_baseline(options.baseline), batch_size=options.batch_size, seed=options.seed,
        )  # fmt: skip
    for row, image in enumerate(options.images):
        png = _destination(options.out, image, method.name, len(options.images) > 1)
        one = e[row]
        _write_picture(png, one.overlay(_read(image, cv2.IMREAD_COLOR))[0])
        one.save(png.with_suffix(".npz"))
        target_shown = "-" if e.target is None else e.target[row]
        delta = "-" if e.convergence_delta is None else f"{e.convergence_delta[row]:.3g}"
        notes = "".join(f" ({note})" for note in one.notes)
        print(f"{image}: class {target_shown}, score {e.score[row]:.4g}, delta {delta} -> {png}{notes}")


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


def read_images(paths: list[str], model: Any, low: float, high: float) -> np.ndarray:
    """Images as the model takes them, [B, H, W, C], black at `low` and white at `high`, channels in RGB order.

    Raises:
        CommandError: a file is no image, or the model does not take images.
    """
    takes = list(network.declared(model).values())
    shape = takes[0].shape if len(takes) == 1 else ()
    if len(shape) != 4 or shape[-1] not in (1, 3):
        described = ", ".join(f"{leaf.name} {list(leaf.shape)}" for leaf in takes) or "unknown inputs"
        raise CommandError(
            f"the model takes {described}; the command line explains models of one image, [B, H, W, 1 or 3]."
        )
    rows = []
    for path in paths:
        pixels = _read(path, cv2.IMREAD_GRAYSCALE if shape[-1] == 1 else cv2.IMREAD_COLOR)
        height, width = shape[1] or pixels.shape[0], shape[2] or pixels.shape[1]
        if pixels.shape[:2] != (height, width):
            smaller = height * width < pixels.shape[0] * pixels.shape[1]
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        rows.append(low + (high - low) * pixels.reshape(height, width, shape[-1]).astype(np.float32) / 255)
    if len({row.shape for row in rows}) > 1:
        raise CommandError("the model takes images of any size, and these differ in size; explain them one at a time")
    return np.stack(rows)


def _read(path: str, mode: int) -> np.ndarray:
    """An image as uint8, [H, W, 3] in RGB order, or [H, W, 1]."""
    pixels = cv2.imread(path, mode)
    if pixels is None:
        raise CommandError(f"{path!r} is no image that OpenCV can read")
    return pixels[..., np.newaxis] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _joined(arguments: list[str]) -> list[str]:
    """``--scale -1,1`` as ``--scale=-1,1``: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--scale":
            joined[-1] = f"--scale={argument}"
        else:
            joined.append(argument)
    return joined


def _scale(text: str) -> tuple[float, float]:
    try:
        *low, high = (float(part) for part in text.split(","))
        return (low[0], high) if len(low) == 1 else {0: (0.0, high)}[len(low)]
    except (ValueError, KeyError):
        raise CommandError(f"--scale is {text!r}; it must be LOW,HIGH, e.g. 0,1 or -1,1 or 0,255") from None


def _class(option: str, text: str | None) -> int | str | None:
    if text is None or text in ("predicted", "runner_up"):
        return text
    try:
        return int(text)
    except ValueError:
        raise CommandError(f"{option} is {text!r}; it must be a class index, predicted or runner_up") from None


def _baseline(text: str | None) -> str | float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _destination(out: str | None, image: str, method: str, several: bool) -> Path:
    if out is None:
        return Path(f"{Path(image).stem}.{method}.png")
    place = Path(out)
    known = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
    place = place if place.suffix.lower() in known else place.with_name(place.name + ".png")
    return place.with_name(f"{place.stem}.{Path(image).stem}{place.suffix}") if several else place


def _write_picture(path: Path, rgb: np.ndarray) -> None:
    if not path.parent.is_dir():
        raise CommandError(f"no such directory: {str(path.parent)!r}")
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise CommandError(f"could not write {str(path)!r}")


if __name__ == "__main__":
    sys.exit(main())
