"""From a config to a model: the only place that knows how the axes meet."""

from __future__ import annotations

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from vargen.samplers import Sampling, decode

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


class Model:
    """A trained tokenizer and generator, ready for use; what `vargen.load` returns.

    Attributes:
      config: the config that it was trained with.
      tokenizer, tokenizer_params: the pure functions, and their parameters.
      generator, generator_params: likewise; None where only a tokenizer was trained.
    """

    def __init__(self, config, tokenizer_params, generator_params=None):
        self.config = config
        self.tokenizer = build_tokenizer(config)
        self.tokenizer_params = tokenizer_params
        self.generator_params = generator_params
        self.generator = None if generator_params is None else build_generator(config, self.tokenizer)
        self._encode = jax.jit(self.tokenizer.encode)
        self._decode = jax.jit(self.tokenizer.decode)
        self._decode_known = jax.jit(
            lambda params, content, known: self.tokenizer.decode_latents(
                params, self.tokenizer.latents(params["quantizer"], content, known)
            )
        )
        if self.generator is not None:
            self._generate = jax.jit(functools.partial(decode, self.generator))
            self._log_likelihood = jax.jit(self.generator.log_likelihood)

    def with_config(self, config) -> Model:
        """The same parameters under another config (another compute dtype, other sampling settings)."""
        return Model(config, self.tokenizer_params, self.generator_params)

    def encode(self, images) -> jax.Array:
        """Images float32 [B, H, W, C] in [-1, 1] -> codes int32 [B, N] or latents float32 [B, N, C]."""
        return self._encode(self.tokenizer_params, jnp.asarray(images))

    def decode(self, content) -> jax.Array:
        """Codes int32 [B, N] or latents float32 [B, N, C] -> images float32 [B, H, W, C], about [-1, 1]."""
        return self._decode(self.tokenizer_params, content)

    def reconstruct(self, images) -> jax.Array:
        """Images through the tokenizer and back: float32 [B, H, W, C] -> the same shape."""
        return self.decode(self.encode(images))

    def sampling(self, **options) -> Sampling:
        """The config's sampling settings with some replaced (those that are not None).

        Raises:
          UserError: an unknown setting or a value out of range.
        """
        options = {**self.config.sampling, **{k: v for k, v in options.items() if v is not None}}
        try:
            return Sampling.make(**options)
        except ValueError as error:
            raise UserError(str(error)) from error

    def generate(self, labels, key, **options):
        """Contents for labels int32 [B], and the order in which they came.

        Args:
          labels: int32 [B], 0 to the number of classes - 1, the number of classes stands for no label; for
            captions the embeddings float [B, T, E] and their mask [B, T].
          key: PRNG key, or an int seed.
          **options: as in `Sampling`: guidance, temperature, top_k, top_p, steps, ...

        Raises:
          UserError: no generator here, a label or an option out of range.
        """
        generator = self.needs_generator()
        sampling = self.sampling(**options)
        if generator.head.kind == "latents" and (sampling.top_k or sampling.nucleus):
            raise UserError(f"top-k and top-p: need a categorical head, found {self.config.head.name}")
        key = jax.random.key(key) if isinstance(key, int) else key
        quantizer = self.tokenizer_params["quantizer"]
        try:
            labels = jax.tree.map(jnp.asarray, generator.condition.parse(labels))
            return self._generate(self.generator_params, quantizer, labels, key, sampling)
        except ValueError as error:
            raise UserError(str(error)) from error

    def sample(self, labels, key, **options) -> jax.Array:
        """Images float32 [B, H, W, C], about [-1, 1], for labels int32 [B]; arguments as for `generate`."""
        return self.decode(self.generate(labels, key, **options)[0])

    def sample_steps(self, labels, key, pictures: int = 10, **options) -> jax.Array:
        """The images as they grow, see `growth`; arguments as for `generate`."""
        return self.growth(*self.generate(labels, key, **options), pictures)

    def growth(self, content, order, pictures: int = 10, chosen=None) -> jax.Array:
        """Images as they grow: float32 [P, B, H, W, C], the last one finished.

        Args:
          content, order: what `generate` gave.
          pictures: the most pictures; evenly spaced where there are more steps.
          chosen: int [b], of which examples; None: of all.
        """
        steps = np.asarray(order.steps)
        count = int(steps[-1]) + 1
        shown = np.unique(np.linspace(0, count - 1, min(pictures, count)).round().astype(int))
        slots = jnp.broadcast_to(jnp.asarray(order.slots), content.shape[:2])
        if chosen is not None:
            content, slots = content[chosen], slots[chosen]
        step_of = jax.vmap(lambda s: jnp.zeros(len(steps), jnp.int32).at[s].set(steps))(slots)
        return jnp.stack([self._decode_known(self.tokenizer_params, content, step_of <= s) for s in shown])

    def log_likelihood(self, content, labels) -> jax.Array:
        """float32 [B], nats: log p(codes int32 [B, N] | labels int32 [B]).

        Raises:
          UserError: no generator here, or one without an explicit likelihood.
        """
        self.needs_generator()
        try:
            quantizer = self.tokenizer_params["quantizer"]
            labels = jax.tree.map(jnp.asarray, self.generator.condition.parse(labels))
            return self._log_likelihood(self.generator_params, quantizer, content, labels)
        except ValueError as error:
            raise UserError(str(error)) from error

    def needs_generator(self) -> Generator:
        """The generator.

        Raises:
          UserError: there is none.
        """
        if self.generator is None:
            raise UserError("model: expected a trained generator, found a tokenizer alone")
        return self.generator


def load(path: str | pathlib.Path, which: str = "ema") -> Model:
    """A model from a working directory of `vargen train` or a directory of `vargen import`; the config lies inside.

    Args:
      path: the directory.
      which: "ema" or "params": averaged or last parameters.

    Raises:
      UserError: no checkpoint there.
    """
    from vargen.training.checkpoints import FOLDER, WEIGHTS, load_params

    path = pathlib.Path(path).expanduser()
    config, tokenizer_params, _ = load_params(path / "tokenizer", which)
    generator_params = None
    if (path / "generator" / FOLDER).is_dir() or (path / "generator" / WEIGHTS).is_file():
        config, generator_params, _ = load_params(path / "generator", which)
    return Model(config, tokenizer_params, generator_params)
