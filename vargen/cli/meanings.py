"""What fields mean, as the docstrings of groups and parts say it."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable

SECTIONS = ("Args:", "Attributes:")
ENTRY = re.compile(r"([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*): (.*)")


def of(constructor: Callable) -> dict[str, str]:
    """Field -> what it means: from the sections Args and Attributes of a class or function, and of what it returns."""
    return {k: v for text in reversed(_docstrings(constructor)) for k, v in entries(text).items()}


def entries(docstring: str) -> dict[str, str]:
    """The entries `name: text` of a docstring's sections; `a, b: text` is one for each."""
    found: dict[str, str] = {}
    inside, names = False, []
    for line in inspect.cleandoc(docstring).splitlines():
        if line and not line.startswith(" "):
            inside = line in SECTIONS
        elif inside and line.strip():
            entry = ENTRY.fullmatch(line.strip())
            if entry and not line.startswith("    "):  # what is further in goes on with the entry above
                names = entry[1].split(", ")
                found |= dict.fromkeys(names, entry[2])
            else:
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _docstrings(constructor: Callable) -> list[str]:
    if isinstance(constructor, type):
        return [base.__dict__["__doc__"] for base in constructor.__mro__ if base.__dict__.get("__doc__")]
    made = getattr(constructor, "__annotations__", {}).get("return")
    if isinstance(made, str):
        made = vars(sys.modules[constructor.__module__]).get(made)
    own = [constructor.__doc__] if constructor.__doc__ else []
    return own + (_docstrings(made) if isinstance(made, type) else [])
