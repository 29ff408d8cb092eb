"""SigLIP's vision transformer (arXiv 2303.15343; SigLIP 2's, 2502.14786, of fixed size is the same network).

The file has the names of transformers' `SiglipVisionModel`, which the whole `SiglipModel` has too
(google/siglip-base-patch16-224 and others: model.safetensors as it is).
"""

from __future__ import annotations

from typing import Annotated, Any

from vargen.limits import COUNT, SIZE, Between, Text
from vargen.tokenizers.teachers.dinov2 import check
from vargen.tokenizers.teachers.teacher import Arrays, Teacher
from vargen.tokenizers.teachers.vit import Vit


def build(
    place: str,
    dtype: Any,
    weights: Annotated[str, Text("a file's path")] = "",
    side: Annotated[int, SIZE] = 224,
    patch: Annotated[int, SIZE] = 16,
    width: Annotated[int, SIZE] = 768,
    layers: Annotated[int, COUNT] = 12,
    heads: Annotated[int, COUNT] = 12,
    hidden: Annotated[int, Between(0, 2**22)] = 0,
    places: Annotated[int, SIZE] = 14,
    norm: bool = True,
) -> Teacher:
    """The teacher "siglip"; the defaults are base-patch16-224's (so400m: width 1152, 27 layers, 16 heads, hidden 4304).

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
      norm: whether features are normed as after the last block, and pooled by the network's own query; else averaged.

    Raises:
      UserError: the side isn't whole patches, the heads don't divide the width.
    """
    check(place, side, patch, width, heads)

    def read(arrays: Arrays) -> dict:
        return _transformers(arrays, layers, norm)

    network = Vit(
        patch, width, layers, heads, hidden or 4 * width, "gelu_tanh", False, places, False, 0, norm, dtype
    )
    grid, half = (side // patch, side // patch), (0.5, 0.5, 0.5)
    published = "SigLIP's weights, as google/siglip-base-patch16-224's model.safetensors"
    return Teacher(network, read, side, half, half, grid, width, weights, published, place)


def _transformers(arrays: Arrays, layers: int, norm: bool) -> dict:
    """The parameters of transformers' names."""
    model = "vision_model."
    params = dict(
        patch=arrays.patches(model + "embeddings.patch_embedding"),
        places=arrays[model + "embeddings.position_embedding.weight"],
    )
    for i in range(layers):
        name = f"{model}encoder.layers.{i}."
        params[f"block{i}"] = dict(
            norm1=arrays.norm(name + "layer_norm1"),
            qkv=arrays.dense(*(f"{name}self_attn.{x}_proj" for x in "qkv")),
            out=arrays.dense(name + "self_attn.out_proj"),
            norm2=arrays.norm(name + "layer_norm2"),
            up=arrays.dense(name + "mlp.fc1"),
            down=arrays.dense(name + "mlp.fc2"),
        )
    if norm:
        head = model + "head."
        kernel, bias = (arrays[f"{head}attention.in_proj_{x}"] for x in ("weight", "bias"))
        width = kernel.shape[1]
        params["norm"] = arrays.norm(model + "post_layernorm")
        params["pool"] = dict(
            probe=arrays[head + "probe"][0],
            query=dict(kernel=kernel[:width].T, bias=bias[:width]),
            key_value=dict(kernel=kernel[width:].T, bias=bias[width:]),
            out=arrays.dense(head + "attention.out_proj"),
            norm2=arrays.norm(head + "layernorm"),
            up=arrays.dense(head + "mlp.fc1"),
            down=arrays.dense(head + "mlp.fc2"),
        )
    return params
