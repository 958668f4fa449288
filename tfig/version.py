"""The version, importable without TensorFlow."""

VERSION = "0.1.0"
