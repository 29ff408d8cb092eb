"""Judges pictures through a frozen network's features (StyleGAN-T, arXiv 2301.09515, section 3.2).

The network is DINO's ViT-S/16, of which no weights come with vargen. A file (safetensors or npz) holds its arrays by
their own names (`blocks.0.attn.qkv.weight`); others are passed over. That of timm on the hub is one as it is,
hf://timm/vit_small_patch16_224.dino/model.safetensors; the authors' own is made into one by

    from torch import load
    from safetensors.torch import save_file
    save_file(load("dino_deitsmall16_pretrain.pth"), "dino_vit_small.safetensors")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import logical
from vargen.limits import SIZE, Between, OneOf, divisors
from vargen.tokenizers import network_file
from vargen.tokenizers.discriminators import vit
from vargen.tokenizers.discriminators.among import GhostBatchNorm
from vargen.tokenizers.layers import GroupNorm

FIELD = "tokenizer_training.losses.discriminator"
WHAT = "discriminator weights"


class Dino(nn.Module):
    """Judges patches through the features of a frozen vision transformer, by a small head at several of its depths.

    A head is two convolutions along the row of patches, the second with a skip, and a third that gives the logits. Its
    usual norm is by the batch, of at most eight pictures that follow each other (ghost batch norm, arXiv 1705.08741),
    whose own statistics it always takes: it keeps no averages, and the same pictures see each other on any number of
    devices.

    Attributes:
      weights: file of the frozen network's arrays, safetensors or npz.
      width: D, of the network's rows.
      heads: of its attention.
      patch: pixels a side of what a row sees.
      side: pixels a side that it takes; pictures of other sizes are resized.
      depths: the blocks after which its rows are read, from 0, beside those before the first.
      kernel: patches that the second convolution of a head sees, in a circle.
      norm: of the heads: by the batch, by groups of channels, or none.
      spectral: whether the heads' kernels are divided by their largest singular values (arXiv 1802.05957).
    """

    weights: str = ""
    width: Annotated[int, SIZE] = 384
    heads: Annotated[int, SIZE] = 6
    patch: Annotated[int, SIZE] = 16
    side: Annotated[int, SIZE] = 224
    depths: Annotated[tuple[int, ...], Between(0, 255)] = (2, 5, 8, 11)
    kernel: Annotated[int, SIZE] = 9
    norm: Annotated[str, OneOf("batch", "group", "none")] = "batch"
    spectral: bool = True

    def __post_init__(self) -> None:
        for field, own, whole in (("heads", self.heads, self.width), ("patch", self.patch, self.side)):
            if whole % own:
                raise UserError(
                    f"config field {FIELD}.{field}: expected a divisor of {whole}, found {own}; for instance "
                    f"{divisors(whole, own)}"
                )
        if not self.depths or list(self.depths) != sorted(set(self.depths)):
            raise UserError(
                f"config field {FIELD}.depths: expected at least one number, each above the last, found {self.depths}"
            )
        super().__post_init__()

    def frozen(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of the network's arrays, as far as it is read."""
        found = vit.shapes(self.width, self.patch, self.side, self.depths[-1] + 1)
        return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in found.items()}

    @nn.compact
    def __call__(self, images: jax.Array, frozen: Mapping[str, jax.Array]) -> jax.Array:
        """[B, H, W, C] in [-1, 1] -> logits float32 [B, (number of depths + 1) N], high for real."""
        read = vit.rows(frozen, images, self.side, self.heads, self.depths)
        found = [Head(self.kernel, self.norm, name=f"head{i}")(x) for i, x in enumerate(read)]
        return jnp.concatenate(found, axis=1)


class Head(nn.Module):
    """Judges the rows of one depth.

    Attributes:
      kernel: of the second convolution.
      norm: "batch", "group" or "none".
    """

    kernel: int
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32 [B, N, D] -> [B, N]."""
        width = x.shape[-1]

        def block(x: jax.Array, size: int, i: int) -> jax.Array:
            x = _normed(_along(width, size, f"conv{i}")(x), self.norm, f"norm{i}")
            return nn.leaky_relu(x, 0.2)

        x = block(x, 1, 0)
        x = (x + block(x, self.kernel, 1)) * 2**-0.5
        return _along(1, 1, "conv_out")(x)[..., 0]


def load(discriminator: Any) -> dict[str, np.ndarray]:
    """The frozen arrays of a discriminator from its file; {} where it has none.

    Args:
      discriminator: a `Discriminator`.

    Raises:
      UserError: no file is named, none is there, or it has other arrays.
    """
    shapes = discriminator.frozen()
    if not shapes:
        return {}
    path = discriminator.weights
    if not path:
        raise UserError(
            f"config field {FIELD}.weights: expected the file of the frozen network, such as "
            f"hf://timm/vit_small_patch16_224.dino/model.safetensors, or --config.{FIELD}=patch to train against a "
            "discriminator without one, found none"
        )
    arrays = network_file.read(path, f"{FIELD}.weights", WHAT)
    for name, expected in shapes.items():
        found = arrays[name].shape if name in arrays else "none"
        if found != expected.shape:
            raise UserError(f"{WHAT} {path}: expected {name} of shape {expected.shape}, found {found}")
    return {name: np.asarray(arrays[name], np.float32) for name in shapes}


def _along(features: int, size: int, name: str) -> nn.Conv:
    """A convolution over the rows [B, N, C], which close to a circle."""
    return nn.Conv(
        features,
        (size,),
        padding="CIRCULAR",
        dtype=jnp.float32,
        kernel_init=logical(nn.initializers.normal(0.02), None, None, "conv"),
        bias_init=logical(nn.initializers.zeros, "conv"),
        name=name,
    )


def _normed(x: jax.Array, norm: str, name: str) -> jax.Array:
    if norm == "none":
        return x
    return (GhostBatchNorm if norm == "batch" else GroupNorm)(name=name)(x)
