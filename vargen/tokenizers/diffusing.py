"""A decoder that draws by diffusion: images from noise in discrete time, looking at registers (Semanticist, arXiv
2503.08685).

A DiT (arXiv 2212.09748) gives the noise in x_t = sqrt(a) x + sqrt(1 - a) e, a that of the time t, and where it learns
the variance how that lies between its two bounds. It is trained by the noise's squared error and the variational bound
(2102.09672). The estimate of the image is (x_t - sqrt(1 - a) e) / sqrt(a), whose squared error times a / (1 - a) is the
noise's: so `losses.l2` is its weight here too. Other losses on images would look at estimates that are wild where
there is most noise. In decoding all noise is the same for all images and always, so that contents have one picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.gaussian import Process
from vargen.layers import Dense, logical, place_waves
from vargen.limits import RATE, SIZE, AtLeast, Between, OneOf
from vargen.sharding import by_batch
from vargen.tokenizers import patches
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.denoising import Flow
from vargen.tokenizers.guidance import check_guidance, forgotten
from vargen.tokenizers.reading import LAYERS, Ends, RegisterCodec, check_shown
from vargen.tokenizers.transformer import SMALL, XAVIER


class Latents(nn.Module):
    """Registers' latents as rows; those that aren't known, or beyond the first n, are learned latents of their places.

    Attributes:
      ends: of the codec.
    """

    ends: Ends

    @nn.compact
    def __call__(
        self, latents: jax.Array, known: jax.Array | None = None, without: jax.Array | None = None
    ) -> jax.Array:
        """[B, 1, n, C] or on a square, known bool [B, 1, n] or None for all, without bool [B] -> [B, K, D]."""
        ends, x = self.ends, flat(latents).astype(jnp.float32)
        null = self.param("null", logical(SMALL, None, "latent"), (ends.registers, ends.latent_channels))
        keep = jnp.ones(x.shape[:2], bool) if known is None else known.reshape(x.shape[:2])
        keep = keep if without is None else keep & ~without[:, None]
        more = [(0, 0), (0, ends.registers - x.shape[1])]
        x = jnp.where(jnp.pad(keep, more)[..., None], jnp.pad(x, [*more, (0, 0)]), null)
        width = ends.sizes.width
        names, init = ("latent", "embed"), XAVIER.kernel()
        return Dense(width, names, init, ends.latent_bias, ends.dtype, name="rows_in")(x)


class Diffusion(Flow):
    """The noise in noisy images, from their time and registers; the other attributes are `Flow`'s.

    Attributes:
      outputs: of the network for each number of the image: the noise, and where it is 2 the variance's place.
      absent: what stands for registers that aren't known, see `build_diffusion`.
      places: of patches, see `build_diffusion`.
    """

    outputs: int
    absent: str
    places: str

    @property
    def waves(self) -> np.ndarray | None:
        """Of the patches' places, float32 [h w, D]; None where there is a table of these."""
        if self.places == "learned":
            return None
        return place_waves(np.indices(self.ends.patches).reshape(2, -1).T, self.ends.sizes.width)

    def setup(self) -> None:
        size = self.ends.patch**2 * self.ends.image_channels * self.outputs
        self.patch_out = Dense(size, ("embed", None), nn.initializers.zeros, dtype=self.ends.dtype)

    def told(self, latents: jax.Array, known: jax.Array | None, without: jax.Array | None) -> jax.Array:
        """See `Flow.told`."""
        if self.absent == "row":
            return super().told(latents, known, without)
        return Latents(self.ends, name="registers")(latents, known, without)

    def out(self, features: dict[str, jax.Array]) -> jax.Array:
        """What the network gives: float32 [B, H, W, outputs * C_image], the noise first."""
        out = patches.together(self.patch_out(features["rows"]), self.ends.patches, self.ends.patch)
        return out.astype(jnp.float32)

    def last(self, features: dict[str, jax.Array]) -> jax.Array:
        """The estimate of the image: float32 [B, H, W, C_image]."""
        eps = self.out(features)[..., : self.ends.image_channels]
        return (features["noisy"] - features["deviation"] * eps) / features["signal"]

    def __call__(
        self, latents: jax.Array, noisy: jax.Array | None = None, t: Any = 0, known=None, without=None
    ) -> jax.Array:
        """As `out`, of the arguments of `features`; of nothing (for initialisation) where no images are given."""
        noisy = self.nothing(latents) if noisy is None else noisy
        t = jnp.broadcast_to(jnp.asarray(t), len(latents))
        return self.out(self.features(latents, known, noisy, t, without))


