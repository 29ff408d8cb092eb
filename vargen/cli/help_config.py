"""`--help-config`: every field of a config with its value, what it may hold and what it means."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen import axes, limits, parts, schema
from vargen.cli import meanings


def text(c: ConfigDict) -> str:
    """All fields of a config: groups, parts with the options that they don't set, and the parts that there are.

    Raises:
      UserError: a part that there isn't.
    """
    lines = [
        "Every field, its value in this config, what it may hold (in brackets) and its meaning.",
        "Set one by --config.FIELD=VALUE. A part is swapped by its place (--config.mixer=gla): the other one",
        "keeps the options that both know.",
    ]
    lines += ["", *_group("", schema.Config, c)]
    for place in axes.PARTS:
        part = _at(c, place)
        if part is not None:
            lines += ["", *_part(place, part)]
    for name, group in schema.GROUPS.items():
        node = _at(c, name)
        if node is not None:
            lines += ["", *_group(f"{name}.", group, node)]
    for name, preset in c.get("presets", {}).items():
        lines += ["", f"presets.{name}  (--preset {name})", *_values(f"presets.{name}.", preset)]
    return "\n".join(lines)


def _at(c: ConfigDict, place: str) -> Any:
    node: Any = c
    for key in place.split("."):
        node = node.get(key) if isinstance(node, ConfigDict) else None
    return node if isinstance(node, ConfigDict) else None


def _part(place: str, part: Mapping[str, Any]) -> Iterator[str]:
    registry, name = axes.PARTS[place], part["name"]
    constructor = parts.find(registry, name, place)
    yield f"{place} = {name}  [{', '.join(sorted(registry))}]"
    yield f"    {(inspect.getdoc(constructor) or name).splitlines()[0]}"
    yield from _fields(f"{place}.", _own(place, name), meanings.of(constructor), part)


def _own(place: str, name: str) -> dict[str, limits.Field]:
    """The options of a part but for those that have parts of their own within."""
    inner = [f"{other}." for other in axes.PARTS]
    return {
        k: f
        for k, f in axes.options(place, name).items()
        if "Mapping" not in str(f.kind) or not any(other.startswith(f"{place}.{k}.") for other in inner)
    }


def options(place: str, name: str) -> dict[str, tuple[str, str]]:
    """Of a part's options by name what each may hold, with its default, and what it means."""
    meaning = meanings.of(axes.PARTS[place][name])
    return {
        k: (f"{limits.words(f)}; {_default(f)}", meaning.get(k, "")) for k, f in _own(place, name).items()
    }


def _default(field: limits.Field) -> str:
    return "to be given" if field.default is inspect.Parameter.empty else f"default {field.default!r}"


def _group(prefix: str, group: Callable, values: Mapping[str, Any]) -> Iterator[str]:
    if prefix:
        yield f"{prefix[:-1]}"
        yield f"    {inspect.getdoc(group).splitlines()[0]}"  # type: ignore[union-attr]
    known = {k: f for k, f in limits.fields(group).items() if not isinstance(values.get(k), ConfigDict)}
    yield from _fields(prefix, known, meanings.of(group), values)


def _fields(
    prefix: str, known: Mapping[str, limits.Field], meaning: Mapping[str, str], values: Mapping[str, Any]
) -> Iterator[str]:
    for name, field in known.items():
        default = "(to be given)" if field.default is inspect.Parameter.empty else repr(field.default)
        value = repr(values[name]) if name in values else default
        note = f"; default {default}" if value != default and default != "(to be given)" else ""
        yield f"  {prefix}{name} = {value}  [{limits.words(field)}{note}]"
        if name in meaning:
            yield f"      {meaning[name]}"


def _values(prefix: str, node: Mapping[str, Any]) -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, ConfigDict):
            yield from _values(f"{prefix}{name}.", value)
        else:
            yield f"  {prefix}{name} = {value!r}"
