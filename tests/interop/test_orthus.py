"""Orthus' published layout with random weights: imported, compared to float64 by the published names, and back."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_shapes import Shapes

import vargen
from vargen import config, models
from vargen.cli import main
from vargen.cli.caption_files import read_texts
from vargen.config import part
from vargen.draws import Recorded
from vargen.errors import UserError
from vargen.interop import autoencoder, files, mapping, orthus, orthus_kl, systems
from vargen.samplers import Sampling, decode

D, HEADS, LAYERS, HIDDEN, VOCAB = 32, 2, 2, 40, 8712
K, C, Z, W, DEPTH, STEPS = 12, 4, 8, 16, 2, 3  # codes, latents, the encoder's channels, the picture's head
SIDE, SLOTS, T = 8, 16, 6  # pixels, patches, the longest prompt
EPS = 1e-3
CONFIG = dict(
    model_type="chameleon", num_attention_heads=HEADS, rms_norm_eps=EPS, swin_norm=False, vocabulary_map={}
)
SEP, BEGIN = 8710, 8197


def shapes():
    """By the published names: two levels of the VQGAN, its codebook too."""
    found = Shapes({"model.embed_tokens.weight": (VOCAB, D), "model.codebook_in.weight": (K, C)})
    for i in range(LAYERS):
        b = f"model.layers.{i}"
        for name in "qkvo":
            found.linear(f"{b}.self_attn.{name}_proj", D, D, False)
        for name in "qk":
            for leaf in ("weight", "bias"):
                found[f"{b}.self_attn.{name}_norm.{leaf}"] = (HEADS, D // HEADS)
        found.linear(f"{b}.mlp.gate_proj", HIDDEN, D, False)
        found.linear(f"{b}.mlp.up_proj", HIDDEN, D, False)
        found.linear(f"{b}.mlp.down_proj", D, HIDDEN, False)
        found.norm(f"{b}.input_layernorm", D)
        found.norm(f"{b}.post_attention_layernorm", D)
    found.norm("model.norm", D)
    found.linear("lm_head", VOCAB, D, False)
    found.linear("mlp_head.time_embed.mlp.0", W, 256)
    found.linear("mlp_head.time_embed.mlp.2", W, W)
    found.linear("mlp_head.cond_embed", W, D)
    found.linear("mlp_head.input_proj", W, C)
    for i in range(DEPTH):
        b = f"mlp_head.res_blocks.{i}"
        found.norm(f"{b}.in_ln", W, bias=True)
        found.linear(f"{b}.mlp.0", W, W)
        found.linear(f"{b}.mlp.2", W, W)
        found.linear(f"{b}.adaLN_modulation.1", 3 * W, W)
    found.linear("mlp_head.final_layer.linear", C, W)
    found.linear("mlp_head.final_layer.adaLN_modulation.1", 2 * W, W)
    found |= {f"model.vqmodel.{name}": shape for name, shape in vqgan().items()}
    return dict(found)


def vqgan():
    found, width = Shapes({"quantize.embedding.weight": (K, C)}), 32
    for end, blocks in (("encoder", 2), ("decoder", 3)):
        places = [f"{end}.mid.block_1", f"{end}.mid.block_2"]
        for level in range(2):
            places += [
                f"{end}.{dict(encoder='down', decoder='up')[end]}.{level}.block.{i}" for i in range(blocks)
            ]
        for name in places:
            for i in (1, 2):
                found.norm(f"{name}.norm{i}", width, bias=True)
                found.conv(f"{name}.conv{i}", width, width)
        found.norm(f"{end}.mid.attn_1.norm", width, bias=True)
        for name in ("q", "k", "v", "proj_out"):
            found.conv(f"{end}.mid.attn_1.{name}", width, width, 1)
        found.norm(f"{end}.norm_out", width, bias=True)
    found.conv("encoder.down.0.downsample.conv", width, width)
    found.conv("decoder.up.1.upsample.conv", width, width)
    found.conv("encoder.conv_in", width, 3)
    found.conv("encoder.conv_out", Z, width)
    found.conv("quant_conv", C, Z, 1)
    found.conv("post_quant_conv", Z, C, 1)
    found.conv("decoder.conv_in", width, Z)
    found.conv("decoder.conv_out", 3, width)
    return found


def arrays():
    rng = np.random.default_rng(0)
    return {k: rng.normal(size=s, scale=0.3).astype(np.float32) for k, s in shapes().items()}


def norm(x, eps, kind="layer"):
    x = x - x.mean(-1, keepdims=True) if kind == "layer" else x
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def silu(x):
    return x / (1 + np.exp(-x))


class Dense:
    """The transformer and the picture's head for one sequence, by the published names."""

    def __init__(self, w):
        self.w = {k: x.astype(np.float64) for k, x in w.items()}

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def hidden(self, numbers, patches):
        """[n + patches, D]: of numbers, then patches [p, C] in the units that the head is taught in."""
        words = self.w["model.embed_tokens.weight"]
        x = [words[number] for number in numbers]
        for patch in patches:
            near = -np.sum((patch / 0.1 - self.w["model.codebook_in.weight"]) ** 2, axis=1)
            share = np.exp(near - near.max())
            x.append(share / share.sum() @ words[4 : 4 + K])
        x = np.stack(x)
        n, d = len(x), D // HEADS
        angle = np.arange(n)[:, None, None] * 10000.0 ** (-2 * np.arange(d // 2) / d)

        def turned(y, name):
            y = norm(y.reshape(n, HEADS, d), 1e-5) * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
            a, b = np.split(y, 2, axis=-1)
            cos, sin = np.cos(angle), np.sin(angle)
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

        for i in range(LAYERS):
            b = f"model.layers.{i}"
            y = norm(x, EPS, "rms") * self.w[f"{b}.input_layernorm.weight"]
            q, k = (
                turned(self.linear(y, f"{b}.self_attn.{s}_proj"), f"{b}.self_attn.{s}_norm") for s in "qk"
            )
            v = self.linear(y, f"{b}.self_attn.v_proj").reshape(n, HEADS, d)
            scores = np.where(np.tri(n, dtype=bool), np.einsum("nhd,mhd->hnm", q, k) / math.sqrt(d), -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            y = np.einsum("hnm,mhd->nhd", scores / scores.sum(-1, keepdims=True), v).reshape(n, D)
            x = x + self.linear(y, f"{b}.self_attn.o_proj")
            y = norm(x, EPS, "rms") * self.w[f"{b}.post_attention_layernorm.weight"]
            y = silu(self.linear(y, f"{b}.mlp.gate_proj")) * self.linear(y, f"{b}.mlp.up_proj")
            x = x + self.linear(y, f"{b}.mlp.down_proj")
        return norm(x, EPS, "rms") * self.w["model.norm.weight"]

    def velocity(self, x, t, z):
        angles = t * np.exp(-math.log(10000) * np.arange(128) / 128)
        time = self.linear(np.concatenate([np.cos(angles), np.sin(angles)]), "mlp_head.time_embed.mlp.0")
        y = silu(self.linear(silu(time), "mlp_head.time_embed.mlp.2") + self.linear(z, "mlp_head.cond_embed"))
        x = self.linear(x, "mlp_head.input_proj")
        for i in range(DEPTH):
            b = f"mlp_head.res_blocks.{i}"
            shift, scale, gate = np.split(self.linear(y, f"{b}.adaLN_modulation.1"), 3)
            h = norm(x, 1e-6) * self.w[f"{b}.in_ln.weight"] + self.w[f"{b}.in_ln.bias"]
            h = silu(self.linear(h * (1 + scale) + shift, f"{b}.mlp.0"))
            x = x + gate * self.linear(h, f"{b}.mlp.2")
        shift, scale = np.split(self.linear(y, "mlp_head.final_layer.adaLN_modulation.1"), 2)
        return self.linear(norm(x, 1e-6) * (1 + scale) + shift, "mlp_head.final_layer.linear")

    def drawn(self, prompt, other, guidance, noise):
        """Patches [p, C] one after another, each by DDIM from its noise; `other`: the prompt to guide away from."""
        beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        root = np.sqrt(np.cumprod(1 - beta))
        signal = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        times = np.round(np.arange(1000, 0, -1000 / STEPS)).astype(int) - 1
        patches = []
        for x in noise:
            with_it, without = (self.hidden(numbers, patches)[-1] for numbers in (prompt, other))
            for t, then in zip(times, [*signal[times[1:]], 1.0]):
                v, free = self.velocity(x, t, with_it), self.velocity(x, t, without)
                v = free + guidance * (v - free)
                now = signal[t]
                content, rest = (
                    math.sqrt(now) * x - math.sqrt(1 - now) * v,
                    math.sqrt(now) * v + math.sqrt(1 - now) * x,
                )
                x = math.sqrt(then) * content + math.sqrt(1 - then) * rest
            patches.append(x)
        return np.stack(patches)


def run(*arguments, code=0):
    assert main.main([str(a) for a in arguments]) == code


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The directory, with files as published but for their format."""
    folder = tmp_path_factory.mktemp("orthus")
    files.write(folder / "model.npz", arrays())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    both = ("--generator", folder / "model.npz", "--tokenizer", folder / "model.npz")
    run("import", "orthus", *both, "--image-size", SIDE, "--out", folder / "model")
    return folder


def test_names_both_ways(imported):
    """What is exported is what was published but for the codebook, and imported again the same model."""
    both = [imported / "generator.npz", imported / "tokenizer.npz"]
    run("export", "orthus", "--workdir", imported / "model", "--generator", both[0], "--tokenizer", both[1])
    generator, tokenizer = map(files.read, both)
    again, given = {**generator, **tokenizer}, arrays()
    assert not set(generator) & set(tokenizer)
    assert set(again) == set(given) - {"model.vqmodel.quantize.embedding.weight"}
    for name, x in again.items():
        np.testing.assert_array_equal(x, given[name], err_msg=name)


def test_latents_are_those_before_they_are_quantised(imported):
    """Against the codec of a VQ tokenizer with the same arrays, whose table is checked by goldens; a tenth of them."""
    model = vargen.load(imported / "model")
    c = model.config.copy_and_resolve_references()
    c.tokenizer = part("vq", encoder=c.tokenizer.encoder, vocab=K, channels=C)
    vq = models.build_tokenizer(c)
    own = mapping.Inside("model.vqmodel.", arrays())
    table = autoencoder.table(vq, autoencoder.DIFFUSION) + mapping.array(
        "quantizer/codebook", "quantize.embedding.weight"
    )
    params = mapping.read(table, own, jax.eval_shape(vq.init, jax.random.key(0)))
    images = jax.random.uniform(jax.random.key(1), (2, SIDE, SIDE, 3), minval=-1)
    expected = np.asarray(jax.jit(vq.codec.encode)(params, images)).reshape(2, SLOTS, C)
    moments = jax.jit(model.tokenizer.moments)(model.tokenizer_params, images)
    mean, deviation = np.split(np.asarray(moments), 2, axis=-1)
    np.testing.assert_allclose(mean, 0.1 * expected, atol=1e-5 * np.abs(expected).max())
    assert 0 < deviation.max() < 1e-7
    found = jax.jit(model.tokenizer.decode)(model.tokenizer_params, mean)
    shown = jax.jit(vq.codec.decode)(params, expected.reshape(2, 4, 4, C))
    np.testing.assert_allclose(found, shown, atol=1e-4 * np.abs(shown).max())


def test_words_and_pictures(imported):
    """Logits of every number of a prompt, and pictures drawn with guidance, of prompts of two lengths at once."""
    model = vargen.load(imported / "model")
    c = model.config.copy_and_resolve_references()
    assert (c.model.eps, c.mixer.heads, c.sampling.guidance) == (EPS, HEADS, 5.0)
    c.compute_dtype, c.conditioning.tokens, c.head.heads.picture.sample_steps = "float32", T, STEPS
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, model.generator_params)
    dense, rng = Dense(arrays()), np.random.default_rng(1)
    prompts = [[0, 9000 - 8210, 17, SEP], [0, 8300, SEP]]
    captions = generator.condition.parse(np.array([prompts[0], [1, *prompts[1]]]))
    picture = rng.normal(size=(2, SLOTS, C), scale=0.1).astype(np.float32)

    @jax.jit
    def logits(params, captions, picture):
        content, _ = generator.joined(picture, captions)
        order = generator.ordering.training(None, content)
        hidden, _ = generator.hidden(params, None, content, captions, order)
        return hidden[:, : T + 1] @ params["head"]["heads_text"]["out"]["kernel"], hidden[:, T + 1 :]

    words, hidden = logits(params, captions, picture)
    for i, prompt in enumerate(prompts):
        numbers = [*prompt, BEGIN]
        expected = dense.hidden(numbers, picture[i])
        np.testing.assert_allclose(hidden[i], expected[len(prompt) : -1], atol=3e-5 * np.abs(expected).max())
        expected = dense.linear(expected[: len(prompt)], "lm_head")
        np.testing.assert_allclose(words[i, -len(prompt) :], expected, atol=3e-5 * np.abs(expected).max())
        learnt = np.asarray(generator.condition.learnt(captions))[i]
        assert learnt.tolist() == [0] * (T + 1 - len(prompt)) + [1] * len(prompt)

    noise = rng.normal(size=(2, T + 1 + SLOTS, C)).astype(np.float32)
    sampling = Sampling.make(guidance=2.0)

    @jax.jit
    def draw(params, captions, noise):
        draws = Recorded(normals=noise)
        return decode(generator, params, None, captions, jax.random.key(0), sampling, draws=draws).content[
            "picture"
        ]

    found = np.asarray(draw(params, captions, noise))[:, T + 1 :]
    for i, prompt in enumerate(prompts):
        expected = dense.drawn([*prompt, BEGIN], [0, SEP, BEGIN], 2.0, noise[i, T + 1 :].astype(np.float64))
        np.testing.assert_allclose(found[i], expected, atol=2e-4 * np.abs(expected).max())


def test_prompts_of_a_file(imported, tmp_path):
    """Numbers of fewer columns than there may be are padded; texts, other numbers and padding alone are refused."""
    condition = vargen.load(imported / "model").generator.condition
    file = tmp_path / "prompts.npy"
    np.save(file, np.array([[0, 7, SEP], [1, 0, SEP]]))
    found, names = read_texts(str(file), condition)
    assert found.shape == (2, 1024) and names == ["0", "1"] and (found[:, :-3] == 1).all()
    assert found[:, -3:].tolist() == [[0, 7, SEP], [1, 0, SEP]]
    np.testing.assert_array_equal(condition.parse(None)[0, -3:], [1, 0, SEP])
    for array, message in (
        ([[0, VOCAB]], rf"prompts.npy: captions: expected whole numbers \[B, up to 1024\] .* found {VOCAB}"),
        ([[0, 7], [1, 1]], "expected more than padding in each, found none in 1"),
        (np.zeros((1, 1025), int), r"found an array \[1, 1025\]"),
        ([0.5], r"expected whole numbers \[B, T\], found float64 of shape \[1\]"),
    ):
        np.save(file, np.array(array))
        with pytest.raises(UserError, match=message):
            read_texts(str(file), condition)
    with pytest.raises(UserError, match="captions: expected whole numbers"):
        read_texts("a cat", condition)


def test_mistaken_prompts():
    c = config.load("orthus:shapes")
    good = dict(numbers=9, tokens=3, pad=1, begin=8, empty=(0, 7))
    for changes, message in (
        (dict(begin=9), "conditioning.begin: expected numbers below 9, found 9"),
        (dict(empty=(1, 7)), "conditioning.empty: expected 1 to 3 numbers, none of them the padding 1"),
        (dict(vocabulary=("a",)), "conditioning.vocabulary: expected none, as prompts are numbers"),
        (
            {},
            r"comes before the picture, expected order.sequences \(\(0, 1\),\), found \(\(0, 1\), \(1, 0\)\)",
        ),
    ):
        c.conditioning = part("prompt", **good | changes)
        with pytest.raises(UserError, match=message):
            models.build_generator(c, models.build_tokenizer(c))


def test_refused(imported):
    """Another model's file beside the weights, other latents than the tokenizer's."""
    with pytest.raises(UserError, match="Orthus: config.json: expected swin_norm False, found True"):
        orthus.told(CONFIG | dict(swin_norm=True))
    other = arrays() | {"mlp_head.input_proj.weight": np.zeros((W, 5), np.float32)}
    with pytest.raises(UserError, match="expected slots of the tokenizer's 4 channels, found 5"):
        systems.infer(systems.system("orthus"), other, other, beside=CONFIG)
    with pytest.raises(UserError, match="Orthus tokenizer: expected the tokenizer kl, found VQ"):
        c = vargen.load(imported / "model").config.copy_and_resolve_references()
        c.tokenizer = part("vq", encoder=c.tokenizer.encoder, vocab=K, channels=C)
        orthus_kl.table(models.build_tokenizer(c))
