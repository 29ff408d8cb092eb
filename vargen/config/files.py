"""Reading config files: Python programs with a `get_config`, and the JSON that training writes."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import traceback
import types
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen import bundled, limits, paths
from vargen.config.fields import check, override
from vargen.config.text import from_json
from vargen.errors import UserError

LARGEST = 4 * 2**20  # bytes


def load(path: str | os.PathLike, overrides: Iterable[tuple[str, Any]] = ()) -> ConfigDict:
    """Reads a config file, applies overrides and checks every field.

    Args:
      path: `file.py`, `file.py:variant` (calls `get_config(variant)`), a `.json` written by `to_json`, or one of
        vargen's own by its name (`var:d16`). A Python file is a program, which runs. Its first table in capitals has
        the variants; where a tuple DATA names other data, they may follow a dash (`tokenizers:bsq-pictures32`).
      overrides: (dotted field, value); values may be strings, read as the type that the field has.

    Raises:
      UserError: the file is missing, broken or has no `get_config`, or a field or value does not fit.
    """
    c = _read(os.fspath(path))
    try:
        check(c)
    except UserError as error:
        raise UserError(f"config {path}: {error}") from error
    return override(c, overrides)


def _read(text: str) -> ConfigDict:
    name, variant = text, None
    if ":" in text.removeprefix("gs:").removeprefix("s3:") and not paths.path(text, "--config").exists():
        name, variant = text.rsplit(":", 1)
    file = paths.path(name, "--config")
    if name in bundled.names() and not paths.is_file(file):
        file = paths.path(bundled.folder() / f"{name}.py")
    if not paths.is_file(file):
        found = (
            "a directory" if file.is_dir() else "something that is no plain file" if file.exists() else "none"
        )
        raise UserError(f"config {name}: expected a file, found {found}{_similar(file, variant)}")
    if file.suffix not in (".py", ".json"):
        raise UserError(
            f"config {file}: expected a Python file (.py) or a .json, found {file.suffix or 'neither'}"
        )
    source = _text(file)
    if file.suffix == ".py":
        return _executed(file, source, variant)
    if variant is not None:
        raise UserError(f"config {file}: has no variants, found {variant!r} after the colon")
    try:
        return from_json(source)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _text(file: paths.Path) -> str:
    size = file.stat().length
    if size > LARGEST:
        raise UserError(f"config {file}: expected at most {LARGEST} bytes, found {size}")
    data = file.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"config {file}: line {line}: expected UTF-8 text, found byte {data[error.start]:#x}"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise UserError(f"config {file}: line {line}: expected text, found a zero byte")
    return text


def _similar(file: paths.Path, variant: str | None) -> str:
    """'; did you mean X?': files beside it, and vargen's own configs."""
    try:
        beside = [p.name for p in file.parent.iterdir() if p.suffix in (".py", ".json")]
    except OSError:
        beside = []
    if paths.is_file(inside := file / "config.json"):
        return f"; did you mean {inside}?"
    close = difflib.get_close_matches(file.name, beside, n=3, cutoff=0.8)
    own = bundled.names()
    # What lies in a folder and has no suffix is meant as a workdir.
    named = [name for name in own if name in file.stem.split("_")][:1] or limits.nearest(file.stem, own)
    for name in named if file.suffix or len(file.parts) == 1 else ():
        close.append(name if variant is None else f"{name}:{variant}")
    if close:
        return f"; did you mean {', '.join(close)}?"
    return "" if file.suffix else f" (nor one of vargen's own: {', '.join(own)})"


def variants(name: str) -> tuple[str, ...]:
    """What may follow the colon after one of vargen's own configs; its program runs."""
    file = paths.path(bundled.folder() / f"{name}.py")
    return tuple(map(str, _variants(_module(file, _text(file)))))


def _variants(module: types.ModuleType) -> Mapping[str, Any]:
    """The first table in capitals."""
    return next((v for k, v in vars(module).items() if k.isupper() and isinstance(v, dict) and v), {})


def _module(file: paths.Path, source: str) -> types.ModuleType:
    spec = importlib.util.spec_from_loader(f"vargen_config_{file.stem}", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = os.fspath(file)
    with _Watched(file):
        exec(compile(source, os.fspath(file), "exec"), module.__dict__)
    return module


def _executed(file: paths.Path, source: str, variant: str | None) -> ConfigDict:
    module = _module(file, source)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError(f"config {file}: expected a function get_config(), found none")
    with _Watched(file):
        takes = [p for p in inspect.signature(get_config).parameters.values() if p.kind != p.KEYWORD_ONLY]
    if variant is not None:
        if not takes:
            raise UserError(f"config {file}: has no variants, found {variant!r} after the colon")
        known, others = _variants(module), tuple(getattr(module, "DATA", ()))
        row, _, other = variant.partition("-")
        if known and variant not in known and not (row in known and other in others):
            also = "".join(f", each also with -{name}" for name in others)
            raise UserError(
                f"config {file}: unknown variant {variant!r}, expected one of {', '.join(map(str, known))}{also}"
            )
    elif any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in takes):
        raise UserError(f"config {file}: expected a variant after a colon ({file}:VARIANT), found none")
    try:
        with _Watched(file):
            made = get_config() if variant is None else get_config(variant)
    except UserError as error:
        if variant is not None and isinstance(error.__cause__, KeyError):
            raise UserError(f"config {file}: unknown variant {variant!r}") from error
        raise
    if isinstance(made, dict):
        made = ConfigDict(made)
    if not isinstance(made, ConfigDict):
        raise UserError(
            f"config {file}: expected get_config() to return a config, found {type(made).__name__}"
        )
    return made


class _Watched:
    """Whatever a config's program raises, in one line with the line of the file."""

    def __init__(self, file: paths.Path):
        self.file = os.fspath(file)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        if isinstance(error, SyntaxError) and error.filename == self.file:
            line, what = error.lineno, error.msg
        else:
            lines = [f.lineno for f in traceback.extract_tb(trace) if f.filename == self.file]
            line = lines[-1] if lines else None
            what = f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
            if isinstance(error, SystemExit):
                what = f"it exits ({error.code!r})"
        place = f"line {line}: " if line else ""
        raise UserError(f"config {self.file}: {place}{what}") from error
