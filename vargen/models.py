"""From a config to a tokenizer and a generator: the only place that knows how the axes meet."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vargen import limits, parts, schema, tokenizers
from vargen.conditioning import CONDITIONINGS
from vargen.errors import UserError
from vargen.feeds import FEEDS
from vargen.generator import Generator
from vargen.heads import HEADS
from vargen.layers import Initial
from vargen.mixers import MIXERS
from vargen.mixers.block import Block, FinalNorm, SharedModulation
from vargen.mixers.cross import CrossAttention
from vargen.orders import ORDERS
from vargen.segments import PICTURE, Segment, Sequence
from vargen.stage import Stage

# What `config.model` says of a block, by the names of its attributes.
BLOCK = "mlp norm affine eps bias adaptive adaln_zero gate_gain dropout".split()


def compute_dtype(config) -> Any:
    """The dtype that `config.compute_dtype` means on this machine's default backend."""
    if config.compute_dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.compute_dtype]


def build_tokenizer(config):
    """The tokenizer of a config.

    Raises:
      UserError: a part or option is unknown, or sizes don't fit.
    """
    require(config, "tokenizer")
    return tokenizers.build(
        config.tokenizer, config.data.image_size, config.data.channels, dtype=compute_dtype(config)
    )


def build_generator(config, tokenizer) -> Generator:
    """The generator of a config, over a tokenizer's slots.

    Raises:
      UserError: a part or option is unknown, or parts don't fit each other.
    """
    require(config, "order", "feed", "mixer", "head", "conditioning", "model")
    limits.check(limits.fields(schema.Model), config.model, "model.")
    m = {**schema.defaults(schema.Model), **config.model}
    dtype = compute_dtype(config)
    width = m["width"]
    initial = Initial(m["init_std"], width, m["init"] == "truncated")
    if not width:
        raise UserError("config field model.width: expected a width, found none")
    common = dict(width=width, initial=initial, dtype=dtype)
    try:
        condition = parts.build(
            CONDITIONINGS, config.conditioning, "conditioning", num_classes=config.data.num_classes, **common
        )
        picture = Segment(PICTURE, tokenizer.slot, tokenizer.grid)
        sequence = Sequence((picture,) if condition.segment is None else (condition.segment, picture))
        grid, slot = sequence.grid, sequence.slot
        ordering = parts.build(ORDERS, config.order, "order", grid=grid, sizes=sequence.sizes)
        feed = parts.build(
            FEEDS,
            config.feed,
            "feed",
            tokenizer=tokenizer,
            grid=grid,
            slot=slot,
            most_known=ordering.most_known,
            prefix=condition.length,
            heads=config.mixer.get("heads", 1),
            kv_heads=config.mixer.get("kv_heads", 0),
            **common,
        )
        feed.check(ordering)
        _check_condition(config, condition, feed, m["adaptive"])
        head = parts.build(
            HEADS,
            config.head,
            "head",
            vocab=tokenizer.vocab,
            channels=tokenizer.channels,
            segments=sequence.segments,
            initial=initial,
            dtype=dtype,
        )
        head.check(slot)
        generator = Generator(
            tokenizer=tokenizer,
            sequence=sequence,
            ordering=ordering,
            condition=condition,
            feed=feed,
            stages=_stages(config, m, feed, grid, initial, dtype, condition.remembers),
            head=head,
            modulation=SharedModulation(width, initial, dtype) if m["adaptive"] == "shared" else None,
        )
        for stage, layout in zip(generator.stages, generator.layouts(), strict=True):
            stage.block.mixer.check(layout)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
    return generator


def _stages(config, m, feed, grid, initial, dtype, cross: bool) -> tuple[Stage, ...]:
    """The stages that a feed names, all of the same blocks."""
    width = m["width"]
    layers = _layers(m["layers"], len(feed.stages))
    out_init = initial.kernel(1 / math.sqrt(sum(layers) * 2) if m["depth_scaled_init"] else 1.0)
    mixer = parts.build(
        MIXERS,
        config.mixer,
        "mixer",
        grid=grid,
        width=width,
        kernel_init=initial.kernel(),
        out_init=out_init,
        dtype=dtype,
    )
    block = Block(
        mixer=mixer,
        width=width,
        mlp_width=m["mlp_width"] or 4 * width,
        initial=initial,
        out_init=out_init,
        cross=_cross(config, width, initial, out_init, dtype) if cross else None,
        dtype=dtype,
        **{k: m[k] for k in BLOCK},
    )
    norm = FinalNorm(
        width, initial, m["norm"], m["affine"], m["eps"], m["adaptive"] != "none", m["adaln_zero"], dtype
    )
    return tuple(
        Stage(name, block, count, norm, m["drop_path"], config.training.remat, feed.reads_memory(i))
        for i, (name, count) in enumerate(zip(feed.stages, layers, strict=True))
    )


def _cross(config, width, initial, out_init, dtype) -> CrossAttention:
    """Cross-attention with as many heads as the mixer."""
    heads = config.mixer.get("heads", 1)
    if width % heads:
        raise UserError(f"config field mixer.heads: expected a divisor of the width {width}, found {heads}")
    return CrossAttention(width, heads, initial.kernel(), out_init, dtype)


def require(config, *axes: str) -> None:
    """Raises UserError where a config lacks an axis."""
    for axis in axes:
        if not config.get(axis):
            raise UserError(
                f"config field {axis}: expected {'sizes' if axis == 'model' else 'a part'}, found none"
            )


def _layers(layers: int | tuple[int, ...], stages: int) -> tuple[int, ...]:
    """L of each stage."""
    if isinstance(layers, int) and layers and layers % stages == 0:
        return (layers // stages,) * stages
    if isinstance(layers, (tuple, list)) and len(layers) == stages:
        return tuple(layers)
    raise UserError(
        f"config field model.layers: expected a number that {stages} stages share evenly, "
        f"or one for each, found {layers}"
    )


def _check_condition(config, condition, feed, adaptive: str) -> None:
    name = config.conditioning.name
    if condition.length > 1 and not feed.takes_prefix:
        raise UserError(
            f"conditioning {name}: makes {condition.length} rows, which needs the feed shift, found {config.feed.name}"
        )
    if not condition.pooled and (adaptive != "none" or feed.modulates_rows or not feed.takes_prefix):
        raise UserError(
            f"conditioning {name}: has no vector, expected model.adaptive none, the feed shift, no step_condition"
        )
    if condition.segment is not None and not feed.takes_segments:
        raise UserError(
            f"conditioning {name}: makes slots of the sequence, which needs the feed shift, found {config.feed.name}"
        )
    if feed.modulates_rows and adaptive == "none":
        raise UserError(
            "feed shift: step_condition modulates blocks, expected model.adaptive adaln or shared, found none"
        )


def parameter_count(module, *, skip: tuple[str, ...] = ()) -> int:
    """Number of parameters of a tokenizer or generator, without allocating any."""
    abstract = nn.meta.unbox(jax.eval_shape(module.init_boxed, jax.random.key(0)))
    return sum(math.prod(x.shape) for k, t in abstract.items() if k not in skip for x in jax.tree.leaves(t))


def count_text(count: int) -> str:
    """A number of parameters for a person: "52 thousand", "1.5 million", "310 million"."""
    if count < 1e6:
        return f"{count / 1e3:.0f} thousand"
    return f"{count / 1e6:.3g} million"
