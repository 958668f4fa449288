"""Rows from files, and explanations into files: what commands read and write."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import keras
import numpy as np

from tfig.console import CommandError
from tfig.entry import Leaf
from tfig.explanation import Explanation
from tfig.plots import sheet

ARRAYS = (".npy", ".npz", ".csv")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IDS = ("id", "key")
"""What a column of names of rows may be called."""
LARGEST = 2**53
"""Up to which doubles hold every whole number."""
TOLD = 20
"""Rows that a line is printed for; of more their number."""


class Rows(NamedTuple):
    """What files hold.

    Fields:
        x: as the model takes it.
        names: of the rows.
        pictures: uint8 images [H, W, 3] as the files have them; none of arrays and tables.
        feature_names: the columns of a table.
    """

    x: Any
    names: list[str]
    pictures: tuple[np.ndarray, ...] = ()
    feature_names: Any = None


def check(paths: list[str]) -> None:
    """Refuse files that are not there, before any work.

    Raises:
        CommandError: naming the first.
    """
    for path in paths:
        if not Path(path).is_file():
            raise CommandError(f"no such {'image' if Path(path).suffix.lower() in PICTURES else 'file'}: {path!r}")


def read(paths: list[str], takes: list[Leaf], scale: str, preprocess: str | None = None) -> Rows:
    """The rows of image files, or of one .npy, .npz (by input) or .csv file (of columns by name).

    Raises:
        CommandError: a file is missing or cannot be read, or does not fit what the model takes.
    """
    arrays = [path for path in paths if Path(path).suffix.lower() in ARRAYS]
    if not arrays:
        return images(paths, takes, scale, preprocess)
    if len(paths) > 1:
        raise CommandError(f"{arrays[0]!r} holds all rows; pass it alone")
    if preprocess is not None or scale != "0,1":
        raise CommandError("--scale and --preprocess are for image files; arrays and tables are taken as they are")
    path = arrays[0]
    if path.lower().endswith(".csv"):
        return table(path, takes)
    x = arrays_of(path, takes)
    rows = len(next(iter(x.values()))) if isinstance(x, dict) else len(np.atleast_1d(x))
    return Rows(x, [f"row {i}" for i in range(rows)])


def arrays_of(path: str, takes: list[Leaf], mmap_mode: Any = None) -> Any:
    """The array of an .npy file, or those of an .npz by name; of one for one input the array.

    Args:
        mmap_mode: as NumPy's `load` has it.

    Raises:
        CommandError: it cannot be read.
    """
    try:
        found = np.load(path, mmap_mode, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            x = {name: found[name] for name in found.files}
    except (ValueError, OSError, EOFError) as error:
        raise CommandError(f"{path!r} cannot be read: {error}") from error
    return next(iter(x.values())) if len(x) == 1 and len(takes) < 2 else x


def images(paths: list[str], takes: list[Leaf], scale: str, preprocess: str | None = None) -> Rows:
    """Images as the model takes them, [B, H, W, C], channels in RGB order; black and white at `scale`, "LOW,HIGH".

    Args:
        preprocess: "tf", "torch", "caffe" or a module of keras.applications, whose `preprocess_input` is applied.

    Raises:
        CommandError: a file is missing or no image, or the model does not take images.
    """
    shape = takes[0].shape if len(takes) == 1 else ()
    if len(shape) != 4 or shape[-1] not in (1, 3):
        described = ", ".join(f"{leaf.name} {list(leaf.shape)}" for leaf in takes) or "unknown inputs"
        raise CommandError(
            f"the model takes {described}, and images are for models of one image, [B, H, W, 1 or 3]; pass a .npy, "
            ".npz or .csv file."
        )
    rows, pictures = [], []
    for path in paths:
        whole = _pixels(path, cv2.IMREAD_GRAYSCALE if shape[-1] == 1 else cv2.IMREAD_COLOR)
        rows.append(taken(whole, shape, scale, preprocess))
        pictures.append(whole if whole.shape[-1] == 3 else _pixels(path, cv2.IMREAD_COLOR))
    if len({row.shape for row in rows}) > 1:
        raise CommandError("the model takes images of any size, and these differ in size; explain them one at a time")
    return Rows(np.stack(rows), paths, tuple(pictures))


def checked(scale: str, preprocess: str | None) -> None:
    """Refuse what says nothing of how images are read.

    Raises:
        CommandError: naming the option.
    """
    _scale(scale)
    if preprocess is not None:
        _preprocessed(np.zeros((1, 8, 8, 3), np.float32), preprocess)


def taken(pixels: np.ndarray, shape: Sequence[int | None], scale: str, preprocess: str | None = None) -> np.ndarray:
    """An image, uint8 [H, W, C], as a model takes it that takes [B, H, W, C]: in its size, between black and white."""
    if preprocess is not None and scale != "0,1":
        raise CommandError("--preprocess says what black and white are; leave --scale out")
    low, high = (0.0, 255.0) if preprocess else _scale(scale)
    height, width = shape[1] or pixels.shape[0], shape[2] or pixels.shape[1]
    if pixels.shape[:2] != (height, width):
        smaller = height * width < pixels.shape[0] * pixels.shape[1]
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    x = low + (high - low) * pixels.reshape(height, width, shape[-1] or 1).astype(np.float32) / 255
    return x if preprocess is None else _preprocessed(x[np.newaxis], preprocess)[0]


def class_names(path: str | None) -> Any:
    """Names of classes: a JSON list or dict, or a text file with a name in each line.

    Raises:
        CommandError: there is no such file, or it holds something else.
    """
    if path is None:
        return None
    check([path])
    text = Path(path).read_text(encoding="utf-8")
    if Path(path).suffix.lower() != ".json":
        return text.splitlines()
    try:
        found = json.loads(text)
        found = {int(i): name for i, name in found.items()} if all(key.isdigit() for key in found) else found
    except (AttributeError, TypeError):
        pass  # no dict
    except ValueError as error:
        raise CommandError(f"{path!r} is no JSON: {error}") from error
    if not isinstance(found, (list, dict)):
        raise CommandError(f"{path!r} holds no list and no dict of names")
    return found


def write(e: Explanation, rows: Rows, out: str | None, ending: str, stem: str) -> None:
    """Write pictures and numbers (.npz), or with an `out` that ends in .html a report, and print what was answered.

    Of image files each has its own overlay and numbers; of arrays and tables there is one figure, of the first rows.

    Raises:
        CommandError: it cannot be written.
    """
    if out is not None and paged(Path(out)):
        _report(e, rows, Path(out))
    elif rows.pictures:
        several = len(rows.names) > 1
        for row, (path, picture) in enumerate(zip(rows.names, rows.pictures, strict=True)):
            png = _destination(out, path, ending, several)
            _write(png, e[row].overlay(picture)[0])
            e[row].save(png.with_suffix(".npz"))
            _tell(e, row, path, png)
    else:
        png = _destination(out, stem, ending, several=False)
        folder(png)
        e.plot(png, feature_names=rows.feature_names)
        e.save(png.with_suffix(".npz"))
        _listed(e, rows.names, png)


def paged(out: Path) -> bool:
    """Whether a report is asked for."""
    return out.suffix.lower() in (".html", ".htm")


def _report(e: Explanation, rows: Rows, out: Path) -> None:
    """One page of all rows, with the images as the files have them."""
    from tfig.pages.report import report

    folder(out)
    sizes = {picture.shape for picture in rows.pictures}
    image = np.stack(rows.pictures) if len(sizes) == 1 else None
    title = f"Why {e.provenance.get('model', 'the model')} said so"
    report(e, out, title=title, image=image, feature_names=rows.feature_names)
    e.save(out.with_suffix(".npz"))
    _listed(e, rows.names, out)


def _listed(e: Explanation, names: list[str], place: Path) -> None:
    for row in range(min(len(e), TOLD)):
        _tell(e, row, names[row], place)
    if len(e) > TOLD:
        print(f"and {len(e) - TOLD} rows more -> {place}")
    if place.suffix in PICTURES and len(e) > sheet.ROWS:
        print(f"the picture shows the first {sheet.ROWS} rows; a report shows all: -o {place.with_suffix('.html')}")


def _tell(e: Explanation, row: int, name: str, place: Path) -> None:
    """A line for a row."""
    target = sheet.called(e, row) or "class -"
    delta = "-" if e.convergence_delta is None else f"{e.convergence_delta[row]:.3g}"
    notes = "".join(f" ({note})" for note in e[row].notes)
    print(f"{name}: {target}, score {e.score[row]:.4g}, delta {delta} -> {place}{notes}")


def table(path: str, takes: list[Leaf]) -> Rows:
    """A table with a line of names: columns in the order of the only input, or by the names of several.

    Raises:
        CommandError: it is none, or does not fit what the model takes.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (ValueError, OSError, csv.Error) as error:
        raise CommandError(f"{path!r} cannot be read: {error}") from error
    lines = [line for line in lines if line]
    ragged = next((number for number, line in enumerate(lines, 1) if len(line) != len(lines[0])), None)
    if not lines or ragged:
        where = f"; line {ragged} has {len(lines[ragged - 1])} of {len(lines[0])}" if ragged else ""
        raise CommandError(
            f"{path!r} is no table: it needs a line of names, and as many cells in every other line{where}"
        )
    if len(lines) == 1:
        raise CommandError(f"{path!r} has a line of names, and there are no rows below it")
    head, body = [name.strip() for name in lines[0]], lines[1:]
    if not any(_named(name) for name in head):
        raise CommandError(f"{path!r} begins with numbers, {', '.join(head[:3])}, ...; its first line must be names")
    cells = {name: [line[i] for line in body] for i, name in enumerate(head)}
    ids = next((name for name in IDS if name in head and name not in {leaf.name for leaf in takes}), None)
    width = takes[0].shape[-1] if len(takes) == 1 and len(takes[0].shape) == 2 else None
    if ids is not None and (len(takes) > 1 or width == len(head) - 1):
        names, head = cells[ids], [name for name in head if name != ids]
    else:
        names = [f"row {i}" for i in range(len(body))]
    if len(takes) > 1:
        missing = [leaf.name for leaf in takes if leaf.name not in cells]
        if missing:
            raise CommandError(f"{path!r} has no columns {missing}, which the model takes; it has {head}")
        return Rows({leaf.name: _columns({leaf.name: cells[leaf.name]}, leaf) for leaf in takes}, names)
    if not takes or len(takes[0].shape) != 2 or width not in (None, len(head)):
        needed = f"{takes[0].name} {list(takes[0].shape)}" if takes else "unknown inputs"
        raise CommandError(f"{path!r} has {len(head)} columns, {', '.join(head)}, and the model takes {needed}")
    x = _columns({name: cells[name] for name in head}, takes[0])
    return Rows(x, names, feature_names=head)


