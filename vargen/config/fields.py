"""Fields of a config: what each may hold, and overriding single ones."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from vargen import limits, schema
from vargen.errors import UserError

# The axes of the grammar: `config[axis]` is a part, open to whatever options its constructor takes.
AXES = ("tokenizer", "order", "feed", "mixer", "head", "conditioning")
# Parts that stand in a group, and on no axis.
WITHIN = ("tokenizer_training.losses.discriminator", "tokenizer_training.losses.teacher")


def override(c: ConfigDict, overrides: Iterable[tuple[str, Any]]) -> ConfigDict:
    """A checked copy of `c` with single fields replaced; parts may gain options, everything else must exist.

    A part's own name (`mixer` or `mixer.name`) swaps the part: the other one keeps the options that both know.

    Raises:
      UserError: unknown field (the nearest known ones are named), or a value of another type, choice or range.
    """
    c = c.copy_and_resolve_references()
    for dotted, value in overrides:
        if _swap(c, dotted, value):
            continue
        *parents, field = dotted.split(".")
        node: Any = c
        for i, key in enumerate(parents):
            if not isinstance(node, ConfigDict) or key not in node:
                raise _unknown(c, dotted, node, key, ".".join(parents[:i]))
            node = node[key]
        declared = _declared(".".join(parents)).get(field)
        if not isinstance(node, ConfigDict) or not field:
            raise _unknown(c, dotted, node, field, ".".join(parents))
        if isinstance(node.get(field), ConfigDict):
            known = ", ".join(sorted(node[field]))
            raise UserError(f"config field {dotted}: is a group, expected one of its fields: {known}")
        with node.ignore_type():
            if declared is not None and declared.kind is not Any:
                parsed = _parsed(value, declared.kind)
                limits.check({field: declared}, {field: parsed}, dotted[: len(dotted) - len(field)])
                node[field] = parsed
            elif field in node:
                node[field] = _typed(dotted, node[field], value)
            elif parents and (parents[0] in AXES or ".".join(parents) in WITHIN):
                node[field] = _literal(value)
            else:
                raise _unknown(c, dotted, node, field, ".".join(parents))
    check(c)
    return c


def _swap(c: ConfigDict, dotted: str, value: Any) -> bool:
    """Puts the part that `value` names into its place, where `dotted` is one; whether it is."""
    place = dotted.removesuffix(".name")
    *parents, axis = place.split(".")
    above: Any = c
    for key in parents:
        above = above.get(key) if isinstance(above, ConfigDict) else None
    known = place.split(".")[0] in AXES or place in WITHIN
    if not known or not isinstance(above, ConfigDict) or not isinstance(value, str):
        return False
    from vargen import axes  # all parts: slow to import, and seldom needed here

    node, outer = above.get(axis), ".".join(parents)
    if node is None and outer in axes.PARTS and above.get("name") in axes.PARTS[outer]:
        # An option that is a part, which the config leaves to its default.
        node = ConfigDict() if axis in axes.options(outer, above.name) else None
    if node is None and place in WITHIN:  # which stands for none
        node = ConfigDict()
    if place not in axes.PARTS or not isinstance(node, ConfigDict):
        return False
    options = axes.swapped(place, node.to_dict(), value)
    with above.ignore_type(), above.unlocked():
        above[axis] = ConfigDict(options)
    return True


def check(c: ConfigDict) -> None:
    """Checks every field of the groups that all systems share; parts are checked when they are built.

    Raises:
      UserError: an unknown field, or one of another type, choice or range; an axis that isn't a part.
    """
    groups = [name for name in schema.GROUPS if "." not in name]
    known = [*limits.fields(schema.Config), *groups, "presets", *AXES]
    for name in c:
        if name not in known:
            raise UserError(f"config field {name}: unknown{limits.suggestion(name, known)}")
    top = {k: v for k, v in c.items() if k in limits.fields(schema.Config)}
    limits.check(limits.fields(schema.Config), top, "")
    for name, group in schema.GROUPS.items():
        _check_group(c, name, group)
    for name, settings in _mapping(c.get("presets", {}), "presets").items():
        limits.check(limits.fields(schema.Preset), _mapping(settings, f"presets.{name}"), f"presets.{name}.")
        inner = _mapping(settings.get("sampling", {}), f"presets.{name}.sampling")
        limits.check(limits.fields(schema.Sampling), inner, f"presets.{name}.sampling.")
    for axis in (*AXES, *WITHIN):
        part = _at(c, axis)
        if part is not None and not isinstance(_mapping(part, axis).get("name"), str):
            raise UserError(
                f"config field {axis}.name: expected the name of a part, found {part.get('name')!r}"
            )


def _at(c: ConfigDict, name: str) -> Any:
    """What stands at a place; None for nothing."""
    node: Any = c
    for key in name.split("."):
        node = None if node is None else node.get(key)
    return node


def _check_group(c: ConfigDict, name: str, group: type) -> None:
    node = _at(c, name)
    if node is None:
        return
    limits.check(limits.fields(group), _mapping(node, name), f"{name}.")


def _mapping(node: Any, name: str) -> Any:
    if not isinstance(node, (ConfigDict, dict)):
        raise UserError(f"config field {name}: expected a group of fields, found {node!r:.200}")
    return node


def _declared(group: str) -> dict[str, limits.Field]:
    """The fields that the schema declares for a place in a config; none for parts."""
    if group.startswith("presets.") and group.count(".") <= 2:
        return limits.fields(schema.Sampling if group.endswith(".sampling") else schema.Preset)
    kind = schema.GROUPS.get(group, None if group else schema.Config)
    return {} if kind is None else limits.fields(kind)


def _parsed(value: Any, kind: Any) -> Any:
    """Text as a value of a declared type, as far as it reads as one; `check` says whether it fits."""
    if kind is str or not isinstance(value, str):
        return value
    found = _literal(value)
    if kind is int and isinstance(found, float) and found.is_integer():  # 1e6 steps
        return int(found)
    if kind is float and isinstance(found, int) and not isinstance(found, bool) and abs(found) < 1e300:
        return float(found)
    return found


def _unknown(c: ConfigDict, dotted: str, node: Any, key: str, parent: str) -> UserError:
    if not isinstance(node, ConfigDict):
        return UserError(f"config field {dotted}: {parent} has no fields, it is {node!r}")
    nearest = _nearest(dotted, list(_fields(c)))
    known = nearest or f"; {parent or 'the config'} has {', '.join(sorted(node))}"
    return UserError(f"config field {dotted}: unknown{known}")


def _fields(c: ConfigDict, prefix: str = "") -> Iterable[str]:
    for key in sorted({*c, *_declared(prefix[:-1])}):
        if isinstance(c.get(key), ConfigDict):
            yield from _fields(c[key], f"{prefix}{key}.")
        else:
            yield prefix + key


def _nearest(name: str, known: list[str]) -> str:
    """'; did you mean a, b?' for the closest of `known`, by whole name or by last word; '' if none."""
    word, last = name.rsplit(".", 1)[-1], {k.rsplit(".", 1)[-1]: k for k in reversed(known)}
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.8)
    # A long group alone makes names alike.
    close = [k for k in close if limits.nearest(word, [k.rsplit(".", 1)[-1]])]
    if not close:
        close = [last[k] for k in difflib.get_close_matches(word, list(last), n=3, cutoff=0.8)]
    return f"; did you mean {', '.join(close)}?" if close else ""


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _typed(field: str, current: Any, value: Any) -> Any:
    """A part's option: `value` as the type of `current`, or a UserError that names the field."""
    if current is None:
        return _literal(value)
    if isinstance(current, str):
        if isinstance(value, str):
            return value
        raise _mismatch(field, current, value)
    found = _literal(value)
    if isinstance(current, bool):
        if isinstance(found, bool):
            return found
    elif isinstance(current, int):
        if isinstance(found, float) and found.is_integer():
            return int(found)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    elif isinstance(current, float):
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return float(found) if abs(found) < 1e300 else found
    elif isinstance(current, (tuple, list)):
        if isinstance(found, (tuple, list)):
            return type(current)(found)
        if not isinstance(found, str):  # 3 for a tuple of one
            return type(current)((found,))
    raise _mismatch(field, current, value)


def _mismatch(field: str, current: Any, value: Any) -> UserError:
    kind = {"str": "text", "bool": "true or false", "int": "a whole number", "float": "a number"}
    name = type(current).__name__
    return UserError(
        f"config field {field}: expected {kind.get(name, f'a {name}')} (as {current!r}), found {value!r:.200}"
    )
