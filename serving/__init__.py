"""Explanations served by TensorFlow Serving: export, client and embedded server.

Installed as ``tfig.serving``. Nothing is exported yet: the package holds the place of the
serving adapter, whose programs are the very ones that `tfig.explain` runs.
"""
