"""Configs: the shared schema with its defaults, reading config files, and overriding single fields.

A config is an `ml_collections.ConfigDict`. A config file defines `get_config()` (or `get_config(variant)`),
starts from `config()` here and names the parts and sizes of one system; it contains no logic.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from vargen.errors import UserError

# The axes of the grammar: `config[axis]` is a part, open to whatever options its constructor takes.
AXES = ("tokenizer", "order", "feed", "mixer", "head", "conditioning")


def part(name: str, **options: Any) -> ConfigDict:
    """A part of an axis: its registered name and its constructor's options (checked when it is built)."""
    return ConfigDict(dict(name=name, **options))


def config() -> ConfigDict:
    """The schema with its defaults; a config file adds the axes (`AXES`) and `model` (layers, width, ...)."""
    c = ConfigDict()
    c.name = ""
    c.seed = 0
    c.compute_dtype = "auto"  # "auto": bfloat16 on accelerators, float32 on the CPU
    c.data = digits()
    c.conditioning = part("label", dropout=0.1)
    c.sampling = ConfigDict(
        dict(
            guidance=1.0,
            guidance_schedule="constant",
            guidance_power=1.0,
            guidance_steps=0,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            steps=0,
        )
    )
    # Named settings, for --preset: images of each class (`count`), their size if scaled (`resize`), `sampling`.
    c.presets = ConfigDict()
    c.tokenizer_training = training(b2=0.95, weight_decay=0.0)
    c.tokenizer_training.losses = ConfigDict(
        dict(
            l1=0.0,
            l2=1.0,
            perceptual=0.0,
            perceptual_weights="",  # safetensors or npz of the perceptual network; empty: no perceptual loss
            adversarial=0.0,
            adversarial_start=0,
            adversarial_kind="hinge",
            adaptive=False,
            discriminator_width=64,
            discriminator_layers=3,
            discriminator_learning_rate=1e-4,
        )
    )
    c.training = training()
    c.evaluation = ConfigDict(dict(samples=500, batch_size=100, seed=0))
    return c


def preset(count: int = 0, resize: int = 0, **sampling: Any) -> ConfigDict:
    """Named settings for `config.presets`.

    Args:
      count: images drawn of each class; 0: as always.
      resize: side in pixels to which samples are scaled; 0: not.
      **sampling: fields of `config.sampling`; those not given have their defaults.
    """
    return ConfigDict(dict(count=count, resize=resize, sampling=_changed(config().sampling, sampling)))


