"""Inception-v3 as FID uses it: the graph of 2015-12-05 with weights of the user's.

It differs from the network of the paper (Szegedy et al. 2016) and of torchvision: average pools leave out the padding,
the last block pools by maximum, there are 1008 classes. Names of layers are those of the usual PyTorch port
(pytorch-fid), whose files and TensorFlow's `vargen.interop.inception` reads.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.data import pipeline

SIDE = 299  # pixels that every image is scaled to
CLASSES = 1008
FEATURES = 2048  # of an image
SPATIAL = 7  # channels of sFID's features: the first of mixed_6/conv, which is Mixed_6d's first branch
POSITIONS = 17 * 17  # at which they are taken
WIDTH = 32  # channels of the first layer, in proportion to which all others are


class Conv(NamedTuple):
    """A convolution, batch normalisation and ReLU: stride 1 keeps the size, stride 2 pads nothing."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


# A branch is a chain of layers; of two in one place both take the same input, and their outputs are joined.
Branch = tuple[Conv | tuple[Conv, Conv], ...]


class Block(NamedTuple):
    """Branches side by side, joined along channels; `pool` says what its pooling branch begins with."""

    name: str
    branches: tuple[Branch, ...]
    pool: str
    pool_features: int  # of the 1x1 convolution after pooling; 0: none, and the pooling has stride 2


_3, _5, _ROW, _COLUMN = (3, 3), (5, 5), (1, 7), (7, 1)
STEM = (
    (Conv("Conv2d_1a_3x3", 32, _3, 2), "VALID"),
    (Conv("Conv2d_2a_3x3", 32, _3), "VALID"),
    (Conv("Conv2d_2b_3x3", 64, _3), "SAME"),
    None,  # a max pool
    (Conv("Conv2d_3b_1x1", 80), "VALID"),
    (Conv("Conv2d_4a_3x3", 192, _3), "VALID"),
    None,
)


def _fives(name: str, pool_features: int) -> Block:
    fives = (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, _5))
    threes = (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, _3), Conv("branch3x3dbl_3", 96, _3))
    return Block(name, ((Conv("branch1x1", 64),), fives, threes), "average", pool_features)


def _sevens(name: str, inner: int) -> Block:
    once = (
        Conv("branch7x7_1", inner),
        Conv("branch7x7_2", inner, _ROW),
        Conv("branch7x7_3", 192, _COLUMN),
    )
    twice = (
        Conv("branch7x7dbl_1", inner),
        Conv("branch7x7dbl_2", inner, _COLUMN),
        Conv("branch7x7dbl_3", inner, _ROW),
        Conv("branch7x7dbl_4", inner, _COLUMN),
        Conv("branch7x7dbl_5", 192, _ROW),
    )
    return Block(name, ((Conv("branch1x1", 192),), once, twice), "average", 192)


def _wide(name: str, pool: str) -> Block:
    def both(layer: str) -> tuple[Conv, Conv]:
        return Conv(f"{layer}a", 384, (1, 3)), Conv(f"{layer}b", 384, (3, 1))

    threes = (Conv("branch3x3_1", 384), both("branch3x3_2"))
    twice = (Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, _3), both("branch3x3dbl_3"))
    return Block(name, ((Conv("branch1x1", 320),), threes, twice), pool, 192)


BLOCKS = (
    _fives("Mixed_5b", 32),
    _fives("Mixed_5c", 64),
    _fives("Mixed_5d", 64),
    Block(
        "Mixed_6a",
        (
            (Conv("branch3x3", 384, _3, 2),),
            (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, _3), Conv("branch3x3dbl_3", 96, _3, 2)),
        ),
        "max",
        0,
    ),
    _sevens("Mixed_6b", 128),
    _sevens("Mixed_6c", 160),
    _sevens("Mixed_6d", 160),
    _sevens("Mixed_6e", 192),
    Block(
        "Mixed_7a",
        (
            (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, _3, 2)),
            (
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, _ROW),
                Conv("branch7x7x3_3", 192, _COLUMN),
                Conv("branch7x7x3_4", 192, _3, 2),
            ),
        ),
        "max",
        0,
    ),
    _wide("Mixed_7b", "average"),
    _wide("Mixed_7c", "max"),  # an oversight of 2015 that every published FID has in it
)


class Outputs(NamedTuple):
    """What FID and its kin look at, float32.

    Attributes:
      pool: [B, 2048], the mean of the last block over positions (pool_3).
      spatial: [B, 2023], 7 channels of 17x17 positions (mixed_6/conv), of sFID.
      logits: [B, 1008], of `pool` without the bias, as ADM's inception score takes them.
    """

    pool: Any
    spatial: Any
    logits: Any


