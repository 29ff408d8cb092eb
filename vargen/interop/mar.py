"""MAR's transformer and denoiser (LTH14/mar): the authors' parameter names beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from vargen.interop import mapping as m


def table(layers: int, depth: int) -> list[m.Entry]:
    """Entries for `layers` blocks in each of encoder and decoder, and a denoiser of `depth` blocks."""

    def stack(ours: str, theirs: str) -> list[m.Entry]:
        def block(i: int) -> list[m.Entry]:
            b = f"{theirs}_blocks.{i}"
            entries = []
            for j, name in enumerate(("query", "key", "value")):
                for kind in ("kernel", "bias"):
                    theirs_kind = "weight" if kind == "kernel" else kind
                    source = f"{b}.attn.qkv.{theirs_kind}"
                    entries += m.array(f"{ours}/mixer/{name}/{kind}", source, m.third(j))
            entries += m.dense(f"{ours}/mixer/out", f"{b}.attn.proj")
            entries += m.dense(f"{ours}/feed_forward/up", f"{b}.mlp.fc1")
            entries += m.dense(f"{ours}/feed_forward/down", f"{b}.mlp.fc2")
            return entries + m.norm(f"{ours}/norm_1", f"{b}.norm1") + m.norm(f"{ours}/norm_2", f"{b}.norm2")

        return m.stacked(layers, block) + m.norm(f"{ours}_norm/norm", f"{theirs}_norm")

    # The condition that stands for no class is an array of its own.
    entries = [
        m.Entry(
            "condition/classes/table",
            ("class_emb.weight", "fake_latent"),
            lambda classes, none: np.concatenate([classes, none]),
        )
    ]
    entries += m.dense("feed/content/latents", "z_proj") + m.norm("feed/content_norm", "z_proj_ln")
    entries += m.array("feed/positions/table", "encoder_pos_embed_learned", lambda w: w[0])
    entries += m.array("feed/decoder_positions/table", "decoder_pos_embed_learned", lambda w: w[0])
    entries += m.array("feed/targets/table", "diffusion_pos_embed_learned", lambda w: w[0])
    entries += m.array("feed/mask", "mask_token", lambda w: w[0])
    entries += m.dense("feed/bridge", "decoder_embed")
    entries += stack("encoder", "encoder") + stack("decoder", "decoder")
    net, ours = "diffloss.net", "head/denoiser"
    entries += m.dense(f"{ours}/time_1", f"{net}.time_embed.mlp.0")
    entries += m.dense(f"{ours}/time_2", f"{net}.time_embed.mlp.2")
    entries += m.dense(f"{ours}/hidden", f"{net}.cond_embed")
    entries += m.dense(f"{ours}/content", f"{net}.input_proj")
    for i in range(depth):
        b = f"{net}.res_blocks.{i}"
        entries += m.norm(f"{ours}/norm_{i}", f"{b}.in_ln")
        entries += m.dense(f"{ours}/inner_{i}", f"{b}.mlp.0")
        entries += m.dense(f"{ours}/outer_{i}", f"{b}.mlp.2")
        entries += m.dense(f"{ours}/modulation_{i}", f"{b}.adaLN_modulation.1")
    entries += m.dense(f"{ours}/modulation_out", f"{net}.final_layer.adaLN_modulation.1")
    return entries + m.dense(f"{ours}/out", f"{net}.final_layer.linear")


def from_torch(arrays: Mapping[str, np.ndarray], generator: Any) -> dict:
    """Parameters of `generator` from the authors' arrays.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape.
    """
    like = nn.meta.unbox(jax.eval_shape(generator.init_boxed, jax.random.key(0)))
    return m.apply(table(generator.layers, generator.head.depth), arrays, like, what="MAR")
