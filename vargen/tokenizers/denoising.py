"""A decoder that draws: images from noise by rectified flow, looking at registers (FlexTok, arXiv 2502.13967).

With x_t = (1 - t) x + t e and e of N(0, I) the network gives the velocity v of e - x; its estimate of the image is
x_t - t v, and mean |v - (e - x)|^2 is the estimate's squared error over t^2: so the losses on images serve here too. Or
it gives the estimate itself (arXiv 2511.13720), whose errors count alike at all times: registers, of which there is
most need where there is most noise, are then learnt much sooner. In decoding the noise is the same for all images and
always, so that contents have one picture.

Released in groups (D-AR, 2505.23660; Selftok, 2505.07538) the first registers alone are seen where there is much noise,
and more of them with every part of the way: a prefix of the registers decides the first part of it.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.layers import Dense, sinusoid
from vargen.limits import RATE, SHARE, Above, AtLeast, Between, OneOf, divisors
from vargen.sharding import by_batch
from vargen.tokenizers import patches
from vargen.tokenizers.guidance import Guidance
from vargen.tokenizers.reading import LAYERS, Ends, RegisterCodec, Told
from vargen.tokenizers.transformer import (
    SMALL,
    XAVIER,
    Rows,
    Transformer,
    norm,
    table,
)

LEAST = 1e-2  # of t in training, whose inverse square weighs


class Flow(nn.Module):
    """An estimate of the image in noisy ones, from their time and registers.

    Attributes:
      ends: of the codec, with the decoder's own sizes.
      forgets: whether registers may be left out altogether, for guidance.
      predicts: "velocity", or "image".
      time: how it is told, see `build_flow`.
      apart: whether registers are modulated apart from patches, see there.
      frequencies, period, time_scale: of the time's cosines and sines, see there.
    """

    ends: Ends
    forgets: bool
    predicts: str
    time: str
    apart: bool
    frequencies: int
    period: float
    time_scale: float

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
    ) -> dict[str, jax.Array]:
        """What `last` takes.

        Args:
          latents: [B, 1, n, C].
          known: bool [B, 1, n], or None for all.
          noisy: float32 [B, H, W, C_image].
          t: float32 [B], from 0 (image) to 1 (noise).
          without: bool [B]: whose registers are left out.
        """
        ends, sizes = self.ends, self.ends.sizes
        told = self.told(latents, known, without)
        x = patches.apart(noisy.astype(ends.dtype), ends.patch)
        x = Rows(sizes.width, ends.dtype, ends.axes, name="patches")(x, self.waves)
        count = x.shape[1]
        time = sinusoid(self.time_scale * t, self.frequencies, self.period)
        for name in ("time_1", "time_2"):
            dense = Dense(sizes.width, (None, "embed"), SMALL, dtype=ends.dtype, name=name)
            time = by_batch(nn.silu(dense(time)) if name == "time_1" else dense(time))
        modulated, time = self.time == "adaln", time[:, None]
        x = jnp.concatenate([x, told] + [time.astype(x.dtype)] * (not modulated), axis=1)
        x = norm(sizes, "norm_in")(x) if ends.norm_in else x
        x = self.through(x, time if modulated else None, count)[:, :count]
        scale = shift = None
        if modulated:
            init = nn.initializers.zeros
            both = Dense(2 * sizes.width, ("embed", "mlp"), init, dtype=ends.dtype, name="modulation")
            scale, shift = jnp.split(both(nn.silu(time)), 2, axis=-1)
        x = norm(sizes, "norm_out", not modulated)(x, scale, shift)
        return dict(rows=x, noisy=noisy, t=t)

    def told(self, latents: jax.Array, known: jax.Array | None, without: jax.Array | None) -> jax.Array:
        """What is told of registers, arguments as of `features`: [B, K, D]."""
        told = Told(self.ends, name="registers")(latents, known)
        if not self.forgets:
            return told
        nothing = table(self, "nothing", 1, self.ends.sizes.width).astype(self.ends.dtype)
        return told if without is None else jnp.where(without[:, None, None], nothing, told)

    def through(self, x: jax.Array, time: jax.Array | None, count: int) -> jax.Array:
        """The blocks, over so many rows of patches and those of what is told: [B, N, D], time [B, 1, D] where it
        modulates them."""
        times, modulated = (0,) * x.shape[1], time is not None
        kinds = tuple(int(i >= count) for i in range(len(times))) if self.apart else None
        return Transformer(self.ends.sizes, times, modulated, self.ends.dtype, kinds, name="blocks")(x, time)

    def last(self, features: dict[str, jax.Array]) -> jax.Array:
        """The estimate of the image: float32 [B, H, W, C_image]."""
        out = patches.together(self.patch_out(features["rows"]), self.ends.patches, self.ends.patch)
        out = out.astype(jnp.float32)
        if self.predicts == "image":
            return out
        return features["noisy"] - features["t"][:, None, None, None] * out

    def __call__(
        self, latents: jax.Array, noisy: jax.Array | None = None, t: Any = 0.0, known=None, without=None
    ) -> jax.Array:
        """The estimate of the image, see `features` and `last`; of nothing (for initialisation) where none is given."""
        noisy = self.nothing(latents) if noisy is None else noisy
        t = jnp.broadcast_to(jnp.asarray(t, jnp.float32), len(latents))
        return self.last(self.features(latents, known, noisy, t, without))

    def nothing(self, latents: jax.Array) -> jax.Array:
        """Zeros in the place of what is drawn for latents [B, ...]: float32 [B, H, W, C_image]."""
        ends = self.ends
        height, width = (n * ends.patch for n in ends.patches)
        return jnp.zeros((len(latents), height, width, ends.image_channels))


@dataclasses.dataclass(frozen=True)
class FlowCodec(RegisterCodec):
    """A codec of registers whose decoder draws.

    Attributes:
      image_shape: (H, W, C_image).
      steps: of decoding, Euler's.
      guide: what makes one velocity of that with registers and that without; None: there is the first alone.
      forget_rate: how often an example's registers are left out in training.
      times: of training, see `build_flow`.
      groups: in which registers are released; 1: all at once.
    """

    image_shape: tuple[int, int, int] = (0, 0, 0)
    steps: int = 20
    guide: Guidance | None = None
    forget_rate: float = 0.0
    times: str = "uniform"
    groups: int = 1

    def released(self, t: jax.Array) -> jax.Array | None:
        """bool [B, 1, K]: which registers are seen at times t float32 [B]; None for all."""
        if self.groups == 1:
            return None
        each = self.registers // self.groups
        seen = jnp.minimum(jnp.floor((1.0 - t) * self.groups + 1e-4) + 1, self.groups) * each
        return jnp.arange(self.registers) < seen[:, None, None]

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array | None]:
        """What the last layer takes of noisy images, and weights, see the module and `Codec.draft`."""
        key_t, key_noise, key_forget = jax.random.split(key, 3)
        t = self._drawn(key_t, len(images))
        noise = jax.random.normal(key_noise, images.shape)
        images = images.astype(jnp.float32)
        s = t[:, None, None, None]
        without = None
        if self.forget_rate:
            without = jax.random.bernoulli(key_forget, self.forget_rate, (len(images),))
        features = self.decoder.apply(
            {"params": params["decoder"]},
            latents,
            _both(known, self.released(t)),
            (1 - s) * images + s * noise,
            t,
            without,
            method="features",
        )
        return features, None if self.decoder.predicts == "image" else 1.0 / jnp.square(t)

    def _drawn(self, key: jax.Array, batch: int) -> jax.Array:
        if self.times == "logit_normal":
            t = jax.nn.sigmoid(jax.random.normal(key, (batch,)))
        else:
            t = jax.random.uniform(key, (batch,))
        return jnp.maximum(t, LEAST)

    def decode(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """[B, 1, n, C], the first n registers, of which those count that are `known` bool [B, 1, n] -> images."""
        noise = jax.random.normal(jax.random.key(0), self.image_shape)
        noise = by_batch(jnp.broadcast_to(noise, (len(latents), *self.image_shape)))
        return self.drawn(params, latents, known, noise)

    def drawn(self, params: dict, latents: jax.Array, known: jax.Array | None, noise: jax.Array) -> jax.Array:
        """As `decode`, from noise float32 [B, H, W, C_image]."""
        batch, n = len(latents), latents.shape[2]
        variables = {"params": params["decoder"]}
        # Where registers are released in groups, those that are known take the way so far; the estimate there is shown.
        end = jnp.zeros((batch, 1, 1, 1))
        if self.groups > 1:
            count = jnp.full((batch,), n) if known is None else jnp.sum(known, axis=(1, 2))
            end = 1.0 - (count * self.groups // self.registers).reshape(end.shape) / self.groups

        def estimate(x, t, without=None):
            released = self.released(jnp.full((batch,), t))
            seen = _both(known, None if released is None else released[..., :n])
            return self.decoder.apply(variables, latents, x, t, seen, without)

        def step(carry, times):
            (x, image, before), (t, after) = carry, times
            found = estimate(x, t)
            if self.guide is not None:
                free = estimate(x, t, jnp.ones(batch, bool))
                velocity, before = self.guide((x - found) / t, (x - free) / t, before)
                found = x - t * velocity
            goes_on = t > end + 1e-4
            on = found + after / t * (x - found)
            return (jnp.where(goes_on, on, x), jnp.where(goes_on, found, image), before), None

        times = jnp.linspace(1.0, 0.0, self.steps + 1)
        nothing = jnp.zeros_like(noise)
        return jax.lax.scan(step, (noise, nothing, nothing), (times[:-1], times[1:]))[0][1]


def _both(a: jax.Array | None, b: jax.Array | None) -> jax.Array | None:
    """What both allow; None allows all."""
    return b if a is None else a if b is None else a & b


def check_guidance(guidance: float, forget_rate: float) -> None:
    """Raises UserError for guidance by a decoder that no example has taught to draw without registers."""
    if guidance != 1.0 and not forget_rate:
        raise UserError(
            "config field tokenizer.encoder.decoder.guidance: expected 1 where forget_rate is 0, found "
            f"{guidance:g}"
        )


def build_flow(
    ends: Ends,
    encoder: nn.Module,
    width: Annotated[int, Between(0, 2**20)] = 0,
    layers: Annotated[int, LAYERS] = 0,
    heads: Annotated[int, LAYERS] = 0,
    steps: Annotated[int, Between(1, 10**4)] = 20,
    times: Annotated[str, OneOf("uniform", "logit_normal")] = "uniform",
    groups: Annotated[int, Between(1, 4096)] = 1,
    predicts: Annotated[str, OneOf("velocity", "image")] = "velocity",
    time: Annotated[str, OneOf("adaln", "row")] = "adaln",
    apart: bool = False,
    frequencies: Annotated[int, Between(2, 4096)] = 256,
    period: Annotated[float, Above(1)] = 10000.0,
    time_scale: Annotated[float, Above(0)] = 1000.0,
    forget_rate: Annotated[float, RATE] = 0.0,
    guidance: Annotated[float, AtLeast(0)] = 1.0,
    projected: bool = False,
    momentum: Annotated[float, Between(-1, 1)] = -0.5,
    threshold: Annotated[float, AtLeast(0)] = 2.5,
    parallel: Annotated[float, SHARE] = 0.0,
) -> FlowCodec:
    """The part "flow" of the axis "tokenizer.encoder.decoder": images drawn from noise; others as `FlowCodec`'s.

    Args:
      ends: what the encoder shares.
      encoder: images to registers.
      width, layers, heads: of the decoder's blocks; 0: as the encoder's.
      predicts: what the network gives: the velocity, or the image itself.
      time: how blocks are told: by modulation (adaLN-Zero, arXiv 2212.09748), whose gates must open first; or by a row
        beside the others (U-ViT, arXiv 2209.12152), which learns sooner.
      apart: registers are modulated by a map of their own, patches by another (FlexTok's).
      frequencies: how many numbers tell the time, half of them cosines.
      period: of the slowest of these over that of the fastest.
      time_scale: angle of the fastest at the time 1, that of noise.
      times: of training: even, or of a normal distribution's sigmoid (arXiv 2403.03206).
      guidance: factor on what registers change of the velocity; 1: none.
      projected, momentum, threshold, parallel: how that is taken, see `guidance.Guidance`.

    Raises:
      UserError: registers that don't divide into groups, guidance without examples that forget, or modulation of
        registers apart where nothing is modulated.
    """
    if ends.registers % groups:
        raise UserError(
            f"config field tokenizer.encoder.decoder.groups: expected a divisor of {ends.registers} registers, found "
            f"{groups}; for instance {divisors(ends.registers, groups)}"
        )
    if groups > 1 and ends.nested == "none":
        ends = dataclasses.replace(ends, nested="groups")
    check_guidance(guidance, forget_rate)
    if apart and time != "adaln":
        raise UserError(
            f"config field tokenizer.encoder.decoder.apart: needs time adaln, by which rows are modulated, found {time}"
        )
    h, w = ends.patches
    guide = None
    if guidance != 1.0:
        guide = Guidance(guidance, projected, momentum, threshold, parallel)
    return FlowCodec(
        encoder,
        Flow(
            ends.resized(width, layers, heads),
            bool(forget_rate),
            predicts,
            time,
            apart,
            frequencies,
            period,
            time_scale,
        ),
        ends.grid,
        ends.latent_channels,
        "patch_out",
        slots=ends.slots,
        nested=ends.nested,
        registers=ends.registers,
        image_shape=(h * ends.patch, w * ends.patch, ends.image_channels),
        steps=steps,
        guide=guide,
        forget_rate=forget_rate,
        times=times,
        groups=groups,
    )
