"""Configs as JSON text, as training writes them."""

from __future__ import annotations

import json
from typing import Any

from ml_collections import ConfigDict

from vargen import schema
from vargen.config.fields import check
from vargen.errors import UserError


def to_json(c: ConfigDict) -> str:
    """The config as JSON text; `from_json` gives it back, tuples included."""
    return json.dumps(c.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """A config from the text of `to_json`, checked. Lists become tuples, so that parts stay hashable.

    Fields that the text lacks have their defaults: it may be older than they are.

    Raises:
      UserError: not JSON, not an object, or a field that doesn't fit.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = (
            f" at line {error.lineno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else f": {error}"
        )
        raise UserError(f"config: expected JSON, found a mistake{where}") from error
    if not isinstance(data, dict):
        raise UserError(f"config: expected a JSON object, found {type(data).__name__}")
    c = ConfigDict(_tuples(data))
    _complete(c)
    check(c)
    return c


def _complete(c: ConfigDict) -> None:
    """Fills in fields that the groups which are there lack; `model` holds what it sets."""
    for name, group in schema.GROUPS.items():
        node: Any = c
        for key in name.split("."):
            node = node.get(key) if isinstance(node, ConfigDict) else None
        if isinstance(node, ConfigDict) and name != "model":
            for field, value in schema.defaults(group).items():
                if field not in node:
                    node[field] = value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value
