"""The command line: tfig explain, tfig methods, and those of `tfig.serving.commands`."""

import argparse
import os
import sys
import warnings
from pathlib import Path

from tfig import catalogue, console, entry, files
from tfig.batch import commands as batch
from tfig.comparison import compare
from tfig.console import CommandError
from tfig.evaluation import evaluate
from tfig.metrics import METRICS
from tfig.pages.report import report
from tfig.serving import commands as serving
from tfig.version import VERSION

COMPARED = "gradient,integrated_gradients,smoothgrad,lrp,deeplift,grad_cam,occlusion,rise,igos"
"""Methods compared where none are named: one of each family."""


def parser() -> argparse.ArgumentParser:
    """The arguments of `tfig`."""
    top = argparse.ArgumentParser(
        prog="tfig", description="Explain Keras models: which parts of the input made the model say this?"
    )
    top.add_argument("--version", action="version", version=f"tfig {VERSION}")
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser(
        "explain",
        help="explain a model's answer for images, arrays or a table",
        description="Explain a model's answer for images, arrays or a table: writes a picture and the numbers (.npz) "
        "for each image, or of all; or a report, where --out ends in .html.",
    )
    one.add_argument("model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel directory")
    one.add_argument(
        "images", metavar="INPUT", nargs="+",
        help="image files, resized to the model's input; or one .npy, .npz (by input) or .csv (by column)",
    )  # fmt: skip
    one.add_argument(
        "--method", default="integrated_gradients", help="as listed by 'tfig methods' (default: %(default)s)"
    )
    console.add_target(one)
    console.add_against(one)
    console.add_place(one)
    console.add_scale(one)
    console.add_preprocess(one)
    one.add_argument("--batch-size", type=int, metavar="N", help="rows the model evaluates together")
    one.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    console.add_out(one)
    one.set_defaults(run=run_explain)
    many = commands.add_parser(
        "compare",
        help="explain by several methods, side by side",
        description="Explain a model's answer by several methods: writes one labelled grid of images, or a report.",
    )
    many.add_argument("model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel directory")
    many.add_argument("images", metavar="INPUT", nargs="+", help="image files, or one .npy, .npz or .csv")
    many.add_argument("--methods", default=COMPARED, help="separated by commas (default: %(default)s)")
    console.add_target(many)
    console.add_place(many)
    console.add_scale(many)
    console.add_preprocess(many)
    console.add_classes(many)
    many.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    many.add_argument(
        "-o",
        "--out",
        metavar="PNG",
        default="compared.png",
        help="a picture, or a report, .html (default: %(default)s)",
    )
    many.set_defaults(run=run_compare)
    trial = commands.add_parser(
        "evaluate",
        help="measure explanations by several methods",
        description="Explain images by several methods and measure every explanation: writes a table.",
    )
    trial.add_argument("model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel directory")
    trial.add_argument("images", metavar="INPUT", nargs="+", help="image files, or one .npy, .npz or .csv")
    trial.add_argument("--methods", default=COMPARED, help="separated by commas (default: %(default)s)")
    trial.add_argument("--metrics", help="as listed by 'tfig metrics', separated by commas; default: one of each kind")
    trial.add_argument(
        "--mask", metavar="IMAGE", action="append",
        help="where the truth lies, not black; one for each image, in their order",
    )  # fmt: skip
    console.add_target(trial)
    console.add_place(trial)
    console.add_scale(trial)
    console.add_preprocess(trial)
    console.add_classes(trial)
    trial.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    trial.add_argument(
        "-o", "--out", metavar="FILE", default="evaluated.md", help=".md, .csv or .png (default: %(default)s)"
    )
    trial.set_defaults(run=run_evaluate)
    measures = commands.add_parser(
        "metrics", help="list the metrics", description="List the metrics: range, direction, cost and paper of each."
    )
    measures.set_defaults(run=run_metrics)
    listing = commands.add_parser(
        "methods", help="list the methods", description="List the methods: what each is, its paper, what it needs."
    )
    listing.set_defaults(run=run_methods)
    batch.add(commands)
    serving.add(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run `tfig`; returns the exit status: 0, or 1 after a one-line error (2 for a misspelt command, from argparse)."""
    options = parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        options.run(options)
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CommandError, ValueError, OSError, ImportError) as error:
        print(f"tfig: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def run_methods(options: argparse.Namespace) -> None:
    """Print what `tfig.methods` says."""
    for name, info in catalogue.methods().items():
        marks = [mark for mark, on in (("complete", info.complete), ("draws noise", info.stochastic)) if on]
        marks += [f"baseline {info.baseline}"] if info.baseline and info.baseline != "dataset" else []
        marks += [f"needs {info.needs}"] if info.needs else []
        marks += [f"costs {info.cost}", f"gives {info.gives}"]
        marks += ["switches words and categories too"] if info.switches else []
        marks += [f"Taylor principles kept (derived here): {info.principles}"] if info.principles else []
        print(f"{name}\n    {info.summary}\n    {'; '.join(marks) or 'no baseline'}\n    {info.reference}")


def run_compare(options: argparse.Namespace) -> None:
    """Explain images by several methods and write one picture, or a report."""
    out = Path(options.out)
    files.folder(out)
    files.check(options.images)
    names = files.class_names(options.classes)
    methods = {name.strip(): catalogue.method_named(name.strip()) for name in options.methods.split(",")}
    model = console.load_model(options.model)
    rows = files.read(options.images, list(entry.declared(model).values()), options.scale, options.preprocess)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notes are printed
        found = compare(
            model, rows.x, methods, target=console.class_of("--target", options.target, names), output=options.output,
            layer=options.layer, baseline=console.baseline_of(options.baseline), seed=options.seed, class_names=names,
        )  # fmt: skip
    if files.paged(out):
        report(found, out, title=f"Why {options.model} said so", feature_names=rows.feature_names)
    else:
        found.plot(out)
    for name, e in found.explanations.items():
        print(f"{name}{'' if e.layer is None else f' at {e.layer}'}{''.join(f' ({note})' for note in e.notes)}")
    for name, reason in found.refused.items():
        print(f"{name}: refused: {reason}")
    print(f"-> {options.out}")


def run_evaluate(options: argparse.Namespace) -> None:
    """Explain images by several methods, measure them, and write the table."""
    out = Path(options.out)
    files.folder(out)
    if out.suffix not in (".md", ".csv", ".png"):
        raise CommandError(f"--out is {options.out!r}; it must end in .md, .csv or .png")
    if options.mask is not None and len(options.mask) != len(options.images):
        raise CommandError(f"there are {len(options.images)} images and {len(options.mask)} masks")
    files.check([*options.images, *(options.mask or [])])
    names = files.class_names(options.classes)
    methods = [catalogue.method_named(name.strip()) for name in options.methods.split(",")]
    metrics = None if options.metrics is None else [name.strip() for name in options.metrics.split(",")]
    model = console.load_model(options.model)
    takes = list(entry.declared(model).values())
    x = files.read(options.images, takes, options.scale, options.preprocess).x
    masks = None if options.mask is None else files.images(options.mask, takes, "0,1").x.max(-1) > 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = evaluate(
            model, x, methods, metrics, masks, progress=sys.stdout.isatty(),
            target=console.class_of("--target", options.target, names), output=options.output, layer=options.layer,
            baseline=console.baseline_of(options.baseline), seed=options.seed, class_names=names,
        )  # fmt: skip
    table = found.to_markdown()
    print(table, end="")
    {".md": found.to_markdown, ".csv": found.to_csv, ".png": found.plot}[out.suffix](out)
    for (method, metric), reason in found.refused.items():
        print(f"{method}{f' by {metric}' if metric else ''}: refused: {reason}")
    print(f"-> {out}")


def run_metrics(options: argparse.Namespace) -> None:
    """Print what is known of every metric."""
    for name, metric in METRICS.items():
        masks = "; needs a mask of the truth" if metric.needs_mask else ""
        print(f"{name}\n    {metric.summary}\n    {metric.better} is better, range {metric.range}; evaluations "
              f"for each row: {metric.cost}{masks}\n    {metric.reference}")  # fmt: skip


def run_explain(options: argparse.Namespace) -> None:
    """Explain rows and write pictures and numbers, or a report."""
    files.check(options.images)
    names = files.class_names(options.classes)
    model = console.load_model(options.model)
    rows = files.read(options.images, list(entry.declared(model).values()), options.scale, options.preprocess)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notes are printed beside the answer
        explainer = console.explainer(model, options, names)
        method = explainer.method
        with console.waiting(f"compiling {method.name} for {options.model}, once"):
            explainer.compile(rows.x)
        with console.waiting(f"explaining {len(rows.names)} row(s)"):
            e = explainer(rows.x)
    files.write(e, rows, options.out, method.name, options.images[0])


def _joined(arguments: list[str]) -> list[str]:
    """``--scale -1,1`` as ``--scale=-1,1``: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--scale":
            joined[-1] = f"--scale={argument}"
        else:
            joined.append(argument)
    return joined


if __name__ == "__main__":
    sys.exit(main())
