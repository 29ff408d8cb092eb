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
from vargen.orders import ORDERS

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
    grid = tokenizer.grid
    try:
        order = parts.build(ORDERS, config.order, "order", grid=grid)
        condition = parts.build(
            CONDITIONINGS,
            config.conditioning,
            "conditioning",
            num_classes=config.data.num_classes,
            width=width,
            initial=initial,
            dtype=dtype,
        )
        feed = parts.build(
            FEEDS,
            config.feed,
            "feed",
            tokenizer=tokenizer,
            grid=grid,
            vocab=tokenizer.vocab,
            channels=tokenizer.channels,
            width=width,
            initial=initial,
            most_known=getattr(order, "most_known", grid.size),
            condition_rows=condition.rows,
            hides=condition.hides,
            dtype=dtype,
        )
        feed.check(order)
        _check_condition(config, condition, feed, m["adaptive"])
        layers = _layers(m["layers"], len(feed.stacks))
        gain = 1 / math.sqrt(sum(layers) * 2) if m["depth_scaled_init"] else 1.0
        out_init = initial.kernel(gain)
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
        mixer.check(order, feed)
        if condition.hides and not getattr(mixer, "honours_hidden", False):
            raise UserError(
                f"conditioning {config.conditioning.name}: hides its padding, which needs the mixer attention, found "
                f"{config.mixer.name}"
            )
        block = Block(
            mixer=mixer,
            width=width,
            mlp_width=m["mlp_width"] or 4 * width,
            initial=initial,
            out_init=out_init,
            dtype=dtype,
            **{k: m[k] for k in BLOCK},
        )
        head = parts.build(
            HEADS,
            config.head,
            "head",
            vocab=tokenizer.vocab,
            channels=tokenizer.channels,
            initial=initial,
            dtype=dtype,
        )
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
    if head.kind != tokenizer.kind:
        raise UserError(
            f"head {config.head.name}: expected a tokenizer of {head.kind}, found {tokenizer.kind} "
            f"from {config.tokenizer.name}"
        )
    return Generator(
        tokenizer=tokenizer,
        order=order,
        condition=condition,
        feed=feed,
        block=block,
        norm=FinalNorm(
            width, initial, m["norm"], m["affine"], m["eps"], m["adaptive"] != "none", m["adaln_zero"], dtype
        ),
        head=head,
        layers=layers,
        modulation=SharedModulation(width, initial, dtype) if m["adaptive"] == "shared" else None,
        drop_path=m["drop_path"],
        remat=config.training.remat,
    )


def require(config, *axes: str) -> None:
    """Raises UserError where a config lacks an axis."""
    for axis in axes:
        if not config.get(axis):
            raise UserError(
                f"config field {axis}: expected {'sizes' if axis == 'model' else 'a part'}, found none"
            )


def _layers(layers: int | tuple[int, ...], stacks: int) -> tuple[int, ...]:
    """L of each stack."""
    if isinstance(layers, int) and layers and layers % stacks == 0:
        return (layers // stacks,) * stacks
    if isinstance(layers, (tuple, list)) and len(layers) == stacks:
        return tuple(layers)
    raise UserError(
        f"config field model.layers: expected a number that {stacks} stacks share evenly, "
        f"or one for each, found {layers}"
    )


def _check_condition(config, condition, feed, adaptive: str) -> None:
    name = config.conditioning.name
    if condition.rows > 1 and not feed.takes_rows:
        raise UserError(
            f"conditioning {name}: makes {condition.rows} rows, which needs the feed shift, found {config.feed.name}"
        )
    if not condition.pooled and (adaptive != "none" or feed.step_condition or not feed.takes_rows):
        raise UserError(
            f"conditioning {name}: has no vector, expected model.adaptive none, the feed shift, no step_condition"
        )
    if feed.step_condition and adaptive == "none":
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
