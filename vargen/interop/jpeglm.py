"""JPEG-LM's transformer, a Llama in transformers' layout (uwnlp/jpeg-lm-reimplementation, pytorch_model.bin): the
authors' parameter names beside ours.

Its authors call it a reimplementation of the paper's, other than that. <s> is a row of the embedding there and the
condition's row here, so that its place among the codes holds zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import images, part, preset
from vargen.interop import llama, shapes
from vargen.interop import mapping as m
from vargen.interop.jpeglm_tokenizer import START

WHAT = "JPEG-LM"
IGNORED = ("model.layers.*.self_attn.rotary_emb.inv_freq",)
WRAPPED = ()
TOLD = "config.json"  # beside the file: what its arrays don't tell
EMBEDDING = "model.embed_tokens.weight"
# What it must say, and what it means by saying nothing.
SAID = dict(
    model_type=("llama", None),
    hidden_act=("silu", "silu"),
    rope_theta=(10000.0, 10000.0),
    rope_scaling=(None, None),
    tie_word_embeddings=(False, False),
)


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def told(config: Mapping[str, Any]) -> tuple[int, float]:
    """Heads, and the norms' epsilon, of the file beside the weights; errors as of `llama.told`."""
    return llama.told(config, SAID, 1e-6, f"{WHAT}: {TOLD}")


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; heads are 128 wide where none are given."""
    vocab, width = shapes.pair(arrays, EMBEDDING, WHAT)
    c.name = "JPEG-LM-7B" if width == 4096 else f"JPEG-LM-{width}"
    c.data = images("folder", c.data.image_size, 3, 0)
    if pieces := c.tokenizer.get("pieces"):  # an embedding may have rows to spare
        c.tokenizer.pieces = (*pieces, *[""] * (vocab - len(pieces)))
    c.conditioning = part("label", dropout=1.0)
    c.order, c.feed = part("raster"), part("shift")
    c.mixer, c.model = llama.parts(arrays, heads, WHAT)
    c.head = part("categorical", bias=False)
    c.sampling.update(dict(top_k=50, top_p=0.9))
    c.presets.paper = preset(top_k=40, top_p=0.9)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""

    def read(rows: np.ndarray) -> m.Arrays:
        codes = np.array(rows)
        codes[START] = 0
        return codes, rows[START : START + 1]

    def write(codes: np.ndarray, start: np.ndarray) -> m.Arrays:
        rows = np.array(codes)
        rows[START] = start[0]
        return (rows,)

    ours = ("feed/content/codes/table", "condition/classes/table")
    entries = [m.Entry(ours, (EMBEDDING,), read, write)]
    entries += llama.blocks(generator.stages[0])
    entries += m.norm("blocks_norm/norm", "model.norm", bias=False)
    return entries + m.dense("head/out", "lm_head", bias=False)
