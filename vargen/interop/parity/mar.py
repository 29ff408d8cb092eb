"""MAR's transformer, denoiser and sampler against its authors' outputs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen.interop import mar, systems
from vargen.interop.parity import mar_sampler
from vargen.interop.parity.golden import (
    REPRODUCED,
    SINGLE,
    Golden,
    Result,
    close,
    exact,
    gradient_norms,
    stand_in,
)
from vargen.orders import Order, cosine_sizes


def matches(golden: Golden) -> bool:
    """Whether it is a golden of MAR."""
    return "diffusion_pos_embed_learned" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    slots = golden.weights["diffusion_pos_embed_learned"].shape[1]
    channels = golden.weights["diffloss.net.input_proj.weight"].shape[1]
    c = stand_in(math.isqrt(slots), name="kl", channels=channels)
    mar.fill(c, golden.weights, golden.meta.get("heads", 0))
    with c.head.ignore_type():
        c.head.sample_steps = int(golden.meta.get("num_sampling_steps", c.head.sample_steps))
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(mar, generator, golden.weights))
    yield from _training(golden, generator, params)
    yield from _process(golden, generator.head)
    yield from _reverse(golden, generator.head, params)
    yield from mar_sampler.results(golden, generator, params)


def _training(golden: Golden, generator, params) -> Iterator[Result]:
    """Encoder, decoder, loss and gradients at the recorded mask, times and noise."""
    if not {"in/latents", "in/mask", "in/label"} <= golden.arrays.keys():
        return
    content = mar_sampler.content(golden["in/latents"])
    mask = golden["in/mask"].astype(np.int32)
    slots = np.argsort(mask, axis=1, kind="stable")
    known = int((mask == 0).sum(axis=1).max())
    feed = generator.feed.clone(most_known=max(generator.feed.most_known, known))
    generator = dataclasses.replace(generator, feed=feed)
    order = Order(jnp.asarray(slots), jnp.asarray(np.take_along_axis(mask, slots, axis=1)))
    labels = jnp.asarray(golden["in/label"])

    def encoded(params):
        condition = generator.condition.apply({"params": params["condition"]}, labels)
        rows = feed.apply({"params": params["feed"]}, content, condition, order, method="inputs")
        x = rows.x
        for i in range(generator.stages[0].layers):
            layer = jax.tree.map(lambda p, i=i: p[i], params["encoder"])
            x, _ = generator.stages[0].block.apply({"params": layer}, x, None, rows.layout)
        x = generator.stages[0].normed(params, x, None)
        return x[:, : feed.buffer + known]

    def whole(params):
        return encoded(params), *generator.hidden(params, None, content, labels, order)

    def loss(params, t, noise):
        enc, z, rows = whole(params)
        head = generator.head.bind({"params": params["head"]})
        flat_z, target = (x.reshape(-1, x.shape[-1]) for x in (z, content))
        mse, bound = head.terms(flat_z, target, t, noise)
        x = head.process.diffuse(target, t, noise)
        weight = rows.weight.reshape(-1)
        total = jnp.sum((mse + bound) * weight) / jnp.sum(weight)
        return total, (enc, z, x, head.denoiser(x, t, flat_z), mse, bound)

    if "out/patchified" in golden:
        yield exact("out/patchified", content, golden["out/patchified"], restated=True)
    scored = {"in/t", "in/noise"} <= golden.arrays.keys()
    if scored:
        t, noise = jnp.asarray(golden["in/t"]), jnp.asarray(golden["in/noise"])
        (total, others), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, t, noise)
        enc, z, x, out, mse, bound = others
    elif "out/enc" in golden or "out/z" in golden:
        enc, z = jax.jit(lambda params: whole(params)[:2])(params)
    for output in ("enc", "z"):
        if f"out/{output}" in golden:
            yield close(f"out/{output}", enc if output == "enc" else z, golden[f"out/{output}"], REPRODUCED)
    if scored:
        for output, found, tolerance in (
            ("x_t", x, REPRODUCED),
            # Times reach 999: the last digit of a frequency is 6e-5 of an angle.
            ("net", out, SINGLE),
            ("masked_loss", total, SINGLE),
        ):
            if f"out/{output}" in golden:
                yield close(f"out/{output}", found, golden[f"out/{output}"], tolerance)
        # The largest bound is a thousand times the others, which are differences of terms near 1.
        for output, found in (("loss_mse", mse), ("loss_vb", bound), ("loss_loss", mse + bound)):
            if f"out/{output}" in golden:
                yield _each(f"out/{output}", found, golden[f"out/{output}"], SINGLE, 1e-2)
        yield from gradient_norms(golden, mar.table(generator), gradients, SINGLE)


def _process(golden: Golden, head) -> Iterator[Result]:
    """Tables of the diffusion process, and how many slots a step leaves."""
    head = head.bind({})
    short, times = head.short, np.arange(len(head.short.betas))
    content, least = short.posterior(1.0, 0.0, times)
    noisy, _ = short.posterior(0.0, 1.0, times)
    signal = short.predict(1.0, times, 0.0, 0.0)[0] - noisy
    noise = short.predict(0.0, times, -1.0, 0.0)[0]
    for output, found in (
        ("betas", head.process.betas),
        ("respaced_betas", short.betas),
        ("respaced_posterior_mean_coef1", content),
        ("respaced_posterior_mean_coef2", noisy),
        ("respaced_posterior_log_variance_clipped", least),
        ("respaced_sqrt_recip_alphas_cumprod", signal / content),
        ("respaced_sqrt_recipm1_alphas_cumprod", noise / content),
    ):
        if f"out/{output}" in golden:
            yield _each(f"out/{output}", np.ravel(found), golden[f"out/{output}"], 1e-6)
    if "out/respaced_timestep_map" in golden:
        yield exact("out/respaced_timestep_map", short.times, golden["out/respaced_timestep_map"])
    for output in golden.outputs("timestep_map_"):
        steps = int(output.removeprefix("out/timestep_map_"))
        yield exact(output, head.process.spaced(steps).times, golden[output])
    for output in golden.outputs("mask_len_"):
        sizes = re.fullmatch(r"out/mask_len_L(\d+)_N(\d+)", output)
        if sizes:
            slots, steps = int(sizes[1]), int(sizes[2])
            left = slots - np.cumsum(cosine_sizes(slots, steps))
            # Theirs counts one slot as left in the last step.
            yield exact(output, np.maximum(left, 1), golden[output])


def _reverse(golden: Golden, head, params) -> Iterator[Result]:
    """Single steps of the reverse process, at the temperature that they were recorded with."""
    if not {"in/ps_xt", "in/ps_noise", "in/ps_z"} <= golden.arrays.keys():
        return
    x, noise, z = (jnp.asarray(golden[f"in/ps_{name}"]) for name in ("xt", "noise", "z"))
    head = head.bind({"params": params["head"]})
    short = head.short

    @jax.jit
    def reverse(t):
        times = jnp.broadcast_to(jnp.asarray(short.times)[t], (len(x),))
        out = head.denoiser(x, times, z)
        eps, spread = jnp.split(out, 2, axis=-1)
        mean, _ = short.predict(x, t, eps, spread)
        predicted = (mean - short.posterior(0.0, x, t)[0]) / short.posterior(1.0, 0.0, t)[0]
        return predicted, short.reverse(x, t, eps, spread, noise, 0.9)

    for output in golden.outputs("p_sample_t"):
        name = re.fullmatch(r"out/p_sample_t(\d+)(_x0)?", output)
        if name:
            t = int(name[1])
            predicted, sample = reverse(t)
            # Early steps multiply the error of the predicted noise by up to 2e4.
            relative = REPRODUCED if np.prod(1 - short.betas[: t + 1]) > 1e-4 else SINGLE
            yield close(output, predicted if name[2] else sample, golden[output], relative)


def _each(output: str, found, expected: np.ndarray, relative: float, least: float = 1e-6) -> Result:
    """Agreement of every value up to `relative` times itself, or `least` where it is smaller."""
    scale = np.maximum(np.abs(expected.astype(np.float64)), least)
    return close(output, np.asarray(found, np.float64) / scale, expected / scale, relative)
