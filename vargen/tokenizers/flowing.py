"""A decoder that draws: images from noise by rectified flow, looking at registers (FlexTok, arXiv 2502.13967).

In decoding the noise is the same for all images and always, so that contents have one picture.

Released in groups (D-AR, 2505.23660; Selftok, 2505.07538) the first registers alone are seen where there is much noise,
and more of them with every part of the way, or the next ones in their place: a prefix of the registers decides the
first part of it.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vargen.errors import UserError
from vargen.limits import RATE, SHARE, Above, AtLeast, Between, OneOf, divisors
from vargen.sharding import by_batch
from vargen.tokenizers import patches
from vargen.tokenizers.denoising import Flow
from vargen.tokenizers.guidance import Guidance, check_guidance, forgotten
from vargen.tokenizers.looking import LookingFlow
from vargen.tokenizers.reading import LAYERS, Ends, RegisterCodec, check_shown

LEAST = 1e-2  # of t in training, whose inverse square weighs


@dataclasses.dataclass(frozen=True)
class FlowCodec(RegisterCodec):
    """A codec of registers whose decoder draws.

    Attributes:
      image_shape: (H, W, C_image).
      steps: of decoding.
      solver: of decoding: "euler", or "adams", whose velocity is 3/2 of the last less 1/2 of the one before, as if
        steps were alike (Adams-Bashforth's of two steps; D-AR's).
      guide: what makes one velocity of that with registers and that without; None: there is the first alone.
      forget_rate: how often an example's registers are left out in training.
      times: of training, see `build`.
      shift: of all times s, see `moved`.
      groups: in which registers are released; 1: all at once.
      release: what is seen of them, see `build`.
    """

    image_shape: tuple[int, int, int] = (0, 0, 0)
    steps: int = 20
    solver: str = "euler"
    guide: Guidance | None = None
    forget_rate: float = 0.0
    times: str = "uniform"
    shift: float = 1.0
    groups: int = 1
    release: str = "prefix"

    def moved(self, s: jax.Array) -> jax.Array:
        """The noise's share t of the way's share s that is left, both from 0 to 1: shift s / (1 + (shift - 1) s)."""
        return self.shift * s / (1.0 + (self.shift - 1.0) * s)

    def group(self, s: jax.Array) -> jax.Array:
        """int32 of s float32: which group is the last to be seen there; of a window, the one whose time is nearest."""
        done = (1.0 - s) * self.groups + (0.5 if self.release == "window" else 1e-4)
        return jnp.minimum(jnp.floor(done), self.groups - 1).astype(jnp.int32)

    def seen(self, s: jax.Array, known: jax.Array | None) -> dict[str, jax.Array | None]:
        """What the network looks at where s float32 [B] is left, of registers known bool [B, 1, n] (None: all)."""
        if self.groups == 1:
            return dict(known=known, window=None)
        each, group = self.registers // self.groups, self.group(s)
        if self.release == "window":
            return dict(known=known, window=group[:, None] * each + jnp.arange(each))
        count = self.registers if known is None else known.shape[-1]
        released = jnp.arange(count) < ((group + 1) * each)[:, None, None]
        return dict(known=released if known is None else known & released, window=None)

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array | None]:
        """What the last layer takes of noisy images, and weights, see `denoising` and `Codec.draft`."""
        key_s, key_noise, key_forget = jax.random.split(key, 3)
        if self.times == "logit_normal":
            s = jax.nn.sigmoid(jax.random.normal(key_s, (len(images),)))
        else:
            s = jax.random.uniform(key_s, (len(images),))
        noise = jax.random.normal(key_noise, images.shape)
        without = forgotten(key_forget, self.forget_rate, len(images))
        return self.noised(params, latents, known, images, s, noise, without)

    def noised(
        self,
        params: dict,
        latents: jax.Array,
        known: jax.Array | None,
        images: jax.Array,
        s: jax.Array,
        noise: jax.Array,
        without: jax.Array | None = None,
    ) -> tuple[Any, jax.Array | None]:
        """The same where s float32 [B] is left, with noise float32 [B, H, W, C_image], `without` as of `features`."""
        t = jnp.maximum(self.moved(s), LEAST)
        share, images = t[:, None, None, None], images.astype(jnp.float32)
        features = self.decoder.apply(
            {"params": params["decoder"]},
            latents,
            noisy=(1 - share) * self.decoder.scale * images + share * noise,
            t=t,
            without=without,
            **self.seen(s, known),
            method="features",
        )
        return features, None if self.decoder.predicts == "image" else 1.0 / jnp.square(t)

    def decode(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """[B, 1, n, C], the first n registers, of which those count that are `known` bool [B, 1, n] -> images."""
        noise = jax.random.normal(jax.random.key(0), self.image_shape)
        noise = by_batch(jnp.broadcast_to(noise, (len(latents), *self.image_shape)))
        return self.drawn(params, latents, known, noise)

    def drawn(self, params: dict, latents: jax.Array, known: jax.Array | None, noise: jax.Array) -> jax.Array:
        """As `decode`, from noise float32 [B, H, W, C_image]."""
        batch, n, scale = len(latents), latents.shape[2], self.decoder.scale
        variables = {"params": params["decoder"]}
        # Where registers are released in groups, those that are known take the way so far; the estimate there is shown.
        whole = jnp.full((batch,), self.groups)
        if self.groups > 1:
            count = jnp.full((batch,), n) if known is None else jnp.sum(known, axis=(1, 2))
            whole = count * self.groups // self.registers
        if known is None and n < self.registers:
            known = jnp.ones((batch, 1, n), bool)

        def estimate(x, s, without=None):
            left = jnp.full((batch,), s)
            seen = self.seen(left, known)
            return scale * self.decoder.apply(
                variables, latents, x, self.moved(left), without=without, **seen
            )

        def step(carry, times):
            (x, image, before, last), (s, then) = carry, times
            t, after = self.moved(s), self.moved(then)
            found = estimate(x, s)
            if self.guide is not None:
                free = estimate(x, s, jnp.ones(batch, bool))
                velocity, before = self.guide((x - found) / t, (x - free) / t, before)
                found = x - t * velocity
            if self.solver == "adams":
                velocity = (x - found) / t
                found = x - t * jnp.where(s < 1, 1.5 * velocity - 0.5 * last, velocity)
                last = velocity
            goes_on = (self.group(s) < whole)[:, None, None, None]
            on = found + after / t * (x - found)
            return (jnp.where(goes_on, on, x), jnp.where(goes_on, found, image), before, last), None

        times = jnp.linspace(1.0, 0.0, self.steps + 1)
        nothing = jnp.zeros_like(noise)
        start = (noise, nothing, nothing, nothing)
        return jax.lax.scan(step, start, (times[:-1], times[1:]))[0][1] / scale


def build(
    ends: Ends,
    encoder: nn.Module,
    width: Annotated[int, Between(0, 2**20)] = 0,
    layers: Annotated[int, LAYERS] = 0,
    heads: Annotated[int, LAYERS] = 0,
    patch: Annotated[int, Between(0, 4096)] = 0,
    steps: Annotated[int, Between(1, 10**4)] = 20,
    solver: Annotated[str, OneOf("euler", "adams")] = "euler",
    times: Annotated[str, OneOf("uniform", "logit_normal")] = "uniform",
    shift: Annotated[float, Above(0)] = 1.0,
    scale: Annotated[float, Above(0)] = 1.0,
    groups: Annotated[int, Between(1, 4096)] = 1,
    release: Annotated[str, OneOf("prefix", "window")] = "prefix",
    predicts: Annotated[str, OneOf("velocity", "image")] = "velocity",
    told_layers: Annotated[int, LAYERS] = 0,
    looks: Annotated[str, OneOf("beside", "across")] = "beside",
    shown_after: Annotated[int, LAYERS] = 0,
    time: Annotated[str, OneOf("adaln", "row")] = "adaln",
    apart: bool = False,
    frequencies: Annotated[int, Between(2, 4096)] = 256,
    period: Annotated[float, Above(1)] = 10000.0,
    time_scale: Annotated[float, Above(0)] = 1000.0,
    counts: Annotated[str, OneOf("down", "up")] = "down",
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
      patch: pixels per side of a patch of what is drawn; 0: as the encoder's.
      times: of training: even, or of a normal distribution's sigmoid (arXiv 2403.03206).
      shift: where a share s of the way is left, that of noise is shift s / (1 + (shift - 1) s); above 1 there are more
        steps where there is much noise.
      scale: of what is drawn over the image.
      release: of groups: all so far ("prefix"), or the one whose time it is ("window").
      predicts: what the network gives: the velocity, or the image itself.
      told_layers: how many blocks registers pass first, of the same sizes, in which each sees those before it.
      looks: patches look at registers beside them, in one attention, or across at them in every block, where what each
        finds modulates it with the time (D-AR's).
      shown_after: after how many blocks rows of patches are shown to a loss, `losses.semantic_at` "shown"; 0: none.
      time: how blocks are told: by modulation (adaLN-Zero, arXiv 2212.09748), whose gates must open first; or by a row
        beside the others (U-ViT, arXiv 2209.12152), which learns sooner.
      apart: registers are modulated by a map of their own, patches by another (FlexTok's).
      frequencies: how many numbers tell the time, half of them cosines.
      period: of the slowest of these over that of the fastest.
      time_scale: angle of the fastest at the time 1, that of noise.
      counts: whether the time that is told falls from 1, that of noise, or rises to it from there ("up": 1 - t).
      guidance: factor on what registers change of the velocity; 1: none.
      projected, momentum, threshold, parallel: how that is taken, see `guidance.Guidance`.

    Raises:
      UserError: the image does not divide into patches; registers that don't divide into groups, or one window of
        them; guidance without examples that forget; modulation of registers apart where nothing is modulated, or where
        patches look across; no block after those before patches are shown.
    """
    field = "config field tokenizer.encoder.decoder."
    if ends.registers % groups:
        raise UserError(
            f"{field}groups: expected a divisor of {ends.registers} registers, found {groups}; for instance "
            f"{divisors(ends.registers, groups)}"
        )
    if release == "window" and groups == 1:
        raise UserError(f"{field}release: needs groups above 1 for window, found {groups}")
    if groups > 1 and ends.nested == "none":
        ends = dataclasses.replace(ends, nested="windows" if release == "window" else "groups")
    check_guidance(guidance, forget_rate)
    if apart and time != "adaln":
        raise UserError(f"{field}apart: needs time adaln, by which rows are modulated, found {time}")
    if looks == "across" and (apart or time != "adaln"):
        found = "apart" if apart else f"time {time}"
        raise UserError(f"{field}looks: needs time adaln and registers not apart for across, found {found}")
    (h, w), side = ends.patches, ends.patch
    size, patch = (h * side, w * side), patch or side
    own = patches.grid(size, patch, "tokenizer.encoder.decoder.patch")
    ends = dataclasses.replace(ends, patches=own, patch=patch).resized(width, layers, heads)
    check_shown(shown_after, ends.sizes.layers, "tokenizer.encoder.decoder.shown_after")
    guide = None
    if guidance != 1.0:
        guide = Guidance(guidance, projected, momentum, threshold, parallel)
    network = LookingFlow if looks == "across" else Flow
    return FlowCodec(
        encoder,
        network(
            ends,
            bool(forget_rate),
            predicts,
            time,
            apart,
            frequencies,
            period,
            time_scale,
            counts,
            told_layers,
            shown_after,
            scale,
        ),
        ends.grid,
        ends.latent_channels,
        "patch_out",
        slots=ends.slots,
        nested=ends.nested,
        registers=ends.registers,
        image_shape=(*size, ends.image_channels),
        steps=steps,
        solver=solver,
        guide=guide,
        forget_rate=forget_rate,
        times=times,
        shift=shift,
        groups=groups,
        release=release,
    )
