"""Rows made from what fields declare: of every one, values of another type and just outside its range."""

import math
import shlex
import typing

from runner import Row

from vargen import limits, schema
from vargen.heads import HEADS
from vargen.mixers import MIXERS
from vargen.tokenizers import TOKENIZERS


def outside(kind, limit) -> list[str]:
    """Values that a field of a type and a limit can't hold: of another type, and just outside its range."""
    plain = {k for k in (bool, int, float) if k is kind or k in typing.get_args(kind)}
    if isinstance(limit, limits.OneOf):
        return [f"{limit.words[0]}q", "0"]
    if bool in plain:
        return ["maybe", "2"]
    if not isinstance(limit, limits.Between) or not plain:
        return []
    values = ["nan"]
    if limit.low > -math.inf:
        values.append(str(limit.low if limit.above else limit.low - 1))
    if limit.high < math.inf:
        values.append(str(limit.high if limit.below else limit.high + 1))
    return values


def ranges(group: str, fields: dict, config: str) -> list[Row]:
    """Rows for every field of a group, or of a part, as it declares them itself."""
    return [
        Row(
            f"train --config {config} --workdir {{tmp}}/w {shlex.quote(f'--config.{group}.{name}={value}')}",
            (f"{group}.{name}",),
        )
        for name, field in fields.items()
        for value in outside(field.kind, field.limit)
    ]


def options(part, *left_out: str) -> dict:
    return {k: v for k, v in limits.fields(part).items() if k not in left_out}


RANGES = [
    row for group, fields in schema.GROUPS.items() for row in ranges(group, limits.fields(fields), "{config}")
]
GIVEN = (
    "width",
    "grid",
    "initial",
    "kernel_init",
    "out_init",
    "dtype",
)  # by the model, where not the head's
RANGES += ranges("head", options(HEADS["diffusion"], *GIVEN[1:]), "{root}/configs/mar.py:digits")
RANGES += ranges("mixer", options(MIXERS["attention"], *GIVEN), "{root}/configs/llamagen.py:digits")
RANGES += ranges(
    "tokenizer",
    options(TOKENIZERS["vq"], "image_channels", "latent_channels", "dtype"),
    "{root}/configs/rar.py:digits",
)
RANGES += ranges(
    "tokenizer",
    options(TOKENIZERS["jpeg"], "image_size", "image_channels"),
    "{root}/configs/jpeglm.py:digits",
)
