"""FlexVAR's transformer (jiaosiyu1999/FlexVAR, FlexVARd16-epo179.pth ...): VAR's names, but for the positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.interop import mapping as m
from vargen.interop import shapes, var

WHAT = "FlexVAR"
IGNORED = var.IGNORED
WRAPPED = ()
TRAINED = tuple(range(1, 17))  # sides of the levels that training draws from, which no array tells
USUAL = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
# The authors' sets of levels by the number of steps (evaluate.py); fifteen for 512 pixels.
STEPS = {
    6: (1, 2, 4, 6, 10, 16),
    8: (1, 2, 3, 5, 7, 10, 13, 16),
    9: (1, 2, 3, 4, 5, 7, 10, 13, 16),
    10: USUAL,
    11: (1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 16),
    12: (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16),
    13: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16),
    14: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16),
    15: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 23, 32),
}


def levels(arrays: Mapping[str, Any]) -> tuple[int, ...]:
    """Sides of the levels, as the authors trained."""
    return TRAINED


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; heads are told by the arrays."""
    side = shapes.shape(arrays, "pos_1LC", WHAT)[2]
    var.fill(c, arrays, heads)
    c.name = f"FlexVAR-d{c.model.layers}"
    c.order = part(
        "some_levels",
        groups=((2, 1, 2), (5, 3, 10), (2, 11, 15), (1, 16, 16)),
        usual=USUAL,
        usual_share=0.05,
        thinning=(0.1, 0.05, 0.02, 0.01),
        most=680,
    )
    c.feed = part("refine", places="table", **({} if side == 32 else dict(side=side)))
    best: dict[str, Any] = dict(
        guidance=2.5,
        guidance_schedule="ramp",
        guidance_rise=9,
        guidance_side=16,
        top_k=900,
        top_p=0.95,
        random_sides=USUAL,
    )
    c.sampling.update(best | dict(levels=USUAL))
    c.presets = ConfigDict(dict(paper=preset(count=50, **best, levels=USUAL)))
    for steps, sides in STEPS.items():
        guidance = 2.5 if sides[-1] == 16 else 3.0
        c.presets[f"steps{steps}"] = preset(**best | dict(guidance=guidance, levels=sides))


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    form = m.Form(lambda w: w[0].transpose(1, 2, 0), lambda w: w.transpose(2, 0, 1)[None])
    entries = var.shared(generator) + m.array("feed/positions", "pos_1LC", form)
    # The mask of the last set that training drew, which their loader makes anew.
    level = np.repeat(np.arange(len(USUAL)), np.square(USUAL))
    return entries + m.buffer("attn_bias_for_masking", lambda: var.mask(level))
