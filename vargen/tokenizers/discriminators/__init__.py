"""Discriminators: what judges whether a picture is real or decoded, in a tokenizer's adversarial loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from vargen import parts
from vargen.layers import Linen
from vargen.tokenizers.discriminators.dino import Dino
from vargen.tokenizers.discriminators.patch import Patch
from vargen.tokenizers.discriminators.stylegan import StyleGAN

PLACE = "tokenizer_training.losses.discriminator"  # in a config


class Discriminator(Linen, Protocol):
    """A Linen module; its parameters are its only variables, and no randomness is in it.

    Attributes:
      spectral: whether kernels are divided by their largest singular values, see `spectral`.
      weights: file of the network that it looks through and doesn't train; "" where there is none.
    """

    @property
    def spectral(self) -> bool: ...
    @property
    def weights(self) -> str: ...

    def frozen(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of that network's arrays by their names in the file; {} where there is none."""
        ...

    def __call__(self, images: jax.Array, frozen: Mapping[str, jax.Array]) -> jax.Array:
        """Judges pictures.

        Args:
          images: float32 [B, H, W, C] in [-1, 1].
          frozen: arrays as `frozen` says.

        Returns:
          Logits float32 [B, ...], high for real; of how many places is the discriminator's own.

        Raises:
          UserError: pictures of this size can't be judged.
        """
        ...


DISCRIMINATORS = dict(patch=Patch, stylegan=StyleGAN, dino=Dino)


def build(part: Mapping[str, Any]) -> Discriminator:
    """The discriminator that `part` names.

    Raises:
      UserError: an unknown name or option.
    """
    return parts.build(DISCRIMINATORS, part, PLACE)
