"""Several codes a slot, one after another, by a small transformer over them (RQ-Transformer, arXiv 2203.01941)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.heads.categorical import draw
from vargen.heads.head import Sample
from vargen.heads.plain import OfSeveralCodes, guided, mean
from vargen.layers import Dense, Embed, Initial, logical
from vargen.layout import Layout
from vargen.limits import COUNT, Between


class Depth(OfSeveralCodes):
    """p(k_1 .. k_Q | hidden) = prod over d of p(k_d | hidden, k_1 .. k_(d-1)).

    A causal transformer of Q rows for every slot apart: the hidden vector, then what the codes so far add up to; row d
    gives the logits of code d.

    Attributes:
      tokenizer: whose codes they are.
      blocks: the transformer, a `Stage`.
      initial: of the model's parameters.
      vectors: rows are the sum of the tokenizer's vectors so far through a linear map, or a learned vector of the code
        before, from a table for each depth.
      shared: one map to logits for all depths, or one each.
      init_std: deviation of that map at the start (0: zeros, a uniform distribution).
      dtype: compute dtype; logits are float32.
    """

    tokenizer: Any
    blocks: Any
    initial: Initial
    vectors: bool = True
    shared: bool = True
    init_std: float = 0.0
    dtype: Any = jnp.float32

    explicit = True
    called = "depth"

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold anything but several codes, and for a mixer that can't mix these."""
        super().check(slot)
        try:
            self.blocks.block.mixer.check(_layout(np.arange(self.depths)))
        except ValueError as error:
            text = str(error).removeprefix("config field ")
            raise ValueError(
                f"config field head.{text} (in the head depth, of the {self.depths} codes of a slot)"
            ) from error

    @property
    def depths(self) -> int:
        """Q."""
        return self.tokenizer.slot.shape[0]

    def setup(self):
        depths, vocab = self.depths, self.tokenizer.vocab
        width, table = self.blocks.block.width, self.initial.table()
        self.weights = self.param("stage", self.blocks.init_boxed)
        self.places = self.param("places", logical(table, None, "embed"), (depths, width))
        if self.vectors:
            self.inner = Dense(width, ("latent", "embed"), self.initial.kernel(), dtype=self.dtype)
        else:
            self.codes = Embed(depths * vocab, width, table, "vocab", self.dtype)
        own = dataclasses.replace(self.initial, std=self.init_std)
        init = own.kernel() if self.init_std else nn.initializers.zeros
        if self.shared:
            self.out = Dense(vocab, ("embed", "vocab"), init, dtype=self.dtype)
        else:
            each, zeros = logical(init, None, "embed", "vocab"), nn.initializers.zeros
            self.kernel = self.param("kernel", each, (depths, width, vocab))
            self.bias = self.param("bias", logical(zeros, None, "vocab"), (depths, vocab))

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [B, n, D] -> float32 [B, n, Q, K]."""
        shape = (*hidden.shape[:2], self.depths)
        vectors = jnp.zeros((*shape, self.tokenizer.channels))
        return self.logits(self.through(self.rows(hidden, jnp.zeros(shape, jnp.int32), vectors)))

    def rows(self, hidden, codes, vectors):
        """Rows of the transformer where the codes are known: [B, n, Q, D].

        Args:
          hidden: [B, n, D].
          codes: int32 [B, n, Q], of which the last is not looked at.
          vectors: theirs, float32 [B, n, Q, C].
        """
        if self.vectors:
            before = self.inner(jnp.cumsum(vectors, axis=-2)[..., :-1, :])
        else:
            first = self.tokenizer.vocab * np.arange(self.depths)
            before = self.codes((codes + first)[..., :-1])
        rows = jnp.concatenate([hidden[..., None, :].astype(before.dtype), before], axis=-2)
        return rows + self.places.astype(rows.dtype)

    def through(self, rows, key=None):
        """Rows [B, n, Q, D] through the transformer; with a key its dropout is on."""
        x = rows.reshape(-1, *rows.shape[-2:])
        return self.blocks(self.weights, x, _layout(np.arange(self.depths)), None, None, key=key)[0].reshape(
            rows.shape
        )

    def logits(self, x, depth: int | None = None):
        """float32 [..., Q, K] of [..., Q, D], or of one depth [..., K] of [..., D]."""
        if self.shared:
            return self.out(x).astype(jnp.float32)
        kernel, bias = self.kernel.astype(self.dtype), self.bias
        if depth is None:
            return jnp.einsum("...qd,qdk->...qk", x, kernel).astype(jnp.float32) + bias
        return (x @ kernel[depth]).astype(jnp.float32) + bias[depth]

    def known(self, hidden, codes, quantizer, key=None):
        """Logits float32 [B, n, Q, K] of codes [B, n, Q] that are known."""
        vectors = self.tokenizer.vectors(quantizer, codes) if self.vectors else None
        return self.logits(self.through(self.rows(hidden, codes, vectors), key))

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean cross-entropy in nats, over slots and codes; see `Head.loss`.

        Returns:
          The loss, and metrics: accuracy (of the likeliest code), and nats_1 to nats_Q of the depths.
        """
        logits = self.known(hidden, target, quantizer, self.make_rng("head") if train else None)
        log_p = jax.nn.log_softmax(logits)
        nats = -_picked(log_p, target) if soft is None else -jnp.sum(soft * log_p, axis=-1)
        hit = jnp.mean(jnp.argmax(logits, axis=-1) == target, axis=-1, dtype=jnp.float32)
        depths = {f"nats_{d + 1}": mean(nats[..., d], weight) for d in range(self.depths)}
        return mean(jnp.mean(nats, axis=-1), weight), {"accuracy": mean(hit, weight)} | depths

    def log_prob(self, hidden, target, quantizer=None):
        """float32 [B, n], nats: log-probability of codes [B, n, Q]."""
        return jnp.sum(_picked(jax.nn.log_softmax(self.known(hidden, target, quantizer)), target), axis=-1)

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws codes int32 [B, n, Q], see `Head.sample` and `draw`; guidance is on the logits of every depth."""
        codes, logits = self.drawn(hidden, draws, settings, guidance, quantizer)
        return Sample(codes, jnp.sum(_picked(jax.nn.log_softmax(logits), codes), axis=-1))

    def drawn(self, hidden, draws, settings, guidance=None, quantizer=None):
        """Codes int32 [B, n, Q], and the logits float32 [B, n, Q, K] that they were drawn by, before the filters."""
        batch, n, depths = *draws.shape, self.depths
        conditions = len(hidden) // batch
        codes, seen = jnp.zeros((batch, n, depths), jnp.int32), []
        row = hidden.reshape(-1, 1, hidden.shape[-1]).astype(self.dtype)
        cache = self.blocks.init_cache(self.weights, len(row), depths)
        for d in range(depths):
            if d:
                vectors = self.tokenizer.vectors(quantizer, codes) if self.vectors else None
                row = self._next(codes, vectors, d, conditions)
            row = row + self.places[d].astype(row.dtype)
            x, cache = self.blocks(self.weights, row, _layout(np.array([d]), d), None, None, cache=cache)
            logits = guided(self.logits(x.reshape(len(hidden), n, -1), d), guidance)
            codes = codes.at[..., d].set(draw(logits, draws.of(d), settings.of(d)))
            seen.append(logits)
        return codes, jnp.stack(seen, axis=2)

    def _next(self, codes, vectors, depth: int, conditions: int):
        """The row [R B n, 1, D] of a depth after the first, without its place."""
        if self.vectors:
            row = self.inner(jnp.sum(vectors[..., :depth, :], axis=-2))
        else:
            row = self.codes(codes[..., depth - 1] + self.tokenizer.vocab * (depth - 1))
        return jnp.tile(row.reshape(-1, 1, row.shape[-1]), (conditions, 1, 1))


def build(
    tokenizer: Any,
    stage: Callable,
    initial: Initial,
    dtype: Any,
    layers: Annotated[int, COUNT] = 4,
    mixer: Any = None,
    vectors: bool = True,
    shared: bool = True,
    init_std: Annotated[float, Between(0, 100)] = 0.0,
) -> Depth:
    """The part "depth"; the other options as `Depth`'s attributes.

    Args:
      stage: (layers, mixer part or None) -> `Stage` of blocks like the model's own, with a norm behind them.
      layers: of the transformer over the codes of a slot.
      mixer: its mixer, a part; None: as the model's.
    """
    blocks = stage(layers, mixer)
    return Depth(tokenizer, blocks, initial, vectors, shared, init_std, dtype)


def _layout(depths: np.ndarray, start: int | None = None) -> Layout:
    """Rows of one slot, each of a time of its own, which lie at one place."""
    keys = None if start is None else np.arange(start + len(depths))
    return Layout(depths, np.zeros((len(depths), 2), np.int32), start, keys)


def _picked(log_p, codes):
    """float32 [..., K] at codes [...] -> [...]."""
    return jnp.take_along_axis(log_p, codes[..., None], axis=-1)[..., 0]
