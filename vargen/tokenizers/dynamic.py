"""Dynamic quantisation (DQ-VAE, arXiv 2305.11718): a region of the picture has one code or four, as it needs.

A router looks at the coarse and the fine features of each region of 2x2 latents and picks one of the two grains; a loss
holds the share of fine regions at a budget. A picture is written as a sequence: of each coarse region, then of each
latent of the fine ones, its place and its code, then a stop code and padding. Places and codes come by turns, or each
code with its place in one slot, as DQ-VAE's generator draws them: a first stack of blocks says where, a second what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import KERNEL_INIT, logical
from vargen.limits import SHARE, SIZE, AtLeast, Between
from vargen.slots import Grid, Slot
from vargen.tokenizers import assembly, usage
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import Autoencoder, check_images
from vargen.tokenizers.layers import double
from vargen.tokenizers.vq import nearest

REGION = 4  # latents
FINE = 1  # of the two grains


@dataclasses.dataclass(frozen=True)
class DynamicVQ(Autoencoder):
    """Places and codes: code k as k, the place of coarse region r of R as K + r, of fine latent i (region by region) as
    K + R + i, and K + 5 R stops.

    Attributes:
      codes: K of the codebook, beside which the vocabulary has the places and the stop code.
      beta: weight of the commitment loss, in which a coarse code counts as one latent, not four.
      codebook_weight: weight of the codebook loss, likewise.
      fine: share of the regions that are to be fine.
      budget_weight: of the squared difference from that share, (batch's fine share - fine)^2.
      revive_every: updates between two rounds of revival of dead codes; 0 for never.
      revive_until: share of the training after which there is no such round.
      revive_threshold: codes below this fraction of the uniform share are dead.
      pairs: whether a slot holds a place and its code, int32 [B, N, 2], instead of one of them by turns.
    """

    codes: int
    beta: float
    codebook_weight: float
    fine: float
    budget_weight: float
    revive_every: int
    revive_until: float
    revive_threshold: float
    pairs: bool

    @property
    def regions(self) -> int:
        """R."""
        h, w = self.codec.grid
        return h * w // REGION

    @property
    def stop(self) -> int:
        """The code after the last."""
        return self.vocab - 1

    @property
    def slot(self) -> Slot:
        """A code or a place, or both."""
        return Slot((2,) if self.pairs else (), self.vocab, self.stop)

    def over(self, levels: tuple[tuple[int, int], ...]) -> Any:
        """Raises UserError for other slots: how many there are follows from the image."""
        if levels != self.grid.levels:
            found = ", ".join(f"{h}x{w}" for h, w in levels)
            raise UserError(
                f"sampling.levels: expected one row of {self.grid.size} slots, as the places are of one image size, "
                f"found {found}"
            )
        return self

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook float32 [K, C], the router's gate_in [2C, 2C], gate_bias [2C] and gate_out [2C, 2])."""
        key_codes, key_in, key_out = jax.random.split(key, 3)
        normal = logical(jax.nn.initializers.normal(self.channels**-0.5), "vocab", "latent")
        width, zeros = 2 * self.channels, logical(jax.nn.initializers.zeros, None)
        kernel = logical(KERNEL_INIT, None, None)
        return dict(
            codebook=normal(key_codes, (self.codes, self.channels), jnp.float32),
            gate_in=kernel(key_in, (width, width), jnp.float32),
            gate_bias=zeros(key_in, (width,), jnp.float32),
            gate_out=kernel(key_out, (width, 2), jnp.float32),
        )

    def init_stats(self) -> dict:
        """See `usage.init`."""
        return usage.init(1, self.codes)

    # Grains.

    def features(self, params: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Images [B, H, W, C_image] -> coarse float32 [B, h/2, w/2, C], a mean over each region, fine [B, h, w, C]."""
        check_images(self, images)
        fine, coarse = jnp.split(self.codec.encode(params, images), 2, axis=-1)
        return pooled(coarse), fine

    def gates(self, qparams: dict, coarse: jax.Array, fine: jax.Array) -> jax.Array:
        """Logits float32 [B, h/2, w/2, 2] of the two grains of each region, coarse and fine."""
        x = jnp.concatenate([_standard(coarse), pooled(_standard(fine))], axis=-1)
        x = jax.nn.silu(x @ qparams["gate_in"] + qparams["gate_bias"])
        return x @ qparams["gate_out"]

    def mixed(
        self, qparams: dict, coarse: jax.Array, fine: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The latents of the chosen grains.

        Args:
          qparams: params["quantizer"].
          coarse, fine: of `features`.
          key: for Gumbel noise on the logits, with which the probability of the choice has a gradient; None: the
            likelier grain.

        Returns:
          float32 [B, h, w, C], and which regions are fine, 0 or 1, float32 [B, h/2, w/2].
        """
        logits = self.gates(qparams, coarse, fine)
        if key is not None:
            logits = logits + jax.random.gumbel(key, logits.shape)
        chosen = jnp.argmax(logits, axis=-1)
        is_fine = (chosen == FINE).astype(jnp.float32)
        latents = jnp.where(double(is_fine[..., None]) > 0, fine, double(coarse))
        if key is None:
            return latents, is_fine
        soft = jax.nn.softmax(logits, axis=-1)
        own = jnp.take_along_axis(soft, chosen[..., None], axis=-1)
        return latents * double(_through(1.0, own)), _through(is_fine, soft[..., FINE])

    # Sequences.

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> places and codes int32 [B, N] or [B, N, 2]. The key is not used."""
        qparams = params["quantizer"]
        latents, is_fine = self.mixed(qparams, *self.features(params, images))
        codes = nearest(latents.reshape(-1, self.channels), qparams["codebook"])
        return self.write(codes.reshape(latents.shape[:3]), is_fine > 0)

    def write(self, codes: jax.Array, is_fine: jax.Array) -> jax.Array:
        """Codes int32 [B, h, w], of a coarse region that of its first latent, and bool [B, h/2, w/2], which regions are
        fine -> the sequence int32 [B, N] or [B, N, 2]."""
        batch, each = len(codes), _regions(codes)
        is_fine = is_fine.reshape(batch, -1)
        exists = jnp.concatenate([~is_fine, jnp.repeat(is_fine, REGION, axis=1)], axis=1)
        every = jnp.concatenate([each[..., 0], each.reshape(batch, -1)], axis=1)
        # Those that exist come first, each in its turn.
        turn = jnp.argsort(~exists, axis=1, stable=True)[:, : REGION * self.regions]
        pairs = jnp.stack([self.codes + turn, jnp.take_along_axis(every, turn, axis=1)], axis=-1)
        pairs = jnp.where(jnp.take_along_axis(exists, turn, axis=1)[..., None], pairs, self.stop)
        pairs = pairs.astype(jnp.int32)
        if self.pairs:
            return jnp.pad(pairs, ((0, 0), (0, 1), (0, 0)), constant_values=self.stop)
        return jnp.pad(pairs.reshape(batch, -1), ((0, 0), (0, 1)), constant_values=self.stop)

    def read(self, content: jax.Array, known: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """The inverse, of anything that a generator may have written.

        Args:
          content: int32 [B, N] or [B, N, 2], places and codes. A pair that isn't one, or stands behind a stop code,
            is passed over; of a place that is written twice the larger code counts, and a fine one over a coarse one.
          known: bool [B, N]: slots that count; None for all.

        Returns:
          Codes int32 [B, h, w], -1 where nothing is written; which of them are fine, bool [B, h, w].
        """
        content = self._by_turns(content)
        if known is not None and self.pairs:
            known = jnp.repeat(known, 2, axis=1)[:, :-1]
        alive = jnp.cumsum(content == self.stop, axis=1) == 0
        alive = alive if known is None else alive & known
        places, codes = content[:, 0:-1:2] - self.codes, content[:, 1::2]
        kept = alive[:, 0:-1:2] & alive[:, 1::2] & (places >= 0) & (codes < self.codes)
        batch, every = len(content), (1 + REGION) * self.regions
        table = jnp.full((batch, every), -1, jnp.int32)
        table = table.at[np.arange(batch)[:, None], jnp.where(kept, places, every)].max(codes, mode="drop")
        coarse, fine = table[:, : self.regions], table[:, self.regions :].reshape(batch, -1, REGION)
        found = jnp.where(fine >= 0, fine, coarse[..., None])
        h, w = self.codec.grid
        return _grid(found, h, w), _grid(fine >= 0, h, w)

    def valid(self, params: dict, content: jax.Array) -> jax.Array:
        """bool [B]: which write every latent, once, in the sequence of `write`."""
        codes, fine = self.read(content)
        again = self.write(jnp.maximum(codes, 0), pooled(fine[..., None].astype(jnp.float32))[..., 0] == 1)
        found, again = self._by_turns(content), self._by_turns(again)
        return jnp.all(Slot((), self.vocab, self.stop).padded(found) == again, axis=1)

    def _by_turns(self, content: jax.Array) -> jax.Array:
        """Places and codes by turns, int32 [B, N]; of pairs [B, (N + 1) / 2, 2] all but what stands behind the stop."""
        return content.reshape(len(content), -1)[:, :-1] if self.pairs else content

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Places and codes int32 [B, N] or [B, N, 2] -> float32 [B, h, w, C], zero where none is written or known."""
        codes = self.read(content, known)[0]
        return jnp.where(codes[..., None] < 0, 0.0, qparams["codebook"][jnp.maximum(codes, 0)])

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [...] -> float32 [..., C], zero for places and the stop code."""
        vectors = qparams["codebook"][jnp.minimum(content, self.codes - 1)]
        return jnp.where(content[..., None] < self.codes, vectors, 0.0)

    # Training.

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The straight-through latents of grains drawn with Gumbel noise; the losses; statistics of the codes."""
        qparams = params["quantizer"]
        latents, is_fine = self.mixed(qparams, *self.features(params, images), key)
        codes = nearest(latents.reshape(-1, self.channels), qparams["codebook"])
        chosen = qparams["codebook"][codes].reshape(latents.shape)
        fixed, target = jax.lax.stop_gradient((latents, chosen))
        counts = jax.lax.stop_gradient(double((1 + (REGION - 1) * is_fine[..., None]) / REGION))
        share = jnp.mean(is_fine)
        found = dict(
            codebook=jnp.mean(counts * jnp.square(chosen - fixed)),
            commitment=jnp.mean(counts * jnp.square(target - latents)),
            budget=jnp.square(share - self.fine),
        )
        loss = self.codebook_weight * found["codebook"] + self.beta * found["commitment"]
        loss = loss + self.budget_weight * found["budget"]
        stats = usage.update(stats, usage.hits(codes, self.codes)[None])
        metrics = found | dict(fine=share) | usage.summary(stats, (1,), self.revive_threshold)
        return latents + jax.lax.stop_gradient(chosen - latents), loss, stats, metrics

    def revive(
        self,
        params: dict,
        stats: dict,
        images: jax.Array | None,
        key: jax.Array,
        step: jax.Array | int,
        steps: int,
    ) -> tuple[dict, dict]:
        """Every `revive_every` updates, moves dead codes onto latents of `images`."""
        if images is None or not self.revive_every:
            return params, stats

        def move(params, stats):
            quantizer, found = params["quantizer"], self.features(params, images)
            vectors = self.mixed(quantizer, *found)[0].reshape(-1, self.channels)
            codebook, stats = usage.revive(
                quantizer["codebook"], stats, [vectors], key, self.revive_threshold
            )
            return dict(params, quantizer=dict(quantizer, codebook=codebook)), stats

        due = usage.due(step, steps, self.revive_every, self.revive_until)
        return jax.lax.cond(due, move, lambda *same: same, params, stats)


def pooled(x: jax.Array) -> jax.Array:
    """The mean over each region: [B, h, w, C] -> [B, h/2, w/2, C]."""
    batch, h, w, channels = x.shape
    return x.reshape(batch, h // 2, 2, w // 2, 2, channels).mean((2, 4))


def _regions(x: jax.Array) -> jax.Array:
    """[B, h, w] -> [B, R, 4]."""
    batch, h, w = x.shape
    return x.reshape(batch, h // 2, 2, w // 2, 2).swapaxes(2, 3).reshape(batch, -1, REGION)


def _grid(x: jax.Array, h: int, w: int) -> jax.Array:
    """The inverse of `_regions`."""
    return x.reshape(len(x), h // 2, w // 2, 2, 2).swapaxes(2, 3).reshape(len(x), h, w)


def _through(value: Any, soft: jax.Array) -> jax.Array:
    """A value with the gradient of another."""
    return value + (soft - jax.lax.stop_gradient(soft))


def _standard(x: jax.Array) -> jax.Array:
    """x [..., C] with mean 0 and variance 1 over the channels."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def build_dynamic_vq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    codes: Annotated[int, Between(2, 2**20)] = 1024,
    channels: Annotated[int, SIZE] = 256,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    codebook_weight: Annotated[float, AtLeast(0)] = 1.0,
    fine: Annotated[float, SHARE] = 0.5,
    budget_weight: Annotated[float, AtLeast(0)] = 20.0,
    revive_every: Annotated[int, AtLeast(0)] = 100,
    revive_until: Annotated[float, SHARE] = 0.67,
    revive_threshold: Annotated[float, SHARE] = 0.03,
    pairs: bool = False,
) -> DynamicVQ:
    """The part "dynamic_vq": one code for a region or four; options as `DynamicVQ`'s attributes, DQ-VAE's by default.

    Args:
      codes: K of the codebook.

    Raises:
      UserError: the encoder's grid has an odd side.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 2, dtype)
    if any(side % 2 for side in codec.grid):
        found = "x".join(map(str, codec.grid))
        raise UserError(f"config field tokenizer.encoder: expected latents of even sides, found {found}")
    regions = codec.grid[0] * codec.grid[1] // REGION
    slots = REGION * regions + 1 if pairs else 2 * REGION * regions + 1
    own = dict(grid=Grid(((1, slots),)), vocab=codes + (1 + REGION) * regions + 1)
    return assembly.made(DynamicVQ, locals(), **own)
