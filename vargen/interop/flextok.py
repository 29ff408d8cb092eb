"""FlexTok's tokenizers (EPFL-VILAB/flextok_d12_d12_in1k, model.safetensors ...): the authors' names beside ours.

Their files hold the VAE too. What arrays don't say stands in config.json beside them: the levels of FSQ, the scale of
the VAE's latents, the width of heads, how fast times turn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import part as config_part
from vargen.errors import UserError
from vargen.interop import autoencoder, shapes
from vargen.interop import mapping as m
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.denoising import Flow
from vargen.tokenizers.implicit import FSQ
from vargen.tokenizers.reading import Ends
from vargen.tokenizers.registers import Registers
from vargen.tokenizers.within import Within

WHAT = "FlexTok"
IGNORED = ()
WRAPPED = ()
TOLD = "config.json"
ENCODER, DECODER, VAE = "encoder.module_dict.enc_", "decoder.module_dict.dec_", "vae.vae."
VAE_NAMES = dataclasses.replace(
    autoencoder.DIFFUSERS, attention=("group_norm", "to_q", "to_k", "to_v", "to_out.0")
)
LEVELS = (8, 8, 8, 5, 5, 5)  # of every published file
PATCH = 2  # latents a side
HEAD, TOP = 64, 1000.0  # channels of a head, and the latest time, where config.json doesn't say
PERIOD = 256.0
# Their six modulations are gates, then shift and scale of the attention, then those of the MLP.
MODULATIONS = (0, 1, 3, 5, 2, 4)
SAMPLING = dict(steps=20, forget_rate=0.1, guidance=7.5, projected=True)  # their README's, but for the rate
MLP = 8 / 3  # hidden over D


def part(arrays: Mapping[str, Any], levels: tuple | None = None) -> ConfigDict:
    """The tokenizer's part, within the VAE where there is one.

    Args:
      arrays: the authors', by name; only their shapes are looked at.
      levels: not used; registers are one level.

    Raises:
      UserError: an array that tells a size is missing, or both ends tell patches' places in another way.
    """
    tokens, width = shapes.pair(arrays, f"{ENCODER}register_module.registers", WHAT)
    wide, channels = shapes.pair(arrays, f"{DECODER}from_latents.proj.weight", WHAT)
    modulations, _ = shapes.pair(arrays, f"{DECODER}transformer.blocks.0.adaLN_modulation.1.weight", WHAT)
    summed = {
        _is_summed(arrays, name) for name in (f"{ENCODER}posemb_module", f"{DECODER}patches_posemb_module")
    }
    if len(summed) > 1:
        raise UserError(f"{WHAT}: expected places of patches of one kind at both ends, found two")
    decoder = config_part(
        "flow",
        **_sizes(arrays, wide, f"{DECODER}transformer"),
        apart=modulations == 12 * wide,
        frequencies=shapes.pair(arrays, f"{DECODER}time_embedder.mlp.0.weight", WHAT)[1],
        period=PERIOD,
        **SAMPLING,
    )
    encoder = config_part(
        "registers",
        tokens=tokens,
        patch=PATCH,
        sees="causal",
        nested="powers",
        dropped="alike",
        places="axes" if summed == {True} else "table",
        **_sizes(arrays, width, f"{ENCODER}transformer"),
        mlp="swiglu",
        mlp_ratio=MLP,
        bias=False,
        qk_norm="layer",
        affine=False,
        eps=1e-5,
        decoder=decoder,
    )
    inner = config_part("fsq", encoder=encoder, levels=LEVELS[-channels:])
    if not any(name.startswith(VAE) for name in arrays):
        return inner
    vae = m.Inside(VAE, arrays)
    channels = shapes.shape(vae, "post_quant_conv.weight", WHAT)[1]
    outer = config_part("kl", encoder=autoencoder.encoder_part(vae, VAE_NAMES, WHAT), channels=channels)
    return config_part("within", outer=outer, inner=inner)


def tell(part: ConfigDict, config: Mapping[str, Any]) -> None:
    """Writes what config.json says into the part of `part`.

    Raises:
      UserError: it lacks the scale of the VAE's latents, or holds no numbers where it should.
    """
    inner = part.inner if "inner" in part else part
    levels = _said(config, "regularizer", "levels")
    if not isinstance(levels, list) or not levels or not all(isinstance(n, int) for n in levels):
        raise UserError(f"{WHAT}: {TOLD}: regularizer.levels: expected whole numbers, found {levels}")
    inner.levels = tuple(levels)
    head, other = (
        _number(config, HEAD, end, "module_dict", f"{end[:3]}_transformer", "head_dim")
        for end in ("encoder", "decoder")
    )
    if head != other:
        raise UserError(
            f"{WHAT}: {TOLD}: expected one head_dim of both transformers, found {head:g} and {other:g}"
        )
    for sizes in (inner.encoder, inner.encoder.decoder):
        if sizes.width % head:
            raise UserError(
                f"{WHAT}: {TOLD}: head_dim: expected a divisor of the width {sizes.width}, found {head:g}"
            )
        sizes.heads = int(sizes.width // head)
    # Theirs is 8 over the channels of a head (muP, arXiv 2203.03466).
    inner.encoder.logit_scale = 8 / math.sqrt(head)
    top = _number(config, TOP, "decoder", "module_dict", "dec_time_embedder", "max_timestep")
    inner.encoder.decoder.time_scale = 1000 / top
    if "outer" in part:
        part.outer.scale = _number(config, None, "vae", "scaling_factor")


def said(tokenizer: Autoencoder) -> dict[str, Any]:
    """What config.json says of a tokenizer, as far as `tell` reads it."""
    inner, encoder, decoder = _parts(tokenizer.inner if isinstance(tokenizer, Within) else tokenizer)
    first, second = (
        dict[str, Any]({f"{name}_transformer": dict(head_dim=end.ends.sizes.width // end.ends.sizes.heads)})
        for name, end in (("enc", encoder), ("dec", decoder))
    )
    second["dec_time_embedder"] = dict(max_timestep=1000 / decoder.time_scale)
    found: dict[str, Any] = dict(regularizer=dict(levels=list(inner.levels)))
    found |= dict(encoder=dict(module_dict=first), decoder=dict(module_dict=second))
    if isinstance(tokenizer, Within):
        found["vae"] = dict(scaling_factor=tokenizer.outer.scale)
    return found


def table(tokenizer: Autoencoder) -> list[m.Entry]:
    """All entries for a tokenizer of these sizes.

    Raises:
      UserError: the tokenizer is another than the authors' program computes.
    """
    if isinstance(tokenizer, Within):
        outer = tokenizer.outer
        entries = m.inside(VAE, autoencoder.table(outer, VAE_NAMES))
        entries += m.constant("quantizer/scale", lambda: np.full(outer.channels, outer.scale, np.float32))
        return table(tokenizer.inner) + m.under("outer/", entries)
    _, encoder, decoder = _parts(tokenizer)
    entries = m.dense("encoder/patches/rows_in", f"{ENCODER}patch_emb.patch_proj")
    entries += _places("encoder/patches/places", f"{ENCODER}posemb_module.posembs", encoder.ends)
    entries += m.array("encoder/registers", f"{ENCODER}register_module.registers")
    entries += _blocks("encoder/blocks", f"{ENCODER}transformer", encoder.ends, 0)
    entries += m.dense("encoder/latents_out", f"{ENCODER}to_latents.proj")
    entries += m.dense("decoder/registers/rows_in", f"{DECODER}from_latents.proj")
    entries += _sequence(
        "decoder/registers/places", f"{DECODER}registers_posemb_module.posembs", decoder.ends
    )
    entries += m.array("decoder/registers/dropped", f"{DECODER}nested_dropout.dropout_mask_token", ROW)
    entries += m.array("decoder/nothing", f"{DECODER}latent_dropout.nullcond", ROW)
    entries += m.dense("decoder/patches/rows_in", f"{DECODER}noise_patch_emb.patch_proj")
    entries += _places("decoder/patches/places", f"{DECODER}patches_posemb_module.posembs", decoder.ends)
    entries += m.dense("decoder/time_1", f"{DECODER}time_embedder.mlp.0")
    entries += m.dense("decoder/time_2", f"{DECODER}time_embedder.mlp.2")
    entries += _blocks("decoder/blocks", f"{DECODER}transformer", decoder.ends, 2 if decoder.apart else 1)
    entries += _modulation("decoder/modulation", f"{DECODER}to_patches.adaLN_modulation.1", (1, 0))
    return entries + m.dense("decoder/patch_out", f"{DECODER}to_patches.proj")


ROW = m.Form(lambda w: w[None], lambda w: w[0])  # [D], [1, D]


def _parts(tokenizer: Autoencoder) -> tuple[FSQ, Registers, Flow]:
    """The tokenizer and its ends, as the authors' program may compute them.

    Raises:
      UserError: another tokenizer.
    """
    encoder, decoder = tokenizer.codec.encoder, tokenizer.codec.decoder
    if isinstance(tokenizer, FSQ) and isinstance(encoder, Registers) and isinstance(decoder, Flow):
        if decoder.forgets and encoder.ends.nested != "none":
            return tokenizer, encoder, decoder
    raise UserError(
        f"{WHAT}: expected the tokenizer fsq with nested registers and the decoder flow, forget_rate above 0, found "
        "another"
    )


def _blocks(ours: str, theirs: str, ends: Ends, kinds: int) -> list[m.Entry]:
    """Of a stack, modulated for so many kinds of rows apart; 0: not at all."""

    def layer(i: int) -> list[m.Entry]:
        to, source = f"{ours}/layers/block", f"{theirs}.blocks.{i}"
        names = dict(query="attn.wq", key="attn.wk", value="attn.wv", out="attn.proj")
        found = [
            e for name, x in names.items() for e in m.dense(f"{to}/mixer/{name}", f"{source}.{x}", bias=False)
        ]
        for name, x in (("gate", "mlp.fc1"), ("up", "mlp.fc3"), ("down", "mlp.fc2")):
            found += m.dense(f"{to}/feed_forward/{name}", f"{source}.{x}", bias=False)
        if not kinds:
            return found
        order = [6 * kind + i for kind in range(kinds) for i in MODULATIONS]
        return found + _modulation(f"{to}/modulation", f"{source}.adaLN_modulation.1", order)

    return m.stacked(ends.sizes.layers, layer)


def _modulation(ours: str, theirs: str, order) -> list[m.Entry]:
    """A map to several modulations, of which ours are theirs number `order`."""
    entries = m.permuted(f"{ours}/kernel", f"{theirs}.weight", order, m.DENSE)
    return entries + m.permuted(f"{ours}/bias", f"{theirs}.bias", order)


def _places(ours: str, theirs: str, ends: Ends) -> list[m.Entry]:
    """Of patches: sums over the axes [2, 1, D, n], with spare places, or fixed ones [1, D, h, w]."""
    (h, w), width = ends.patches, ends.sizes.width
    if ends.axes is None:

        def form(x: np.ndarray) -> np.ndarray:
            return x.T.reshape(1, width, h, w)

        return m.array(ours, theirs, m.Form(lambda x: x[0].reshape(width, h * w).T, form))
    side = max(h, w)

    def write(down: np.ndarray, across: np.ndarray) -> m.Arrays:
        return (np.stack([np.pad(x.T, [(0, 0), (0, side - len(x))])[None] for x in (down, across)]),)

    def read(x: np.ndarray) -> m.Arrays:
        return x[0, 0, :, :h].T, x[1, 0, :, :w].T

    return [m.Entry((f"{ours}_down", f"{ours}_across"), (theirs,), read, write, rows=side, axis=3)]


def _sequence(ours: str, theirs: str, ends: Ends) -> list[m.Entry]:
    """Places of registers [K, D] of [1, 1, D, n], with spare ones."""
    k = ends.registers
    return [
        m.Entry(
            (ours,), (theirs,), lambda w: (w[0, 0, :, :k].T,), lambda w: (w.T[None, None],), rows=k, axis=3
        )
    ]


def _sizes(arrays: Mapping[str, Any], width: int, stack: str) -> dict[str, int]:
    """Of the blocks of a stack."""
    layers = shapes.count(arrays, f"{stack}.blocks.{{}}.attn.wq.weight", WHAT)
    return dict(width=width, layers=layers, heads=shapes.usual_heads(width, HEAD))


def _is_summed(arrays: Mapping[str, Any], module: str) -> bool:
    """Whether places of patches are sums over the axes."""
    found = shapes.shape(arrays, f"{module}.posembs", WHAT)
    if len(found) != 4 or found[0] not in (1, 2):
        raise UserError(
            f"{WHAT}: {module}.posembs: expected places [2, 1, D, n] or [1, D, h, w], found shape {tuple(found)}"
        )
    return found[0] == 2


def _number(config: Mapping[str, Any], default: float | None, *keys: str) -> float:
    """A number above 0 that stands under the keys, or the default.

    Raises:
      UserError: something else, or nothing where there is no default.
    """
    found = _said(config, *keys)
    found = default if found is None else found
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < math.inf:
        raise UserError(f"{WHAT}: {TOLD}: {'.'.join(keys)}: expected a number above 0, found {found}")
    return float(found)


def _said(config: Mapping[str, Any], *keys: str) -> Any:
    """What stands under the keys, one within the other; None where there is nothing."""
    found: Any = config
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
