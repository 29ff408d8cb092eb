"""Parts of an axis by name: the only place where a config's words become objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vargen.errors import UserError


def build(registry: Mapping[str, Callable], part: Mapping[str, Any], axis: str, **context: Any) -> Any:
    """Builds the part that `part["name"]` names from `registry`.

    Args:
      registry: constructors by name.
      part: mapping with `name` and the options of the part (a ConfigDict from `config.part`).
      axis: the axis's name, for error messages ("tokenizer", "order", ...).
      **context: what the assembly knows and a config does not (grid, width, ...); each constructor takes
        those that it declares.

    Raises:
      UserError: the name or an option is unknown; the message lists the known ones.
    """
    options = {k: _plain(v) for k, v in dict(part).items() if k != "name"}
    name: Any = part.get("name")
    if name not in registry:
        raise UserError(f"{axis}: expected one of {', '.join(sorted(registry))}, found {name!r}")
    constructor = registry[name]
    parameters = inspect.signature(constructor).parameters
    known = [p for p in parameters if p not in ("self", "parent", "name") and p not in context]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UserError(f"{axis} {name}: unknown option {unknown[0]!r}, expected among {', '.join(known)}")
    given = {k: v for k, v in context.items() if k in parameters}
    return constructor(**given, **options)


def _plain(value: Any) -> Any:
    """Lists to tuples, so that parts stay hashable."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value
