"""The commands of `tfig.serving`: tfig export, serve, query, inspect, load, guard."""

import argparse
import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfig import catalogue, console, files, naming
from tfig.console import CommandError
from tfig.serving import audit, connection, protocol, sizing
from tfig.serving.export import export, latest, versions


def add(commands: Any) -> None:
    """Add the commands to the parser of `tfig`."""
    _add_export(commands)
    _add_serve(commands)
    _add_query(commands)
    _add_inspect(commands)
    _add_load(commands)
    _add_guard(commands)


def _add_export(commands: Any) -> None:
    one = commands.add_parser(
        "export",
        help="write a SavedModel that explains itself under TensorFlow Serving",
        description="Write a SavedModel that explains itself under TensorFlow Serving.",
    )
    one.add_argument("model", metavar="MODEL", help="a .keras or .h5 file, or a SavedModel directory")
    one.add_argument("directory", metavar="DIR", help="of the model's versions; the next free one is written")
    one.add_argument(
        "--explain",
        metavar="[NAME=]METHOD",
        action="append",
        required=True,
        help="a method as listed by 'tfig methods', and the name to ask for it by (default: explain); may be repeated",
    )
    console.add_place(one)
    one.add_argument("--version", type=int, metavar="N", help="default: the one after the highest there is")
    one.add_argument("--no-warmup", action="store_true", help="write no warm-up requests")
    one.add_argument("--max-batch-size", type=int, metavar="N", help="write batching parameters of this size")
    one.add_argument(
        "--fill-value", type=float, metavar="NUMBER", help="answered in place of NaN, for callers over REST"
    )
    one.add_argument("--no-pictures", action="store_true", help="answer numbers alone, which warms up sooner")
    one.add_argument("--no-sizing", action="store_true", help="do not measure what it costs here to warm up and to ask")
    one.set_defaults(run=run_export)


def _add_serve(commands: Any) -> None:
    one = commands.add_parser(
        "serve",
        help="serve SavedModels over gRPC on this machine",
        description="Serve SavedModels over gRPC, as TensorFlow Serving would: for a laptop and for tests.",
    )
    one.add_argument(
        "directories", metavar="[NAME=]DIR", nargs="+", help="of a model's versions (default name: the directory's)"
    )
    _add_listening(one, message_bytes=256 * 2**20, rows=1024)
    one.set_defaults(run=run_serve)


def _add_guard(commands: Any) -> None:
    one = commands.add_parser(
        "guard",
        help="stand in front of a TensorFlow Serving and pass on only what it can answer",
        description="Stand in front of a TensorFlow Serving and pass on only what fits the signatures of its models.",
    )
    one.add_argument("address", metavar="ADDRESS", help="of the server behind: host:port, or unix:PATH")
    one.add_argument("models", metavar="MODEL", nargs="+", help="that may be asked, by its name there")
    one.add_argument("--signature", metavar="NAME", action="append", help="that may be asked; default: all")
    one.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="a request may take (default: %(default)s)"
    )
    _add_listening(one, message_bytes=16 * 2**20, rows=32)
    for word, meaning in (("ca", "who signed its certificate"), ("certificate", "yours, for it"), ("key", "its key")):
        one.add_argument(f"--server-{word}", metavar="PEM", help=f"of the server behind: {meaning}")
    one.set_defaults(run=run_guard)


def _add_listening(one: argparse.ArgumentParser, message_bytes: int, rows: int) -> None:
    one.add_argument("--port", type=int, default=8500, help="default: %(default)s; 0 picks a free one")
    one.add_argument("--host", default="127.0.0.1", help="address to listen on, or unix:PATH (default: %(default)s)")
    one.add_argument("--insecure", action="store_true", help="allow plaintext on an address that others can reach")
    one.add_argument("--certificate", metavar="PEM", help="the server's certificate, for TLS")
    one.add_argument("--key", metavar="PEM", help="its private key")
    one.add_argument("--client-ca", metavar="PEM", help="take only clients with a certificate signed by this CA")
    one.add_argument("--max-message-bytes", type=int, default=message_bytes, metavar="N", help="default: %(default)s")
    one.add_argument("--max-rows", type=int, default=rows, metavar="N", help="of a request (default: %(default)s)")
    one.add_argument("--max-requests", type=int, default=64, metavar="N", help="at a time (default: %(default)s)")
    one.add_argument(
        "--metrics-port", type=int, metavar="N", help="show counts and latencies to Prometheus on this port, over HTTP"
    )


def _listening(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        "port", "host", "insecure", "certificate", "key", "client_ca", "max_message_bytes", "max_rows", "max_requests",
        "metrics_port",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names}


