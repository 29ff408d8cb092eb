"""TiTok's generators (bytedance/1d-tokenizer, generator_titok_l32.bin, ..._b64.bin, ..._s128.bin): names beside ours.

Those of L-32 and B-64 are BERTs, that of S-128 a U-ViT, whose later blocks take what the earlier ones gave too.
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
ALL, BESIDE = "embeddings.weight", "pos_embed"  # the U-ViT's words and places
FIRST, MIDDLE, LAST = "in_blocks.{}.", "mid_block.", "out_blocks.{}."
HEADS = 16  # of all published sizes
SOFTNESS = (1.3, 0.5)  # in their sampling script
# By the tokens: name, steps, noise of the choice, and guidance, of BERTs on top of 1, as their sampler has it.
SIZES = {32: ("L-32", 8, 9.5, 4.5), 64: ("B-64", 8, 11.0, 3.0), 128: ("S-128", 64, 2.8, 6.9)}


def levels(arrays: Mapping[str, Any]) -> None:
    """None: tokens are of no grid."""
    return


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config.

    Raises:
      UserError: heads that don't divide the width, fewer words than the tokenizer's codes and the others.
    """
    joined = BESIDE in arrays
    words, width = shapes.pair(arrays, ALL if joined else WORDS, WHAT)
    classes = words - c.tokenizer.vocab - 2
    if classes < 1:
        raise UserError(
            f"{WHAT}: expected more words than the tokenizer's {c.tokenizer.vocab} codes, found {words}"
        )
    tokens = (shapes.shape(arrays, BESIDE, WHAT)[1] if joined else shapes.shape(arrays, PLACES, WHAT)[0]) - 1
    name, steps, noise, guidance = SIZES.get(tokens, (str(tokens), *SIZES[128 if joined else 32][1:]))
    c.name = f"TiTok-{name}"
    c.data.num_classes = classes
    c.conditioning = part("label", dropout=0.1)
    c.order = part(
        "confidence",
        steps=min(steps, tokens),
        curve="arccos",
        noise=noise,
        masks="rounded",
        by="logit",
        softness=SOFTNESS,
    )
    c.feed = part("mask", encoder_decoder=False, buffer=1, target_positions=False, known_weight=0.1)
    heads = shapes.heads(width, heads, HEADS, WHAT)
    c.head = part("categorical", label_smoothing=0.1)
    c.model = dict(width=width, mlp="gelu")
    if joined:
        c.feed.norm = False
        c.mixer = part("attention", heads=heads)
        layers = 2 * shapes.count(arrays, f"{FIRST}norm1.weight", WHAT) + 1
        inner = shapes.shape(arrays, f"{MIDDLE}mlp.fc1.weight", WHAT)[0]
        c.model.update(dict(layers=layers, mlp_width=inner, eps=1e-5, skips=True))
        c.presets.paper = preset(count=50, guidance=guidance, guidance_schedule="cosine", guidance_power=3.0)
        return
    c.feed.update(dict(eps=1e-12, dropout=0.1))
    c.mixer = part("attention", heads=heads, bias="qkv", dropout=0.1, weight_dropout=0.1)
    layers = shapes.count(arrays, LAYER + "output.dense.weight", WHAT)
    inner = shapes.shape(arrays, LAYER.format(0) + "output.dense.weight", WHAT)[1]
    c.model.update(dict(layers=layers, mlp_width=inner, norm_position="post", eps=1e-12, dropout=0.1))
    # Theirs grows by w / T with each of T steps, the ramp by t / (T - 1).
    t = guidance * (1 - 1 / c.order.steps)
    c.presets.paper = preset(count=50, guidance=t, guidance_schedule="ramp")


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    (stage,) = generator.stages
    return _skipping(generator, stage) if stage.skips else _plain(generator, stage)


def _plain(generator: Any, stage: Any) -> list[m.Entry]:
    """The BERT's."""

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

    entries = _words(WORDS, generator.tokenizer.vocab)
    # Every row is of the first kind, and the second is for none.
    entries += [
        m.Entry(
            ("feed/positions/table",),
            (PLACES, KINDS),
            lambda places, kinds: (places + kinds[:1],),
            lambda w: (w, np.zeros_like(w, shape=(2, w.shape[1]))),
        ),
    ]
    entries += m.norm("feed/content_norm", "model.embeddings.LayerNorm")
    entries += m.stacked(stage.layers, layer)
    return entries + m.dense("head/out", "model.lm_head")


def _skipping(generator: Any, stage: Any) -> list[m.Entry]:
    """The U-ViT's, of an odd number of layers."""
    half = stage.skips
    blocks = [FIRST.format(i) for i in range(half)] + [MIDDLE] + [LAST.format(i) for i in range(half)]

    def layer(i: int) -> list[m.Entry]:
        b = blocks[i]
        three = [f"blocks/mixer/{name}" for name in ("query", "key", "value")]
        entries = m.split_dense(three, f"{b}attn.qkv", [generator.width] * 3, bias=False)
        entries += m.dense("blocks/mixer/out", f"{b}attn.proj")
        entries += m.norm("blocks/norm_1", f"{b}norm1") + m.norm("blocks/norm_2", f"{b}norm2")
        entries += m.dense("blocks/feed_forward/up", f"{b}mlp.fc1")
        return entries + m.dense("blocks/feed_forward/down", f"{b}mlp.fc2")

    entries = _words(ALL, generator.tokenizer.vocab) + m.array("feed/positions/table", BESIDE, m.LEADING)
    entries += m.stacked(len(blocks), layer)
    entries += m.stacked(half, lambda i: m.dense("blocks_skips", f"{LAST.format(i)}skip_linear"))
    return entries + m.norm("blocks_norm/norm", "norm") + m.dense("head/out", "lm_head")


def _words(source: str, vocab: int) -> list[m.Entry]:
    """Codes, the mask, classes and none: one table there, three here."""
    return [
        m.Entry(
            ("feed/content/codes/table", "feed/mask", "condition/classes/table"),
            (source,),
            lambda w: np.split(w, [vocab, vocab + 1]),
            lambda *w: (np.concatenate(w),),
        )
    ]
