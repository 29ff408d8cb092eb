"""From a config to a tokenizer and a generator: the only place that knows how the axes meet."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from vargen import fits, limits, parts, schema, tokenizers
from vargen.conditioning import CONDITIONINGS
from vargen.errors import UserError
from vargen.feeds import FEEDS, Feed
from vargen.generator import Generator
from vargen.heads import HEADS
from vargen.layers import Dense, Initial
from vargen.mixers import MIXERS
from vargen.mixers.block import Block, FinalNorm, RoundModulation, SharedModulation
from vargen.mixers.cross import CrossAttention
from vargen.orders import ORDERS, Ordering
from vargen.segments import PICTURE, Segment, Sequence
from vargen.stage import Stage
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.tokenizer import Leveled

# What `config.model` says of a block, by the names of its attributes.
BLOCK = "mlp norm affine eps norm_position bias adaptive adaln_zero gate_gain dropout".split()


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
    size = schema.size(config.data)
    return tokenizers.build(config.tokenizer, size, config.data.channels, dtype=compute_dtype(config))


class Rows(NamedTuple):
    """The parts of a config that lay out the rows of a pass."""

    condition: Any
    sequence: Sequence
    ordering: Ordering
    feed: Feed


def build_rows(config, tokenizer) -> Rows:
    """What is known of the picture, what the sequence holds, its order and how known slots reach a prediction.

    Raises:
      UserError: as `build_generator`, of these parts alone.
    """
    m, common = _model(config)
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
            trained_side=config.mixer.get("trained_side", 0),
            **common,
        )
        fits.check_stop(config, slot, ordering)
        fits.check_order(config, sequence, ordering, feed)
        fits.check_condition(config, condition, feed, m["adaptive"])
        fits.check_prompt(config, sequence, condition, ordering)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
    return Rows(condition, sequence, ordering, feed)


def build_head(config, tokenizer, rows: Rows):
    """The head of a config, behind rows.

    Raises:
      UserError: as `build_generator`, of the head and what it stands behind.
    """
    m, common = _model(config)
    initial, dtype, sequence = common["initial"], common["dtype"], rows.sequence
    try:
        head = parts.build(
            HEADS,
            config.head,
            "head",
            tokenizer=tokenizer,
            stage=functools.partial(_stage, config, m, sequence.grid, initial, dtype),
            vocab=tokenizer.vocab,
            channels=tokenizer.channels,
            segments=sequence.segments,
            initial=initial,
            dtype=dtype,
        )
        fits.check_stages(config, rows.feed, head)
        fits.check_drafts(config, rows.feed, head)
        with fits.beside(config, "tokenizer"):
            head.check(sequence.slot)
        fits.check_rounds(config, rows.ordering, rows.feed, head, m["adaptive"])
        fits.check_redraws(config, rows.ordering, rows.feed, head)
    except ValueError as error:
        raise fits.another_head(error, sequence) from error
    return head


def join(config, tokenizer, rows: Rows, head) -> Generator:
    """A generator of rows, blocks and a head; `check_mixers` and `check_shared` haven't seen it.

    Raises:
      UserError: as `build_generator`, of the blocks.
    """
    m, common = _model(config)
    initial, dtype = common["initial"], common["dtype"]
    try:
        stages = _stages(config, m, rows.feed, rows.sequence.grid, initial, dtype, rows.condition.remembers)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
    modulation = SharedModulation(m["width"], initial, dtype) if m["adaptive"] == "shared" else None
    return Generator(tokenizer, **rows._asdict(), stages=stages, head=head, modulation=modulation)


def check_mixers(config, generator: Generator, layouts) -> None:
    """Raises UserError for a mixer that can't take rows as `Generator.layouts` says that they lie."""
    try:
        with fits.beside(config, "feed", "order", instead="the mixer attention"):
            for i, layout in enumerate(layouts):
                generator.stages[i % len(generator.stages)].block.mixer.check(layout)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error


def check_shared(config, generator: Generator) -> None:
    """Raises UserError where the head shares parameters that the other parts don't have."""
    if generator.head.shares:
        try:
            with fits.beside(config, "feed"):
                jax.eval_shape(generator.init_boxed, jax.random.key(0))
        except ValueError as error:
            raise fits.another_head(error, generator.sequence) from error


