"""Taking the tokenizer or the generator of another workdir: it is copied, so that a workdir is whole by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from vargen.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vargen.paths import Path, PathLike


def pinned(text: PathLike, flag: str, workdir: Path) -> PathLike:
    """What a flag names; of a branch on the hub the commit that `workdir` has a copy of, else that which it is now.

    Raises:
      UserError: it is `workdir` itself, or what `hub.pin` raises.
    """
    from vargen import hub, paths
    from vargen.training import checkpoints, resume

    if not hub.is_hub(text) and paths.absolute(text, flag).resolve() == paths.absolute(workdir).resolve():
        raise UserError(f"{flag} {text}: expected another folder than --workdir, found the same")
    if hub.is_hub(text) and not (asked := hub.place(text, flag)).pinned:
        for stage in resume.STAGES:
            origin = workdir / stage / checkpoints.ORIGIN
            was = origin.read_text().strip() if paths.is_file(origin) else ""
            if hub.is_hub(was) and hub.place(was).at(asked.revision) == asked:
                print(f"{flag} {text}: {workdir} has a copy of {was}, and goes on with it", flush=True)
                return was
    return hub.pin({flag: text})[flag]


def found(text: PathLike, flag: str, fetch: bool = True) -> Path | None:
    """The workdir that a flag names.

    Args:
      text: a path, or a model on the hub.
      flag: for messages.
      fetch: False: one on the hub is left there, and None returned.

    Raises:
      UserError: there is no such directory.
    """
    from vargen import hub

    if hub.is_hub(text) and not fetch:
        return None
    source = hub.directory(text, flag)
    if not source.is_dir():
        raise UserError(f"{flag} {source}: expected a directory of `vargen train` or `import`, found none")
    return source


def plan(
    config: ConfigDict, workdir: Path, *, tokenizer: str | None, origin: str | None, classes: list[str]
) -> list[Callable[[], None]]:
    """What copies another workdir's tokenizer, or both its parts; all is checked here, and nothing copied yet.

    Args:
      config: what the parts must fit.
      workdir: where they go.
      tokenizer: the workdir whose tokenizer alone is wanted, or None.
      origin: the workdir of which both are wanted, or None.
      classes: names of the classes of the data.

    Raises:
      UserError: parts that are missing or don't fit, or others that lie in the workdir already.
    """
    wanted = []
    if tokenizer is not None:
        wanted = [_tokenizer(config, found(tokenizer, "--tokenizer"), workdir)]
    elif origin is not None:
        source = found(origin, "--from")
        wanted = [_tokenizer(config, source, workdir), _generator(config, source, workdir, classes)]
    return [make for make in wanted if make is not None]


def _tokenizer(config: ConfigDict, source: Path, workdir: Path):
    """What copies the tokenizer; None where it is copied already."""
    from vargen import paths
    from vargen.training import checkpoints

    theirs, _, _ = checkpoints.load_params(source / "tokenizer")
    for field in ("tokenizer", "data.image_size", "data.frames", "data.channels"):
        mine, other = _json_field(config, field), _json_field(theirs, field)
        if mine != other:
            raise UserError(f"tokenizer {source}: expected {field} {mine}, found {other}")
    directory = workdir / "tokenizer"
    if _copied_already(directory, source):
        return None

    def make() -> None:
        with paths.new_directory(directory) as partial:
            _copy_tree(source / "tokenizer", partial)
            (partial / checkpoints.ORIGIN).write_text(_name(source))

    return make


def _generator(config: ConfigDict, source: Path, workdir: Path, classes: list[str]):
    """What copies the averaged generator, its config and classes to where training starts; None where that is done."""
    import jax
    import numpy as np

    from vargen import classes as class_names
    from vargen import fine_tuning, paths, seeds, spelling, weights_file
    from vargen.config import to_json
    from vargen.models import build_generator, build_tokenizer
    from vargen.training import checkpoints, state

    directory = workdir / "generator"
    if _copied_already(directory, source):
        return None
    theirs, params, _ = checkpoints.load_params(source / "generator")
    generator = build_generator(config, build_tokenizer(config))
    theirs_alone, params = params.keys(), fine_tuning.grown(generator, params, seeds.key(config.seed))
    if added := sorted(params.keys() - theirs_alone):
        first = generator.stages[generator.feed.branches[0][-1]].name
        print(f"begins as {first} and its head: {', '.join(added)}", flush=True)
    state.differing(jax.eval_shape(generator.init, jax.random.key(0)), params)
    names = class_names.stored(source)
    places = spelling.places(classes, names or ())
    if names is not None and places != list(range(len(names))):
        known = [name for name, place in zip(classes, places, strict=True) if place >= 0]
        print(
            f"{len(known)} of {len(classes)} classes are among the model's and keep their embeddings"
            f"{': ' * bool(known)}{spelling.listed(known, 4)}; the others start anew",
            flush=True,
        )

    def make() -> None:
        with paths.new_directory(directory) as partial:
            weights_file.write(partial / checkpoints.WEIGHTS, jax.tree.map(np.asarray, params))
            (partial / checkpoints.CONFIG).write_text(to_json(theirs))
            if names is not None:
                (partial / class_names.FILE).write_text(json.dumps(names) + "\n")
            (partial / checkpoints.ORIGIN).write_text(_name(source))

    return make


def _copy_tree(source: Path, target) -> None:
    """Copies a directory, from a disk or a bucket, to one of this machine."""
    for item in source.iterdir():
        if item.is_dir():
            (target / item.name).mkdir()
            _copy_tree(item, target / item.name)
        else:
            with item.open("rb") as old, (target / item.name).open("wb") as new:
                shutil.copyfileobj(old, new)


def _name(source: Path) -> str:
    from vargen import hub

    return f"{hub.shown(str(source.resolve()))}\n"


def _copied_already(directory: Path, source: Path) -> bool:
    """Whether what lies in `directory` was copied from `source`.

    Raises:
      UserError: it is something else.
    """
    from vargen import paths
    from vargen.training import checkpoints

    origin = directory / checkpoints.ORIGIN
    if paths.is_file(origin) and origin.read_text() == _name(source):
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
