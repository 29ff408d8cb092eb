"""The folder of samples: how its pictures are called, the settings in each, and what else may lie there."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vargen import limits, schema, spelling
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.paths import Path

DECODED = (".jpg",)  # of files that a picture of the same name was decoded from: `Tokenizer.suffix`
LONGEST = 80  # bytes of a class's name in a file's
MOST_LABELS = 10**6


class Folder(NamedTuple):
    """Where pictures go.

    Attributes:
      out: the folder.
      sheets: by their names, the files beside it.
      clear: removes the older pictures; called when the new ones are there to be written.
    """

    out: Path
    sheets: dict[str, Path]
    clear: Callable[[], None]


def folder(out: Path, names: Sequence[str], overwrite: bool) -> Folder:
    """A folder for pictures of a model alone, and sheets beside it; nothing is written or removed yet.

    Args:
      out: the folder.
      names: of the sheets: OUT_grid.png and so on.
      overwrite: whether older pictures may go.

    Raises:
      UserError: a disk's root, or what `make_room` refuses.
    """
    return Folder(out, sheets(out, names), make_room(out, overwrite))


def sheets(out: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the sheets go: beside the folder, so that it holds pictures of a model alone.

    Raises:
      UserError: a disk's root, or a bucket's: there is nothing beside it.
    """
    from vargen import paths

    where = paths.absolute(out)
    if len(where.parts) < (4 if paths.is_remote(where) else 2):
        raise UserError(f"--out {out}: expected a folder of its own, found the root of all")
    return {name: where.parent / f"{where.name}_{name}.png" for name in names}


def make_room(out: Path, overwrite: bool) -> Callable[[], None]:
    """What clears older pictures of models out of a folder; all is checked now, and nothing removed yet.

    Raises:
      UserError: such pictures are there and not to be overwritten, or something that vargen didn't make.
    """
    from vargen import paths
    from vargen.report import pictures

    older = []
    for item in sorted(out.iterdir(), key=lambda p: p.name) if out.is_dir() else []:
        if item.name.startswith("."):
            continue  # the system's own
        picture = item.with_suffix(".png")
        known = item.suffix in (".png", *DECODED) and paths.is_file(item) and paths.is_file(picture)
        if not (known and pictures.settings(picture)):
            raise UserError(
                f"--out {out}: expected a new folder or one of vargen's pictures alone, found {item.name}"
            )
        older.append(item)
    if older and not overwrite:
        count = sum(item.suffix == ".png" for item in older)
        raise UserError(
            f"--out {out}: expected no pictures there, found {count}; --overwrite clears them, or name another "
            "--out"
        )

    def clear() -> None:
        for item in older:
            item.unlink(missing_ok=True)

    return clear


def stems(names: Mapping[int, str]) -> dict[int, str]:
    """What the files of each class begin with: its name as a file can have it, with its number while two are alike."""
    found = {label: _plain(name) for label, name in names.items()}
    while True:
        count = collections.Counter(map(spelling.folded, found.values()))
        alike = [label for label, stem in found.items() if count[spelling.folded(stem)] > 1]
        if not alike:
            return found
        found |= {label: f"{found[label]}_{label}" for label in alike}


def _plain(name: str) -> str:
    kept = "".join("_" if c in '/\\:*?"<>|' or ord(c) < 32 or ord(c) == 127 else c for c in name)
    data = kept.encode("utf-8", "surrogateescape")[:LONGEST]
    kept = data.decode("utf-8", "ignore").strip(" .")
    return kept or "class"


def ranges(numbers: Sequence[int]) -> str:
    """Whole numbers as text: [0, 1, 2, 7] is "0-2,7"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1][1:] = [n]
        else:
            runs.append([n])
    return ",".join("-".join(map(str, run)) for run in runs)


def _from_ranges(text: str) -> Iterable[int]:
    for run in text.split(","):
        low, _, high = run.partition("-")
        first, last = int(low), int(high or low)
        if not 0 <= first <= last < MOST_LABELS:
            raise ValueError(text)
        yield from range(first, last + 1)


def like(text: str) -> dict[str, Any]:
    """The settings inside a picture that `vargen sample` drew, as it takes them.

    Returns:
      model, workdir, weights: str; steps: those of `Model`; labels: list of int; count, batch_size, index, resize,
      seed: int; sampling: fields of `schema.Sampling`.

    Raises:
      UserError: no such picture, one without settings, or with broken ones.
    """
    from vargen import paths
    from vargen.report import pictures

    file = paths.path(text, "--like")
    if not paths.is_file(file):
        raise UserError(f"--like {file}: expected a picture of `vargen sample`, found none")
    found = pictures.settings(file)
    if not found:
        raise UserError(
            f"--like {file}: expected a picture of `vargen sample`, found no settings of vargen in it"
        )
    try:
        data = json.loads(found)
        whole = dict(
            count=(1, 10**6), batch_size=(1, 10**6), index=(0, 10**7), resize=(0, schema.LARGEST_IMAGE)
        )
        made: dict[str, Any] = {k: _whole(data[k], *bounds) for k, bounds in whole.items()}
        made["seed"] = _whole(data["seed"], 0, 2**64 - 1)
        made["labels"] = list(_from_ranges(data["labels"]))
        if made["index"] >= made["count"] * len(made["labels"]):
            raise ValueError("index")
        limits.check(limits.fields(schema.Sampling), data["sampling"], "")
        made.update(sampling=data["sampling"], workdir=str(data["workdir"]), model=str(data["model"]))
        if levels := made["sampling"].get("levels"):
            made["sampling"]["levels"] = tuple(x if isinstance(x, int) else (x[0], x[1]) for x in levels)
        made["steps"] = tuple(data["steps"])
        if (weights := data.get("weights", "full")) not in schema.WEIGHTS:  # older pictures don't say it
            raise ValueError(f"weights {weights!r:.40}")
        made["weights"] = weights
    except KeyError as error:
        what = "a sheet, or decoded codes" if "count" not in data else f"no {error}"
        raise UserError(f"--like {file}: expected a picture that was drawn alone, found {what}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"--like {file}: expected the settings of a picture, found broken ones ({error})"
        ) from error
    return made


def model_of(picture: str, stored: str) -> str:
    """Where the model of a picture is now: where it was, seen from here or a folder above the picture, or that folder.

    Args:
      picture: as `like` takes it.
      stored: the workdir in its settings.

    Raises:
      UserError: at none of these.
    """
    from vargen import hub, paths

    if hub.is_hub(stored):
        return stored
    was = paths.path(stored, "workdir")
    above = paths.absolute(picture, "--like").parents
    for place in (was, *(p for folder in above for p in (folder / was, folder))):
        if (place / "tokenizer").is_dir():
            if place != was:
                print(f"the model of {picture} is taken from {place}", flush=True)
            return os.fspath(place)
    raise UserError(
        f"--like {picture}: expected its model in {stored} or a folder above the picture, found none; --workdir says "
        "where the model is now"
    )


def _whole(value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is not from {low} to {high}")
    return value


def common_settings(model: Any, workdir: str | os.PathLike, **more: Any) -> dict[str, Any]:
    """What every picture of a model says of it, and more."""
    own = dict(model=model.config.name, workdir=os.fspath(workdir), steps=list(model.steps))
    return own | dict(weights=model.weights) | more
