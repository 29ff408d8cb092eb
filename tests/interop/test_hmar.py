"""HMAR's names and shapes, as its published files have them, and what comes of their arrays by another way."""

import jax
import numpy as np
import pytest

from vargen import config
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import hmar, mapping, systems
from vargen.orders import Order
from vargen.tokenizers import resample

C, H, K, LEVEL = 32, 2, 40, np.repeat([0, 1, 2], [1, 4, 16])
SIDES = (1, 2, 4)


def shapes():
    """As published, of one block each, three levels and five classes."""
    found = {
        "class_emb.weight": (6, C),
        "lvl_embed.weight": (3, C),
        "mask_embed.weight": (1, C),
        "pos_start": (1, 1, C),
        "pos_1LC": (1, 21, C),
        "word_embed.weight": (C, 6),
        "word_embed_bias": (C,),
        "lvl_1L": (1, 21),
        "attn_bias_for_masking": (1, 1, 21, 21),
    }

    def linear(name, o, i):
        found[f"{name}.weight"], found[f"{name}.bias"] = (o, i), (o,)

    for stack in ("base", "ns", "mask"):
        b = f"{stack}_blocks.0"
        found[f"{b}.attn.mat_qkv.weight"] = (3 * C, C)
        found |= {f"{b}.attn.{x}_bias": (C,) for x in ("q", "v", "zero_k")}
        found[f"{b}.attn.scale_mul_1H11"] = (1, H, 1, 1)
        linear(f"{b}.attn.proj", C, C)
        linear(f"{b}.ffn.fc1", 4 * C, C)
        linear(f"{b}.ffn.fc2", C, 4 * C)
        linear(f"{b}.ada_lin.1", 6 * C, C)
        if stack != "base":
            linear(f"{stack}_head_nm.ada_lin.1", 2 * C, C)
            linear(f"{stack}_head", K, C)
    return found


