"""Whole checkpoints: the authors' files to a directory that every command works on, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

from vargen import config, hub, paths, weights_file
from vargen.errors import UserError
from vargen.interop import files, lazy, mapping, systems
from vargen.training import checkpoints

Path = str | os.PathLike[str]


def import_checkpoint(
    name: str,
    out: Path,
    *,
    tokenizer: Path,
    generator: Path | None = None,
    outer: Path | None = None,
    params: Literal["auto", "ema", "plain"] = "auto",
    image_size: int = 0,
    heads: int = 0,
) -> ConfigDict:
    """Writes a directory for `vargen.load` from the authors' files.

    Of files on the hub, origin.json in it says from where they came: commit, size and SHA-256.

    Args:
      name: of the system, see `names.SYSTEMS`.
      out: the directory; made, and must not be there yet.
      tokenizer: the file of the tokenizer's weights, also hf://OWNER/REPO[@REVISION]/FILE.
      generator: the file of the generator's; None for the tokenizer alone.
      outer: of a tokenizer of an autoencoder's latents the file of that; None where there is none, or one file holds
        both.
      params: "auto", "ema" or "plain": which of several sets in the files, as for `files.read`.
      image_size, heads: as for `systems.infer`.

    Returns:
      The config, sizes inferred from the arrays.

    Raises:
      UserError: a file is missing, broken or of another kind, arrays don't fit, or `out` is there. Nothing is left.
    """
    where = paths.path(out, "--out")
    if where.exists():
        raise UserError(f"--out {where}: expected a new directory, found one that is there already")
    s = systems.system(name)
    named_files = (("--tokenizer", tokenizer), ("--generator", generator), ("--outer", outer))
    flags = {flag: file for flag, file in named_files if file is not None}
    systems.check_parts(name, (flag[2:] for flag in flags))
    given = {flag[2:]: file for flag, file in hub.pin(flags).items()}
    arrays: dict[str, Any] = {}
    for part, file in given.items():
        which = params if part == "generator" else _lenient(params)
        arrays[part] = files.read(file, which, part)  # type: ignore[arg-type]
        arrays[part].parameters()  # nothing empty, whose sizes would tell nonsense
    if s.outer:
        arrays["tokenizer"] = _within(s, arrays, os.fspath(given["tokenizer"]))
    named = " and ".join(os.fspath(file) for file in given.values())
    beside = files.beside(given[s.told_of], s.told) if s.told and s.told_of in given else None
    with _about(named):
        c = systems.infer(
            s,
            arrays["tokenizer"],
            arrays.get("generator"),
            image_size=image_size,
            heads=heads,
            beside=beside,
        )
        parts = dict(zip(("tokenizer", "generator"), systems.build(c), strict=True))
    trees = {}
    for part, found in arrays.items():
        with _about(os.fspath(given[part])):
            trees[part] = systems.read(getattr(s, part), parts[part], found.parameters())
    origins = {part: hub.origin(file) for part, file in given.items() if hub.is_hub(file)}
    paths.sweep(where.parent)
    with paths.new_directory(where, last=checkpoints.CONFIG) as partial:
        for part, tree in trees.items():
            (partial / part).mkdir()
            weights_file.write(partial / part / checkpoints.WEIGHTS, tree)
            (partial / part / checkpoints.CONFIG).write_text(config.to_json(c))
        if origins:
            (partial / hub.ORIGIN).write_text(json.dumps(origins, indent=2) + "\n")
        (partial / checkpoints.CONFIG).write_text(config.to_json(c))
    return c


def _within(s: systems.System, arrays: dict[str, Any], file: str) -> lazy.Weights:
    """The tokenizer's arrays and those of the autoencoder around it, which leave `arrays`.

    Raises:
      UserError: there is no file of the latter, nor are they in the former's.
    """
    own, outer = arrays["tokenizer"], arrays.pop("outer", None)
    if outer is not None:
        return own.within(s.outer, outer)
    if not any(name.startswith(s.outer) for name in own):
        raise UserError(
            f"--outer: expected the file of the autoencoder around the tokenizer, as {file} has no arrays {s.outer}*, "
            "found none"
        )
    return own


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Errors inside name the file; sizes that make no sense together are one of them."""
    try:
        yield
    except UserError as error:
        raise error if str(error).startswith(name) else UserError(f"{name}: {error}") from error
    except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"{name}: its arrays' shapes don't fit each other ({error})") from error


def export_checkpoint(
    name: str,
    workdir: Path,
    *,
    tokenizer: Path | None = None,
    generator: Path | None = None,
    which: str = "ema",
) -> None:
    """Writes a model's parameters under the authors' names, as they load them.

    Args:
      name: of the system whose names are wanted.
      workdir: a trained or imported model, also on the hub.
      tokenizer, generator: the files to write; the suffix says the format (`files.write`). None: not written.
      which: "ema" or "params": averaged or last parameters.

    Raises:
      UserError: no model there, or one with parts or values that the system's files have no place for.
    """
    s = systems.system(name)
    wanted = {
        part: paths.path(file, f"--{part}")
        for part, file in (("tokenizer", tokenizer), ("generator", generator))
        if file is not None
    }
    systems.check_parts(name, wanted)
    workdir = hub.directory(workdir, "--workdir")
    _check_targets(workdir, wanted)
    for file in wanted.values():
        paths.sweep(file.parent)
    written = {part: _arrays(s, part, workdir, which) for part in wanted}
    with contextlib.ExitStack() as stack:
        # Both are written, then both take their places.
        for part, arrays in written.items():
            temporary = stack.enter_context(files.written(wanted[part]))
            files.write_as(wanted[part].suffix, temporary, arrays, getattr(s, part).WRAPPED)