def build_generator(config, tokenizer) -> Generator:
    """The generator of a config, over a tokenizer's slots.

    Raises:
      UserError: a part or option is unknown, or parts don't fit each other.
    """
    rows = build_rows(config, tokenizer)
    generator = join(config, tokenizer, rows, build_head(config, tokenizer, rows))
    check_mixers(config, generator, generator.layouts())
    check_shared(config, generator)
    return generator


def _model(config) -> tuple[dict[str, Any], dict[str, Any]]:
    """All fields of `config.model`, and what all parts are built with."""
    require(config, "order", "feed", "mixer", "head", "conditioning", "model")
    limits.check(limits.fields(schema.Model), config.model, "model.")
    m = {**schema.defaults(schema.Model), **config.model}
    if not m["width"]:
        raise UserError("config field model.width: expected a width, found none")
    initial = Initial(m["init_std"], m["width"], m["init"] == "truncated")
    return m, dict(width=m["width"], initial=initial, dtype=compute_dtype(config))


def sampled(config, tokenizer, generator=None):
    """What samples are drawn with: a tokenizer and a generator over `sampling.levels`, with the same parameters; or
    over the first `sampling.tokens`, with the first rows of tables that have one for each.

    Args:
      config: whose `sampling.levels` and `sampling.tokens` count.
      tokenizer, generator: as they are trained; None where only a tokenizer is.

    Returns:
      Both, as they were where no levels are asked for. Where a picture is of one level, they are over the last of those
      asked for; each is twice the one before, whose codes stand at its even places.

    Raises:
      UserError: a tokenizer whose levels can't be replaced, or not by these; a generator with parameters for each; no
        such number of tokens.
    """
    if tokens := config.sampling.get("tokens", 0):
        return _first(config, tokenizer, generator, tokens)
    pairs = tuple(
        tuple(x) if isinstance(x, (tuple, list)) else (int(x), int(x))
        for x in config.sampling.get("levels", ())
    )
    own = tokenizer.grid.levels
    leveled = isinstance(tokenizer, Leveled)
    if not pairs or (len(own) == 1 and not leveled and pairs == own):
        return tokenizer, generator
    if not isinstance(tokenizer, Autoencoder) or (leveled and not tokenizer.independent):
        raise UserError(
            "config field sampling.levels: needs a tokenizer of one level, or whose levels are independent, such as "
            f"pyramid_vq, found {config.tokenizer.name}"
        )
    tokenizer = tokenizer.over(pairs if leveled else _largest(pairs, own[0]))
    if generator is None:
        return tokenizer, None
    config = config.copy_and_resolve_references()
    if leveled:
        config.order = dict(name="levels")
    elif config.mixer.get("rope") == "places":
        with config.mixer.unlocked():
            config.mixer.trained_side = own[0][0]
    over = build_generator(config, tokenizer)
    shapes = [
        jax.tree.map(lambda x: x.shape, jax.eval_shape(g.init, jax.random.key(0))) for g in (generator, over)
    ]
    if shapes[0] != shapes[1]:
        raise UserError(
            "config field sampling.levels: needs a generator without parameters for each level or place, such as one "
            f"of feed.places table, or of rope places, found {config.feed.name}"
        )
    if not leveled and len(pairs) > 1 and not over.ordering.random_decoding:
        raise UserError(
            "config field sampling.levels: several need an order that may begin with any slots, such as random, found "
            f"{config.order.name}"
        )
    return tokenizer, over


def _first(config, tokenizer, generator, tokens: int):
    """A tokenizer and a generator over the first tokens."""
    if config.sampling.get("levels", ()):
        raise UserError(f"config field sampling.tokens: expected 0 where there are levels, found {tokens}")
    if not isinstance(tokenizer, Autoencoder):
        raise UserError(
            f"config field sampling.tokens: needs a tokenizer of registers, found {config.tokenizer.name}"
        )
    tokenizer = tokenizer.first(tokens)
    return tokenizer, None if generator is None else build_generator(config, tokenizer)


def _largest(pairs: tuple, trained: tuple[int, int]) -> tuple:
    """The last of sizes of a whole picture, in a tuple."""
    if len(pairs) > 1 and pairs[0] != trained:
        shown = "x".join(map(str, trained))
        raise UserError(
            f"config field sampling.levels: expected the first of several to be {shown}, as trained, found "
            f"{'x'.join(map(str, pairs[0]))}"
        )
    for small, large in itertools.pairwise(pairs):
        if large != (2 * small[0], 2 * small[1]):
            raise UserError(
                f"config field sampling.levels: expected each twice the one before, found {small[0]}x{small[1]} before "
                f"{large[0]}x{large[1]}"
            )
    return pairs[-1:]


