"""D-AR's transformers (showlab/D-AR, D-AR-L-360K.pt, D-AR-XL-360K.pt): LlamaGen's, whose rotary positions are those of
the sequence, the class's row being the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import preset
from vargen.interop import llamagen, shapes

WHAT = "D-AR"
IGNORED, WRAPPED = llamagen.IGNORED, llamagen.WRAPPED
# By width: the name, and the guidance of the FID, first and last; of L alone it stands in their script.
SIZES = {1024: ("L", 1.2, 8.0), 1280: ("XL", 1.2, 8.0)}

levels, table = llamagen.levels, llamagen.table


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; `heads` where the authors' rule isn't followed."""
    llamagen.fill(c, arrays, heads)
    width = shapes.shape(arrays, "norm.weight", WHAT)[0]
    name, first, last = SIZES.get(width, (str(width), 1.2, 8.0))
    c.name, c.mixer.rope = f"D-AR-{name}", "sequence"
    best = rising(first, last, 256)
    c.sampling.update(best)
    c.presets.paper = preset(count=50, labels="random", **best)
    c.presets.demo = preset(guidance=4.0, guidance_schedule="constant")


def rising(first: float, last: float, tokens: int) -> dict[str, Any]:
    """Guidance that rises evenly from the first of so many tokens to the last, as settings of sampling."""
    # By the share of tokens before each, of which the last is (N - 1) / N.
    guidance = first + (last - first) * tokens / (tokens - 1)
    return dict(guidance=guidance, guidance_schedule="linear_before", guidance_start=first)
