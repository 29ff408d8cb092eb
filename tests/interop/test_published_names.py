"""Files of which no golden can be: their names and shapes as they are published, and every array in its place."""

import jax
import numpy as np
import published_shapes as shapes
import pytest

from vargen import config
from vargen.config import part
from vargen.interop import mapping, systems

# The config and its part, what its file holds, and how many millions of numbers (buffers apart), as counted elsewhere.
PUBLISHED = {
    "xar-b": ("xar:b", "generator", shapes.xar(), 172.64),
    "xar-l": ("xar:l", "generator", shapes.xar(1024, 16, 2730), 608.40),
    "flowar-s": ("flowar:s", "generator", shapes.flowar(), 171.7),
    "flowar-l": ("flowar:l", "generator", shapes.flowar(1024, 8, 2730, depth=12, cross=True), 586.9),
    "dnd-xxl": ("dnd:xxl", "generator", shapes.dnd(), 1436.14),
    "dnd-text": ("dnd:text", "generator", shapes.dnd(codes=1, vocab=4096, rows=1), 1371.69),
    "sd": ("acdit:b", "tokenizer", shapes.sd_kl(), 83.653863),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes(name):
    loaded, which, expected, millions = PUBLISHED[name]
    own = dict(zip(("tokenizer", "generator"), systems.build(config.load(loaded)), strict=True))[which]
    module = getattr(systems.system(loaded.partition(":")[0]), which)
    like = dict(mapping.flatten(jax.eval_shape(own.init, jax.random.key(0))))
    found = mapping.source_shapes(module.table(own), like)
    assert {k: tuple(v) for k, v in found.items()} == dict(expected)
    count = sum(np.prod(x) for k, x in expected.items() if k != "mask")
    assert abs(count / 1e6 - millions) < 0.06


D, W, HIDDEN = 32, 16, 85


def tiny(name):
    """A config of the family at a tiny size, over a grid of 4x4, and what its file holds."""
    encoder = part("conv", width=32, multipliers=(1, 1), decoder_attention=False)
    system = name.partition("-")[0]
    c = config.load(f"{system}:{dict(xar='b', flowar='s', dnd='xxl', acdit='b')[system]}")
    c.compute_dtype = "float32"
    c.data.image_size, c.data.num_classes = 8, 5
    c.model = c.model.to_dict() | dict(layers=(2, 1) if system == "dnd" else 4, width=D, mlp_width=HIDDEN)
    c.mixer.heads = 2
    if system == "xar":
        c.tokenizer.update(dict(encoder=encoder, channels=4))
        return c, shapes.xar(D, 2, HIDDEN, 16, 4, 5)
    if system == "flowar":
        c.tokenizer = part("pyramid_kl", encoder=encoder, levels=(1, 2, 4), channels=4, scale=0.2325)
        c.head.update(dict(depth=1, width=W, heads=2, cross=name.endswith("l")))
        return c, shapes.flowar(D, 2, HIDDEN, W, 1, name.endswith("l"), 21, 4, 5)
    if system == "dnd":
        c.tokenizer.update(dict(encoder=encoder, vocab=16, channels=4))
        return c, shapes.dnd(D, 3, HIDDEN, 2, 16, 6)
    c.tokenizer.encoder = part(
        "conv", width=32, multipliers=(1, 2), encoder_attention=False, decoder_attention=False
    )
    return c, shapes.sd_kl((32, 64), 4)


@pytest.mark.parametrize("name", ["xar", "flowar-s", "flowar-l", "dnd", "acdit"])
def test_every_array_in_its_place(name):
    """Random arrays go in and come out the same; some of them are looked up where they must have gone."""
    c, expected = tiny(name)
    system = name.partition("-")[0]
    which = "tokenizer" if name == "acdit" else "generator"
    own = dict(zip(("tokenizer", "generator"), systems.build(c), strict=True))[which]
    module = getattr(systems.system(system), which)
    rng = np.random.default_rng(0)
    given = {k: rng.normal(size=s).astype(np.float32) for k, s in expected.items() if k != "mask"}
    buffers = {"encoder_blocks.0.attn.rope.freqs": np.ones(4)} if system in ("xar", "flowar") else {}
    params = systems.read(module, own, given | buffers)
    again = mapping.write(module.table(own), params)
    assert {k: v.shape for k, v in again.items()} == expected
    for key, array in given.items():
        np.testing.assert_array_equal(again[key], array, err_msg=key)
    for ours, theirs in places(name, given).items():
        found = params
        for key in ours.split("/"):
            found = found[int(key) if key.isdigit() else key]
        np.testing.assert_array_equal(found, theirs, err_msg=ours)
    if system == "flowar":
        seen = again["mask"][0, 0]
        assert seen[0, 0] == 0 and np.isneginf(seen[0, 1]) and seen[5, 20] == seen[20, 0] == 0
        assert module.levels(given) == (1, 2, 4)


def places(name, a):
    """Of some of ours, by path, what they must hold: a number in it is a layer."""
    if name == "acdit":
        attention, up = "decoder.mid_block.attentions.0", "decoder.up_blocks"
        joined = [a[f"{attention}.{x}.weight"].T for x in ("query", "key", "value")]
        return {
            "decoder/middle/attention/qkv/kernel": np.concatenate(joined, axis=1),
            "decoder/level1_block0/conv1/kernel": a[f"{up}.0.resnets.0.conv1.weight"].transpose(2, 3, 1, 0),
            "decoder/level0_block0/shortcut/kernel": a[f"{up}.1.resnets.0.conv_shortcut.weight"][..., 0, 0].T,
            "decoder/level1_up/bias": a[f"{up}.0.upsamplers.0.conv.bias"],
            "encoder/level0_down/bias": a["encoder.down_blocks.0.downsamplers.0.conv.bias"],
            "encoder/middle/block1/norm2/bias": a["encoder.mid_block.resnets.1.norm2.bias"],
            "decoder/projection/bias": a["post_quant_conv.bias"],
        }
    if name == "dnd":
        return {
            "blocks_1/mixer/key/kernel/0": a["layers.2.attention.wqkv.weight"][D : 2 * D].T,
            "blocks_0/feed_forward/up/kernel/1": a["layers.1.feed_forward.w3.weight"].T,
            "blocks_0/feed_forward/gate/kernel/1": a["layers.1.feed_forward.w1.weight"].T,
            "head/norms_1/scale": a["norm.1.weight"],
            "head/codes_0/out/kernel": a["output.0.weight"].T,
        }
    found = {
        "encoder/mixer/key/kernel/1": a["encoder_blocks.1.attn.qkv.weight"][D : 2 * D].T,
        "decoder/mixer/value/bias/0": a["decoder_blocks.0.attn.qkv.bias"][2 * D :],
        "decoder/feed_forward/gate/kernel/1": a["decoder_blocks.1.mlp.fc1_g.weight"].T,
        "decoder/feed_forward/up/bias/1": a["decoder_blocks.1.mlp.fc1_x.bias"],
        "encoder/modulation/kernel/1": a["encoder_blocks.1.ada_lin.1.weight"].T,
        "feed/bridge/kernel": a["decoder_embed.weight"].T,
    }
    if name == "xar":  # cells of 2x2 slots one after another there, rows of 4 here
        order = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
        table = np.zeros((16, D), np.float32)
        table[order] = a["decoder_pos_embed_learned"][0]
        return found | {"feed/tables_1/table": table, "head/out/kernel": a["pred.weight"].T}
    return found | {"feed/targets/table": a["diffusion_pos_embed_learned"][0]}
