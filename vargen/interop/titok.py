"""TiTok's generator (bytedance/1d-tokenizer, generator_titok_l32.bin, generator_titok_b64.bin): names beside ours.

That of S-128 is a U-ViT, whose later blocks take what the earlier ones gave too; no part here does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "TiTok"
IGNORED = ("model.embeddings.position_ids",)
WRAPPED = ()
WORDS, PLACES, KINDS = (
    f"model.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")
)
LAYER = "model.encoder.layer.{}."
HEADS = 16  # of both published sizes, 768 wide
SOFTNESS = (1.3, 0.5)  # in their sampling script
# By the tokens: name, noise of the choice, guidance, as their sampler has it, on top of 1.
SIZES = {32: ("L-32", 9.5, 4.5), 64: ("B-64", 11.0, 3.0)}


def levels(arrays: Mapping[str, Any]) -> None:
    """None: tokens are of no grid."""
    return


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config.

    Raises:
      UserError: heads that don't divide the width, fewer words than the tokenizer's codes and the others.
    """
    words, width = shapes.pair(arrays, WORDS, WHAT)
    classes = words - c.tokenizer.vocab - 2
    if classes < 1:
        raise UserError(
            f"{WHAT}: expected more words than the tokenizer's {c.tokenizer.vocab} codes, found {words}"
        )
    tokens = shapes.shape(arrays, PLACES, WHAT)[0] - 1
    name, noise, guidance = SIZES.get(tokens, (str(tokens), *SIZES[32][1:]))
    c.name = f"TiTok-{name}"
    c.data.num_classes = classes
    c.conditioning = part("label", dropout=0.1)
    c.order = part(
        "confidence",
        steps=min(8, tokens),
        curve="arccos",
        noise=noise,
        masks="rounded",
        by="logit",
        softness=SOFTNESS,
    )
    c.feed = part(
        "mask",
        encoder_decoder=False,
        buffer=1,
        eps=1e-12,
        target_positions=False,
        known_weight=0.1,
        dropout=0.1,
    )
    heads = shapes.heads(width, heads, HEADS, WHAT)
    c.mixer = part("attention", heads=heads, bias="qkv", dropout=0.1, weight_dropout=0.1)
    c.head = part("categorical", label_smoothing=0.1)
    c.model = dict(
        layers=shapes.count(arrays, LAYER + "output.dense.weight", WHAT),
        width=width,
        mlp="gelu",
        mlp_width=shapes.shape(arrays, LAYER.format(0) + "output.dense.weight", WHAT)[1],
        norm_position="post",
        eps=1e-12,
        dropout=0.1,
    )
    # Theirs grows by w / T with each of T steps, the ramp by t / (T - 1).
    t = guidance * (1 - 1 / c.order.steps)
    c.presets.paper = preset(count=50, guidance=t, guidance_schedule="ramp")


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    vocab = generator.tokenizer.vocab

    def layer(i: int) -> list[m.Entry]:
        b = LAYER.format(i)
        entries = []
        for name in ("query", "key", "value"):
            entries += m.dense(f"blocks/mixer/{name}", f"{b}attention.self.{name}")
        entries += m.dense("blocks/mixer/out", f"{b}attention.output.dense")
        entries += m.norm("blocks/norm_1", f"{b}attention.output.LayerNorm")
        entries += m.dense("blocks/feed_forward/up", f"{b}intermediate.dense")
        entries += m.dense("blocks/feed_forward/down", f"{b}output.dense")
        return entries + m.norm("blocks/norm_2", f"{b}output.LayerNorm")

    # Codes, the mask, classes and none: one table there, three here.
    entries = [
        m.Entry(
            ("feed/content/codes/table", "feed/mask", "condition/classes/table"),
            (WORDS,),
            lambda w: np.split(w, [vocab, vocab + 1]),
            lambda *w: (np.concatenate(w),),
        ),
        # Every row is of the first kind, and the second is for none.
        m.Entry(
            ("feed/positions/table",),
            (PLACES, KINDS),
            lambda places, kinds: (places + kinds[:1],),
            lambda w: (w, np.zeros_like(w, shape=(2, w.shape[1]))),
        ),
    ]
    entries += m.norm("feed/content_norm", "model.embeddings.LayerNorm")
    entries += m.stacked(generator.stages[0].layers, layer)
    return entries + m.dense("head/out", "model.lm_head")
