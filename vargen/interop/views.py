"""Weights of the networks of FD-DINOv2 and CMMD (`vargen.evaluation.views`), from the user's files.

DINOv2: facebook/dinov2-large's model.safetensors, timm's or the authors' dinov2_vitl14_pretrain.pth. CLIP:
openai/clip-vit-large-patch14-336's model.safetensors or pytorch_model.bin. Sizes are the arrays'; heads are 64 wide, as
all published ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.errors import UserError
from vargen.evaluation import views
from vargen.interop import files, shapes
from vargen.tokenizers import resample
from vargen.tokenizers.teachers import dinov2 as teacher
from vargen.tokenizers.teachers.teacher import IMAGENET, Arrays
from vargen.tokenizers.teachers.vit import Vit

SIDE = 224  # of DINOv2's pictures, as dgm-eval scales them
# The authors' module scales its table of places by (n + 0.1) / N and not by n / N.
MORE = 0.1
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean and deviation
LARGE = (1024, 24, 14)  # width, layers and patch of either, as published figures have it
QUICK = 1.702  # x sigmoid(1.702 x) is silu(1.702 x) / 1.702
VISION = "vision_model."
# Names of DINOv2's, in the authors' and timm's files and in transformers': of a block, the patches, the places.
AUTHORS = ("blocks.{}.attn.qkv.weight", "patch_embed.proj.weight", "pos_embed")
TRANSFORMERS = (
    "encoder.layer.{}.layer_scale1.lambda1",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.position_embeddings",
)


def dinov2(path: files.Path, side: int = SIDE) -> views.Encoder:
    """DINOv2 without registers, whose features are the class token after the last norm, as dgm-eval has it.

    Raises:
      UserError: no such file, a broken one, or another network's.
    """
    published = "DINOv2's weights (facebook/dinov2-large, or dinov2_vitl14_pretrain.pth)"
    arrays = files.read(path).parameters()
    sizes = None
    for names in (AUTHORS, TRANSFORMERS):
        sizes = sizes or _sizes(arrays, os.fspath(path), *names)
    if sizes is None or any("regist" in name or "reg_token" in name for name in arrays):
        raise _another(path, published, arrays)
    width, layers, patch, places = sizes
    params = teacher.parameters(Arrays(arrays, os.fspath(path)), layers, 0, True)
    hidden = params["block0"]["up"]["bias"].shape[0]
    grid = side // patch
    table = params["places"][1:].reshape(places, places, width)
    matrix = resample.bicubic_matrix(places, grid, MORE).astype(np.float64)
    table = np.einsum("ih,jw,hwc->ijc", matrix, matrix, table).astype(np.float32)
    params["places"] = np.concatenate([params["places"][:1], table.reshape(-1, width)])
    network = Vit(
        patch, width, layers, max(width // 64, 1), hidden, "gelu", True, grid, True, 0, True, np.float32
    )
    return views.Encoder(network, params, side, False, *IMAGENET, None, width)


def clip(path: files.Path) -> views.Encoder:
    """The image tower of CLIP: the class token's projection; at the size that its table of places has.

    Raises:
      UserError: no such file, a broken one, or another network's.
    """
    published = "CLIP's weights (openai/clip-vit-large-patch14-336)"
    embeddings, layer = f"{VISION}embeddings.", f"{VISION}encoder.layers.{{}}."
    table, patches = f"{embeddings}position_embedding.weight", f"{embeddings}patch_embedding.weight"
    arrays = files.read(path).parameters()
    sizes = _sizes(arrays, os.fspath(path), f"{layer}self_attn.q_proj.weight", patches, table)
    if (
        sizes is None
        or f"{VISION}pre_layrnorm.weight" not in arrays
        or "visual_projection.weight" not in arrays
    ):
        raise _another(path, published, arrays)
    width, layers, patch, places = sizes
    found = Arrays(arrays, os.fspath(path))
    kernel = found[patches].transpose(2, 3, 1, 0).reshape(-1, width)
    params: dict[str, Any] = dict(
        patch=dict(kernel=kernel, bias=np.zeros(width, np.float32)),
        token=found[f"{embeddings}class_embedding"][None],
        places=found[table],
        first_norm=found.norm(f"{VISION}pre_layrnorm"),
        norm=found.norm(f"{VISION}post_layernorm"),
    )
    for i in range(layers):
        name = layer.format(i)
        up, down = (found.dense(f"{name}mlp.{x}") for x in ("fc1", "fc2"))
        params[f"block{i}"] = dict(
            norm1=found.norm(f"{name}layer_norm1"),
            qkv=found.dense(*(f"{name}self_attn.{x}_proj" for x in "qkv")),
            out=found.dense(f"{name}self_attn.out_proj"),
            norm2=found.norm(f"{name}layer_norm2"),
            up={k: v * np.float32(QUICK) for k, v in up.items()},
            down=down | dict(kernel=down["kernel"] / np.float32(QUICK)),
        )
    hidden = params["block0"]["up"]["bias"].shape[0]
    shape = (patch, width, layers, max(width // 64, 1), hidden, "silu", False, places, True, 0, True)
    projection = found["visual_projection.weight"].T
    network = Vit(*shape, np.float32, first_norm=True, eps=1e-5)
    return views.Encoder(network, params, places * patch, True, *CLIP, projection, projection.shape[1])


def large(encoder: views.Encoder) -> bool:
    """Whether a network has the sizes of published figures': ViT-L/14."""
    network = encoder.network
    assert isinstance(network, Vit)
    return (network.width, network.layers, network.patch) == LARGE


def _sizes(
    arrays: Mapping[str, Any], what: str, block: str, patches: str, table: str
) -> tuple[int, int, int, int] | None:
    """Width, layers, pixels per side of a patch and side of the table of places; None where names are others."""
    if any(name not in arrays for name in (block.format(0), patches, table)):
        return None
    width, _, patch, *_ = shapes.shape(arrays, patches, what)
    rows = shapes.shape(arrays, table, what)[-2]
    places = math.isqrt(rows - 1)
    if places**2 != rows - 1:
        raise UserError(f"{what}: {table}: expected a class token and a square of places, found {rows} rows")
    return width, shapes.count(arrays, block), patch, places


def _another(path: files.Path, published: str, arrays: Mapping[str, Any]) -> UserError:
    names = sorted(arrays)
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return UserError(f"{path}: expected {published}, found the arrays {', '.join(names[:4])}{more}")
