"""All parts by the place in a config where they may stand, and the options that a config may give them."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from vargen import limits
from vargen.conditioning import CONDITIONINGS
from vargen.feeds import FEEDS
from vargen.heads import HEADS
from vargen.mixers import MIXERS
from vargen.orders import ORDERS
from vargen.tokenizers import TOKENIZERS
from vargen.tokenizers.assembly import ENCODERS
from vargen.tokenizers.discriminators import DISCRIMINATORS
from vargen.tokenizers.reading import OUTER
from vargen.tokenizers.registers import DECODERS
from vargen.tokenizers.teachers import TEACHERS

PARTS: dict[str, Mapping[str, Callable]] = {
    "tokenizer": TOKENIZERS,
    "tokenizer.inner": TOKENIZERS,
    "tokenizer.outer": TOKENIZERS,
    "tokenizer.encoder": ENCODERS,
    "tokenizer.encoder.decoder": DECODERS,
    "tokenizer.encoder.decoder.pixels": OUTER,
    "tokenizer.encoder.stem": OUTER,
    "tokenizer.teacher": TEACHERS,
    "tokenizer_training.losses.teacher": TEACHERS,
    "order": ORDERS,
    "feed": FEEDS,
    "mixer": MIXERS,
    "head": HEADS,
    "head.mixer": MIXERS,
    "head.heads.pivots": HEADS,
    "head.heads.text": HEADS,
    "head.heads.picture": HEADS,
    "head.heads.codes": HEADS,
    "head.heads.numbers": HEADS,
    "conditioning": CONDITIONINGS,
    "tokenizer_training.losses.discriminator": DISCRIMINATORS,
}
# What the choice at each place answers, but for those within a head.
QUESTIONS = {
    "tokenizer": "what are the slots, and what is in each?",
    "tokenizer.encoder": "how do pixels become latents, and latents pixels?",
    "tokenizer.encoder.decoder": "what makes pixels of registers?",
    "tokenizer.teacher": "what frozen network says what pictures show?",
    "order": "which slots come together, in what sequence?",
    "feed": "how do known slots reach a prediction?",
    "mixer": "how do slots exchange information?",
    "head": "what distribution is over a slot, or a step's slots?",
    "conditioning": "what is known before the first slot?",
    "tokenizer_training.losses.discriminator": "what judges a tokenizer's pictures while it is trained?",
}
# What the assembly gives a part, and a config does not.
GIVEN = {
    "tokenizer": "image_size image_channels dtype",
    "tokenizer.encoder": "image_size image_channels latent_channels moments dtype",
    "tokenizer.inner": "image_size image_channels dtype",
    "tokenizer.outer": "image_size image_channels dtype",
    "tokenizer.encoder.decoder": "ends encoder",
    "tokenizer.encoder.decoder.pixels": "image_size image_channels latent_channels moments dtype",
    "tokenizer.encoder.stem": "image_size image_channels latent_channels moments dtype",
    "tokenizer.teacher": "place dtype",
    "tokenizer_training.losses.teacher": "place dtype",
    "order": "grid sizes",
    "feed": "tokenizer grid slot width initial most_known prefix heads kv_heads trained_side dtype",
    "mixer": "grid width kernel_init out_init dtype",
    "head": "tokenizer stage vocab channels segments initial dtype",
    "head.mixer": "grid width kernel_init out_init dtype",
    "head.heads.pivots": "tokenizer stage vocab channels segments initial dtype",
    "head.heads.text": "tokenizer stage vocab channels segments initial dtype",
    "head.heads.picture": "tokenizer stage vocab channels segments initial dtype",
    "head.heads.codes": "tokenizer stage vocab channels segments initial dtype",
    "head.heads.numbers": "tokenizer stage vocab channels segments initial dtype",
    "conditioning": "num_classes width initial dtype",
    "tokenizer_training.losses.discriminator": "",
}


def options(place: str, name: str) -> dict[str, limits.Field]:
    """The options of a part by name, as its constructor declares them.

    Args:
      place: one of `PARTS`.
      name: of a part that may stand there.
    """
    left_out = {"parent", "name", *GIVEN[place].split()}
    return {k: f for k, f in limits.fields(PARTS[place][name]).items() if k not in left_out}


def swapped(place: str, part: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part's settings with another part in its stead: its defaults, and the options that both know and may hold.

    Args:
      place: one of `PARTS`.
      part: the settings so far, `name` among them.
      name: of the other part; where there is no such part, the settings keep all options, and building them says so.
    """
    if name not in PARTS[place]:
        return {**part, "name": name}
    known = options(place, name)
    kept = {
        k: v
        for k, v in part.items()
        if k in known and not limits.problem_with(v, known[k].kind, known[k].limit)
    }
    return {"name": name, **kept}


def summary(place: str, name: str) -> str:
    """A part in one sentence: the first of its module where it stands there alone, else of its own."""
    homes = Counter(_home(constructor) for constructor in PARTS[place].values())
    constructor = PARTS[place][name]
    home = _home(constructor)
    text = sys.modules[home].__doc__ if homes[home] == 1 else inspect.getdoc(constructor)
    sentence = re.split(r"\.(?=\s|$)", " ".join((text or "").split()), maxsplit=1)[0]
    if sentence.startswith("The part"):  # and then of its options
        sentence = sentence.partition(";")[0]
    return re.sub(r'^The (part "\w+"|\w+ (feed|head)): ', "", sentence)


def _home(constructor: Callable) -> str:
    """The module that a part stands in: of a function that stands with its registry that of what it makes."""
    made = getattr(constructor, "__annotations__", {}).get("return")
    if made and sys.modules[constructor.__module__].__spec__.submodule_search_locations:  # a package
        return (
            vars(sys.modules[constructor.__module__])[made].__module__
            if isinstance(made, str)
            else made.__module__
        )
    return constructor.__module__
