"""What a workdir was trained with, and which fields of its config may change when it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vargen import paths
from vargen.errors import UserError
from vargen.training import checkpoints

# What doesn't change what is trained: how long, what is said and kept about it, where it runs, how it is measured and
# sampled, where the pictures lie (they move; their classes stay, `common.check_classes`), and how many broken files
# stop it. `*` stands for tokenizer_training and training. Any other field stays as it was.
FREE = frozenset(
    "name compute_dtype sampling presets evaluation data.path data.skip_broken "
    "*.steps *.log_every *.save_every *.keep *.validate_every *.image_every *.remat *.scan_layers *.mesh".split()
)
STAGES = dict(tokenizer="tokenizer_training", generator="training")
# A tokenizer doesn't depend on these.
GENERATOR_ALONE = frozenset("order feed mixer head conditioning model training".split())
CODES_ALONE = frozenset(("training.codes", "training.augmented_copies"))
# And one that was copied from another workdir, however and on whatever it was trained there, on more than these.
COPIED = ("tokenizer.", "data.image_size", "data.frames", "data.channels")


def trained_config(directory: paths.PathLike) -> Any:
    """The config in a stage's newest readable checkpoint (`WORKDIR/tokenizer`); None where nothing is trained."""
    from vargen import config

    folder = paths.path(directory) / checkpoints.FOLDER
    for step in reversed(checkpoints.saved_steps(folder)):
        try:
            return config.from_json((folder / str(step) / checkpoints.CONFIG).read_text())
        except (OSError, ValueError):  # damaged: an earlier one knows as well
            continue
    return None


def check(c: Any, workdir: paths.PathLike) -> None:
    """Checks that what a workdir holds was trained with this config, but for the fields that are free.

    Args:
      c: the config asked for, `data.num_classes` filled in.
      workdir: of a run; there may be none yet.

    Raises:
      UserError: a field differs: its name, both values, and what to do.
    """
    workdir = paths.path(workdir)
    for stage in STAGES:
        trained = trained_config(workdir / stage)
        if trained is None:
            continue
        copied = stage == "tokenizer" and paths.is_file(workdir / stage / checkpoints.ORIGIN)
        for field, was, asked in differences(trained, c):
            if not (is_free(field, stage) or (copied and not field.startswith(COPIED))):
                raise UserError(
                    f"config field {field}: the {stage} in {workdir} was trained with {_text(was)}, found "
                    f"{_text(asked)}; take another --workdir, or set it back"
                )
        if not copied:
            _check_steps(workdir, stage, c)


def _check_steps(workdir: Any, stage: str, c: Any) -> None:
    """Steps may grow, not fall under what was done; a tokenizer's not once a generator was trained on its codes."""
    group = STAGES[stage]
    done, asked = checkpoints.saved_steps(workdir / stage / checkpoints.FOLDER)[-1], c[group].steps
    if asked < done:
        raise UserError(
            f"config field {group}.steps: the {stage} in {workdir} was trained for {done} steps, found {asked}; "
            f"expected at least {done}"
        )
    # Not the tokenizer's own checkpoints: the last of them may be damaged, and is redone then.
    generator = trained_config(workdir / "generator") if stage == "tokenizer" else None
    if generator is not None and asked != (of := generator[group].steps):
        raise UserError(
            f"config field {group}.steps: the generator in {workdir} was trained on a tokenizer of {of} steps, "
            f"found {asked}; take another --workdir, or set it back"
        )


def is_free(field: str, stage: str) -> bool:
    """Whether a field may change in a workdir whose `stage` has been trained."""
    group, _, rest = field.partition(".")
    if stage == "tokenizer" and (group in GENERATOR_ALONE or field in CODES_ALONE):
        return True
    first = f"{group}.{rest.partition('.')[0]}"
    star = f"*.{rest.partition('.')[0]}" if group in STAGES.values() else ""
    return bool(FREE & {group, first, star})


def differences(trained: Any, asked: Any) -> Iterator[tuple[str, Any, Any]]:
    """(field, value trained with, value asked for) of every field of two configs that differs; "none" where absent."""
    was, now = (dict(_leaves(json.loads(json.dumps(c.to_dict())))) for c in (trained, asked))
    for field in sorted(was.keys() | now.keys()):
        a, b = was.get(field, "none"), now.get(field, "none")
        if a != b:
            yield field, a, b


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if value == "none" else json.dumps(value)