def _number(cell: str, whole: bool) -> int | float:
    """What a cell says: nothing is no number; where the model takes whole numbers they are not rounded.

    Raises:
        ValueError: it is something else.
    """
    if not cell.strip():
        return float("nan")
    try:
        return int(cell) if whole else float(cell)
    except ValueError:
        return float(cell)


def _named(cell: str) -> bool:
    """Whether a cell may be the name of a column: it is no number."""
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _columns(cells: Mapping[str, list[str]], leaf: Leaf) -> np.ndarray:
    """Columns of a table, [B, columns]. What fits into the model's type is for the model to say."""
    if leaf.dtype == "string":
        return np.array(list(cells.values())).T
    found: dict[str, list[int | float]] = {name: [] for name in cells}
    for name, column in cells.items():
        for line, cell in enumerate(column, 2):
            try:
                found[name].append(_number(cell, not leaf.floating))
            except ValueError:
                raise CommandError(
                    f"column {name!r} holds {cell!r} in line {line}, which is no number, and the model takes "
                    f"{leaf.dtype}"
                ) from None
    if any(isinstance(one, float) for column in found.values() for one in column):
        large = [name for name, column in found.items() if any(isinstance(n, int) and abs(n) > LARGEST for n in column)]
        if large:
            raise CommandError(
                f"{large[0]!r} holds whole numbers above 2^53 beside fractions or empty cells; pass .npy or .npz"
            )
    return np.array(list(found.values())).T


