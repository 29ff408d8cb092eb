"""Taking the tokenizer or the generator of another workdir: it is copied, so that a workdir is whole by itself."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import TYPE_CHECKING

from vargen.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

ORIGIN = "origin.txt"  # beside what was copied: where from


def copy_tokenizer(config: ConfigDict, source: pathlib.Path, workdir: pathlib.Path) -> None:
    """Copies another workdir's trained tokenizer, so that this one is whole by itself.

    Raises:
      UserError: no tokenizer there, or not the one that the config describes.
    """
    from vargen.training import checkpoints

    theirs, _, _ = checkpoints.load_params(source / "tokenizer")
    for field in ("tokenizer", "data.image_size", "data.channels"):
        mine, other = _json_field(config, field), _json_field(theirs, field)
        if mine != other:
            raise UserError(f"tokenizer {source}: expected {field} {mine}, found {other}")
    directory = workdir / "tokenizer"
    if _copied_already(directory, source):
        return
    partial = workdir / ".tokenizer.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source / "tokenizer", partial)
    (partial / ORIGIN).write_text(f"{source.resolve()}\n")
    partial.rename(directory)


def copy_generator(config: ConfigDict, source: pathlib.Path, workdir: pathlib.Path) -> None:
    """Copies another workdir's (averaged) generator, and its config, to where training starts.

    Raises:
      UserError: no generator there, or one of other sizes.
    """
    import jax
    import numpy as np

    from vargen import weights_file
    from vargen.config import to_json
    from vargen.models import build_generator, build_tokenizer
    from vargen.training import checkpoints, state

    directory = workdir / "generator"
    if _copied_already(directory, source):
        return
    theirs, params, _ = checkpoints.load_params(source / "generator")
    generator = build_generator(config, build_tokenizer(config))
    state.differing(jax.eval_shape(generator.init, jax.random.key(0)), params)
    partial = workdir / ".generator.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights_file.write(partial / checkpoints.WEIGHTS, jax.tree.map(np.asarray, params))
    (partial / checkpoints.CONFIG).write_text(to_json(theirs))
    (partial / ORIGIN).write_text(f"{source.resolve()}\n")
    partial.rename(directory)


def _copied_already(directory: pathlib.Path, source: pathlib.Path) -> bool:
    """Whether what lies in `directory` was copied from `source`.

    Raises:
      UserError: it is something else.
    """
    origin = directory / ORIGIN
    if origin.is_file() and origin.read_text().strip() == str(source.resolve()):
        return True
    if directory.exists():
        raise UserError(
            f"workdir {directory.parent}: has a {directory.name} already, expected none where it is taken from {source}"
        )
    return False


def _json_field(config: ConfigDict, field: str):
    value = config
    for key in field.split("."):
        value = value[key]
    return json.loads(json.dumps(value.to_dict() if hasattr(value, "to_dict") else value))
