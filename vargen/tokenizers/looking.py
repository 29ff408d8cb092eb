"""A network that draws as `Flow` does, but whose patches look across at registers (D-AR, arXiv 2505.23660).

Registers aren't rows beside the patches: in every block patches look at them by a cross-attention, and what each finds
there modulates it, with the time (adaLN-Zero, arXiv 2212.09748, of every row by itself). A block has networks of its
own for the time and for the registers.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vargen.layers import Dense, Mlp, Norm
from vargen.layout import Layout, Memory
from vargen.mixers.attention import Attention
from vargen.sharding import by_batch
from vargen.tokenizers.denoising import Flow, timed
from vargen.tokenizers.reading import in_two
from vargen.tokenizers.transformer import XAVIER, Sizes, norm, one_after_another

Coords = tuple[tuple[int, int], ...] | None


class Looking(nn.Module):
    """A block.

    Attributes:
      sizes: of the block.
      coords: where patches lie, see `transformer.Layer`.
      dtype: of the computation.
    """

    sizes: Sizes
    coords: Coords
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, told: jax.Array, time: jax.Array) -> jax.Array:
        """Patches [B, N, D] that look at rows [B, M, D], with cosines and sines of the time [B, F] -> [B, N, D]."""
        sizes, init, x = self.sizes, XAVIER.kernel(), by_batch(x)
        plain = Norm(sizes.norm, False, sizes.eps, name="plain")
        own = Mlp(sizes.width, "silu", init, init, dtype=self.dtype, name="told")(told)
        coords = np.zeros((x.shape[1], 2), np.int32)
        coords = coords if self.coords is None else np.array(self.coords, np.int32)
        times = np.zeros(len(coords), np.int32)
        found = self._across(plain(x), plain(own), Layout(times, coords))
        block = sizes.block(True, self.dtype)
        modulation = block.modulate(timed(time, sizes.width, self.dtype) + found)
        return block(x, modulation, Layout(times, coords))[0]

    def _across(self, x: jax.Array, told: jax.Array, layout: Layout) -> jax.Array:
        """What patches find: [B, N, D]. Registers have no places."""
        sizes, init = self.sizes, XAVIER.kernel()
        heads = (*told.shape[:2], sizes.heads, sizes.width // sizes.heads)

        def project(name: str) -> jax.Array:
            dense = Dense(sizes.width, ("embed", "heads"), init, sizes.bias, self.dtype, name=name)
            return dense(told).reshape(heads)

        key, value = project("key"), project("value")
        if sizes.qk_norm != "none":
            key = Norm(sizes.qk_norm, sizes.affine, sizes.eps, name="key_norm")(key)
        memory = Memory(key, value, np.zeros(told.shape[1], np.int32))
        look = Attention(
            sizes.width,
            sizes.heads,
            init,
            init,
            qk_norm=sizes.qk_norm,
            norm_affine=sizes.affine,
            bias="qkv" if sizes.bias else "none",
            out_bias=sizes.bias,
            rope="places" if sizes.rotary else "none",
            scale=sizes.logit_scale,
            eps=sizes.eps,
            dtype=self.dtype,
            name="across",
        )
        return look(x, Layout(layout.times, layout.coords, memory=memory))[0]


class Looks(nn.Module):
    """L blocks, one after another; the attributes are `Looking`'s. Parameters are stacked, and loops go over them."""

    sizes: Sizes
    coords: Coords
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, told: jax.Array, time: jax.Array) -> jax.Array:
        """As `Looking`'s."""
        block = Looking(self.sizes, self.coords, self.dtype, parent=None)
        x, told = x.astype(self.dtype), told.astype(self.dtype)
        return one_after_another(self, block, self.sizes.layers, x, told, time)


class LookingFlow(Flow):
    """As `Flow`, whose patches look across at registers."""

    def through(self, x: jax.Array, told: jax.Array, time: jax.Array) -> jax.Array:
        """See `Flow.through`."""
        ends, sizes = self.ends, self.ends.sizes
        told = Dense(sizes.width, (None, "embed"), XAVIER.kernel(), dtype=ends.dtype, name="told_in")(told)
        told = norm(sizes, "told_norm")(told)
        x = norm(sizes, "norm_in")(x) if ends.norm_in else x

        def run(own: Sizes, name: str, x: jax.Array) -> jax.Array:
            return Looks(own, ends.alone(0, 0), ends.dtype, name=name)(x, told, time)

        return norm(sizes, "norm_out")(in_two(sizes, self.shown_after, (0, x.shape[1]), run, x))