def _add_query(commands: Any) -> None:
    one = commands.add_parser(
        "query",
        help="ask a server to explain a model's answer for images",
        description="Ask TensorFlow Serving, or 'tfig serve', to explain a model's answer for images.",
    )
    one.add_argument("address", metavar="ADDRESS", help="host:port, or unix:PATH")
    one.add_argument("model", metavar="MODEL", help="the model's name on the server")
    one.add_argument("images", metavar="INPUT", nargs="+", help="image files, or one .npy, .npz or .csv")
    one.add_argument("--name", help="of the explanation (default: explain, or the only one)")
    one.add_argument("--version", type=int, metavar="N", help="default: the latest")
    one.add_argument("--target", metavar="CLASS", help="class index; default: as exported, the predicted class")
    one.add_argument(
        "--against", metavar="CLASS", help="explain CLASS rather than this: an index, predicted, runner_up"
    )
    one.add_argument("--baseline", metavar="NUMBER", help="default: as exported")
    console.add_scale(one)
    console.add_preprocess(one)
    one.add_argument("--seed", type=int, help="seed of the noise (default: as exported)")
    connection.add(one)
    console.add_out(one)
    one.set_defaults(run=run_query)


def _add_inspect(commands: Any) -> None:
    one = commands.add_parser(
        "inspect", help="show what a SavedModel can explain", description="Show what a SavedModel can explain."
    )
    one.add_argument(
        "directory", metavar="DIR", help="of a model's versions, or of one version; with --server, the model's name"
    )
    one.add_argument("--server", metavar="ADDRESS", help="ask the server at host:port, or unix:PATH, instead")
    connection.add(one)
    one.set_defaults(run=run_inspect)


def _add_load(commands: Any) -> None:
    one = commands.add_parser(
        "load",
        help="ask a server for explanations for a while, and say how it fared",
        description="Ask a server for explanations from several clients for a while: p50, p95, p99, lost, wrong.",
    )
    one.add_argument("address", metavar="ADDRESS", help="host:port, or unix:PATH")
    one.add_argument("model", metavar="MODEL", help="the model's name on the server")
    one.add_argument("--name", help="of the explanation (default: explain, or the only one)")
    one.add_argument("--clients", type=int, default=8, metavar="N", help="at a time (default: %(default)s)")
    one.add_argument("--seconds", type=float, default=30.0, metavar="S", help="default: %(default)s")
    one.add_argument("--rows", type=int, default=1, metavar="N", help="of each question (default: %(default)s)")
    one.add_argument(
        "--against", metavar="DIR", help="the exported model's directory: answers that differ from its own are wrong"
    )
    one.add_argument("--tolerance", type=float, default=1e-5, metavar="SHARE", help="of the map's largest value")
    one.add_argument("--retries", type=int, metavar="N", help="default: until the timeout; 0 counts each refusal lost")
    connection.add(one)
    one.set_defaults(run=run_load)


def run_export(options: argparse.Namespace) -> None:
    """Export, and print where to."""
    explanations: dict[str, Any] = {}
    for text in options.explain:
        name, _, method = text.rpartition("=")
        name = name or "explain"
        if name in explanations:
            raise CommandError(f"two explanations are named {name!r}; say --explain NAME=METHOD")
        explanations[name] = catalogue.method_named(method)
    baseline: Any = console.baseline_of(options.baseline)
    model: Any = options.model if Path(options.model).is_dir() else console.load_model(options.model)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        folder = export(
            model, options.directory, explanations, output=options.output, layer=options.layer, baseline=baseline,
            version=options.version, warmup=not options.no_warmup,
            batching={"max_batch_size": options.max_batch_size} if options.max_batch_size else None,
            fill_value=options.fill_value, pictures=not options.no_pictures,
        )  # fmt: skip
    for note in notes:
        if issubclass(note.category, UserWarning):
            print(f"note: {note.message}", file=sys.stderr)
    print(f"{folder}: {', '.join(f'{name} ({method.name})' for name, method in explanations.items())}", flush=True)
    size = None if options.no_sizing else sizing.measure(folder)
    if size is not None:
        print(size)


def run_serve(options: argparse.Namespace) -> None:
    """Serve until told to stop."""
    from tfig.serving import serve

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("tfig.serving").setLevel(logging.INFO)
    directories = {}
    for text in options.directories:
        name, _, folder = text.rpartition("=")
        name = name or Path(folder).resolve().name
        if name in directories:
            raise CommandError(f"two models are named {name!r}; say NAME=DIR")
        directories[name] = folder
    _serving(serve(directories, **_listening(options)), directories, options)


def run_guard(options: argparse.Namespace) -> None:
    """Stand in front of a server until told to stop."""
    from tfig.serving import ServingError, guard

    behind = {f"server_{word}": getattr(options, f"server_{word}") for word in ("ca", "certificate", "key")}
    try:
        server = guard(
            options.address, options.models, signatures=options.signature, seconds=options.seconds, **behind,
            **_listening(options),
        )  # fmt: skip
    except ServingError as error:
        raise CommandError(str(error)) from error
    _serving(server, options.models, options)


def _serving(server: Any, models: Iterable[str], options: argparse.Namespace) -> None:
    where = options.host if options.host.startswith("unix:") else f"{options.host}:{server.port}"
    print(f"serving {', '.join(models)} on {where}; stop with Ctrl-C", flush=True)
    server.wait()


