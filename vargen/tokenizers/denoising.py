"""A network that draws: an estimate of images in noisy ones by rectified flow, looking at registers (FlexTok, arXiv
2502.13967).

With x_t = (1 - t) x + t e and e of N(0, I) the network gives the velocity v of e - x; its estimate of the image is
x_t - t v, and mean |v - (e - x)|^2 is the estimate's squared error over t^2: so the losses on images serve here too. Or
it gives the estimate itself (arXiv 2511.13720), whose errors count alike at all times: registers, of which there is
most need where there is most noise, are then learnt much sooner. What x holds may be the image times a scale.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.layers import Dense, sinusoid
from vargen.sharding import by_batch
from vargen.tokenizers import patches
from vargen.tokenizers.reading import Ends, Told, in_two
from vargen.tokenizers.transformer import SMALL, XAVIER, Rows, Sizes, Transformer, norm, table


class Flow(nn.Module):
    """An estimate of the image in noisy ones, from their time and registers.

    Attributes:
      ends: of the codec, with the decoder's own sizes.
      forgets: whether registers may be left out altogether, for guidance.
      predicts: "velocity", or "image".
      time: how it is told, see `flowing.build`.
      apart: whether registers are modulated apart from patches, see there.
      frequencies, period, time_scale, counts: of the time's cosines and sines, see there.
      told_layers: how many blocks registers pass before, see there.
      shown_after: how many blocks come before `shown`, the rows of patches that a loss may look at; 0: there are none.
      scale: of what is drawn over the image.
    """

    ends: Ends
    forgets: bool
    predicts: str
    time: str
    apart: bool
    frequencies: int
    period: float
    time_scale: float
    counts: str
    told_layers: int
    shown_after: int
    scale: float

    waves = None  # in the place of a table of places

    def setup(self) -> None:
        size, init = self.ends.patch**2 * self.ends.image_channels, nn.initializers.zeros
        init = XAVIER.kernel() if self.time == "row" else init
        self.patch_out = Dense(size, ("embed", None), init, dtype=self.ends.dtype)

    @nn.compact
    def features(
        self,
        latents: jax.Array,
        known: jax.Array | None,
        noisy: jax.Array,
        t: jax.Array,
        without: jax.Array | None = None,
        window: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """What `last` takes.

        Args:
          latents: [B, 1, n, C].
          known: bool [B, 1, n], or None for all.
          noisy: float32 [B, H, W, C_image].
          t: float32 [B], from 0 (image) to 1 (noise).
          without: bool [B]: whose registers are left out.
          window: int32 [B, m]: the registers that alone are looked at; None: all.
        """
        ends = self.ends
        told = self.told(latents, known, without)
        told = told if window is None else jnp.take_along_axis(told, window[..., None], axis=1)
        x = patches.apart(noisy.astype(ends.dtype), ends.patch)
        x = Rows(ends.sizes.width, ends.dtype, ends.axes, not ends.rotary, name="patches")(x, self.waves)
        return dict(rows=self.through(x, told, self.waved(t)), noisy=noisy, t=t)

    def waved(self, t: jax.Array) -> jax.Array:
        """Cosines and sines of times float32 [B]: [B, F]."""
        t = 1.0 - t if self.counts == "up" else t
        return sinusoid(self.time_scale * t, self.frequencies, self.period)

    def told(self, latents: jax.Array, known: jax.Array | None, without: jax.Array | None) -> jax.Array:
        """What is told of registers, arguments as of `features`: [B, K, D]."""
        ends, sizes = self.ends, self.ends.sizes
        told = Told(ends, name="registers")(latents, known)
        if self.told_layers:
            own = dataclasses.replace(sizes, layers=self.told_layers, rotary=False)
            times = tuple(range(ends.registers))
            told = Transformer(own, times, False, ends.dtype, name="told_blocks")(told)
            told = norm(sizes, "told_out")(told)
        if not self.forgets:
            return told
        nothing = table(self, "nothing", 1, sizes.width).astype(ends.dtype)
        return told if without is None else jnp.where(without[:, None, None], nothing, told)

    def through(self, x: jax.Array, told: jax.Array, time: jax.Array) -> jax.Array:
        """Rows of patches [B, N, D], with what is told [B, M, D] and waves of the time [B, F] -> those behind the last
        norm [B, N, D]."""
        ends, sizes, count = self.ends, self.ends.sizes, x.shape[1]
        time = timed(time, sizes.width, ends.dtype)
        modulated = self.time == "adaln"
        x = jnp.concatenate([x, told] + [time.astype(x.dtype)] * (not modulated), axis=1)
        x = norm(sizes, "norm_in")(x) if ends.norm_in else x
        times = (0,) * x.shape[1]
        kinds = tuple(int(i >= count) for i in range(len(times))) if self.apart else None
        coords, condition = ends.alone(0, len(times) - count), time if modulated else None

        def run(own: Sizes, name: str, x: jax.Array) -> jax.Array:
            return Transformer(own, times, modulated, ends.dtype, kinds, coords, name=name)(x, condition)

        x = in_two(sizes, self.shown_after, (0, count), run, x)[:, :count]
        scale = shift = None
        if modulated:
            init = nn.initializers.zeros
            both = Dense(2 * sizes.width, ("embed", "mlp"), init, dtype=ends.dtype, name="modulation")
            scale, shift = jnp.split(both(nn.silu(time)), 2, axis=-1)
        return norm(sizes, "norm_out", not modulated)(x, scale, shift)

    def last(self, features: dict[str, jax.Array]) -> jax.Array:
        """The estimate of the image: float32 [B, H, W, C_image]."""
        out = patches.together(self.patch_out(features["rows"]), self.ends.patches, self.ends.patch)
        out = out.astype(jnp.float32)
        if self.predicts == "image":
            return out
        return (features["noisy"] - features["t"][:, None, None, None] * out) / self.scale

    def __call__(
        self,
        latents: jax.Array,
        noisy: jax.Array | None = None,
        t: Any = 0.0,
        known: jax.Array | None = None,
        without: jax.Array | None = None,
        window: jax.Array | None = None,
    ) -> jax.Array:
        """The estimate of the image, see `features` and `last`; of nothing (for initialisation) where none is given."""
        noisy = self.nothing(latents) if noisy is None else noisy
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), len(latents))
        return self.last(self.features(latents, known, noisy, t, without, window))

    def nothing(self, latents: jax.Array) -> jax.Array:
        """Zeros in the place of what is drawn for latents [B, ...]: float32 [B, H, W, C_image]."""
        ends = self.ends
        height, width = (n * ends.patch for n in ends.patches)
        return jnp.zeros((len(latents), height, width, ends.image_channels))


def timed(waves: jax.Array, width: int, dtype: Any) -> jax.Array:
    """A network of a module in the making over cosines and sines [B, F]: [B, 1, D]."""
    for name in ("time_1", "time_2"):
        dense = Dense(width, (None, "embed"), SMALL, dtype=dtype, name=name)
        waves = by_batch(nn.silu(dense(waves)) if name == "time_1" else dense(waves))
    return waves[:, None]