@dataclasses.dataclass(frozen=True)
class DiffusionCodec(RegisterCodec):
    """A codec of registers whose decoder draws by diffusion.

    Attributes:
      image_shape: (H, W, C_image).
      schedule: "linear" (arXiv 2006.11239) or "cosine" (2102.09672).
      train_steps: T, of the process in training.
      steps: of decoding, evenly among those.
      guidance: factor on what registers change of the noise; 1: none.
      forget_rate: how often an example's registers are left out in training.
      clip: in decoding, keeps the estimate within [-clip, clip]; 0 leaves it, as the authors do.
    """

    image_shape: tuple[int, int, int] = (0, 0, 0)
    schedule: str = "linear"
    train_steps: int = 1000
    steps: int = 250
    guidance: float = 1.0
    forget_rate: float = 0.0
    clip: float = 0.0

    @property
    def process(self) -> Process:
        """Of training."""
        return Process.make(self.schedule, self.train_steps)

    def draft(
        self, params: dict, latents: jax.Array, known: jax.Array | None, images: jax.Array, key: jax.Array
    ) -> tuple[Any, jax.Array]:
        """What the last layer takes of noisy images, and weights, see the module and `Codec.draft`."""
        key_t, key_noise, key_forget = jax.random.split(key, 3)
        t = jax.random.randint(key_t, (len(images),), 0, self.train_steps)
        noise = jax.random.normal(key_noise, images.shape)
        without = forgotten(key_forget, self.forget_rate, len(images))
        return self.noised(params, latents, known, images, t, noise, without)

    def noised(
        self,
        params: dict,
        latents: jax.Array,
        known: jax.Array | None,
        images: jax.Array,
        t: jax.Array,
        noise: jax.Array,
        without: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], jax.Array]:
        """The same at times int32 [B] with noise float32 [B, H, W, C_image]; `without` as of `Flow.features`."""
        process, shape = self.process, (-1, 1, 1, 1)
        signal, deviation = (
            process.diffuse(1.0, t, 0.0).reshape(shape),
            process.diffuse(0.0, t, 1.0).reshape(shape),
        )
        noisy = signal * images.astype(jnp.float32) + deviation * noise
        variables = {"params": params["decoder"]}
        features = self.decoder.apply(variables, latents, known, noisy, t, without, method="features")
        weights = jnp.square(signal / deviation).reshape(-1)
        return features | dict(signal=signal, deviation=deviation), weights

    def beside(self, params: dict, features: Any, images: jax.Array) -> dict[str, jax.Array]:
        """The variational bound in bits, which trains the variance alone; see `Codec.beside`."""
        if self.decoder.outputs == 1:
            return {}
        return dict(bound=jnp.mean(self.bound(params, features, images)))

    def bound(self, params: dict, features: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        """The same of each example: float32 [B]."""
        out = self.decoder.apply({"params": params["decoder"]}, features, method="out")
        both = (*jnp.split(out, 2, axis=-1), images.astype(jnp.float32), features["noisy"])
        return self.process.bound(*(x.reshape(len(x), -1) for x in both), features["t"])

    def decode(self, params: dict, latents: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """[B, 1, n, C], the first n registers, of which those count that are `known` bool [B, 1, n] -> images."""
        key = jax.random.key(0)

        def noise(step):
            return jax.random.normal(jax.random.fold_in(key, step), self.image_shape)

        start = jnp.broadcast_to(noise(self.steps), (len(latents), *self.image_shape))
        return self.denoised(params, latents, known, by_batch(start), noise)

    def denoised(
        self,
        params: dict,
        latents: jax.Array,
        known: jax.Array | None,
        start: jax.Array,
        noise: Callable[[jax.Array], jax.Array],
    ) -> jax.Array:
        """The whole reverse process, see `decode`.

        Args:
          start: float32 [B, H, W, C_image].
          noise: of a step's number int32 [], from 0, what it adds: float32 [B, H, W, C_image] or [H, W, C_image].
        """
        short, channels, variables = (
            self.process.spaced(self.steps),
            self.image_shape[-1],
            {"params": params["decoder"]},
        )

        def step(x, at):
            s, t = at
            out = self.decoder.apply(variables, latents, x, t, known)
            eps, place = out[..., :channels], out[..., channels:] if self.decoder.outputs > 1 else 1.0
            if self.guidance != 1.0:
                free = self.decoder.apply(variables, latents, x, t, known, jnp.ones(len(x), bool))
                free = free[..., :channels]
                eps = free + self.guidance * (eps - free)
            return short.reverse(x, s, eps, place, noise(self.steps - 1 - s), clip=self.clip), None

        times = jnp.arange(self.steps)[::-1], jnp.asarray(short.times)[::-1]
        return jax.lax.scan(step, start, times)[0]


def build_diffusion(
    ends: Ends,
    encoder: nn.Module,
    width: Annotated[int, Between(0, 2**20)] = 0,
    layers: Annotated[int, LAYERS] = 0,
    heads: Annotated[int, LAYERS] = 0,
    mlp: Annotated[str, OneOf("", "gelu", "gelu_tanh", "silu", "swiglu", "geglu")] = "",
    patch: Annotated[int, Between(0, 4096)] = 0,
    draws: Annotated[tuple[int, ...], SIZE] = (),
    places: Annotated[str, OneOf("learned", "waves")] = "learned",
    absent: Annotated[str, OneOf("row", "latents")] = "row",
    time: Annotated[str, OneOf("adaln", "row")] = "adaln",
    shown_after: Annotated[int, LAYERS] = 0,
    variance: Annotated[str, OneOf("learned", "fixed")] = "learned",
    schedule: Annotated[str, OneOf("linear", "cosine")] = "linear",
    train_steps: Annotated[int, Between(2, 10**5)] = 1000,
    steps: Annotated[int, Between(1, 10**5)] = 250,
    forget_rate: Annotated[float, RATE] = 0.0,
    guidance: Annotated[float, AtLeast(0)] = 1.0,
    clip: Annotated[float, AtLeast(0)] = 0.0,
) -> DiffusionCodec:
    """The part "diffusion" of the axis "tokenizer.encoder.decoder": images drawn from noise in discrete time; others as
    `DiffusionCodec`'s.

    Args:
      ends: what the encoder shares.
      encoder: images to registers.
      width, layers, heads: of the decoder's blocks; 0: as the encoder's.
      mlp: kind of their position-wise network; "": as the encoder's.
      patch: numbers per side of a patch of what is drawn; 0: as the encoder's.
      draws: (height, width, channels) of what is drawn, where that is the latents of another tokenizer and the encoder
        reads pixels (`within`, reads="pixels"); none: the images that the encoder reads.
      places: of patches: a learned table, or sines and cosines of row and column (DiT's), for widths that are multiples
        of 4.
      absent: what stands for registers that aren't seen: one learned row beside a learned table of their places, or a
        learned latent for each place, and no other places (Semanticist's).
      time: how blocks are told, as of the part "flow".
      shown_after: after how many blocks rows of patches are shown to a loss, as of the part "direct".
      variance: of a step of decoding: learned, or fixed at the process's.

    Raises:
      UserError: what is drawn does not divide into patches, guidance without examples that forget, more steps of
        decoding than of training, waves for such a width as has none, or no block after those before patches are shown.
    """
    field = "config field tokenizer.encoder.decoder."
    check_guidance(guidance, forget_rate)
    if steps > train_steps:
        raise UserError(f"{field}steps: expected at most train_steps, {train_steps}, found {steps}")
    if draws and len(draws) != 3:
        raise UserError(f"{field}draws: expected (height, width, channels), found {draws}")
    size = tuple(n * ends.patch for n in ends.patches)
    h, w, channels = draws or (*size, ends.image_channels)
    patch = patch or ends.patch
    ends = dataclasses.replace(
        ends,
        patches=patches.grid((h, w), patch, "tokenizer.encoder.decoder.patch"),
        patch=patch,
        image_channels=channels,
    ).resized(width, layers, heads, mlp)
    if places == "waves" and ends.sizes.width % 4:
        raise UserError(
            f"{field}places: expected a width that is a multiple of 4 for waves, found {ends.sizes.width}"
        )
    check_shown(shown_after, ends.sizes.layers, "tokenizer.encoder.decoder.shown_after")
    outputs = 2 if variance == "learned" else 1
    return DiffusionCodec(
        encoder,
        Diffusion(
            ends,
            bool(forget_rate),
            "noise",
            time,
            apart=False,
            frequencies=256,
            period=10_000.0,
            time_scale=1.0,  # times are steps of the process
            counts="down",
            told_layers=0,
            shown_after=shown_after,
            scale=1.0,
            outputs=outputs,
            absent=absent,
            places=places,
        ),
        ends.grid,
        ends.latent_channels,
        "patch_out",
        slots=ends.slots,
        draws=draws,
        nested=ends.nested,
        registers=ends.registers,
        image_shape=(h, w, channels),
        schedule=schedule,
        train_steps=train_steps,
        steps=steps,
        guidance=guidance,
        forget_rate=forget_rate,
        clip=clip,
    )
