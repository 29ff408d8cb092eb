"""MaskGIT's transformer (google-research/maskgit, maskgit_imagenet256_checkpoint): its names in Flax beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part, preset
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes

WHAT = "MaskGIT"
IGNORED = ()
WRAPPED = ()
WORDS, PLACES = (f"Embed_0/{name}_embeddings/embedding" for name in ("word", "position"))
BIASES = "MlmLayer_0/mlm_bias/bias"
LAYER = "TransformerLayer_{}/"
ATTENTION = "Attention_0/self_attention/"
# By the slots: steps of the paper's FID.
STEPS = {256: 8, 1024: 12}


def levels(arrays: Mapping[str, Any]) -> tuple[int]:
    """The side of the grid; the class has the first place."""
    return (math.isqrt(shapes.shape(arrays, PLACES, WHAT)[0] - 1),)


def fill(c: ConfigDict, arrays: Mapping[str, Any], heads: int = 0) -> None:
    """Writes the generator's parts and sizes into a config; the arrays tell the heads.

    Raises:
      UserError: other heads than the arrays', fewer words than the tokenizer's codes and a mask.
    """
    words, width = shapes.pair(arrays, WORDS, WHAT)
    told = shapes.shape(arrays, LAYER.format(0) + ATTENTION + "query/kernel", WHAT)[1]
    heads = shapes.told_heads(heads, told)
    classes = words - c.tokenizer.vocab - 1
    if classes < 1:
        raise UserError(
            f"{WHAT}: expected more words than the tokenizer's {c.tokenizer.vocab} codes, found {words}"
        )
    slots = shapes.shape(arrays, PLACES, WHAT)[0] - 1
    steps = min(STEPS.get(slots, 8), slots)
    c.name = f"MaskGIT-{c.data.image_size}"
    c.data.num_classes = classes
    c.conditioning = part("label", dropout=None)
    c.order = part("confidence", steps=steps)
    c.feed = part(
        "mask",
        encoder_decoder=False,
        buffer=1,
        eps=1e-12,
        target_positions=False,
        counts="pictures",
        dropout=0.1,
    )
    c.mixer = part("attention", heads=heads, bias="qkv", dropout=0.1, weight_dropout=0.1)
    c.head = part("masked_lm", label_smoothing=0.1)
    c.model = dict(
        layers=shapes.count(arrays, LAYER + "Mlp_0/layer_output/kernel", WHAT),
        width=width,
        mlp_width=shapes.shape(arrays, LAYER.format(0) + "Mlp_0/layer_output/kernel", WHAT)[0],
        norm_position="post",
        eps=1e-12,
        dropout=0.1,
    )
    c.presets.paper = preset(count=50, steps=steps)


def table(generator: Any) -> list[m.Entry]:
    """All entries for a generator of these sizes."""
    width, vocab = generator.width, generator.tokenizer.vocab
    heads = generator.stages[0].block.mixer.heads
    rows = [vocab, vocab + generator.condition.num_classes]
    into = m.Form(lambda w: w.reshape(width, width), lambda w: w.reshape(width, heads, -1))
    out = m.Form(lambda w: w.reshape(width, width), lambda w: w.reshape(heads, -1, width))
    flat = m.Form(lambda w: w.reshape(width), lambda w: w.reshape(heads, -1))

    def dense(ours: str, theirs: str) -> list[m.Entry]:
        return m.array(f"{ours}/kernel", f"{theirs}/kernel") + m.array(f"{ours}/bias", f"{theirs}/bias")

    def norm(ours: str, theirs: str) -> list[m.Entry]:
        return m.array(f"{ours}/scale", f"{theirs}/scale") + m.array(f"{ours}/bias", f"{theirs}/bias")

    def layer(i: int) -> list[m.Entry]:
        b, ours = LAYER.format(i), "blocks/mixer"
        entries = []
        for name in ("query", "key", "value"):
            entries += m.array(f"{ours}/{name}/kernel", f"{b}{ATTENTION}{name}/kernel", into)
            entries += m.array(f"{ours}/{name}/bias", f"{b}{ATTENTION}{name}/bias", flat)
        entries += m.array(f"{ours}/out/kernel", f"{b}{ATTENTION}out/kernel", out)
        entries += m.array(f"{ours}/out/bias", f"{b}{ATTENTION}out/bias")
        entries += norm("blocks/norm_1", f"{b}Attention_0/attention_output_ln")
        entries += dense("blocks/feed_forward/up", f"{b}Mlp_0/intermediate_output")
        entries += dense("blocks/feed_forward/down", f"{b}Mlp_0/layer_output")
        return entries + norm("blocks/norm_2", f"{b}Mlp_0/layer_output_ln")

    # Codes, classes and the mask: one table there, three here.
    def words(targets: tuple[str, ...], source: str) -> list[m.Entry]:
        return [m.Entry(targets, (source,), lambda w: np.split(w, rows), lambda *w: (np.concatenate(w),))]

    entries = words(generator.head.shares, WORDS)
    entries += words(tuple(f"head/{name}_bias" for name in ("code", "class", "mask")), BIASES)
    entries += m.array("feed/positions/table", PLACES)
    entries += norm("feed/content_norm", "Embed_0/embeddings_ln")
    entries += m.stacked(generator.stages[0].layers, layer)
    return entries + dense("head/dense", "MlmLayer_0/mlm_dense") + norm("head/norm", "MlmLayer_0/mlm_ln")