def _stages(config, m, feed, grid, initial, dtype, cross: bool) -> tuple[Stage, ...]:
    """The stages that a feed names, all of the same blocks."""
    layers = _layers(m["layers"], len(feed.stages))
    depth = sum(layers[i] for i in feed.branches[0])
    block = _block(config.mixer, m, grid, initial, dtype, depth, cross, feed.rounds)
    norm, none = _norm(m, initial, dtype), _norm({**m, "final_norm": "none"}, initial, dtype)
    rounds = skip = None
    if m["adaptive"] == "rounds":
        rounds = RoundModulation(feed.rounds, m["width"], initial, dtype)
    if m["skips"]:
        skip = Dense(m["width"], ("embed", "mlp"), initial.kernel(), dtype=dtype)
        if min(layers) < 3:
            raise UserError(
                f"config field model.skips: needs three layers in each stage, found {', '.join(map(str, layers))}"
            )

    def stage(i: int, name: str) -> Stage:
        first = sum(layers[: min(i, feed.trunk)])  # stochastic depth goes on behind a trunk
        last = max((depth if feed.trunk else layers[i]) - 1, 1)
        rates = m["drop_path"] * first / last, m["drop_path"] * (first + layers[i] - 1) / last
        behind = none if i < feed.trunk else norm
        memory = feed.reads_memory(i)
        training = config.training.remat, config.training.scan_layers
        return Stage(name, block, layers[i], behind, rates, *training, memory, rounds, skip)

    return tuple(stage(i, name) for i, name in enumerate(feed.stages))


def _stage(config, m, grid, initial, dtype, layers: int, mixer=None) -> Stage:
    """A stage of a part's own, which no condition modulates; its blocks are the model's but for the mixer."""
    m = {**m, "adaptive": "none", "final_norm": "learned"}
    block = _block(
        mixer or config.mixer, m, grid, initial, dtype, layers, place="head.mixer" if mixer else "mixer"
    )
    return Stage("blocks", block, layers, _norm(m, initial, dtype))


def _block(
    mixer, m, grid, initial, dtype, layers: int, cross: bool = False, rounds: int = 1, place: str = "mixer"
) -> Block:
    """One of `layers` blocks, whose mixer the config has at a place."""
    width = m["width"]
    out_init = initial.kernel(1 / math.sqrt(layers * 2) if m["depth_scaled_init"] else 1.0)
    built = parts.build(
        MIXERS,
        mixer,
        place,
        grid=grid,
        width=width,
        kernel_init=initial.kernel(),
        out_init=out_init,
        dtype=dtype,
    )
    return Block(
        mixer=built,
        width=width,
        mlp_width=m["mlp_width"] or 4 * width,
        initial=initial,
        out_init=out_init,
        cross=_cross(mixer, width, initial, out_init, dtype) if cross else None,
        rounds=rounds,
        dtype=dtype,
        **{k: m[k] for k in BLOCK},
    )


def _norm(m, initial, dtype) -> FinalNorm:
    """The norm behind a stage's blocks."""
    modulated, final = m["adaptive"] in ("adaln", "shared"), m["final_norm"]
    if m["norm_position"] != "pre" and modulated:
        raise UserError(
            f"config field model.norm_position: expected pre where blocks are modulated, found {m['norm_position']}"
        )
    kind = "none" if m["norm_position"] == "post" or final == "none" else m["norm"]
    affine = final != "modulated" if modulated else m["affine"]
    modulated = modulated and final not in ("learned", "none")
    return FinalNorm(m["width"], initial, kind, affine, m["eps"], modulated, m["adaln_zero"], dtype)


def _cross(mixer, width, initial, out_init, dtype) -> CrossAttention:
    """Cross-attention with as many heads as the mixer."""
    heads = mixer.get("heads", 1)
    limits.check_heads(heads, width)
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


def parameter_count(module, *, skip: tuple[str, ...] = ()) -> int:
    """Number of parameters of a tokenizer or generator, without allocating any."""
    abstract = nn.meta.unbox(jax.eval_shape(module.init_boxed, jax.random.key(0)))
    return sum(math.prod(x.shape) for k, t in abstract.items() if k not in skip for x in jax.tree.leaves(t))


def count_text(count: int) -> str:
    """A number of parameters for a person: "52 thousand", "1.5 million", "310 million"."""
    if count < 1e6:
        return f"{count / 1e3:.0f} thousand"
    return f"{count / 1e6:.3g} million"