def training(**changes: Any) -> ConfigDict:
    """Fields of a training run (`tokenizer_training`, `training`), with defaults; `changes` replace some."""
    c = ConfigDict(
        dict(
            steps=1000,
            batch_size=64,
            learning_rate=1e-3,
            min_learning_rate=0.0,
            warmup_steps=100,
            schedule="cosine",  # or "linear", "constant"
            optimizer="adamw",
            b1=0.9,
            b2=0.95,
            weight_decay=0.05,
            clip_norm=1.0,
            ema_decay=0.99,
            accumulate=1,  # micro-batches that a batch is cut into, one after the other
            remat=False,
            log_every=10,
            save_every=500,
            keep=3,
            image_every=0,  # steps between image grids in TensorBoard; 0: never
            codes=True,  # generators: train on stored codes instead of encoding every batch
            augmented_copies=1,  # stored codes: how many augmented copies of the data
            mesh=dict(data=-1, fsdp=1, tensor=1),
        )
    )
    return _changed(c, changes)


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
      source: "digits", "folder", "emoji" or "tfds".
      image_size: side in pixels.
      channels: 1 (grey) or 3.
      num_classes: number of labels; 0 takes the number that the source has.
      path: the folder, or the TensorFlow Datasets directory.
      dataset: the TensorFlow Datasets name.
      **changes: `shift` (largest random shift, pixels), `flip` (random mirror images), `crop` ("center" or
        "random"), `test_fraction` (held out, where the set has no split of its own).
    """
    c = ConfigDict(
        dict(
            source=source,
            path=path,
            dataset=dataset,
            image_size=image_size,
            channels=channels,
            num_classes=num_classes,
            shift=0,
            flip=False,
            crop="center",
            test_fraction=0.1,  # held out, where the set has no split of its own
        )
    )
    return _changed(c, changes)


def _changed(c: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    for field in changes:
        if field not in c:
            raise UserError(f"config field {field}: unknown, expected among {', '.join(sorted(c))}")
    c.update(changes)
    return c


def digits() -> ConfigDict:
    """The handwritten digits that ship with vargen, at 16x16, randomly shifted by a pixel."""
    return images("digits", 16, 1, 10, shift=1)


def imagenet(image_size: int, **changes: Any) -> ConfigDict:
    """ImageNet-1k, prepared by TensorFlow Datasets (`--config.data.path` names its directory)."""
    fields: dict[str, Any] = dict(dataset="imagenet2012", flip=True, crop="center") | changes
    return images("tfds", image_size, 3, 1000, **fields)


def load(path: str | pathlib.Path, overrides: Iterable[tuple[str, Any]] = ()) -> ConfigDict:
    """Reads a config file and applies overrides.

    Args:
      path: `file.py`, `file.py:variant` (calls `get_config(variant)`), or a `.json` written by `to_json`.
      overrides: (dotted field, value); values may be strings, read as the type that the field has.

    Raises:
      UserError: the file is missing or has no `get_config`, or a field or value does not fit.
    """
    text = str(path)
    name, variant = text, None
    if not pathlib.Path(text).exists() and ":" in text:
        name, variant = text.rsplit(":", 1)
    file = pathlib.Path(name)
    if not file.is_file():
        raise UserError(f"config {name}: expected a file, found none{_similar_files(file)}")
    loaded = from_json(file.read_text()) if file.suffix == ".json" else _execute(file, variant)
    return override(loaded, overrides)


def _similar_files(file: pathlib.Path) -> str:
    siblings = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
    return _nearest(file.name, siblings)


def _execute(file: pathlib.Path, variant: str | None) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(f"vargen_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(
            f"config {file}: expected a Python file (.py) or a .json, found {file.suffix or 'neither'}"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"config {file}: line {error.lineno}: {error.msg}") from error
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise UserError(f"config {file}: expected a function get_config(), found none")
    if variant is None:
        return get_config()
    if not inspect.signature(get_config).parameters:
        raise UserError(f"config {file}: has no variants, found {variant!r} after the colon")
    try:
        return get_config(variant)
    except KeyError as error:
        raise UserError(f"config {file}: unknown variant {variant!r}") from error


def override(c: ConfigDict, overrides: Iterable[tuple[str, Any]]) -> ConfigDict:
    """A copy of `c` with single fields replaced; parts may gain options, everything else must exist.

    Raises:
      UserError: unknown field (the nearest known ones are named), or a value of the wrong type.
    """
    c = c.copy_and_resolve_references()
    for dotted, value in overrides:
        *parents, field = dotted.split(".")
        node: Any = c
        for i, key in enumerate(parents):
            if not isinstance(node, ConfigDict) or key not in node:
                raise _unknown(c, dotted, node, key, ".".join(parents[:i]))
            node = node[key]
        if isinstance(node, ConfigDict) and field in node:
            with node.ignore_type():
                node[field] = _typed(dotted, node[field], value)
        elif isinstance(node, ConfigDict) and parents and parents[0] in AXES:
            node[field] = _literal(value)
        else:
            raise _unknown(c, dotted, node, field, ".".join(parents))
    return c


def _unknown(c: ConfigDict, dotted: str, node: Any, key: str, parent: str) -> UserError:
    if not isinstance(node, ConfigDict):
        return UserError(f"config field {dotted}: {parent} has no fields, it is {node!r}")
    nearest = _nearest(dotted, list(_fields(c)))
    known = nearest or f"; {parent or 'the config'} has {', '.join(sorted(node))}"
    return UserError(f"config field {dotted}: unknown{known}")


def _fields(c: ConfigDict, prefix: str = "") -> Iterable[str]:
    for key, value in c.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{key}.")
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
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def _typed(field: str, current: Any, value: Any) -> Any:
    """`value` as the type of `current`, or a UserError that names the field."""
    if isinstance(current, ConfigDict):
        raise UserError(
            f"config field {field}: is a group, expected one of its fields: {', '.join(sorted(current))}"
        )
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
        if isinstance(found, float) and found.is_integer():  # 1e6 steps
            return int(found)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    elif isinstance(current, float):
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return float(found)
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
        f"config field {field}: expected {kind.get(name, f'a {name}')} (as {current!r}), found {value!r}"
    )


def to_json(c: ConfigDict) -> str:
    """The config as JSON text; `from_json` gives it back, tuples included."""
    return json.dumps(c.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """A config from the text of `to_json`. Lists become tuples, so that parts stay hashable.

    Raises:
      UserError: not JSON, or not an object.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"config: expected JSON, found a mistake at line {error.lineno}: {error.msg}"
        ) from error
    if not isinstance(data, dict):
        raise UserError(f"config: expected a JSON object, found {type(data).__name__}")
    return ConfigDict(_tuples(data))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value
