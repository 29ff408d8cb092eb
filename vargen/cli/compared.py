"""The systems of one comparison: their configs on the same data, and the tokenizers that they share."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vargen.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# What must be equal for numbers to say anything beside each other.
SAME = (
    *(
        "data.source",
        "data.path",
        "data.dataset",
        "data.image_size",
        "data.frames",
        "data.channels",
        "data.num_classes",
    ),
    *("data.test_fraction", "evaluation.samples", "evaluation.seed"),
)
DATA = ("source", "path", "dataset", "num_classes")  # what --data replaces


@dataclasses.dataclass
class System:
    """One of those compared.

    Attributes:
      name: of folders, tables and messages.
      text: the config as the command line named it.
      config: with the data that all have, and the tokenizer that it takes.
      tokenizer: the name of the system whose tokenizer it takes; its own name where it trains one.
      shared: why it takes another's: "equal settings" or "--share-tokenizer"; "" where it doesn't.
      apart: why it doesn't, where --share-tokenizer asked for it.
    """

    name: str
    text: str
    config: ConfigDict
    tokenizer: str = ""
    shared: str = ""
    apart: str = ""


def read(
    texts: Sequence[str],
    overrides: Iterable[tuple[str, Any]],
    source: str | None,
    known: Mapping[str, str] = MappingProxyType({}),
) -> list[System]:
    """The configs that the command line names, with the same data.

    Args:
      texts: as of `config.load`.
      overrides: for all of them.
      source: `data.source` in the place of theirs, with all the classes that it has; None: theirs.
      known: name -> text of those that a plan has: they keep their names and come first, in its order, so that what
        they share stays as it was, whatever is added.

    Raises:
      UserError: a config that can't be read, one that is there twice, or two that differ in their data.
    """
    from vargen import config

    overrides = list(overrides)
    if source is not None:
        given = {field for field, _ in overrides}
        own = dict(zip(DATA, (source, "", "", "0"), strict=True))
        replaced = [(f"data.{k}", v) for k, v in own.items() if f"data.{k}" not in given]
        overrides = [*replaced, *overrides]
    place = {text: i for i, text in enumerate(known.values())}
    texts = sorted(texts, key=lambda text: place.get(text, len(place)))
    systems = [
        System(name, text, config.load(text, overrides))
        for name, text in zip(names(texts, known), texts, strict=True)
    ]
    for i, one in enumerate(systems):
        for other in systems[:i]:
            if _told(one.config) == _told(other.config):
                raise UserError(
                    f"compare: expected each config once, found {other.text} and {one.text}, which are equal"
                )
    check_same(systems)
    return systems


def names(texts: Sequence[str], known: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """A name for each config: its file's; with its size, where files are alike; with a number, where that won't do.

    Those of `known`, name -> text, have theirs.
    """
    given = {text: name for name, text in known.items()}
    plain, sized = [], []
    for text in texts:
        file, _, size = text.rpartition(":") if not os.path.exists(text) and ":" in text else (text, "", "")
        path = pathlib.PurePath(file)
        stem = path.parent.name or path.stem if path.name == "config.json" else path.stem
        plain.append(stem)
        sized.append(f"{stem}-{size}" if size else stem)
    found: list[str] = []
    for text, short, long in zip(texts, plain, sized, strict=True):
        name = short if plain.count(short) == 1 else long
        number = 2
        while name in found or name in known:
            name, number = f"{long}-{number}", number + 1
        found.append(given.get(text, name))
    return found


def check_same(systems: Sequence[System]) -> None:
    """Raises UserError where two systems have other data, or would be measured otherwise: which, and the field."""
    from vargen.training import resume

    first = systems[0]
    differ = [{f: x for f, *x in resume.differences(first.config, other.config)} for other in systems[1:]]
    for field in SAME:
        for other, found in zip(systems[1:], differ, strict=True):
            a, b = found.get(field, (None, None))
            if a != b and not (field == "data.num_classes" and 0 in (a, b)):
                raise UserError(
                    f"compare: expected one {field} for all, found {a!r} in {first.text} and {b!r} in {other.text}; "
                    f"--config.{field}=... sets it for all"
                )


def share(systems: Sequence[System], asked: bool, check: Any) -> None:
    """Fills in whose tokenizer each system takes: of equal ones the first's.

    Args:
      systems: in the order of the command line; their configs take over what they share.
      asked: whether also of others, where a generator can be built over them (--share-tokenizer).
      check: config -> None, raises UserError where its parts don't fit each other.
    """
    for i, system in enumerate(systems):
        system.tokenizer = system.name
        owners = [s for s in systems[:i] if s.tokenizer == s.name]
        for owner in owners:
            if _tokenizer(owner.config) == _tokenizer(system.config):
                system.tokenizer, system.shared = owner.name, "equal settings"
                break
        else:
            for owner in owners if asked else ():
                taken = over(system.config, owner.config)
                if contents(taken) != contents(system.config):
                    system.apart = system.apart or "no other has contents of its kind"
                    continue
                try:
                    check(taken)
                except UserError as error:
                    system.apart = str(error)
                    continue
                system.config, system.tokenizer = taken, owner.name
                system.shared, system.apart = "--share-tokenizer", ""
                break


def over(config: ConfigDict, owner: ConfigDict) -> ConfigDict:
    """A config with the tokenizer of another, and how that is trained."""
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        config.tokenizer = owner.tokenizer.copy_and_resolve_references()
        config.tokenizer_training = owner.tokenizer_training.copy_and_resolve_references()
    return config


def contents(config: ConfigDict) -> tuple:
    """Of what kind the contents of a config's tokenizer are: systems of other kinds can't share it."""
    from vargen.models import build_tokenizer

    t = build_tokenizer(config)
    coded = t.slot.kind, len(t.slot.shape), t.slot.stop is None, t.slot.coded > 0
    return *coded, len(t.grid.levels) > 1, t.lies


def _tokenizer(config: ConfigDict) -> Any:
    """All that a trained tokenizer depends on, but for its number of updates, which the budget says."""
    told = _told(config)
    training = {k: v for k, v in told["tokenizer_training"].items() if k != "steps"}
    return told["tokenizer"], training, told["data"]


def _told(config: ConfigDict) -> Any:
    return {k: v for k, v in plain(config).items() if k not in ("name", "presets")}


def plain(config: ConfigDict) -> Any:
    """A config as JSON has it."""
    from vargen.config import to_json

    return json.loads(to_json(config))


def trained(config: ConfigDict, tokenizer: int, generator: int) -> ConfigDict:
    """A config with so many updates of each, of which the learning rate rises for at most a tenth."""
    c = config.copy_and_resolve_references()
    for group, count in ((c.tokenizer_training, tokenizer), (c.training, generator)):
        group.steps = count
        group.warmup_steps = min(group.warmup_steps, count // 10)
    return c


def write(file: pathlib.Path, config: ConfigDict) -> None:
    """A config as a file for --config."""
    from vargen import paths
    from vargen.config import to_json

    paths.write_text(file, to_json(config))
