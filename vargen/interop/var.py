"""VAR's transformer (FoundationVision/VAR): the authors' parameter names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from vargen.interop import mapping as m

# Buffers of the authors' module that are no parameters.
IGNORED = ("lvl_1L", "attn_bias_for_masking", "*.zero_k_bias", "vae_proxy.*", "vae_quant_proxy.*")


def table(layers: int, adaptive: str, l2_norm: bool) -> list[m.Entry]:
    """Entries for a generator of `layers` blocks with modulation "adaln" or "shared"."""

    def block(i: int) -> list[m.Entry]:
        b = f"blocks.{i}"
        entries = []
        for j, name in enumerate(("query", "key", "value")):
            entries += m.array(f"blocks/mixer/{name}/kernel", f"{b}.attn.mat_qkv.weight", m.third(j))
        entries += m.array("blocks/mixer/query/bias", f"{b}.attn.q_bias")
        entries += m.array("blocks/mixer/value/bias", f"{b}.attn.v_bias")
        if l2_norm:
            entries += m.array("blocks/mixer/log_scale", f"{b}.attn.scale_mul_1H11", np.ravel)
        entries += m.dense("blocks/mixer/out", f"{b}.attn.proj")
        entries += m.dense("blocks/feed_forward/up", f"{b}.ffn.fc1")
        entries += m.dense("blocks/feed_forward/down", f"{b}.ffn.fc2")
        if adaptive == "shared":
            return entries + m.array("blocks/offset", f"{b}.ada_gss", lambda w: w[0, 0])
        return entries + m.dense("blocks/modulation", f"{b}.ada_lin.1")

    entries = m.array("condition/classes/table", "class_emb.weight")
    entries += m.array("feed/first", "pos_start", lambda w: w[0])
    entries += m.array("feed/positions/table", "pos_1LC", lambda w: w[0])
    entries += m.array("feed/levels/table", "lvl_embed.weight")
    entries += m.dense("feed/content/latents", "word_embed")
    entries += m.stacked(layers, block)
    entries += m.dense("blocks_norm/modulation", "head_nm.ada_lin.1")
    entries += m.dense("head/out", "head")
    if adaptive == "shared":
        entries += m.dense("modulation/map", "shared_ada_lin.1")
    return entries


def from_torch(arrays: Mapping[str, np.ndarray], generator: Any) -> dict:
    """Parameters of `generator` from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = nn.meta.unbox(jax.eval_shape(generator.init_boxed, jax.random.key(0)))
    block = generator.block
    entries = table(generator.layers, block.adaptive, block.mixer.qk_norm == "l2")
    return m.apply(entries, arrays, like, ignore=IGNORED, what="VAR")