def tiny():
    """The arrays, and a config of their sizes as the importer fills it."""
    rng = np.random.default_rng(0)
    arrays = {k: (0.3 * rng.normal(size=s)).astype(np.float32) for k, s in shapes().items()}
    arrays["lvl_1L"] = LEVEL[None].astype(np.int64)
    for name in arrays:
        if name.endswith("zero_k_bias"):
            arrays[name] = np.zeros(C, np.float32)
    arrays["attn_bias_for_masking"] = hmar.mask(LEVEL)
    c = config.load("hmar:d16_masked")
    c.compute_dtype = "float32"
    c.data.image_size = 16
    encoder = part("patch", patch=4, width=8, blocks=1, token_width=8, channel_width=8)
    c.tokenizer = part("multiscale_vq", encoder=encoder, levels=SIDES, vocab=K, channels=6)
    hmar.fill(c, arrays)
    return c, arrays


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def block(a, name, x, silu):
    """float64 [B, N, C] through a block as the paper and VAR's have it, levels apart."""
    modulation = silu @ a[f"{name}.ada_lin.1.weight"].T + a[f"{name}.ada_lin.1.bias"]
    g1, g2, s1, s2, b1, b2 = np.split(modulation[:, None], 6, axis=-1)
    y = layer_norm(x) * (1 + s1) + b1
    bias = np.concatenate([a[f"{name}.attn.q_bias"], np.zeros(C), a[f"{name}.attn.v_bias"]])
    qkv = (y @ a[f"{name}.attn.mat_qkv.weight"].T + bias).reshape(*y.shape[:2], 3, H, C // H)
    q, k, v = np.moveaxis(qkv, 2, 0)
    q, k = (t / np.linalg.norm(t, axis=-1, keepdims=True) for t in (q, k))
    scale = np.exp(np.minimum(a[f"{name}.attn.scale_mul_1H11"], np.log(100)))[0, :, 0, 0]
    logits = np.einsum("bnhd,bmhd->bhnm", q, k) * scale[:, None, None]
    logits = np.where(LEVEL[:, None] == LEVEL, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    y = np.einsum("bhnm,bmhd->bnhd", weights / weights.sum(-1, keepdims=True), v).reshape(x.shape)
    x = x + g1 * (y @ a[f"{name}.attn.proj.weight"].T + a[f"{name}.attn.proj.bias"])
    y = layer_norm(x) * (1 + s2) + b2
    y = gelu(y @ a[f"{name}.ffn.fc1.weight"].T + a[f"{name}.ffn.fc1.bias"])
    return x + g2 * (y @ a[f"{name}.ffn.fc2.weight"].T + a[f"{name}.ffn.fc2.bias"])


def by_hand(arrays, tokenizer, quantizer, content, labels, masked):
    """Logits float64 [B, 21, K]; `masked` None for those of the next scale, else bool [B, 21]."""
    a = {k: np.asarray(v, np.float64) for k, v in arrays.items()}
    classes = a["class_emb.weight"][labels]
    x = [classes[:, None] + a["pos_start"]]
    area, latents = jax.jit(resample.area, static_argnums=1), jax.jit(tokenizer.latents)
    image = 0.0
    for level, side in enumerate(SIDES):
        added = np.asarray(latents(quantizer, content, np.tile(level == LEVEL, (len(content), 1))))
        if level:
            down = lambda f, s=side: np.asarray(area(f, (s, s)), np.float64)  # noqa: E731
            row = down(image).reshape(len(content), -1, 6) @ a["word_embed.weight"].T
            if masked is not None:
                own = down(added).reshape(len(content), -1, 6) @ a["word_embed.weight"].T
                row = row + np.where(masked[:, level == LEVEL, None], a["mask_embed.weight"], own)
            x.append(row + a["word_embed_bias"])
        image = image + added
    x = np.concatenate(x, axis=1) + a["lvl_embed.weight"][LEVEL] + a["pos_1LC"]
    silu = classes / (1 + np.exp(-classes))
    end = "ns" if masked is None else "mask"
    x = block(a, f"{end}_blocks.0", block(a, "base_blocks.0", x, silu), silu)
    scale, shift = np.split(
        (silu @ a[f"{end}_head_nm.ada_lin.1.weight"].T + a[f"{end}_head_nm.ada_lin.1.bias"])[:, None],
        2,
        axis=-1,
    )
    return (layer_norm(x) * (1 + scale) + shift) @ a[f"{end}_head.weight"].T + a[f"{end}_head.bias"]


def test_names_both_ways():
    c, arrays = tiny()
    assert c.model.layers == (1, 1, 1) and c.name == "HMAR-d2" and c.data.num_classes == 5
    _, generator = systems.build(c)
    params = systems.read(hmar, generator, arrays)
    again = mapping.write(hmar.table(generator), params)
    assert {k: v.shape for k, v in again.items()} == shapes()
    jax.tree.map(np.testing.assert_array_equal, again, arrays)
    del arrays["mask_embed.weight"]
    with pytest.raises(UserError, match="HMAR: missing arrays: mask_embed.weight"):
        systems.read(hmar, generator, arrays)


def test_logits():
    """Of both branches, against the formulas in float64 on the arrays by their own names."""
    c, arrays = tiny()
    tokenizer, generator = systems.build(c)
    params = systems.read(hmar, generator, arrays)
    quantizer = jax.jit(lambda key: tokenizer.init(key)["quantizer"])(jax.random.key(0))
    rng = np.random.default_rng(1)
    content, labels = rng.integers(0, K, (2, 21), np.int32), np.array([1, 5])
    masked = rng.random((2, 21)) < 0.5
    masked[:, 0] = False
    steps = 2 * LEVEL + masked
    slots = np.argsort(steps, axis=1, kind="stable")
    for branch, order in (
        (0, Order(np.arange(21), LEVEL)),
        (1, Order(slots, np.take_along_axis(steps, slots, axis=1))),
    ):

        @jax.jit
        def logits(params, order=order, branch=branch):
            hidden, rows = generator.hidden(params, quantizer, content, labels, order)
            assert rows.layout.branch == branch
            return generator.head.apply(generator.of_head(params, branch), hidden)

        found = logits(params)
        expected = by_hand(arrays, tokenizer, quantizer, content, labels, masked if branch else None)
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
