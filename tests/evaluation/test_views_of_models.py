"""The networks of FD-DINOv2 and CMMD, from pictures to features, against the public modules at tiny sizes.

DINOv2: the authors' module (facebookresearch/dinov2), with pictures as dgm-eval prepares them. CLIP: transformers'
CLIPVisionModelWithProjection, with pictures as CMMD's authors scale them. 2 layers of width 128.
"""

import re

import numpy as np
import pytest
import seeded
from golden import Golden
from safetensors.numpy import save_file

from vargen.errors import UserError
from vargen.evaluation import fid, metrics, mmd, views
from vargen.interop import views as weights

GOLDEN = Golden("image_features")
PICTURES = seeded.images("pictures", (3, 30, 24, 3))
READ = dict(dinov2=lambda file: weights.dinov2(file, side=28), clip=weights.clip)
RENAMED = (  # the authors' names to transformers'
    ("cls_token", "embeddings.cls_token"), ("mask_token", "embeddings.mask_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"), ("blocks.", "encoder.layer."),
    ("attn.proj", "attention.output.dense"), ("ls1.gamma", "layer_scale1.lambda1"),
    ("ls2.gamma", "layer_scale2.lambda1"),
)  # fmt: skip


def arrays(name):
    return seeded.weights(GOLDEN.meta["shapes"][name])


def saved(folder, found):
    save_file(found, folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.mark.parametrize("name", READ)
def test_features_are_the_public_modules(name, tmp_path):
    more = dict(clip={"text_model.embeddings.position_embedding.weight": np.ones((3, 2), np.float32)})
    encoder = READ[name](saved(tmp_path, arrays(name) | more.get(name, {})))
    found = encoder(PICTURES)
    assert found.shape == GOLDEN[f"out/{name}"].shape == (3, encoder.size)
    np.testing.assert_allclose(found, GOLDEN[f"out/{name}"], atol=2e-5)
    assert not weights.large(encoder)
    grey = PICTURES[:1, ..., :1]
    np.testing.assert_array_equal(encoder(grey), encoder(grey.repeat(3, axis=-1)))


def test_transformers_names_of_dinov2(tmp_path):
    found = {}
    for name, array in arrays("dinov2").items():
        if "attn.qkv" in name:
            for part, third in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                other = name.replace("attn.qkv", f"attention.attention.{part}")
                found[other.replace("blocks.", "encoder.layer.")] = np.ascontiguousarray(third)
            continue
        for old, new in RENAMED:
            name = name.replace(old, new)
        found[re.sub("^norm", "layernorm", name)] = array
    encoder = weights.dinov2(saved(tmp_path, found), side=28)
    np.testing.assert_allclose(encoder(PICTURES), GOLDEN["out/dinov2"], atol=2e-5)


def test_figures_of_features_as_they_come(monkeypatch):
    a, b = seeded.features("reference", 90)[:, :5], seeded.features("samples", 70, 0.8)[:, :5]
    for kind, expected in ((views.FrechetDistance, metrics.frechet_distance), (views.Discrepancy, mmd.cmmd)):
        sets = [kind(5), kind(5)]
        for found, features in zip(sets, (a, b), strict=True):
            for start in range(0, len(features), 32):
                found.add(features[start : start + 32])
        assert [found.count for found in sets] == [90, 70]
        assert sets[0].to(sets[1]) == pytest.approx(expected(a, b), rel=1e-9)
    monkeypatch.setattr(fid, "KEPT", 40)
    few = views.Discrepancy(5)
    for start in range(0, 90, 32):
        few.add(a[start : start + 32])
    assert few.count == 40
    assert few.to(sets[1]) == pytest.approx(mmd.cmmd(a[:40], b), rel=1e-9)


def test_other_files(tmp_path):
    """Named is what was found, or what is missing."""
    file = saved(tmp_path, arrays("clip"))
    with pytest.raises(
        UserError, match=r"expected DINOv2's weights .*, found the arrays vision_model\.emb.* more"
    ):
        weights.dinov2(file)
    found = arrays("dinov2")
    with pytest.raises(UserError, match=r"expected CLIP's weights .*, found the arrays blocks\.0\.attn"):
        weights.clip(saved(tmp_path, found))
    with pytest.raises(UserError, match="expected the array norm.bias, found none"):
        weights.dinov2(saved(tmp_path, {k: v for k, v in found.items() if k != "norm.bias"}), side=28)
    with pytest.raises(UserError, match="expected DINOv2's weights .*, found the arrays"):
        weights.dinov2(saved(tmp_path, found | dict(register_tokens=np.ones((1, 4, 128), np.float32))))
    with pytest.raises(
        UserError, match="pos_embed: expected a class token and a square of places, found 25 rows"
    ):
        weights.dinov2(saved(tmp_path, found | dict(pos_embed=found["pos_embed"][:, 1:].copy())))
