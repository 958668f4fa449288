"""Starts the `tfig` command without TensorFlow's start-up messages, which no environment variable silences."""

import multiprocessing
import os
import sys


def start() -> None:
    """Import `tfig.cli` with standard error turned away."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tfig.cli  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main() -> int:
    """Run `tfig.cli.main`."""
    start()
    from tfig import cli

    return cli.main()


if multiprocessing.current_process().name != "MainProcess":  # a worker of 'tfig batch', which does not call main
    start()