def _preprocessed(x: np.ndarray, name: str) -> np.ndarray:
    """What keras.applications makes of images between 0 and 255."""
    if x.shape[-1] != 3:
        raise CommandError(f"--preprocess is for images of three channels, and the model takes {x.shape[-1]}")
    if name in ("caffe", "tf", "torch"):
        return np.asarray(keras.applications.imagenet_utils.preprocess_input(x, data_format="channels_last", mode=name))
    known = [key for key in dir(keras.applications) if hasattr(getattr(keras.applications, key), "preprocess_input")]
    if name not in known:
        raise CommandError(f"--preprocess is {name!r}; it must be caffe, tf, torch, or one of {', '.join(known)}")
    return np.asarray(getattr(keras.applications, name).preprocess_input(x, data_format="channels_last"))


def _pixels(path: str, mode: int) -> np.ndarray:
    """An image as uint8, [H, W, 3] in RGB order, or [H, W, 1]."""
    pixels = cv2.imread(path, mode)
    if pixels is None:
        raise CommandError(f"{path!r} is no image that OpenCV can read")
    return rgb(pixels)


def rgb(pixels: np.ndarray) -> np.ndarray:
    """OpenCV's pixels as [H, W, 3] in RGB order, or grey as [H, W, 1]."""
    return pixels[..., np.newaxis] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _scale(text: str) -> tuple[float, float]:
    try:
        *low, high = (float(part) for part in text.split(","))
        found = (low[0], high) if len(low) == 1 else {0: (0.0, high)}[len(low)]
    except (ValueError, KeyError):
        raise CommandError(f"--scale is {text!r}; it must be LOW,HIGH, e.g. 0,1 or -1,1 or 0,255") from None
    if found[0] == found[1]:
        raise CommandError(f"--scale is {text!r}; black and white must differ")
    return found


def _destination(out: str | None, source: str, ending: str, several: bool) -> Path:
    if out is None:
        return Path(f"{Path(source).stem}.{ending}.png")
    place = Path(out)
    place = place if place.suffix.lower() in PICTURES else place.with_name(place.name + ".png")
    return place.with_name(f"{place.stem}.{Path(source).stem}{place.suffix}") if several else place


def folder(path: Path) -> None:
    """Refuse a file in a folder that is not there.

    Raises:
        CommandError: naming the folder.
    """
    if not path.parent.is_dir():
        raise CommandError(f"no such directory: {str(path.parent)!r}")


def _write(path: Path, rgb: np.ndarray) -> None:
    folder(path)
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise CommandError(f"could not write {str(path)!r}")
