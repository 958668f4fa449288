"""Explanations of as many rows as there are."""
