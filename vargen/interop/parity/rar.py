"""RAR's transformer against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen.interop import rar, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms, stand_in
from vargen.orders import Order
from vargen.samplers import Sampling, decode


def matches(golden: Golden) -> bool:
    """Whether it is a golden of RAR."""
    return "target_aware_pos_embed" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    codes, labels = golden["in/idx"], golden["in/label"]
    slots = codes.shape[1]
    vocab = golden.weights["lm_head.weight"].shape[0]
    c = stand_in(math.isqrt(slots), name="vq", vocab=vocab, channels=4)
    rar.fill(c, golden.weights)
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(rar, generator, golden.weights))
    null = np.full_like(labels, c.data.num_classes)

    # Their class tokens are numbered behind the codes and a mask.
    for output, found in (("out/cond", labels), ("out/none", null)):
        if output in golden:
            yield exact(output, vocab + 1 + found, golden[output], restated=True)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, labels, slots):
        order = Order(slots, np.arange(codes.shape[1]))
        hidden, _ = generator.hidden(params, None, jnp.asarray(codes), labels, order)
        head = functools.partial(generator.head.apply, {"params": params["head"]}, hidden)
        target = jnp.take_along_axis(jnp.asarray(codes), slots, axis=1)
        return head(target, method="loss")[0], head()

    raster = np.broadcast_to(np.arange(slots), codes.shape)
    for name, given, order in (
        ("random", labels, golden["in/orders"] if "in/orders" in golden else None),
        ("raster", labels, raster),
        ("none", null, raster),
    ):
        if f"out/logits_{name}" in golden and order is not None:
            # Their last row, after all slots, predicts nothing.
            expected = golden[f"out/logits_{name}"][:, :slots]
            logits = loss(params, given, jnp.asarray(order))[0][1]
            yield close(f"out/logits_{name}", logits, expected, REPRODUCED)
    if "out/labels_random" in golden and "in/orders" in golden:
        shuffled = np.take_along_axis(codes, golden["in/orders"], axis=1)
        yield exact("out/labels_random", shuffled, golden["out/labels_random"], restated=True)

    if "out/loss_random" in golden and "in/orders" in golden:
        (found, _), gradients = loss(params, labels, jnp.asarray(golden["in/orders"]))
        yield close("out/loss_random", found, golden["out/loss_random"], REPRODUCED)
        yield from gradient_norms(golden, rar.table(generator), gradients, 1e-4)

    sample = jax.jit(functools.partial(decode, generator))
    for output in golden.outputs("greedy/"):
        # A scale of 0 turns guidance off; the temperature changes no greedy choice.
        settings = re.fullmatch(r"out/greedy/gs([\d.]+)(?:_pow([\d.]+))?(?:_T[\d.]+)?", output)
        if settings:
            # Without guidance any power will do.
            scale, power = float(settings[1]), float(settings[2] or 2.75)
            sampling = Sampling.make(
                guidance=scale or 1.0, guidance_schedule="cosine", guidance_power=power, temperature=0.0
            )
            sampling = dataclasses.replace(sampling, guided=True)  # one program for all scales
            found = sample(params, None, jnp.asarray(labels), jax.random.key(0), sampling)[0]
            yield exact(output, found, golden[output])
    for output in golden.outputs("cfg_scale_table_"):
        settings = re.fullmatch(r"out/cfg_scale_table_gs([\d.]+)_pow([\d.]+)_n(\d+)", output)
        if settings:
            sampling = Sampling.make(
                guidance=float(settings[1]), guidance_schedule="cosine", guidance_power=float(settings[2])
            )
            yield close(output, sampling.scales(np.ones(int(settings[3]), int)), golden[output], 1e-6)
