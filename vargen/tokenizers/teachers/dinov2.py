"""DINOv2 (arXiv 2304.07193): a vision transformer that learned without labels; with registers (2309.16588) or without.

The file has the names of transformers' `Dinov2Model` or `Dinov2WithRegistersModel` (facebook/dinov2-small, -base,
-large, dinov2-with-registers-*: model.safetensors as it is), or timm's (vit_small_patch14_dinov2 and the like).
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from vargen.errors import UserError
from vargen.limits import COUNT, SIZE, Between, Text, check_heads
from vargen.tokenizers.teachers.teacher import IMAGENET, Arrays, Teacher
from vargen.tokenizers.teachers.vit import Vit

TIMMS = "blocks.0.norm1.weight"  # a name that timm's and the authors' files have


def build(
    place: str,
    dtype: Any,
    weights: Annotated[str, Text("a file's path")] = "",
    side: Annotated[int, SIZE] = 224,
    patch: Annotated[int, SIZE] = 14,
    width: Annotated[int, SIZE] = 384,
    layers: Annotated[int, COUNT] = 12,
    heads: Annotated[int, COUNT] = 6,
    hidden: Annotated[int, Between(0, 2**22)] = 0,
    places: Annotated[int, SIZE] = 37,
    registers: Annotated[int, Between(0, 4096)] = 0,
    norm: bool = True,
) -> Teacher:
    """The teacher "dinov2"; the defaults are ViT-S/14's (B: width 768, heads 12; L: 1024, 24 layers, 16 heads).

    Args:
      place: of the part in a config.
      dtype: of the computation.
      weights: the file.
      side: pixels per side that pictures are resized to.
      patch: pixels per side of a patch.
      width: D.
      layers: blocks that are used; a file may have more.
      heads: of the attention.
      hidden: of the MLPs; 0: four times the width.
      places: side of the file's table of places.
      registers: rows beside the class token; 4 in the files that have some.
      norm: whether features are normed as after the last block.

    Raises:
      UserError: the side isn't whole patches, the heads don't divide the width.
    """
    check(place, side, patch, width, heads)

    def read(arrays: Arrays) -> dict:
        return parameters(arrays, layers, registers, norm)

    network = Vit(
        patch, width, layers, heads, hidden or 4 * width, "gelu", True, places, True, registers, norm, dtype
    )
    grid = (side // patch, side // patch)
    published = "DINOv2's weights, as facebook/dinov2-small's model.safetensors"
    return Teacher(network, read, side, *IMAGENET, grid, width, weights, published, place)


def parameters(arrays: Arrays, layers: int, registers: int, norm: bool) -> dict:
    """The network's parameters from a file of either's names; see `build`."""
    found = _timm if TIMMS in arrays else _transformers
    return found(arrays, layers, registers, norm)


def check(place: str, side: int, patch: int, width: int, heads: int) -> None:
    """Raises UserError for a side that isn't whole patches, and heads that don't divide the width."""
    if side % patch:
        raise UserError(f"config field {place}.side: expected a multiple of the patch {patch}, found {side}")
    check_heads(heads, width, f"{place}.heads")


def _transformers(arrays: Arrays, layers: int, registers: int, norm: bool) -> dict:
    """The parameters of transformers' names."""
    params = dict(
        patch=arrays.patches("embeddings.patch_embeddings.projection"),
        token=arrays["embeddings.cls_token"][0],
        places=arrays["embeddings.position_embeddings"][0],
    )
    if registers:
        params["registers"] = arrays["embeddings.register_tokens"][0]
    if norm:
        params["norm"] = arrays.norm("layernorm")
    for i in range(layers):
        name = f"encoder.layer.{i}."
        params[f"block{i}"] = dict(
            norm1=arrays.norm(name + "norm1"),
            qkv=arrays.dense(*(f"{name}attention.attention.{x}" for x in ("query", "key", "value"))),
            out=arrays.dense(name + "attention.output.dense"),
            scale1=arrays[name + "layer_scale1.lambda1"],
            norm2=arrays.norm(name + "norm2"),
            up=arrays.dense(name + "mlp.fc1"),
            down=arrays.dense(name + "mlp.fc2"),
            scale2=arrays[name + "layer_scale2.lambda1"],
        )
    return params


def _timm(arrays: Arrays, layers: int, registers: int, norm: bool) -> dict:
    """The parameters of timm's names; with registers its class token has its place added already."""
    places = arrays["pos_embed"][0]
    if int(len(places) ** 0.5) ** 2 == len(places):
        places = np.concatenate([np.zeros_like(places[:1]), places])
    params = dict(patch=arrays.patches("patch_embed.proj"), token=arrays["cls_token"][0], places=places)
    if registers:
        params["registers"] = arrays["reg_token"][0]
    if norm:
        params["norm"] = arrays.norm("norm")
    for i in range(layers):
        name = f"blocks.{i}."
        params[f"block{i}"] = dict(
            norm1=arrays.norm(name + "norm1"),
            qkv=arrays.dense(name + "attn.qkv"),
            out=arrays.dense(name + "attn.proj"),
            scale1=arrays[name + "ls1.gamma"],
            norm2=arrays.norm(name + "norm2"),
            up=arrays.dense(name + "mlp.fc1"),
            down=arrays.dense(name + "mlp.fc2"),
            scale2=arrays[name + "ls2.gamma"],
        )
    return params
