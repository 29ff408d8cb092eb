"""Quantisers without a table: a code says where each number of a latent lies among a few fixed values.

FSQ (arXiv 2309.15505) rounds each number, LFQ (arXiv 2310.05737) keeps its sign, BSQ (arXiv 2406.07548) the sign on the
unit sphere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.limits import SIZE, Above, AtLeast, Between, OneOf
from vargen.slots import Slot
from vargen.tokenizers import assembly, usage
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import Autoencoder, apart, check_images, flat, latent_grid
from vargen.tokenizers.distances import normalised

ALIVE = 0.03  # of the uniform share, for the metrics
BITS = 24  # of a code; more are no logits
EPS = 1e-3  # by which FSQ's bounds miss half a step


@dataclasses.dataclass(frozen=True)
class Implicit(Autoencoder):
    """Codes of fixed values: no parameters, and nothing to search.

    Attributes:
      groups: G codes a slot, each of as many of the latent's C channels; 1 for one code.
    """

    groups: int

    @property
    def slot(self) -> Slot:
        """A code, or G codes."""
        return Slot((self.groups,) if self.groups > 1 else (), self.vocab)

    @property
    def bases(self) -> tuple[int, ...]:
        """How many values each channel of a code has; their product is K."""
        raise NotImplementedError

    def squeezed(self, latents: jax.Array) -> jax.Array:
        """What is rounded: float32 [..., C] -> [..., C]."""
        raise NotImplementedError

    def places(self, squeezed: jax.Array) -> jax.Array:
        """float32 [..., C] -> int32 [..., C], each channel's value by its number."""
        raise NotImplementedError

    def places_in_training(self, squeezed: jax.Array, key: jax.Array) -> jax.Array:
        """The places float32 [..., C] -> int32 [..., C] that training decodes; the same, for which it needs no key."""
        return self.places(squeezed)

    def values(self, places: jax.Array) -> jax.Array:
        """int32 [..., C] -> float32 [..., C], what is decoded."""
        raise NotImplementedError

    def regularised(self, squeezed: jax.Array, values: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The quantiser's weighted loss [] and its terms, of vectors [M, C]; none."""
        return jnp.float32(0), {}

    def scale(self) -> jax.Array:
        """Of what is rounded to what is decoded: float32 [C]."""
        raise NotImplementedError

    def init_quantizer(self, key: jax.Array) -> dict:
        """None."""
        return {}

    def init_stats(self) -> dict:
        """See `usage.init`, a row for each code of a slot."""
        return usage.init(self.groups, self.vocab)

    def encode(self, params: dict, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """[B, H, W, C_image] -> codes int32 [B, N] or [B, N, G]. The key is not used."""
        check_images(self, images)
        return self.codes(self.places(self.squeezed(flat(self.codec.encode(params, images)))))

    def codes(self, places: jax.Array) -> jax.Array:
        """int32 [..., C] -> [...] or [..., G]: the first channel of a code changes fastest."""
        each = places.reshape(*places.shape[:-1], self.groups, len(self.bases))
        codes = jnp.sum(each * self._weights(), axis=-1, dtype=jnp.int32)
        return codes if self.groups > 1 else codes[..., 0]

    def decoded(self, codes: jax.Array) -> jax.Array:
        """Codes int32 [...] or [..., G] -> float32 [..., C]."""
        each = (codes if self.groups > 1 else codes[..., None])[..., None]
        places = each // self._weights() % jnp.asarray(self.bases)
        return self.values(places.reshape(*places.shape[:-2], self.channels))

    def _weights(self) -> np.ndarray:
        return np.cumprod([1, *self.bases[:-1]]).astype(np.int32)

    def latents(self, qparams: dict, content: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Codes int32 [B, N] or [B, N, G] -> float32 [B, h, w, C], zero where not known."""
        latents = self.decoded(content)
        latents = latents if known is None else latents * known[..., None]
        return latents.reshape(-1, *self.codec.grid, self.channels)

    def vectors(self, qparams: dict, content: jax.Array) -> jax.Array:
        """Codes int32 [...] -> float32 [..., C]; [..., G] -> [..., G, C], each zero but in its own channels."""
        vectors = self.decoded(content)
        if self.groups == 1:
            return vectors
        return apart(vectors.reshape(*vectors.shape[:-1], self.groups, -1))

    def bottleneck(self, params: dict, stats: dict, images: jax.Array, key: jax.Array) -> tuple:
        """The straight-through latents, the quantiser's loss, the codes in use."""
        check_images(self, images)
        latents = self.codec.encode(params, images)
        squeezed = self.squeezed(latents)
        places = jax.lax.stop_gradient(self.places_in_training(squeezed, key))
        values, scaled = self.values(places), squeezed * self.scale()
        loss, metrics = self.regularised(*(x.reshape(-1, self.channels) for x in (squeezed, values)))
        codes = self.codes(places).reshape(-1, self.groups)
        stats = usage.update(stats, jnp.stack([usage.hits(x, self.vocab) for x in codes.T]))
        metrics |= usage.summary(stats, (1,) * self.groups, ALIVE)
        return scaled + jax.lax.stop_gradient(values - scaled), loss, stats, metrics


@dataclasses.dataclass(frozen=True)
class FSQ(Implicit):
    """Finite scalar quantisation: each number is bounded, then rounded; values lie in [-1, 1].

    Attributes:
      levels: L, how many values each channel of a code has.
      shift: how the middle of an even number of values is found: "atanh", with bounds of (L - 1) (1 + 1e-3) / 2, which
        is exact; or "tan", with (L - 1) (1 - 1e-3) / 2, as the paper's appendix has it.
    """

    levels: tuple[int, ...]
    shift: str

    @property
    def bases(self) -> tuple[int, ...]:
        """L."""
        return self.levels

    def _all_levels(self) -> np.ndarray:
        return np.tile(self.levels, self.groups)

    def squeezed(self, latents: jax.Array) -> jax.Array:
        """h tanh(z + s) - o, with o = 1/2 for an even L, else 0, and s where it is 0 at z = 0."""
        levels = self._all_levels()
        exact = self.shift == "atanh"
        half = (levels - 1) * (1 + EPS if exact else 1 - EPS) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift = (np.arctanh if exact else np.tan)(offset / half)
        half, offset, shift = (x.astype(np.float32) for x in (half, offset, shift))
        return jnp.tanh(latents + shift) * half - offset

    def places(self, squeezed: jax.Array) -> jax.Array:
        """Rounded (halves to even), counted from the least."""
        return jnp.round(squeezed).astype(jnp.int32) + self._all_levels() // 2

    def values(self, places: jax.Array) -> jax.Array:
        """(k - floor(L / 2)) / floor(L / 2)."""
        middle = self._all_levels() // 2
        return (places - middle).astype(jnp.float32) / middle

    def scale(self) -> jax.Array:
        """1 / floor(L / 2)."""
        return 1.0 / jnp.asarray(self._all_levels() // 2, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Signs(Implicit):
    """The signs of a latent's numbers, a bit each: LFQ, and BSQ where they are of a vector on the unit sphere.

    Attributes:
      sphere: whether latents are put on the unit sphere, and codes with them, at numbers of +-1 / sqrt(C).
      beta: weight of the commitment loss, mean (latent - sg code)^2 over channels.
      entropy_weight: of the entropy loss H(bits of a latent) - diversity H(mean over latents), in nats.
      diversity: see there.
      entropy_bits: bits whose joint law the second term looks at; for a code of more it is the sum over its parts, an
        upper bound.
      sharpness: a bit is 1 with the probability sigmoid(4 sharpness latent code).
    """

    sphere: bool
    beta: float
    entropy_weight: float
    diversity: float
    entropy_bits: int
    sharpness: float

    @property
    def bases(self) -> tuple[int, ...]:
        """2 for each channel."""
        return (2,) * (self.channels // self.groups)

    @property
    def size(self) -> float:
        """Of a number that is decoded."""
        return self.channels**-0.5 if self.sphere else 1.0

    def squeezed(self, latents: jax.Array) -> jax.Array:
        """The latents, on the sphere if so wished."""
        return normalised(latents) if self.sphere else latents

    def places(self, squeezed: jax.Array) -> jax.Array:
        """1 above 0."""
        return (squeezed > 0).astype(jnp.int32)

    def values(self, places: jax.Array) -> jax.Array:
        """+-1, or +-1 / sqrt(C)."""
        return (2.0 * places - 1.0) * self.size

    def scale(self) -> jax.Array:
        """The straight-through gradient is that of the sign, before a code's numbers are made smaller."""
        return jnp.full(self.channels, self.size, jnp.float32)

    def regularised(self, squeezed: jax.Array, values: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The commitment and entropy losses."""
        found = dict(commitment=jnp.mean(jnp.square(squeezed - jax.lax.stop_gradient(values))))
        loss = self.beta * found["commitment"]
        if self.entropy_weight:
            sure, used = bit_entropies(4 * self.sharpness * self.size * squeezed, self.entropy_bits)
            found["entropy"] = sure - self.diversity * used
            loss = loss + self.entropy_weight * found["entropy"]
        return loss, found


def bit_entropies(logits: jax.Array, joint: int) -> tuple[jax.Array, jax.Array]:
    """The mean entropy of vectors of independent bits, and that of their mean law (arXiv 2406.07548, section 3.2).

    Args:
      logits: float32 [M, C], of each bit.
      joint: bits whose joint law is averaged; the entropies of the parts are added up.

    Returns:
      Two numbers [], in nats.
    """
    ones = jax.nn.sigmoid(logits)
    each = ones * jax.nn.softplus(-logits) + (1 - ones) * jax.nn.softplus(logits)
    used = jnp.float32(0)
    for start in range(0, logits.shape[-1], joint):
        law = jnp.ones((len(logits), 1))
        for i in range(start, min(start + joint, logits.shape[-1])):
            one = ones[:, i, None]
            law = jnp.concatenate([law * (1 - one), law * one], axis=-1)
        mean = jnp.mean(law, axis=0)
        used -= jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-30)))
    return jnp.mean(jnp.sum(each, axis=-1)), used


def build_fsq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    levels: Annotated[tuple[int, ...], Between(2, 2**16)] = (8, 5, 5, 5),
    groups: Annotated[int, Between(1, 64)] = 1,
    vocab: Annotated[int, Between(0, 2**24)] = 0,
    shift: Annotated[str, OneOf("atanh", "tan")] = "atanh",
) -> FSQ:
    """The part "fsq": numbers rounded to a few values; the other options as `FSQ`'s attributes.

    Args:
      levels: how many values each number of a code has (the paper's for about 2^10 codes).
      vocab: how many codes there are, the product of the levels, for who wants it checked; 0: not.

    Raises:
      UserError: the levels make another number of codes, or more than a head has logits for.
    """
    made = math.prod(levels)
    if vocab and vocab != made:
        raise UserError(
            f"config field tokenizer.vocab: expected {made}, the product of levels {levels}, found {vocab}"
        )
    if made > 2**BITS:
        raise UserError(
            f"config field tokenizer.levels: expected at most 2^{BITS} codes, found {made}; fewer levels, and "
            "tokenizer.groups for several codes a slot, which the heads depth and staged factorise"
        )
    channels = len(levels) * groups
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return _implicit(FSQ, locals(), made, codec)


def build_lfq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    channels: Annotated[int, SIZE] = 18,
    groups: Annotated[int, Between(1, 64)] = 1,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.1,
    diversity: Annotated[float, AtLeast(0)] = 1.0,
    entropy_bits: Annotated[int, Between(1, 12)] = 9,
    sharpness: Annotated[float, Above(0)] = 1.0,
) -> Signs:
    """The part "lfq": the signs of numbers, a bit each; the other options as `Signs`' attributes.

    Args:
      channels: bits of a slot.

    Raises:
      UserError: channels that don't divide into groups, or more codes than a head has logits for.
    """
    return _signs(locals(), sphere=False)


def build_bsq(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    channels: Annotated[int, SIZE] = 18,
    groups: Annotated[int, Between(1, 64)] = 1,
    beta: Annotated[float, AtLeast(0)] = 0.25,
    entropy_weight: Annotated[float, AtLeast(0)] = 0.1,
    diversity: Annotated[float, AtLeast(0)] = 1.0,
    entropy_bits: Annotated[int, Between(1, 12)] = 9,
    sharpness: Annotated[float, Above(0)] = 1.0,
) -> Signs:
    """The part "bsq": the signs of numbers on the unit sphere, a bit each; the other options as `Signs`' attributes.

    Args:
      channels: bits of a slot.

    Raises:
      UserError: channels that don't divide into groups, or more codes than a head has logits for.
    """
    return _signs(locals(), sphere=True)


def _signs(options: Mapping[str, Any], sphere: bool) -> Signs:
    channels = options["channels"]
    bits = assembly.channels_of_a_group(channels, options["groups"])
    if bits > BITS:
        groups = next(n for n in range(1, channels + 1) if channels % n == 0 and channels // n <= 12)
        raise UserError(
            f"config field tokenizer.groups: expected codes of at most {BITS} bits, found one of {bits}; {groups} "
            f"groups make codes of {channels // groups}, several a slot, which the heads depth and staged factorise"
        )
    codec = assembly.codec(
        *(options[k] for k in ("encoder", "image_size", "image_channels", "channels")), 1, options["dtype"]
    )
    return _implicit(Signs, options, 2**bits, codec, sphere=sphere)


def _implicit(kind: type, options: Mapping[str, Any], vocab: int, codec: Any, **own: Any) -> Any:
    """A tokenizer of codes without a table."""
    return assembly.made(kind, options, codec=codec, grid=latent_grid(codec), vocab=vocab, **own)
