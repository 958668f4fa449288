"""Explanations served by TensorFlow Serving: export, client and embedded server.

Installed as ``tfig.serving``. Exporting needs no more than tfig; the client and the server need ``tfig[serving]`` and
are imported when first asked for.
"""

import importlib
from typing import Any

from tfig.serving.export import export as export

LAZY = {
    "AsyncClient": "client",
    "Client": "client",
    "ServingError": "answers",
    "Server": "server",
    "guard": "front",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    """The client or the server."""
    if name not in LAZY:
        raise AttributeError(f"module 'tfig.serving' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"tfig.serving.{LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"tfig.serving.{name} needs gRPC: pip install tfig[serving]") from error


def __dir__() -> list[str]:
    return sorted([*globals(), *LAZY])
