"""Explanations as HTML: in a notebook, and as a report in one file."""
