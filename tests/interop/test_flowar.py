"""FlowAR's names and shapes, as its published files have them, both ways."""

import jax
import numpy as np
import pytest

from vargen import config
from vargen.config import part
from vargen.interop import flowar, mapping, systems

D, W, HIDDEN = 32, 16, 85


def tiny(cross):
    c = config.load("flowar:s")
    c.compute_dtype = "float32"
    c.data.image_size, c.data.num_classes = 8, 5
    encoder = part("conv", width=32, multipliers=(1, 1), decoder_attention=False)
    c.tokenizer = part("pyramid_kl", encoder=encoder, levels=(1, 2, 4), channels=4, scale=0.2325)
    c.model.update(dict(layers=4, width=D, mlp_width=HIDDEN))
    c.mixer.heads = 2
    c.head.update(dict(depth=1, width=W, heads=2, cross=cross))
    return c


def shapes(cross):
    """By the authors' module, for two and two layers and one of the flow network."""
    found = {
        "class_emb.weight": (6, D),
        "z_proj.weight": (D, 4),
        "z_proj.bias": (D,),
        "z_proj_ln.weight": (D,),
    }
    for name in ("encoder", "decoder", "diffusion"):
        found[f"{name}_pos_embed_learned"] = (1, 21, D)

    def linear(name, o, i, bias=True):
        found[f"{name}.weight"] = (o, i)
        if bias:
            found[f"{name}.bias"] = (o,)

    def gated(name, width, hidden):
        linear(f"{name}.fc1_g", hidden, width)
        linear(f"{name}.fc1_x", hidden, width)
        linear(f"{name}.fc2", width, hidden)

    for stage in ("encoder", "decoder"):
        found[f"{stage}_norm.weight"] = (D,)
        for i in range(2):
            b = f"{stage}_blocks.{i}"
            linear(f"{b}.attn.qkv", 3 * D, D)
            linear(f"{b}.attn.proj", D, D)
            gated(f"{b}.mlp", D, HIDDEN)
            linear(f"{b}.ada_lin.1", 6 * D, D)
    linear("decoder_embed", D, D)
    linear("flownet.time_embed.mlp.0", W, 256)
    linear("flownet.time_embed.mlp.2", W, W)
    linear("flownet.cond_embed", W, D)
    linear("flownet.input_proj", W, 4)
    b = "flownet.res_blocks.0"
    linear(f"{b}.attn.qkv", 3 * W, W, False)
    linear(f"{b}.attn.proj", W, W)
    gated(f"{b}.mlp", W, 8 * W // 3)
    if cross:
        linear(f"{b}.crossattn.q", W, W, False)
        linear(f"{b}.crossattn.kv", 2 * W, D, False)
        linear(f"{b}.crossattn.proj", W, W)
        found |= {f"{b}.norm2_1.weight": (W,), f"{b}.norm2_2.weight": (D,)}
        linear(f"{b}.ada_lin_attn", 3 * W, W)
        linear(f"{b}.ada_lin_mlp", 3 * W, W)
    else:
        linear(f"{b}.ada_lin", 6 * W, W)
    linear("flownet.final_layer.linear", 4, W)
    linear("flownet.final_layer.adaLN_modulation.1", 2 * W, W)
    return found | {"mask": (1, 1, 21, 21)}


@pytest.mark.parametrize("cross", [False, True], ids=["v1", "v2"])
def test_names_both_ways(cross):
    _, generator = systems.build(tiny(cross))
    rng = np.random.default_rng(0)
    arrays = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes(cross).items() if k != "mask"}
    freqs = {"encoder_blocks.0.attn.rope.freqs": np.ones(4, np.float32)}
    params = systems.read(flowar, generator, arrays | freqs)
    again = mapping.write(flowar.table(generator), params)
    assert {k: v.shape for k, v in again.items()} == shapes(cross)
    jax.tree.map(np.testing.assert_array_equal, {k: again[k] for k in arrays}, arrays)
    seen = again["mask"][0, 0]
    assert seen[0, 0] == 0 and np.isneginf(seen[0, 1]) and seen[5, 20] == seen[20, 0] == 0
    key = params["encoder"]["mixer"]["key"]["kernel"][1]
    np.testing.assert_array_equal(key, arrays["encoder_blocks.1.attn.qkv.weight"][D : 2 * D].T)
    assert flowar.levels(arrays) == (1, 2, 4)
