"""From a config to a tokenizer and a generator: the only place that knows how the axes meet."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vargen import parts, tokenizers
from vargen.conditioning import CONDITIONINGS
from vargen.errors import UserError
from vargen.feeds import FEEDS
from vargen.generator import Generator
from vargen.heads import HEADS
from vargen.layers import initializer
from vargen.mixers import MIXERS
from vargen.mixers.block import Block, FinalNorm, SharedModulation
from vargen.orders import ORDERS

# What `config.model` may hold: the sizes, and what a block is made of (`Block`).
MODEL = dict(
    layers=0,  # of all stacks together, which share them evenly; or of each, as a tuple
    width=0,
    mlp_width=0,  # 0: four times the width
    mlp="gelu_tanh",
    norm="layer",
    affine=True,
    eps=1e-6,
    bias=True,
    adaptive="none",
    adaln_zero=False,
    init_std=0.02,
    depth_scaled_init=False,  # projections out of a residual branch start smaller by sqrt(2 L)
    dropout=0.0,
    drop_path=0.0,
)


def compute_dtype(config) -> Any:
    """The dtype that `config.compute_dtype` means on this machine's default backend."""
    known = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if config.compute_dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if config.compute_dtype not in known:
        raise UserError(f"compute_dtype: expected auto, float32 or bfloat16, found {config.compute_dtype!r}")
    return known[config.compute_dtype]


def build_tokenizer(config):
    """The tokenizer of a config.

    Raises:
      UserError: a part or option is unknown, or sizes don't fit.
    """
    return tokenizers.build(
        config.tokenizer, config.data.image_size, config.data.channels, dtype=compute_dtype(config)
    )


def build_generator(config, tokenizer) -> Generator:
    """The generator of a config, over a tokenizer's slots.

    Raises:
      UserError: a part or option is unknown, or parts don't fit each other.
    """
    unknown = sorted(set(config.model) - set(MODEL))
    if unknown:
        raise UserError(f"model: unknown field {unknown[0]!r}, expected among {', '.join(MODEL)}")
    m = {**MODEL, **config.model}
    dtype = compute_dtype(config)
    width, std = m["width"], m["init_std"]
    grid = tokenizer.grid
    try:
        order = parts.build(ORDERS, config.order, "order", grid=grid)
        condition = parts.build(
            CONDITIONINGS,
            config.conditioning,
            "conditioning",
            num_classes=config.data.num_classes,
            width=width,
            init_std=std,
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
            init_std=std,
            most_known=getattr(order, "most_known", grid.size),
            condition_rows=condition.rows,
            hides=condition.hides,
            dtype=dtype,
        )
        feed.check(order)
        _check_condition(config, condition, feed, m["adaptive"])
        stacks = len(feed.stacks)
        layers = m["layers"]
        if isinstance(layers, int) and layers % stacks == 0:
            layers = (layers // stacks,) * stacks
        if not width or not isinstance(layers, tuple) or len(layers) != stacks or not all(layers):
            raise UserError(
                f"model: expected a width and a multiple of {stacks} layers, found {width} and {m['layers']}"
            )
        gain = 1 / math.sqrt(sum(layers) * 2) if m["depth_scaled_init"] else 1.0
        init, out_init = initializer(std, width), initializer(std, width, gain)
        mixer = parts.build(
            MIXERS,
            config.mixer,
            "mixer",
            grid=grid,
            width=width,
            kernel_init=init,
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
            init_std=std,
            out_init=out_init,
            dtype=dtype,
            **{
                k: m[k] for k in ("mlp", "norm", "affine", "eps", "bias", "adaptive", "adaln_zero", "dropout")
            },
        )
        head = parts.build(
            HEADS, config.head, "head", vocab=tokenizer.vocab, channels=tokenizer.channels, dtype=dtype
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
            width, std, m["norm"], m["affine"], m["eps"], m["adaptive"] != "none", m["adaln_zero"], dtype
        ),
        head=head,
        layers=layers,
        modulation=SharedModulation(width, std, dtype) if m["adaptive"] == "shared" else None,
        drop_path=m["drop_path"],
        remat=config.training.remat,
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
