"""MAR against the authors' outputs (float32, CPU)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden, tiny

from vargen import models
from vargen.config import part
from vargen.feeds import Step
from vargen.interop import mar
from vargen.orders import Order, cosine_sizes
from vargen.samplers import Sampling

TOLERANCE = 2e-5  # relative to the largest output


def build(schedule="cosine"):
    golden = Golden("mar")
    m = golden.meta
    config = tiny(
        tokenizer=part("kl", encoder=part("patch", patch=1, width=8, blocks=1), channels=m["C"]),
        order=part("random_sets", steps=m["num_iter"]),
        feed=part("mask", buffer=m["buffer"]),
        mixer=part("attention", heads=m["heads"], bias="qkv"),
        head=part(
            "diffusion",
            depth=m["diffloss_d"],
            width=m["diffloss_w"],
            sample_steps=m["num_sampling_steps"],
            schedule=schedule,
            repeat=1,
        ),
        model=dict(layers=sum(m["depth"]), width=m["dim"], mlp="gelu"),
        image_size=4,
    )
    generator = models.build_generator(config, models.build_tokenizer(config))
    return golden, generator, jax.tree.map(jnp.asarray, mar.from_torch(golden.weights, generator))


def close(found, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def flat(latents):
    """[B, C, h, w] -> [B, N, C]."""
    return jnp.asarray(latents.reshape(*latents.shape[:2], -1).transpose(0, 2, 1))


def test_hidden_and_loss():
    golden, generator, params = build()
    mask = golden["in/mask"].astype(np.int32)
    slots = np.argsort(mask, axis=1, kind="stable")
    order = Order(jnp.asarray(slots), jnp.asarray(np.take_along_axis(mask, slots, axis=1)))
    content, labels = flat(golden["in/latents"]), jnp.asarray(golden["in/label"])
    t, noise = jnp.asarray(golden["in/t"]), jnp.asarray(golden["in/noise"])
    rows = content.shape[0] * content.shape[1]

    def loss(params):
        z, found = generator.hidden(params, None, content, labels, order)
        head = {"params": params["head"]}
        args = (z.reshape(rows, -1), content.reshape(rows, -1), t, noise)
        mse, bound = generator.head.apply(head, *args, method="terms")
        weight = found.weight.reshape(-1)
        return jnp.sum((mse + bound) * weight) / jnp.sum(weight), (z, mse, bound, found.weight)

    (total, (z, mse, bound, weight)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_array_equal(weight, mask)
    close(z, golden["out/z"])
    close(mse, golden["out/loss_mse"])
    # The bound multiplies by 1/alpha_bar, up to 4e8.
    np.testing.assert_allclose(bound, golden["out/loss_vb"], rtol=2e-3, atol=1e-5)
    np.testing.assert_allclose(total, golden["out/masked_loss"], rtol=1e-4)
    norms = golden.gradient_norms()
    for found, theirs in (
        (gradient["encoder"]["mixer"]["out"]["kernel"][1], "encoder_blocks.1.attn.proj.weight"),
        (gradient["decoder"]["feed_forward"]["up"]["kernel"][0], "decoder_blocks.0.mlp.fc1.weight"),
        (gradient["head"]["denoiser"]["content"]["kernel"], "diffloss.net.input_proj.weight"),
        (gradient["feed"]["mask"], "mask_token"),
    ):
        if theirs in norms:
            np.testing.assert_allclose(jnp.linalg.norm(found), norms[theirs], rtol=1e-3)


def test_process_tables():
    golden, generator, _ = build()
    head = generator.head.bind({})
    np.testing.assert_allclose(head.process.betas, golden["out/betas"], rtol=1e-6)
    np.testing.assert_array_equal(head.short.times, golden["out/respaced_timestep_map"])
    np.testing.assert_allclose(head.short.betas, golden["out/respaced_betas"], rtol=1e-6)
    for steps in (25, 50, 100, 250):
        np.testing.assert_array_equal(head.process.spaced(steps).times, golden[f"out/timestep_map_{steps}"])
    remaining = [256 - np.cumsum(cosine_sizes(256, steps)) for steps in (64, 256)]
    for found, steps in zip(remaining, (64, 256), strict=True):
        np.testing.assert_array_equal(np.maximum(found, 1), golden[f"out/mask_len_L256_N{steps}"])


@pytest.mark.parametrize("t", [9, 4, 0])
def test_single_reverse_steps(t):
    golden, generator, params = build()
    x, noise, z = (jnp.asarray(golden[f"in/ps_{name}"]) for name in ("xt", "noise", "z"))
    head = generator.head.bind({"params": params["head"]})
    times = jnp.full(len(x), head.short.times[t])
    eps, spread = jnp.split(head.denoiser(x, times, z), 2, axis=-1)
    found = head.short.reverse(x, t, eps, spread, noise, temperature=0.9)
    # At the last time the content is 2e4 times a difference of nearly equal numbers.
    close(found, golden[f"out/p_sample_t{t}"], 2e-4 if t == 9 else TOLERANCE)


def test_whole_sampler_with_recorded_noise():
    """Their sampler, step by step, with our engine's step function and head, and their noise."""
    golden, generator, params = build("linear")
    name = "sample_cfg3_linear_LINBETA"
    slots, labels = golden["in/orders"], golden["in/label"]
    batch, n = slots.shape
    # Their order is masked from the front: generation runs through it backwards.
    order = Order(jnp.asarray(slots[:, ::-1].copy()), np.repeat(np.arange(4), cosine_sizes(n, 4)))
    scales = Sampling.make(guidance=3.0, guidance_schedule="linear").scales(order.sizes)
    both = jnp.asarray(np.concatenate([labels, np.full(batch, 10)]))
    condition = generator.condition.apply({"params": params["condition"]}, both)
    modulations = generator.modulations(params, condition)
    content = jnp.zeros((batch, n, golden.meta["C"]))
    denoise = jax.jit(functools.partial(generator.head.apply, method="denoise"))
    for s, (start, size) in enumerate(zip(order.starts, order.sizes, strict=True)):
        step = Step(s, int(start), int(size), int(size), int(start))
        hidden, _ = generator.step(params, None, (), None, content, condition, modulations, order, step)
        # Their rows lie in canonical order.
        chosen = np.asarray(order.slots)[:, start : start + size]
        rank = np.argsort(chosen, axis=1)
        chosen = np.take_along_axis(chosen, rank, axis=1)
        hidden = jnp.take_along_axis(hidden, jnp.asarray(np.tile(rank, (2, 1)))[..., None], axis=1)
        noise = jnp.asarray(golden[f"in/{name}/steps_{s}"])[:, : batch * size]
        drawn = denoise(
            {"params": params["head"]},
            jnp.asarray(golden[f"in/{name}/init_{s}"]),
            hidden.reshape(2 * batch * size, -1),
            noise,
            scales[s],
            0.95,  # their temperature
        )
        content = content.at[np.arange(batch)[:, None], chosen].set(drawn.reshape(batch, size, -1))
    close(content, flat(golden[f"out/{name}"]), 1e-4)
