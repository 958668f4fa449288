"""Metadata lives in setup.cfg; this file lets every installer build the package."""

from setuptools import setup

setup()
