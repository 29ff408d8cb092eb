"""A trained model, ready for use from Python and by the commands."""

from __future__ import annotations

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.generator import Generator
from vargen.models import build_generator, build_tokenizer
from vargen.samplers import Sampling, decode


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
