"""Distances between images by the features of a classifier, VGG16 or AlexNet: LPIPS (arXiv 1801.03924), and of Gram
matrices.

No weights come with vargen. A file (safetensors or npz) holds float arrays by the names that PyTorch users
know: `features.<i>.weight` [O, I, h, w] and `features.<i>.bias` [O] for the convolutions of torchvision's
`vgg16` (i = 0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28) or `alexnet` (i = 0, 3, 6, 8, 10), and
`lin<k>.model.1.weight` [1, C, 1, 1], k = 0 to 4, of the `lpips` package; others are passed over. Which network it is
follows from the names. VGG16's, which the tokenizers' authors use, is two published files in one: torchvision's
vgg16-397923af.pth (download.pytorch.org/models) and lpips/weights/v0.1/vgg.pth of richzhang/PerceptualSimilarity:

    from torch import load
    from safetensors.torch import save_file
    save_file({**load("vgg16-397923af.pth"), **load("vgg.pth")}, "vgg_lpips.safetensors")

AlexNet's likewise of alexnet-owt-7be5be79.pth and lpips/weights/v0.1/alex.pth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vargen.errors import UserError
from vargen.tokenizers import network_file

SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)  # ImageNet's mean and deviation, for images in [-1, 1]
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution: its index in the file, stride, padding, the pool before it (size; stride 2), whether
    it is compared."""

    index: int
    stride: int = 1
    padding: int = 1
    pool: int = 0
    compared: bool = False


NETWORKS = dict(
    vgg16=(
        Layer(0),
        Layer(2, compared=True),
        Layer(5, pool=2),
        Layer(7, compared=True),
        Layer(10, pool=2),
        Layer(12),
        Layer(14, compared=True),
        Layer(17, pool=2),
        Layer(19),
        Layer(21, compared=True),
        Layer(24, pool=2),
        Layer(26),
        Layer(28, compared=True),
    ),
    alexnet=(
        Layer(0, stride=4, padding=2, compared=True),
        Layer(3, padding=2, pool=3, compared=True),
        Layer(6, pool=3, compared=True),
        Layer(8, compared=True),
        Layer(10, compared=True),
    ),
)


def load_perceptual(path: str) -> tuple[Callable, dict]:
    """The distances and their parameters.

    Returns:
      function (params, x, y) -> float32 [B] by the names of their weights, "perceptual" (LPIPS) and "gram" (see
      `distances`), for images [B, H, W, 1 or 3] in [-1, 1]; params, a dict of arrays.

    Raises:
      UserError: no such file, or arrays are missing in it.
    """
    arrays = network_file.read(path, "losses.perceptual_weights", "perceptual weights")
    network = "alexnet" if "features.3.weight" in arrays else "vgg16"
    names = [f"features.{layer.index}.{kind}" for layer in NETWORKS[network] for kind in ("weight", "bias")]
    names += [f"lin{k}.model.1.weight" for k in range(5)]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(
            f"perceptual weights {path}: expected the arrays of {network}, missing {', '.join(missing)}"
        )
    params = {name: jnp.asarray(arrays[name], jnp.float32) for name in names}

    def function(params, x, y):
        return distances(network, params, x, y)

    return function, params


def distances(network: str, params: dict, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    """Two distances by the features of the layers that are compared, float32 [B] each.

    "perceptual", LPIPS: squared differences of unit features, weighted per channel, averaged over positions, summed
    over layers. "gram" (arXiv 1603.08155, equations 3 and 4): the squared Frobenius norm of the difference of the Gram
    matrices f' f / (h w C) of features f [h w, C], summed over layers.
    """
    count = x.shape[0]
    lpips = gram = jnp.zeros((count,), jnp.float32)
    for k, h in enumerate(features(network, params, jnp.concatenate([x, y]))):
        # The small constant lies inside the root, so that features that are all zero have a gradient.
        unit = h * jax.lax.rsqrt(jnp.sum(jnp.square(h), axis=-1, keepdims=True) + 1e-20)
        weights = params[f"lin{k}.model.1.weight"].reshape(-1)
        lpips += jnp.mean(jnp.square(unit[:count] - unit[count:]) @ weights, axis=(1, 2))
        products = jnp.einsum("bhwc,bhwd->bcd", h, h) / np.prod(h.shape[1:])
        gram += jnp.sum(jnp.square(products[:count] - products[count:]), axis=(1, 2))
    return dict(perceptual=lpips, gram=gram)


def features(network: str, params: dict, images: jax.Array) -> list[jax.Array]:
    """[B, H, W, 1 or 3] in [-1, 1] -> float32 [B, h, w, C] of each layer that is compared."""
    images = images.astype(jnp.float32)
    h, found = (jnp.broadcast_to(images, (*images.shape[:3], 3)) - SHIFT) / SCALE, []
    for layer in NETWORKS[network]:
        if layer.pool:
            h = jax.lax.reduce_window(
                h, -jnp.inf, jax.lax.max, (1, layer.pool, layer.pool, 1), (1, 2, 2, 1), "VALID"
            )
        h = jax.lax.conv_general_dilated(
            h,
            params[f"features.{layer.index}.weight"],
            (layer.stride, layer.stride),
            [(layer.padding, layer.padding)] * 2,
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
        )
        h = jax.nn.relu(h + params[f"features.{layer.index}.bias"])
        if layer.compared:
            found.append(h)
    return found
