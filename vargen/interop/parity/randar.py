"""RandAR's transformer against its authors' outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.interop import randar, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms, stand_in
from vargen.interop.parity.recording import margin, sampled
from vargen.mixers.rope import rotate
from vargen.orders import Order
from vargen.orders.schedules import cosine_ahead
from vargen.samplers import Sampling
from vargen.samplers.engine import groups


def matches(golden: Golden) -> bool:
    """Whether it is a golden of RandAR."""
    return randar.INSTRUCTION in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    codes, labels, slots = (golden[f"in/{name}"] for name in ("idx", "label", "order"))
    batch, n = codes.shape
    vocab = golden.weights["tok_embeddings.weight"].shape[0]
    c = stand_in(math.isqrt(n), name="vq", vocab=vocab, channels=8)
    randar.fill(c, golden.weights, golden.meta["config"]["model"]["n_head"])
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(randar, generator, golden.weights))
    null = np.full_like(labels, c.data.num_classes)
    if "out/freqs_cis" in golden:
        yield rotations("out/freqs_cis", golden, generator)
    if "out/pos_instruct" in golden:
        places = generator.tokenizer.grid.places[slots]
        turned = generator.feed.apply({"params": params["feed"]}, jnp.asarray(places), method="instructions")
        yield close("out/pos_instruct", turned, golden["out/pos_instruct"], REPRODUCED)

    yield from teacher_forced(golden, randar, generator, params, codes, labels, null, slots)
    for run, settings in golden.meta["config"].get("runs", {}).items():
        if f"out/gen/{run}/tokens" in golden:
            yield from _sampled(golden, generator, params, run, settings)


def rotations(output: str, golden: Golden, generator) -> Result:
    """The table of rotary cosines and sines: zero for the class, then the slots' in raster order."""
    mixer, places = generator.stages[0].block.mixer, generator.tokenizer.grid.places
    # (1, 0) turned by an angle is its cosine and sine.
    coords = np.concatenate([np.full((1, 2), -1), places])
    units = jnp.tile(jnp.asarray([1.0, 0.0]), (1, len(coords), 1, mixer.head_dim // 2))
    return close(output, rotate(units, coords).reshape(len(coords), -1, 2), golden[output], REPRODUCED)


def teacher_forced(
    golden: Golden, module: Any, generator, params, codes, labels, null, slots
) -> Iterator[Result]:
    """Logits, losses and gradients in a given order, in raster order, and with labels taken away."""
    raster = np.broadcast_to(np.arange(codes.shape[1]), codes.shape)

    @jax.jit
    @jax.value_and_grad
    def loss(params, labels, slots):
        return _loss(params, labels, slots)[0]

    def _loss(params, labels, slots):
        order = Order(slots, np.arange(codes.shape[1]))
        hidden, _ = generator.hidden(params, None, jnp.asarray(codes), labels, order)
        target = jnp.take_along_axis(jnp.asarray(codes), slots, axis=1)
        head = {"params": params["head"]}
        nats = generator.head.apply(head, hidden, target, method="log_prob")
        return -jnp.mean(nats), generator.head.apply(head, hidden)

    both = jax.jit(_loss)
    dropped = labels
    if "in/drop_u" in golden:
        dropped = np.where(golden["in/drop_u"] < generator.condition.dropout, null, labels)
    for name, given, order in (
        ("", labels, slots),
        ("_raster", labels, raster),
        ("_null", null, slots),
        ("_dropped", dropped, slots),
    ):
        if f"out/logits{name}" in golden or f"out/loss{name}" in golden:
            value, logits = both(params, jnp.asarray(given), jnp.asarray(order))
            for output, found in (("logits", logits), ("loss", value)):
                if f"out/{output}{name}" in golden:
                    yield close(f"out/{output}{name}", found, golden[f"out/{output}{name}"], REPRODUCED)
    gradients = loss(params, jnp.asarray(labels), jnp.asarray(slots))[1]
    yield from gradient_norms(golden, module.table(generator), gradients, 1e-4)


def _sampled(golden: Golden, generator, params, run: str, settings) -> Iterator[Result]:
    """One of the authors' sampling runs: tokens, the guided logits behind them, and what entered the cache when."""
    out, slots = f"out/gen/{run}/", golden["in/order"]
    batch, n = slots.shape
    first, last = settings["cfg_scales"]
    steps = n if settings["steps"] < 0 else settings["steps"]
    sizes = cosine_ahead(n, steps)
    if out + "counts" in golden:
        yield exact(out + "counts", sizes, golden[out + "counts"])
    sampling = Sampling.make(
        guidance=last,
        guidance_schedule="linear_before",
        guidance_start=first,
        temperature=settings.get("temperature", 1.0) if settings.get("random") else 0.0,
        top_k=settings.get("top_k", 0),
        top_p=settings.get("top_p", 1.0),
    )
    uniforms = None
    if settings.get("random"):
        uniforms = np.zeros((batch, n), np.float32)
        np.put_along_axis(uniforms, slots, golden[f"in/u/{run}"], axis=1)
    order = Order(slots, np.repeat(np.arange(len(sizes)), sizes))
    codes, logits = sampled(generator, params, golden["in/label"], order, sampling, uniforms)
    yield exact(out + "tokens", codes, golden[out + "tokens"])
    if out + "input_pos" in golden and out + "input_len" in golden:
        places = [_places(generator.feed, step) for group in groups(order, generator.feed) for step in group]
        yield exact(out + "input_len", [len(p) for p in places], golden[out + "input_len"])
        yield exact(out + "input_pos", np.concatenate(places), golden[out + "input_pos"])
    if out + "guided_logits" in golden:
        yield close(out + "guided_logits", logits[..., -2, :], golden[out + "guided_logits"], REPRODUCED)
    if out + "probs" in golden:
        yield close(out + "probs", jax.nn.softmax(logits[..., -1, :]), golden[out + "probs"], REPRODUCED)
    if out + "margin" in golden:
        nearest = margin(logits, golden[f"in/u/{run}"] if settings.get("random") else None)
        yield Result(out + "margin", abs(nearest - float(golden[out + "margin"])), 1e-4)


def _places(feed, step) -> np.ndarray:
    """Rows of the cache that a step's rows take."""
    new = feed.prefix + 2 * step.before if step.begins else 2 * step.before - 1
    stop = feed.prefix + 2 * step.start + step.size
    return np.arange(stop - step.size - new, stop)