def run_query(options: argparse.Namespace) -> None:
    """Ask for an explanation of images and write overlay and numbers for each."""
    from tfig.serving import ServingError

    files.check(options.images)
    names = files.class_names(options.classes)
    target, against = (console.class_of(f"--{word}", getattr(options, word), names) for word in ("target", "against"))
    baseline: Any = console.baseline_of(options.baseline)
    client = connection.client(options, options.address, options.model, version=options.version)
    try:
        with client, warnings.catch_warnings():
            name, takes = connection.offered(client, options.name, options.model, options.address)
            rows = files.read(options.images, takes, options.scale, options.preprocess)
            e = client.explain(rows.x, name, target, against, baseline, options.seed)
            if names is not None:
                said = np.asarray(client.predict(tf.nest.map_structure(lambda leaf: leaf[:1], rows.x)))
                names = naming.of_units(names, said.shape[-1] if said.ndim > 1 else None)
    except ServingError as error:
        raise CommandError(str(error)) from error
    e = dataclasses.replace(e, class_names=names)
    files.write(e, rows, options.out, name, options.images[0])


def run_inspect(options: argparse.Namespace) -> None:
    """Print the signatures of a SavedModel and what is known of its explanations."""
    if options.server:
        _inspect_server(options)
        return
    given = Path(options.directory)
    folder = latest(given)
    if folder != given:
        print(f"{folder} (of versions {', '.join(map(str, sorted(versions(given))))})")
    signatures = audit.read(folder).signature_def
    file = folder / protocol.DESCRIPTION
    described = json.loads(file.read_text())["explanations"] if file.exists() else {}
    offered = protocol.explanations(signatures)
    theirs = {key for name in offered for key in protocol.kin(name)}
    for name, definition in sorted(signatures.items()):
        if name not in theirs and not name.startswith("__"):
            print(f"{name}: {_tensors(definition.inputs)} -> {_tensors(definition.outputs)}")
    for name, full in offered.items():
        about = described.get(name)
        print(f"{name}: {_about(about) if about else 'an explanation'}")
        print(f"    takes   {_tensors(signatures[name].inputs)}")
        print(f"    options {_tensors({key: info for key, info in full.inputs.items() if key in full.defaults})}")
        print(f"    answers {', '.join(sorted(full.outputs))}")
        pictured = [key for key in protocol.pictured(name).values() if key in signatures]
        if pictured:
            print(f"    alone   {', '.join(pictured)}")
        if about:
            print(f"    {about['reference']}")
    if not offered:
        print("no explanations: export them with tfig.export or 'tfig export'")


def _inspect_server(options: argparse.Namespace) -> None:
    """Print the versions of a model on a server, and what it can explain."""
    from tfig.serving import ServingError

    try:
        with connection.client(options, options.server, options.directory) as client:
            for one in client.status():
                print(f"version {one.version}: {one.state}{f' ({one.error})' if one.error else ''}")
            offered = client.explanations()
    except ServingError as error:
        raise CommandError(str(error)) from error
    for name, about in offered.items():
        print(f"{name}:")
        for word, tensors in (("takes  ", about.inputs), ("options", about.options)):
            shown = (f"{alias} {dtype}[{_sizes(shape)}]" for alias, (shape, dtype) in tensors.items())
            print(f"    {word} {', '.join(shown)}")
        print(f"    answers {', '.join(about.outputs)}")
    if not offered:
        print("no explanations: export them with tfig.export or 'tfig export'")


def run_load(options: argparse.Namespace) -> None:
    """Ask for a while, and print how the server fared."""
    from tfig.serving import ServingError, load

    for word in ("clients", "seconds", "rows"):
        if getattr(options, word) <= 0:
            raise CommandError(f"--{word} is {getattr(options, word)}; it must be positive")
    try:
        with connection.client(options, options.address, options.model) as client:
            name, takes = connection.offered(client, options.name, options.model, options.address)
    except ServingError as error:
        raise CommandError(str(error)) from error
    x = load.sample(takes, options.rows)
    fared = load.run(
        lambda: connection.client(options, options.address, options.model, rows=options.rows, retries=options.retries),
        lambda client: load.flat(client.explain(x, name).attributions),
        options.clients,
        options.seconds,
        load.local(Path(options.against), name, x) if options.against else None,
        options.tolerance,
    )
    print(f"{name}, {options.rows} row(s) a question, {options.clients} client(s): {fared}")
    if fared.lost or fared.wrong:
        raise CommandError("some questions were lost or answered wrongly")


def _about(about: dict[str, Any]) -> str:
    said = ", ".join(f"{key}={value}" for key, value in about["parameters"].items())
    where = "".join(f", {word} {about[word]}" for word in ("layer", "output", "target", "baseline") if about[word])
    return f"{about['method']}({said}){where}"


def _tensors(tensors: Any) -> str:
    from tfig.serving.answers import spec

    shown = {name: spec(info) for name, info in sorted(tensors.items())}
    return ", ".join(f"{name} {dtype}[{_sizes(shape)}]" for name, (shape, dtype) in shown.items())


def _sizes(shape: Any) -> str:
    return ", ".join("?" if size is None else str(size) for size in shape)
