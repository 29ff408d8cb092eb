"""LlamaGen's transformer (FoundationVision/LlamaGen): the authors' parameter names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from vargen.interop import mapping as m

IGNORED = ("freqs_cis", "causal_mask", "*.kv_cache.*")


def table(layers: int, query: int, key: int) -> list[m.Entry]:
    """Entries for `layers` blocks, with projections of `query` and `key` features."""
    bounds = np.cumsum([0, query, key, key])

    def block(i: int) -> list[m.Entry]:
        b = f"layers.{i}"
        entries = []
        for j, name in enumerate(("query", "key", "value")):
            low, high = bounds[j : j + 2]
            entries += m.array(
                f"blocks/mixer/{name}/kernel",
                f"{b}.attention.wqkv.weight",
                lambda w, low=low, high=high: m.dense_kernel(w[low:high]),
            )
        entries += m.dense("blocks/mixer/out", f"{b}.attention.wo", bias=False)
        for ours, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            entries += m.dense(f"blocks/feed_forward/{ours}", f"{b}.feed_forward.{theirs}", bias=False)
        entries += m.norm("blocks/norm_1", f"{b}.attention_norm", bias=False)
        return entries + m.norm("blocks/norm_2", f"{b}.ffn_norm", bias=False)

    entries = m.array("condition/classes/table", "cls_embedding.embedding_table.weight")
    entries += m.array("feed/content/codes/table", "tok_embeddings.weight")
    entries += m.stacked(layers, block)
    entries += m.norm("blocks_norm/norm", "norm", bias=False)
    return entries + m.dense("head/out", "output", bias=False)


def from_torch(arrays: Mapping[str, np.ndarray], generator: Any) -> dict:
    """Parameters of `generator` from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = nn.meta.unbox(jax.eval_shape(generator.init_boxed, jax.random.key(0)))
    mixer = generator.block.mixer
    groups = mixer.kv_heads or mixer.heads
    entries = table(generator.layers, mixer.heads * mixer.head_dim, groups * mixer.head_dim)
    return m.apply(entries, arrays, like, ignore=IGNORED, what="LlamaGen")
