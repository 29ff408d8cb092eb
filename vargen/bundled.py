"""The configs that travel with vargen, found by name: `var` is `configs/var.py`."""

from __future__ import annotations

import pathlib


def folder() -> pathlib.Path:
    """Where they lie: in the package where it was installed from a wheel, in a clone beside it."""
    package = pathlib.Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Their names, in alphabetical order."""
    return sorted(file.stem for file in folder().glob("*.py"))