class Layer(nn.Module):
    """`Conv` as a module; `padding` is "SAME" or "VALID"."""

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Published figures are float32's; on accelerators the default rounds its products.
        x = nn.Conv(
            self.features,
            self.kernel,
            self.stride,
            self.padding,
            use_bias=False,
            precision=jax.lax.Precision.HIGHEST,
            name="conv",
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Mixed(nn.Module):
    """`Block` as a module: [B, h, w, C] to the joined branches."""

    block: Block
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def layer(conv: Conv, x: jax.Array) -> jax.Array:
            padding = "SAME" if conv.stride == 1 else "VALID"
            features = conv.features * self.width // WIDTH
            return Layer(features, conv.kernel, conv.stride, padding, name=conv.name)(x)

        found = []
        for branch in self.block.branches:
            y = x
            for step in branch:
                y = (
                    layer(step, y)
                    if isinstance(step, Conv)
                    else jnp.concatenate([layer(s, y) for s in step], -1)
                )
            found.append(y)
        if self.block.pool_features:
            pooled = average_pool(x) if self.block.pool == "average" else nn.max_pool(x, _3, (1, 1), "SAME")
            found.append(layer(Conv("branch_pool", self.block.pool_features), pooled))
        else:
            found.append(nn.max_pool(x, _3, (2, 2)))
        return jnp.concatenate(found, -1)


class Inception(nn.Module):
    """Images, uint8 or float in [0, 255], [B, H, W, 3], to `Outputs`.

    Attributes:
      width: channels of the first layer: 32 as published.
    """

    width: int = WIDTH

    @nn.compact
    def __call__(self, images: jax.Array) -> Outputs:
        x = (resize(jnp.asarray(images, jnp.float32)) - 128) / 128
        for stage in STEM:
            if stage is None:
                x = nn.max_pool(x, _3, (2, 2))
            else:
                conv, padding = stage
                features = conv.features * self.width // WIDTH
                x = Layer(features, conv.kernel, conv.stride, padding, name=conv.name)(x)
        for block in BLOCKS:
            x = Mixed(block, self.width, name=block.name)(x)
            if block.name == "Mixed_6d":
                spatial = x[..., :SPATIAL].reshape(len(x), -1)
        pool = x.mean(axis=(1, 2))
        logits = nn.Dense(CLASSES, use_bias=False, precision=jax.lax.Precision.HIGHEST, name="fc")(pool)
        return Outputs(pool, spatial, logits)


def average_pool(x: jax.Array) -> jax.Array:
    """Means of 3x3 neighbours, those that exist: [B, h, w, C] to the same shape."""
    return nn.avg_pool(x, _3, (1, 1), "SAME", count_include_pad=False)


def resize(images: jax.Array, side: int = SIDE) -> jax.Array:
    """TensorFlow 1's ResizeBilinear: float32 [B, H, W, C] to [B, side, side, C].

    Pixel i of the result is at i H / side of the image: corners aren't aligned, centres of pixels neither, and nothing
    is smoothed before images are made smaller. A resize of today shifts them by up to half a pixel.
    """
    for axis in (1, 2):
        size = images.shape[axis]
        places = np.arange(side, dtype=np.float32) * np.float32(size / side)
        low = places.astype(np.int32)
        high = np.minimum(low + 1, size - 1)
        share = (places - low.astype(np.float32)).reshape([side if a == axis else 1 for a in range(4)])
        below = jnp.take(images, low, axis)
        images = below + (jnp.take(images, high, axis) - below) * share
    return images


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """The network with its variables, as a function of images.

    Attributes:
      variables: `params` and `batch_stats` of `Inception`.
      batch_size: the one shape that it compiles for, with each size of images.
    """

    variables: Any
    batch_size: int = 64

    @functools.cached_property
    def network(self) -> Inception:
        """The module that the variables are of."""
        return Inception(self.variables["params"]["Conv2d_1a_3x3"]["conv"]["kernel"].shape[-1])

    @property
    def sizes(self) -> tuple[int, int]:
        """Lengths of `Outputs.pool` and `Outputs.spatial`: 2048 and 2023 as published."""
        return FEATURES * self.network.width // WIDTH, SPATIAL * POSITIONS

    @functools.cached_property
    def _apply(self):
        return jax.jit(self.network.apply)

    @functools.cached_property
    def _variables(self) -> Any:
        return jax.device_put(self.variables)

    def __call__(self, images: np.ndarray) -> Outputs:
        """NumPy arrays for images uint8 [M, H, W, 3], or [M, H, W, 1], whose one channel is taken thrice."""
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = np.asarray(images[start : start + self.batch_size])
            batch = np.broadcast_to(batch, (*batch.shape[:3], 3))
            outputs = self._apply(self._variables, pipeline.padded(batch, self.batch_size))
            found.append(Outputs(*(np.asarray(x)[: len(batch)] for x in outputs)))
        return Outputs(*(np.concatenate(x) for x in zip(*found, strict=True)))
