"""Kept for tools that look for it; everything is declared in pyproject.toml."""

import setuptools

setuptools.setup()
