"""Orthus' transformer and both heads, Chameleon in transformers' layout (SJTU-Deng-Lab/Orthus-7B-base and -instruct):
the authors' parameter names beside ours.

Carried over is what the model makes of a prompt: the picture behind it, and the likelihood of the prompt's own numbers.
The embedding's rows that stand for codes of pictures are those that latents are mixtures of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import images, part
from vargen.interop import llama, mar, shapes
from vargen.interop import mapping as m

WHAT = "Orthus"
IGNORED = ("model.vqmodel.*", "model.layers.*.self_attn.rotary_emb.inv_freq")  # of the same files
WRAPPED = ()
TOLD = "config.json"  # beside the file: what its arrays don't tell
EMBEDDING, CODES = "model.embed_tokens.weight", "model.codebook_in.weight"
# In the authors' program: the number of the first code of pictures, that which begins a picture, the padding, and those
# of a prompt without words, which begins with <s> and ends where the answer follows.
FIRST, BEGIN, PAD, EMPTY = 4, 8197, 1, (0, 8710)
SAID = dict(
    model_type=("chameleon", None),
    hidden_act=("silu", "silu"),
    rope_theta=(10000.0, 10000.0),
    rope_scaling=(None, None),
    swin_norm=(False, False),
)


def levels(arrays: Mapping[str, Any]) -> None:
    """The arrays don't tell how many slots there are: positions are rotary."""


def image_size(arrays: Mapping[str, Any]) -> int:
    """Chameleon's."""
    return 512


def told(config: Mapping[str, Any]) -> tuple[int, float]:
    """Heads, and the norms' epsilon, of the file beside the weights; errors as of `llama.told`."""
    return llama.told(config, SAID, 1e-5, f"{WHAT}: {TOLD}")


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; heads are 128 wide where none are given.

    Raises:
      UserError: latents of other channels than the tokenizer's.
    """
    vocab, width = shapes.pair(arrays, EMBEDDING, WHAT)
    inner = shapes.from_latents(arrays, "mlp_head.input_proj.weight", c.tokenizer.channels, WHAT)
    c.name = "Orthus-7B" if width == 4096 else f"Orthus-{width}"
    c.data = images("folder", c.data.image_size, 3, 0)
    c.conditioning = part("prompt", numbers=vocab, tokens=1024, pad=PAD, begin=BEGIN, empty=EMPTY)
    c.order = part("segments", sequences=((0, 1),))
    c.feed = part("shift", soft_codes=shapes.shape(arrays, CODES, WHAT)[0], soft_scale=10.0)
    norms = dict(qk_norm="layer", norm_each=True, eps=1e-5)
    c.mixer, c.model = llama.parts(arrays, heads, WHAT, **norms)
    words = part("categorical", bias=False, init_std=0.02)
    depth = shapes.count(arrays, "mlp_head.res_blocks.{}.in_ln.weight", WHAT)
    patches = part("v_diffusion", depth=depth, width=inner, sample_steps=100, repeat=8)
    c.head = part("segments", heads=dict(text=words, picture=patches), weights=(1.0, 100.0))
    c.sampling.update(dict(guidance=5.0))


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    codes = slice(FIRST, FIRST + generator.feed.soft_codes)

    def read(rows: np.ndarray) -> m.Arrays:
        words = np.array(rows)
        words[codes] = 0
        return words, rows[codes]

    def write(words: np.ndarray, mixed: np.ndarray) -> m.Arrays:
        rows = np.array(words)
        rows[codes] = mixed
        return (rows,)

    ours = "feed/content/text/codes/table", "feed/content/picture/table"
    entries = [m.Entry(ours, (EMBEDDING,), read, write)]
    entries += m.array("feed/content/picture/codes", CODES)
    entries += m.constant("condition/start", lambda: np.zeros((1, generator.width), np.float32))
    entries += llama.blocks(generator.stages[0])
    entries += m.norm("blocks_norm/norm", "model.norm", bias=False)
    entries += m.dense("head/heads_text/out", "lm_head", bias=False)
    depth = generator.head.heads["picture"].depth
    return entries + mar.denoiser("head/heads_picture/denoiser", "mlp_head", depth)
