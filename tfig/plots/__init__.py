"""Figures of explanations: one module for each kind of input, `sheet` puts them on a page."""
