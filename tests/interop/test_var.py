"""VAR's transformer against the authors' outputs (float32, CPU)."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden, tiny

from vargen import models
from vargen.config import part
from vargen.interop import mapping, var
from vargen.samplers import Sampling, decode

TOLERANCE = 2e-5  # relative to the largest output


def build(name):
    golden, tokenizer = Golden(name), Golden("var_tokenizer")
    m = golden.meta
    config = tiny(
        # Only the quantiser matters here: patches of one pixel stand for the latents.
        tokenizer=part(
            "multiscale_vq",
            encoder=part("patch", patch=1, width=8, blocks=1),
            levels=tuple(m["patch_nums"]),
            vocab=m["V"],
            channels=m["Cvae"],
        ),
        order=part("levels"),
        feed=part("refine"),
        mixer=part(
            "attention",
            heads=m["num_heads"],
            bias="qv",
            **(dict(qk_norm="l2") if m["attn_l2_norm"] else dict(scale=0.25)),
        ),
        head=part("categorical"),
        model=dict(
            layers=m["depth"],
            width=m["embed_dim"],
            affine=False,
            adaptive="shared" if m["shared_aln"] else "adaln",
        ),
        image_size=m["patch_nums"][-1],
    )
    generator = models.build_generator(config, models.build_tokenizer(config))
    params = jax.tree.map(jnp.asarray, var.from_torch(golden.weights, generator))
    weights = tokenizer.weights
    phi = [f"quantize.quant_resi.qresi_ls.{i}" for i in range(4)]
    quantizer = {
        "codebook": weights["quantize.embedding.weight"],
        "phi_kernel": np.stack([mapping.conv_kernel(weights[f"{p}.weight"]) for p in phi]),
        "phi_bias": np.stack([weights[f"{p}.bias"] for p in phi]),
    }
    return golden, generator, params, jax.tree.map(jnp.asarray, quantizer)


def close(found, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", ["var_transformer_l2norm", "var_transformer_sharedaln"])
def test_var_transformer(name):
    golden, generator, params, quantizer = build(name)
    sizes = generator.tokenizer.grid.level_sizes
    labels = jnp.asarray(golden["in/label"])
    codes = {
        cfg: np.concatenate([golden[f"out/greedy_cfg{cfg}/idx_{s}"] for s in range(len(sizes))], axis=1)
        for cfg in ("0.0", "1.5", "4.0")
    }

    @jax.jit
    def logits_of(params, content, labels):
        order = generator.order.decoding(None, len(labels))
        hidden, _ = generator.hidden(params, quantizer, content, labels, order)
        return generator.head.apply({"params": params["head"]}, hidden)

    # The inputs of the golden's teacher-forced pass are given as latents, so they enter behind the feed's own.
    def from_latents(params, labels):
        feed, condition = generator.feed, generator.condition.apply({"params": params["condition"]}, labels)

        def rows(feed):
            state = golden["in/x_BLCv_wo_first_l"]
            first = feed._level(None, condition, 0)
            rest = feed.content(state) + feed.levels(generator.tokenizer.grid.coords[1:, 0])
            return jnp.concatenate([first, rest + feed.positions(np.arange(1, sum(sizes)))], axis=1)

        x = feed.apply({"params": params["feed"]}, method=rows)
        template = generator.feed.apply(
            {"params": params["feed"]},
            codes["0.0"],
            condition,
            generator.order.order,
            quantizer,
            method="inputs",
        )
        given = type(template)(x, template.layout, template.slots)
        hidden, _ = generator._through(params, given, condition, generator.modulations(params, condition))
        return generator.head.apply({"params": params["head"]}, hidden)

    def loss(params):
        logits = from_latents(params, labels)
        target = golden["in/target"][..., None]
        per_token = -jnp.take_along_axis(jax.nn.log_softmax(logits), target, axis=-1)[..., 0]
        return jnp.mean(per_token), (logits, per_token)

    (_, (logits, per_token)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    close(logits, golden["out/logits"])
    close(per_token, golden["out/loss_per_token"])
    expected = golden.gradient_norms()
    for ours, theirs in (
        ("blocks_norm/modulation/kernel", "head_nm.ada_lin.1.weight"),
        ("head/out/kernel", "head.weight"),
        ("feed/first", "pos_start"),
        ("feed/positions/table", "pos_1LC"),
        ("feed/levels/table", "lvl_embed.weight"),
        ("feed/content/latents/kernel", "word_embed.weight"),
        ("condition/classes/table", "class_emb.weight"),
    ):
        found = dict(mapping.flatten(gradient))[ours]
        np.testing.assert_allclose(jnp.linalg.norm(found), expected[theirs], rtol=1e-4)
    for i in range(generator.layers):
        found = jnp.linalg.norm(gradient["blocks"]["mixer"]["out"]["kernel"][i])
        np.testing.assert_allclose(found, expected[f"blocks.{i}.attn.proj.weight"], rtol=1e-4)

    # Greedy decoding: tokens exact, and the guided logits at them.
    greedy = jax.jit(functools.partial(decode, generator))
    for cfg, expected in codes.items():
        sampling = Sampling.make(guidance=float(cfg), guidance_schedule="ramp", temperature=0.0)
        found, _ = greedy(params, quantizer, labels, jax.random.key(0), sampling)
        chex.assert_trees_all_equal(np.asarray(found), expected.astype(np.int32))
        null = jnp.full_like(labels, generator.condition.null)
        scale = np.repeat(np.asarray(sampling.scales(np.asarray(sizes))), sizes)[:, None]
        with_label, without = logits_of(params, found, labels), logits_of(params, found, null)
        guided = np.concatenate(
            [golden[f"out/greedy_cfg{cfg}/cfg_logits_{s}"] for s in range(len(sizes))], axis=1
        )
        close(without + scale * (with_label - without), guided, 1e-4)
