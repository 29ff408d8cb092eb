"""A vision transformer (arXiv 2010.11929) with given weights, of which the rows between its blocks are read.

Arrays have the names that DINO's repository (facebookresearch/dino) and timm give them. GELU is its approximation by
tanh, as in the discriminators of VAR's and ImageFolder's authors; with DINO's exact one features differ by 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vargen.tokenizers import resample

# ImageNet's mean and deviation, of pixels in [0, 1].
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
EPS = 1e-6


def shapes(width: int, patch: int, side: int, blocks: int) -> dict[str, tuple[int, ...]]:
    """Of the arrays of so many blocks, by name.

    Args:
      width: D.
      patch: pixels a side of what a row sees.
      side: pixels a side of the pictures.
      blocks: how many.
    """
    found: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (side // patch) ** 2, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for i in range(blocks):
        for norm in ("norm1", "norm2"):
            found |= {f"blocks.{i}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
        for layer, (rows, columns) in layers.items():
            found |= {
                f"blocks.{i}.{layer}.weight": (rows, columns),
                f"blocks.{i}.{layer}.bias": (rows,),
            }
    return found


def rows(
    arrays: Mapping[str, jax.Array], images: jax.Array, side: int, heads: int, read: Sequence[int]
) -> list[jax.Array]:
    """What pictures are before the first block, and after those of `read`.

    Args:
      arrays: as `shapes` says; float32.
      images: [B, H, W, 1 or 3] in [-1, 1]; smaller ones than the network's are enlarged by cubic interpolation, larger
        ones averaged.
      side: pixels a side that the network takes.
      heads: of its attention.
      read: numbers of blocks, from 0, rising.

    Returns:
      For each float32 [B, N, D]: the N patches in raster order, each with the class's row added.
    """
    x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))
    x = (resample.area if min(x.shape[1:3]) > side else resample.bicubic)(x, (side, side))
    x = (0.5 * x + (0.5 - MEAN)) / STD
    kernel = arrays["patch_embed.proj.weight"]
    x = jax.lax.conv_general_dilated(
        x, kernel, kernel.shape[2:], "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
    )
    x = (x + arrays["patch_embed.proj.bias"]).reshape(len(x), -1, kernel.shape[0])
    first = jnp.broadcast_to(arrays["cls_token"], (len(x), 1, x.shape[-1]))
    x = jnp.concatenate([first, x], axis=1) + arrays["pos_embed"]
    found = [x]
    for i in range(max(read, default=-1) + 1):
        own = {k.removeprefix(f"blocks.{i}."): v for k, v in arrays.items() if k.startswith(f"blocks.{i}.")}
        x = _block(own, x, heads)
        if i in read:
            found.append(x)
    return [x[:, 1:] + x[:, :1] for x in found]


def _block(arrays: Mapping[str, jax.Array], x: jax.Array, heads: int) -> jax.Array:
    qkv = _dense(arrays, "attn.qkv", _norm(arrays, "norm1", x))
    q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, -1), 2, 0)
    y = jax.nn.dot_product_attention(q, k, v)
    x = x + _dense(arrays, "attn.proj", y.reshape(x.shape))
    hidden = jax.nn.gelu(_dense(arrays, "mlp.fc1", _norm(arrays, "norm2", x)), approximate=True)
    return x + _dense(arrays, "mlp.fc2", hidden)


def _norm(arrays: Mapping[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
    x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + EPS)
    return x * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]


def _dense(arrays: Mapping[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
    return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]
