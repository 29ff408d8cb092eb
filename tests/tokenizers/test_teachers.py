"""Teachers: the features of the public modules with the same weights, and what is refused."""

import jax
import numpy as np
import pytest
from common import FOLDER, nhwc
from safetensors.numpy import save_file
from systems import some_slow

from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import teachers

VIT = dict(side=12, patch=4, width=16, layers=2, heads=2)
TINY = dict(
    dinov2=part("dinov2", hidden=32, places=5, **VIT),
    dinov2_registers=part("dinov2", hidden=32, places=5, registers=2, **VIT),
    siglip=part("siglip", hidden=24, places=3, **VIT),
    efficientnet=part(
        "efficientnet", side=64, widths=(32, 4, 4, 6, 6, 8, 8, 10, 12), repeats=(1, 2, 1, 1, 1, 1, 1)
    ),
)


def build(name, **options):
    return teachers.build(part(**{**TINY[name], **options}), "teacher")


def saved(name, folder, **changed):
    """The golden's arrays, and its weights as a file."""
    arrays = np.load(FOLDER / f"teacher_{name}.npz")
    weights = {k.removeprefix("sd/"): arrays[k] for k in arrays.files if k.startswith("sd/")} | changed
    save_file({k: v for k, v in weights.items() if v is not None}, folder / "teacher.safetensors")
    return arrays, str(folder / "teacher.safetensors")


@pytest.mark.parametrize("name", TINY)
def test_features_are_the_public_modules(name, tmp_path):
    """Transformers' Dinov2Model, Dinov2WithRegistersModel and SiglipVisionModel, and efficientnet_lite_pytorch, of
    images that PyTorch resized: bicubic and antialiased. Tables of places are interpolated (DINOv2)."""
    arrays, file = saved(name, tmp_path)
    teacher = build(name, weights=file)
    found = jax.jit(teacher)(teacher.load(), nhwc(arrays["in/img"]))
    assert found.grid.shape == (2, *teacher.grid, teacher.channels)
    np.testing.assert_allclose(found.grid, arrays["out/grid"], atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(found.pooled, arrays["out/pooled"], atol=2e-5, rtol=1e-5)


def test_timms_names_are_read(tmp_path):
    """The same DINOv2 under the names of timm: fused query, key and value, and a place for the class token."""
    arrays, _ = saved("dinov2", tmp_path)
    own = {k.removeprefix("sd/"): arrays[k] for k in arrays.files if k.startswith("sd/")}
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "attention.output.dense": "attn.proj",
        "encoder.layer": "blocks",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "layernorm": "norm",
    }
    timm = {}
    for i in range(2):
        for kind in ("weight", "bias"):
            parts = [
                own.pop(f"encoder.layer.{i}.attention.attention.{x}.{kind}")
                for x in ("query", "key", "value")
            ]
            timm[f"blocks.{i}.attn.qkv.{kind}"] = np.concatenate(parts)
    for name, array in own.items():
        for old, new in names.items():
            name = name.replace(old, new)
        timm[name] = array
    save_file(timm, tmp_path / "timm.safetensors")
    teacher = build("dinov2", weights=str(tmp_path / "timm.safetensors"))
    found = jax.jit(teacher)(teacher.load(), nhwc(arrays["in/img"]))
    np.testing.assert_allclose(found.grid, arrays["out/grid"], atol=2e-5, rtol=1e-5)


def test_fewer_blocks_and_no_norm(tmp_path):
    """Features from the middle of a network: the first block's rows as they are, which the second takes."""
    arrays, file = saved("dinov2", tmp_path)
    whole = build("dinov2", weights=file)
    first = build("dinov2", weights=file, layers=1, norm=False)
    params = first.load()
    assert set(params) == {"patch", "token", "places", "block0"}
    found = jax.jit(first)(params, nhwc(arrays["in/img"]))
    rows = np.concatenate([found.pooled[:, None], found.grid.reshape(2, 9, 16)], axis=1)
    rest = whole.load()
    from vargen.layers import Norm
    from vargen.tokenizers.teachers.vit import VitBlock

    block = VitBlock(2, 32, "gelu", True, np.float32)
    rows = Norm().apply({"params": rest["norm"]}, block.apply({"params": rest["block1"]}, rows))
    np.testing.assert_allclose(rows[:, 1:], arrays["out/grid"].reshape(2, 9, 16), atol=2e-5)


@pytest.mark.parametrize("name", some_slow(TINY, {*TINY} - {"dinov2"}))
def test_no_gradient_reaches_a_teacher(name):
    teacher = build(name)
    params = jax.jit(lambda key: jax.tree.map(lambda x: x.value, teacher.init_boxed(key), is_leaf=_boxed))(
        jax.random.key(0)
    )
    images = jax.random.uniform(jax.random.key(1), (1, 8, 8, 1), minval=-1)

    @jax.jit
    def run(params, images):
        return jax.grad(lambda p, x: teacher(p, x).pooled.sum(), argnums=(0, 1))(params, images)

    of_params, of_images = run(params, images)
    assert not any(np.any(g) for g in jax.tree.leaves(of_params)) and np.any(of_images)
    assert teacher == build(name) and hash(teacher) == hash(build(name))


def _boxed(x):
    return hasattr(x, "names")


def test_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"teacher\.weights: expected a file of DINOv2's weights.*, found none"
    ):
        build("dinov2").load()
    with pytest.raises(UserError, match=r"teacher\.weights: expected a file, found none at nowhere"):
        build("dinov2", weights="nowhere").load()
    with pytest.raises(UserError, match="teacher.side: expected a multiple of the patch 4, found 13"):
        build("siglip", side=13)
    with pytest.raises(UserError, match="teacher.heads: expected a divisor of the width 16, found 3"):
        build("siglip", heads=3)
    with pytest.raises(UserError, match="teacher.side: expected a multiple of 32, found 40"):
        build("efficientnet", side=40)
    with pytest.raises(UserError, match="teacher.widths: expected 9 numbers, found 1"):
        build("efficientnet", widths=(4,))
    with pytest.raises(
        UserError, match="teacher.name: expected one of dinov2, .*, found 'dino'; did you mean dinov2?"
    ):
        teachers.build(part("dino"), "teacher")
    (tmp_path / "broken").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="teacher.weights: expected safetensors, found "):
        build("dinov2", weights=str(tmp_path / "broken")).load()
    _, file = saved("dinov2", tmp_path, **{"layernorm.bias": None})
    with pytest.raises(UserError, match="expected the array layernorm.bias, found none"):
        build("dinov2", weights=file).load()
    _, file = saved("dinov2", tmp_path)
    with pytest.raises(UserError, match=r"expected places of shape \(17, 16\).*, found \(26, 16\)"):
        build("dinov2", weights=file, places=4).load()
