"""Starts the `tfig` command without TensorFlow's start-up messages, which no environment variable silences."""

import os
import sys


def main() -> int:
    """Import with standard error turned away, then run `tfig.cli.main`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        from tfig import cli
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    return cli.main()
