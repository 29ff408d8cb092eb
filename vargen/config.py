"""Configs: the shared schema with its defaults, reading config files, and overriding single fields.

A config is an `ml_collections.ConfigDict`. A config file defines `get_config()` (or `get_config(variant)`, mostly a
size), starts from `config()` here and names the parts and sizes of one system; it contains no logic.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from vargen import config_files, limits, schema
from vargen.errors import UserError

# The axes of the grammar: `config[axis]` is a part, open to whatever options its constructor takes.
AXES = ("tokenizer", "order", "feed", "mixer", "head", "conditioning")


def part(name: str, **options: Any) -> ConfigDict:
    """A part of an axis: its registered name and its constructor's options (checked when it is built)."""
    return ConfigDict(dict(name=name, **options))


def config() -> ConfigDict:
    """The schema with its defaults; a config file adds the axes (`AXES`) and `model` (layers, width, ...)."""
    c = schema.defaults(schema.Config)
    c.data = digits()
    c.conditioning = part("label", dropout=0.1)
    c.sampling = schema.defaults(schema.Sampling)
    c.presets = ConfigDict()
    c.tokenizer_training = schema.defaults(schema.TokenizerTraining)
    c.training = schema.defaults(schema.Training)
    c.evaluation = schema.defaults(schema.Evaluation)
    return c


def preset(count: int = 0, resize: int = 0, **sampling: Any) -> ConfigDict:
    """Named settings for `config.presets`.

    Args:
      count: images drawn of each class; 0: as always.
      resize: side in pixels to which samples are scaled; 0: not.
      **sampling: fields of `config.sampling`; those not given have their defaults.
    """
    changed = _changed(schema.defaults(schema.Sampling), sampling)
    return ConfigDict(dict(count=count, resize=resize, sampling=changed))


def training(**changes: Any) -> ConfigDict:
    """Fields of a training run with defaults (`schema.Training`); `changes` replace some."""
    return _changed(schema.defaults(schema.Training), changes)


def images(
    source: str,
    image_size: int,
    channels: int,
    num_classes: int,
    *,
    path: str = "",
    dataset: str = "",
    **changes: Any,
) -> ConfigDict:
    """Fields of `config.data`: where the images come from, and what shape they take.

    Args:
      source: "digits", "folder", "emoji", "shapes" or "tfds".
      image_size: side in pixels.
      channels: 1 (grey) or 3.
      num_classes: number of labels; 0 takes the number that the source has.
      path: the folder, or the TensorFlow Datasets directory.
      dataset: the TensorFlow Datasets name.
      **changes: other fields of `schema.Data`.
    """
    fields = dict(source=source, image_size=image_size, channels=channels, num_classes=num_classes)
    return _changed(schema.defaults(schema.Data), dict(fields, path=path, dataset=dataset) | changes)


def _changed(c: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    for field in changes:
        if field not in c:
            raise UserError(f"config field {field}: unknown, expected among {', '.join(sorted(c))}")
    c.update(changes)
    return c


def digits() -> ConfigDict:
    """The handwritten digits that ship with vargen, at 16x16, randomly shifted by a pixel."""
    return images("digits", 16, 1, 10, shift=1)


def pictures(image_size: int) -> ConfigDict:
    """One's own pictures (`--config.data.path` names the folder), cut at random and mirrored."""
    return images("folder", image_size, 3, 0, flip=True, crop="random")


def small_data(size: str) -> ConfigDict:
    """The data of the sizes that every config has: `digits`, `pictures32` and `pictures64`."""
    return dict(digits=digits(), pictures32=pictures(32), pictures64=pictures(64))[size]


def small(c: ConfigDict, *, tokenizer: dict[str, Any], generator: dict[str, Any]) -> None:
    """Training of minutes, for `digits` and `pictures*`: the digits' shifts are stored eight times; of pictures, every
    look is another crop.

    Args:
      c: the config, its data set.
      tokenizer, generator: fields of both trainings.
    """
    views: dict[str, Any] = dict(augmented_copies=8) if c.data.source == "digits" else dict(codes=False)
    c.tokenizer_training.update(dict(batch_size=64, warmup_steps=50) | tokenizer)
    c.training.update(dict(batch_size=64, learning_rate=2e-3) | views | generator)


def imagenet(image_size: int, **changes: Any) -> ConfigDict:
    """ImageNet-1k, prepared by TensorFlow Datasets (`--config.data.path` names its directory)."""
    fields: dict[str, Any] = dict(dataset="imagenet2012", flip=True, crop="center") | changes
    return images("tfds", image_size, 3, 1000, **fields)


def load(path: str | os.PathLike, overrides: Iterable[tuple[str, Any]] = ()) -> ConfigDict:
    """Reads a config file, applies overrides and checks every field.

    Args:
      path: `file.py`, `file.py:variant` (calls `get_config(variant)`), a `.json` written by `to_json`, or one of
        vargen's own by its name (`var:d16`). A Python file is a program, which runs.
      overrides: (dotted field, value); values may be strings, read as the type that the field has.

    Raises:
      UserError: the file is missing, broken or has no `get_config`, or a field or value does not fit.
    """
    c = config_files.read(path)
    try:
        check(c)
    except UserError as error:
        raise UserError(f"config {path}: {error}") from error
    return override(c, overrides)


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
            elif parents and parents[0] in AXES:
                node[field] = _literal(value)
            else:
                raise _unknown(c, dotted, node, field, ".".join(parents))
    check(c)
    return c


def _swap(c: ConfigDict, dotted: str, value: Any) -> bool:
    """Puts the part that `value` names into its place, where `dotted` is one; whether it is."""
    place = dotted.removesuffix(".name")
    node: Any = c
    for key in place.split("."):
        node = node.get(key) if isinstance(node, ConfigDict) else None
    if place.split(".")[0] not in AXES or not isinstance(node, ConfigDict) or not isinstance(value, str):
        return False
    from vargen import axes  # all parts: slow to import, and seldom needed here

    if place not in axes.PARTS:
        return False
    options = axes.swapped(place, node.to_dict(), value)
    with c.ignore_type():
        *parents, axis = place.split(".")
        (c[parents[0]] if parents else c)[axis] = ConfigDict(options)
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
    for axis in AXES:
        part = c.get(axis)
        if part is not None and not isinstance(_mapping(part, axis).get("name"), str):
            raise UserError(
                f"config field {axis}.name: expected the name of a part, found {part.get('name')!r}"
            )


def _check_group(c: ConfigDict, name: str, group: type) -> None:
    node: Any = c
    for key in name.split("."):
        node = node.get(key)
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
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.8)
    if not close:
        last = {k.rsplit(".", 1)[-1]: k for k in reversed(known)}
        close = [
            last[k] for k in difflib.get_close_matches(name.rsplit(".", 1)[-1], list(last), n=3, cutoff=0.8)
        ]
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
