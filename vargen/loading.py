"""Models from directories: what `vargen.load` does."""

from __future__ import annotations

import os
from typing import Any

import jax

from vargen import classes as class_names
from vargen import hub, paths
from vargen.errors import UserError
from vargen.model import Model
from vargen.weights import Weights


def load(path: str | os.PathLike, which: str = "ema", weights: str = "full") -> Model:
    """A model from a working directory of `vargen train` or a directory of `vargen import`; the config lies inside.

    Args:
      path: the directory, also in a bucket; or `hf://OWNER/REPO[@REVISION][/FOLDER]`, what `vargen push` wrote there.
      which: "ema" or "params": averaged or last parameters.
      weights: what the generator's are held in for decoding: "full", the compute dtype; "int8" or "float8", kernels of
        8 bits with a scale for each output, half the bytes of bfloat16.

    Raises:
      UserError: no such directory, no checkpoint there, a config that is broken or isn't that of the parameters; of
        the hub, that it can't be read.
    """
    if which not in ("ema", "params"):
        raise UserError(f"which: expected 'ema' or 'params', found {which!r:.80}")
    Weights(None, weights)  # refuses others before anything is read
    path = hub.directory(path, "model")
    with hub.named():
        return _loaded(path, which, weights)


def check(path: paths.Path) -> None:
    """Checks that a directory is one of a model, at first sight: nothing is read yet.

    Raises:
      UserError: it isn't.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "none"
        raise UserError(f"model {path}: expected a directory of `vargen train` or `import`, found {found}")
    if not (path / "tokenizer").is_dir():
        raise UserError(f"model {path}: expected a checkpoint or imported weights in it, found none")


def _loaded(path: paths.Path, which: str, weights: str) -> Model:
    from vargen.training.checkpoints import FOLDER, WEIGHTS

    check(path)
    config, tokenizer_params, *steps = _part(path / "tokenizer", which)
    generator_params = None
    if (path / "generator" / FOLDER).is_dir() or paths.is_file(path / "generator" / WEIGHTS):
        config, generator_params, step = _part(path / "generator", which)
        steps.append(step)
    model = Model(config, tokenizer_params, Weights(generator_params, weights), steps=tuple(steps))
    model.classes = class_names.of(path, config.data.num_classes)
    for name, part, params in (
        ("tokenizer", model.tokenizer, tokenizer_params),
        ("generator", model.whole, generator_params),
    ):
        if part is not None:
            expected = jax.eval_shape(part.init, jax.random.key(0))
            _check_same(expected, params, path / name)
    return model


def _part(directory: Any, which: str):
    """Config, parameters and step of one part of a model."""
    from vargen.training.checkpoints import load_params

    try:
        return load_params(directory, which)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model {directory}: cannot be read: {error}") from error
    except UserError as error:
        where = "" if str(directory) in str(error) else f"model {directory}: "
        raise UserError(f"{where}{error}") from error


def _check_same(expected: Any, params: Any, directory: Any) -> None:
    from vargen.training import state

    try:
        found = ", ".join(state.differing(expected, params).values())
    except UserError as error:
        found = str(error).removeprefix("initial parameters: ")
    if found:
        raise UserError(f"model {directory}: expected parameters as its config says: {found}")
