"""Llama's blocks in transformers' layout, and the file config.json beside such weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vargen.config import part
from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes


def told(config: Mapping[str, Any], said: Mapping[str, Any], eps: float, what: str) -> tuple[int, float]:
    """Heads, and the norms' epsilon, of config.json.

    Args:
      config: what it says.
      said: what else it must say by name, and what it means by saying nothing.
      eps: the epsilon where it says none.
      what: the name of the thing in error messages.

    Raises:
      UserError: it describes another model.
    """
    for name, (wanted, unsaid) in said.items():
        if (found := config.get(name, unsaid)) != wanted:
            raise UserError(f"{what}: expected {name} {wanted}, found {found!r:.80}")
    heads, eps = config.get("num_attention_heads", 32), config.get("rms_norm_eps", eps)
    for name, value, kind in (("num_attention_heads", heads, int), ("rms_norm_eps", eps, float)):
        if type(value) is not kind or not 0 < value < 4097:
            raise UserError(f"{what}: expected a number in {name}, found {value!r:.80}")
    return heads, eps


def parts(arrays: Mapping[str, Any], heads: int, what: str, **options: Any) -> tuple[ConfigDict, dict]:
    """The mixer's part, with more `options`, and the model's sizes; heads are 128 wide where none are given."""
    width = shapes.shape(arrays, "model.norm.weight", what)[0]
    heads = shapes.heads(width, heads, width // 128, what)
    groups = shapes.shape(arrays, "model.layers.0.self_attn.k_proj.weight", what)[0] * heads // width
    grouped = dict(kv_heads=groups) if groups != heads else {}
    mixer = part("attention", heads=heads, rope="sequence", out_bias=False, **grouped, **options)
    model = dict(
        layers=shapes.count(arrays, "model.layers.{}.self_attn.o_proj.weight", what),
        width=width,
        mlp="swiglu",
        norm="rms",
        eps=1e-5,
        bias=False,
        mlp_width=shapes.shape(arrays, "model.layers.0.mlp.up_proj.weight", what)[0],
        init_std=0.02,
        init="normal",
    )
    return mixer, model


def blocks(stage: Any) -> list[m.Entry]:
    """Entries of the blocks of a stage."""
    mixer, name = stage.block.mixer, stage.name

    def layer(i: int) -> list[m.Entry]:
        b = f"model.layers.{i}"
        entries = []
        for ours, short, heads in (("query", "q", mixer.heads), ("key", "k", mixer.groups)):
            source = f"{b}.self_attn.{short}_proj.weight"
            entries += m.array(f"{name}/mixer/{ours}/kernel", source, m.turned(heads))
            for leaf, theirs in (("scale", "weight"), ("bias", "bias")) if mixer.norm_each else ():
                target = f"{name}/mixer/{ours}_norm/{leaf}"
                entries += m.array(target, f"{b}.self_attn.{short}_norm.{theirs}", m.TURNED)
        for ours, theirs in (("value", "v_proj"), ("out", "o_proj")):
            entries += m.dense(f"{name}/mixer/{ours}", f"{b}.self_attn.{theirs}", bias=False)
        for projection in ("gate", "up", "down"):
            entries += m.dense(f"{name}/feed_forward/{projection}", f"{b}.mlp.{projection}_proj", bias=False)
        entries += m.norm(f"{name}/norm_1", f"{b}.input_layernorm", bias=False)
        return entries + m.norm(f"{name}/norm_2", f"{b}.post_attention_layernorm", bias=False)

    return m.stacked(stage.layers, layer)