def _check_targets(workdir: paths.Path, wanted: Mapping[str, paths.Path]) -> None:
    """Checks that nothing of the model, nor one of the files by the other, would be overwritten.

    Raises:
      UserError: it would, or a name by which no format is known, or a directory.
    """
    own = os.path.realpath(workdir)
    places: dict[str, str] = {}
    for part, file in wanted.items():
        files.check_suffix(file)
        if file.exists() and not paths.is_file(file):
            found = "a directory" if file.is_dir() else "no plain file"
            raise UserError(f"--{part} {file}: expected a file to write, found {found}")
        if paths.is_remote(file):
            place = os.fspath(file)
        else:
            place = os.path.realpath(file)
            inside = os.path.relpath(place, own).split(os.sep)[0]
            linked = os.path.exists(place) and os.stat(place).st_nlink > 1
            if inside in ("tokenizer", "generator") or (linked and _is_linked_from(workdir, place)):
                raise UserError(f"--{part} {file}: expected a file outside the model, found one of {workdir}")
        if place in places.values():
            raise UserError(
                "export: expected two files for --tokenizer and --generator, found one name for both"
            )
        places[part] = place


def _is_linked_from(workdir: paths.Path, place: str) -> bool:
    """Whether a file of the model is the file at `place` under another name."""
    return any(
        os.path.samefile(os.path.join(folder, name), place)
        for folder, _, names in os.walk(workdir)
        for name in names
        if os.path.isfile(os.path.join(folder, name))
    )


def _arrays(s: systems.System, part: str, workdir: paths.Path, which: str) -> dict[str, np.ndarray]:
    """The authors' arrays of one part, checked to mean the same model in the authors' program."""
    c, params, _ = checkpoints.load_params(workdir / part, which)
    built = dict(zip(("tokenizer", "generator"), systems.build(c), strict=True))[part]
    module = getattr(s, part)
    params = jax.tree.map(np.asarray, params)
    try:
        arrays = mapping.write(module.table(built), params, what=module.WHAT)
        again = dict(weights_file.flatten(systems.read(module, built, arrays)))
        theirs = s.like(part, c, built, arrays)
    except AttributeError as error:  # a part of another kind, which the table doesn't know
        raise UserError(f"{module.WHAT}: expected a model of its parts, found another ({error})") from error
    if different := differences(built, theirs):
        raise UserError(
            f"{module.WHAT}: expected a model that its program computes, found {', '.join(different)}"
        )
    # What their files have no place for would be lost without a word.
    lost = [k for k, v in weights_file.flatten(params) if not np.array_equal(again[k], v, equal_nan=True)]
    if lost:
        raise UserError(
            f"{module.WHAT}: expected values that its files can hold, found others in {', '.join(lost)}"
        )
    return arrays


# What training alone, precision or the sampler's settings decide.
FREE = frozenset(
    "guidance shown_after "
    "dropout weight_dropout drop_path initial init_std kernel_init out_init in_gain zero_lead adaln_zero gate_gain "
    "remat scanned dtype random label_smoothing counts known_weight repeat clip sample_steps times guidance_until "
    "solver last parent name tokenizer most_known scale beta zero codebook_weight centre_weight entropy_weight "
    "entropy_temperature level_weight kl_weight measure revive_every revive_until revive_threshold kmeans decay "
    "restart temperature continuous diversity sharpness entropy_bits guide forget_rate weights".split()
)


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Settings in which two models compute differently: "mixer.rope places instead of none"."""
    if type(ours) is not type(theirs):
        return [f"{path} {type(ours).__name__} instead of {type(theirs).__name__}"]
    if isinstance(ours, tuple) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{path}.{i}".lstrip("."))]
    if isinstance(ours, np.ndarray):
        return [] if np.array_equal(ours, theirs) else [f"another {path}"]
    if not dataclasses.is_dataclass(ours):
        return [] if ours == theirs else [f"{path} {ours} instead of {theirs}"]
    free = (
        FREE - {"scale"} if path.endswith("block.mixer") else FREE
    )  # of latents, where it isn't attention's
    free = free | {"steps"} if path.endswith("codec") else free  # in which a decoder draws
    names = [f.name for f in dataclasses.fields(ours) if f.name not in free]
    found = (differences(getattr(ours, n), getattr(theirs, n), f"{path}.{n}".lstrip(".")) for n in names)
    return [line for lines in found for line in lines]


def _lenient(params: str) -> Any:
    """Tokenizers are published without averages beside them: what is insisted on is the generator's."""
    return "auto" if params == "ema" else params
