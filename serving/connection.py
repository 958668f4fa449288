"""What commands say to a server: where it is, who is asked there, and what it offers."""

import argparse
from typing import Any

from tfig.console import CommandError
from tfig.entry import Leaf


def add(parser: argparse.ArgumentParser) -> None:
    """The options of a connection to a server."""
    parser.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--ca", metavar="PEM", help="who signs the server's certificate, for TLS")
    parser.add_argument("--certificate", metavar="PEM", help="your certificate, for mutual TLS")
    parser.add_argument("--key", metavar="PEM", help="its private key")


def client(options: argparse.Namespace, address: str, model: str, **others: Any) -> Any:
    """A `Client` of a model, by the options of `add`."""
    from tfig.serving import Client

    files = {name: getattr(options, name) for name in ("ca", "certificate", "key")}
    return Client(address, model, timeout=options.timeout, **files, **others)


def offered(client: Any, name: str | None, model: str, address: str) -> tuple[str, list[Leaf]]:
    """(the explanation asked for of a model on a server, the inputs it takes).

    Raises:
        CommandError: it is not there.
    """
    found = client.explanations()
    if not found:
        raise CommandError(f"model {model!r} on {address} offers no explanations")
    name = name or ("explain" if "explain" in found or len(found) > 1 else next(iter(found)))
    if name not in found:
        raise CommandError(f"model {model!r} offers {', '.join(found)}; pass --name")
    return name, [Leaf(alias, tuple(shape), dtype) for alias, (shape, dtype) in found[name].inputs.items()]
