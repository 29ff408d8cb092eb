"""A categorical distribution over codes, and sampling from it with guidance, top-k and top-p."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.heads.head import Sample
from vargen.heads.plain import Plain, guided, mean
from vargen.kernels import filter_logits, keeps_inputs
from vargen.layers import Dense, Initial
from vargen.limits import RATE, Between


class Codes(Plain):
    """A distribution over codes by logits, and maybe over some words behind them that are never drawn.

    A subclass makes logits float32 [..., V] of [..., D], V at least K, in its `__call__`.

    Attributes:
      vocab: K.
      label_smoothing: share of the target spread over all V words.
      initial: of the model's parameters.
      dtype: compute dtype; logits are float32.
    """

    vocab: int
    label_smoothing: Annotated[float, RATE] = 0.0
    initial: Initial = Initial()  # noqa: RUF009
    dtype: Any = jnp.float32

    called = "categorical"
    explicit = True
    enumerable = True

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold anything but one code."""
        if not slot.vocab or slot.shape:
            raise ValueError(
                f"head {self.called}: expected a tokenizer of one code a slot, found slots of {slot}"
            )

    def codes(self, hidden):
        """Logits of the codes: [..., D] -> float32 [..., K]."""
        return self(hidden)[..., : self.vocab]

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean cross-entropy in nats.

        Args:
          hidden: [B, N, D].
          target: codes [B, N].
          layout, train, quantizer: unused here.
          weight: float32 [B, N], or None for ones.
          soft: None, or float32 [B, N, K]: probabilities in the place of `target`.

        Returns:
          The loss, and metrics: accuracy (of the likeliest code).
        """
        logits = self(hidden)
        nats = _cross_entropy(logits, target, soft, self.label_smoothing)
        hit = (jnp.argmax(logits, axis=-1) == target).astype(jnp.float32)
        return mean(nats, weight), {"accuracy": mean(hit, weight)}

    def log_prob(self, hidden, target, quantizer=None):
        """float32 [B, N], nats: log-probability of codes [B, N] given hidden [B, N, D]."""
        log_probs = jax.nn.log_softmax(self.codes(hidden))
        return jnp.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]

    def guided(self, hidden, guidance=None):
        """Logits float32 [B, n, K] of hidden [B, n, D], or under guidance [] or [B, n, 1] of [2B, n, D]."""
        return guided(self.codes(hidden), guidance)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws codes int32 [B, n], see `Head.sample` and `draw`; guidance is on the logits."""
        logits = self.guided(hidden, guidance)
        greedy = jnp.asarray(settings.temperature) <= 0
        law = filtered(logits, settings, jnp.where(greedy, 1.0, settings.temperature))
        codes = draws.choose(law, greedy)
        score, drawn, logit = (
            jnp.take_along_axis(x, codes[..., None], axis=-1)[..., 0]
            for x in (jax.nn.log_softmax(logits), jax.nn.log_softmax(law), logits)
        )
        return Sample(codes, score, drawn=drawn, logit=logit)

    def law(self, hidden, settings, guidance=None):
        """Logits float32 [B, n, K] of what `sample` draws from; at temperature 0 of the likeliest alone."""
        logits = filtered(self.guided(hidden, guidance), settings)
        likeliest = jnp.arange(logits.shape[-1]) == jnp.argmax(logits, axis=-1, keepdims=True)
        sure = jnp.where(likeliest, 0.0, -jnp.inf)
        return jnp.where(jnp.asarray(settings.temperature) <= 0, sure, logits)


class Categorical(Codes):
    """Logits are a linear map of the hidden vector.

    Attributes:
      bias: whether the map has a bias.
      init_std: deviation of the map at the start (0: zeros, a uniform distribution); its distribution is that of
        `initial`.
    """

    bias: bool = True
    init_std: Annotated[float, Between(0, 100)] = 0.0

    def setup(self):
        own = dataclasses.replace(self.initial, std=self.init_std)
        init = own.kernel() if self.init_std else nn.initializers.zeros
        self.out = Dense(self.vocab, ("embed", "vocab"), init, self.bias, self.dtype)

    def __call__(self, hidden):
        """Logits: [..., D] -> float32 [..., K]."""
        return self.out(hidden).astype(jnp.float32)


@functools.partial(keeps_inputs, static_argnums=3)
def _cross_entropy(logits, target, soft, smoothing: float):
    """Nats float32 [B, N], see `Codes.loss`."""
    log_probs = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    if soft is None:  # no gather, whose gradient would be a table of its own
        picked = jnp.sum(jnp.where(target[..., None] == np.arange(logits.shape[-1]), log_probs, 0.0), axis=-1)
    else:
        picked = jnp.sum(soft * log_probs, axis=-1)
    return -(1 - smoothing) * picked - (smoothing * jnp.mean(log_probs, axis=-1) if smoothing else 0.0)


def filtered(logits, settings, temperature=None) -> jax.Array:
    """Logits float32 [..., K] over the temperature, -inf where the filters of `settings` leave nothing.

    Args:
      logits: float32 [..., K].
      settings: `Sampling`.
      temperature: [] in the place of theirs.
    """
    top_p = settings.top_p if settings.nucleus else None
    temperature = settings.temperature if temperature is None else temperature
    temperature = jnp.maximum(jnp.asarray(temperature, jnp.float32), 1e-5)
    return filter_logits(logits / temperature, settings.top_k, top_p)


def draw(logits, draws, settings) -> jax.Array:
    """Draws from softmax(logits / temperature), filtered; the likeliest at temperature 0.

    Args:
      logits: float32 [B, n, K].
      draws: `Draws` for [B, n].
      settings: `Sampling`: its temperature divides the logits before its filters, see `filter_logits`.

    Returns:
      int32 [B, n].
    """
    return draws.choose(filtered(logits, settings), jnp.asarray(settings.temperature) <= 0)
