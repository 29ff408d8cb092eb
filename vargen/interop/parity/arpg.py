"""ARPG's transformer against its authors' outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen.feeds import Query
from vargen.interop import arpg, systems
from vargen.interop.parity.codes import rotations, teacher_forced
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, stand_in
from vargen.interop.parity.recording import instead, margin, sampled, softmax
from vargen.orders import Order
from vargen.orders.schedules import SCHEDULES
from vargen.samplers import Sampling


def matches(golden: Golden) -> bool:
    """Whether it is a golden of ARPG."""
    return "layers.cross_dec.0.attn.to_q.weight" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    codes, labels, slots = (golden[f"in/{name}"] for name in ("idx", "label", "order"))
    n = codes.shape[1]
    vocab = golden.weights["head.weight"].shape[0]
    c = stand_in(math.isqrt(n), name="vq", vocab=vocab, channels=8)
    arpg.fill(c, golden.weights, golden.meta["config"]["model"]["n_head"])
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(arpg, generator, golden.weights))
    null = np.full_like(labels, c.data.num_classes)
    if "out/freqs_cis" in golden:
        yield rotations("out/freqs_cis", golden, generator)
    yield from teacher_forced(golden, arpg, generator, params, codes, labels, null, slots)
    bidirectional = "out/logits_evalmode_bidirectional"
    if bidirectional in golden:
        # Theirs forgets the mask outside of training: every row sees all contents but the last.
        found = _unmasked(generator, params, jnp.asarray(codes), jnp.asarray(labels), jnp.asarray(slots))
        yield close(bidirectional, found, golden[bidirectional], REPRODUCED)
    for run, settings in golden.meta["config"].get("runs", {}).items():
        if f"out/gen/{run}/tokens" in golden:
            yield from _sampled(golden, generator, params, run, settings)


class Unmasked(Query):
    """The query feed without times: every row sees every content."""

    def inputs(self, content, condition, order, quantizer=None, train: bool = False):
        """As `Query.inputs`."""
        rows = super().inputs(content, condition, order, quantizer, train)
        slots, steps = rows.aside
        layout = dataclasses.replace(rows.layout, times=np.zeros_like(rows.layout.times))
        return dataclasses.replace(rows, layout=layout, aside=(slots, np.zeros_like(steps)))


def _unmasked(generator, params, codes, labels, slots):
    """Logits of a whole pass in which every row sees every content."""
    feed = instead(generator.feed, Unmasked)
    seen, steps = dataclasses.replace(generator, feed=feed), np.arange(codes.shape[1])

    @jax.jit
    def logits(params, slots):
        hidden, _ = seen.hidden(params, None, codes, labels, Order(slots, steps))
        return generator.head.apply({"params": params["head"]}, hidden)

    return logits(params, slots)


def _sampled(golden: Golden, generator, params, run: str, settings) -> Iterator[Result]:
    """One of the authors' sampling runs: tokens and the logits behind them."""
    out, slots = f"out/gen/{run}/", golden["in/gen_order"]
    batch, n = golden["in/idx"].shape
    slots = np.broadcast_to(slots, (batch, n))
    sizes = SCHEDULES[f"{settings['sample_schedule']}_left"](n, settings["steps"])
    if out + "counts" in golden:
        yield exact(out + "counts", sizes, golden[out + "counts"])
    schedule = {"linear": "linear_after", "constant": "constant"}[settings["cfg_schedule"]]
    sampling = Sampling.make(
        guidance=settings["cfg"],
        guidance_schedule=schedule,
        temperature=settings.get("temperature", 1.0) if settings.get("random") else 0.0,
        top_k=settings.get("top_k", 0),
    )
    if out + "cfg" in golden:
        yield close(out + "cfg", sampling.scales(sizes), golden[out + "cfg"], 1e-6)
    uniforms = golden[f"in/u/{run}"] if settings.get("random") else None
    order = Order(slots, np.repeat(np.arange(len(sizes)), sizes))
    codes, logits = sampled(generator, params, golden["in/label"], order, sampling, uniforms)
    yield exact(out + "tokens", codes, golden[out + "tokens"])
    if out + "logits_both" in golden:
        both = np.concatenate([logits[..., 0, :], logits[..., 1, :]])
        yield close(out + "logits_both", both, golden[out + "logits_both"], REPRODUCED)
    if out + "filtered" in golden:
        kept = logits[..., -1, :] if settings.get("random") else logits[..., -2, :]
        expected = golden[out + "filtered"]
        removed = expected < -1e29
        yield exact(out + "filtered", np.isneginf(kept), removed)
        yield close(out + "filtered", np.where(removed, 0, kept), np.where(removed, 0, expected), REPRODUCED)
    if out + "probs" in golden:
        yield close(out + "probs", softmax(logits[..., -1, :]), golden[out + "probs"], REPRODUCED)
    if out + "margin" in golden:
        nearest = margin(logits, uniforms)
        yield Result(out + "margin", abs(nearest - float(golden[out + "margin"])), 1e-4)
