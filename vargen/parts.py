"""Parts of an axis by name: the only place where a config's words become objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vargen import limits
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
      UserError: the name or an option is unknown, missing, or of another type, choice or range than declared.
    """
    try:
        settings = dict(part)
    except (TypeError, ValueError):
        raise UserError(
            f"config field {axis}: expected a part, such as name={sorted(registry)[0]}, found {part!r}"
        ) from None
    options = {k: _plain(v) for k, v in settings.items() if k != "name"}
    name: Any = settings.get("name")
    constructor = find(registry, name, axis)
    known = limits.fields(constructor)
    own = {k: f for k, f in known.items() if k not in ("self", "parent", "name") and k not in context}
    limits.check(own, options, f"{axis}.")
    for field, declared in own.items():
        if declared.default is inspect.Parameter.empty and field not in options:
            raise UserError(
                f"config field {axis}.{field}: expected a value for the {axis} {name}, found none"
            )
    given = {k: v for k, v in context.items() if k in known}
    return constructor(**given, **options)


def find(registry: Mapping[str, Callable], name: Any, axis: str) -> Callable:
    """The constructor of a name.

    Raises:
      UserError: there is none; the nearest right word is named.
    """
    if not isinstance(name, str) or name not in registry:
        near = limits.suggestion(name, tuple(registry)) if isinstance(name, str) else ""
        raise UserError(
            f"config field {axis}.name: expected one of {', '.join(sorted(registry))}, found {name!r}{near}"
        )
    return registry[name]


def _plain(value: Any) -> Any:
    """Lists to tuples, so that parts stay hashable."""
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value
