"""RandAR's transformer against its authors' outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen.interop import randar, systems
from vargen.interop.parity.codes import rotations, teacher_forced
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, stand_in
from vargen.interop.parity.recording import margin, sampled, softmax
from vargen.orders import Order
from vargen.orders.schedules import cosine_ahead
from vargen.samplers import Sampling
from vargen.samplers.policies import groups


def matches(golden: Golden) -> bool:
    """Whether it is a golden of RandAR."""
    return randar.INSTRUCTION in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    codes, labels, slots = (golden[f"in/{name}"] for name in ("idx", "label", "order"))
    n = codes.shape[1]
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
    for run, settings in golden.meta["config"].get("extrapolate", {}).items():
        if f"out/extra/{run}/tokens" in golden:
            yield from _larger(golden, generator, params, c, run, settings)


def _larger(golden: Golden, generator, params, c, run: str, settings) -> Iterator[Result]:
    """A picture of twice the side around one of the trained size, whose codes stand at its even places."""
    out, slots, labels = f"out/extra/{run}/", golden["in/extra_order"], golden["in/label"]
    side = generator.tokenizer.grid.levels[0][0]
    n, (first, last), steps = side**2, settings["cfg_scales"], settings["steps"]
    sampling = Sampling.make(
        guidance=last, guidance_schedule="linear_before", guidance_start=first, temperature=0.0
    )
    around, (spatial, _) = sampling, settings["spatial_cfg_scales"]
    unseen = None
    if spatial != 1:
        around = Sampling.make(
            guidance=last,
            guidance_schedule="linear_before",
            guidance_start=first,
            temperature=0.0,
            spatial_guidance=spatial,
        )
        left_out = golden["in/extra_perm"][:, : int(n * settings["ratio"])]
        unseen = np.zeros(slots.shape, bool)
        np.put_along_axis(unseen, np.take_along_axis(slots, left_out, axis=1), True, axis=1)
    rows, columns = np.divmod(slots[:, :n], 2 * side)
    order = Order(rows // 2 * side + columns // 2, _steps(cosine_ahead(n, n if steps < 0 else steps)))
    small, low = sampled(generator, params, labels, order, sampling)
    if out + "guided_logits_low" in golden:
        yield close(out + "guided_logits_low", low[..., -2, :], golden[out + "guided_logits_low"], REPRODUCED)

    c = c.copy_and_resolve_references()
    c.mixer = c.mixer.to_dict() | dict(trained_side=side)
    with c.data.ignore_type():
        c.data.image_size = 2 * side
    generator = systems.build(c)[1]
    if out + "freqs_cis" in golden:
        yield rotations(out + "freqs_cis", golden, generator)
    even = generator.tokenizer.grid.even
    content = np.zeros(slots.shape, np.int32)
    content[:, even] = small
    sizes = np.concatenate([[n], cosine_ahead(4 * n, 4 * n if steps < 0 else steps, n)])
    order = Order(slots, _steps(sizes), given=n)
    given = (jnp.asarray(content), even)
    drawn, high = sampled(generator, params, labels, order, around, given=given, unseen=unseen)
    # Theirs ends before its last step, and leaves codes of 0 there.
    left, codes = sizes[-1], np.array(drawn)
    np.put_along_axis(codes, slots[:, -left:], 0, axis=1)
    yield exact(out + "tokens", codes, golden[out + "tokens"])
    high = high[:, n:-left]
    if out + "guided_logits_high" in golden:
        yield close(
            out + "guided_logits_high", high[..., -2, :], golden[out + "guided_logits_high"], REPRODUCED
        )
    if out + "margin" in golden:
        nearest = min(margin(low), margin(high))
        yield Result(out + "margin", abs(nearest - float(golden[out + "margin"])), 1e-4)


def _steps(sizes: np.ndarray) -> np.ndarray:
    """int [N]: the step of each place in sequence."""
    return np.repeat(np.arange(len(sizes)), sizes)


def _sampled(golden: Golden, generator, params, run: str, settings) -> Iterator[Result]:
    """One of the authors' sampling runs: tokens, the guided logits behind them, and what entered the cache when."""
    out, slots = f"out/gen/{run}/", golden["in/order"]
    n = slots.shape[1]
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
    sampling = dataclasses.replace(sampling, guided=True)  # one program for all scales
    uniforms = golden[f"in/u/{run}"] if settings.get("random") else None
    order = Order(slots, _steps(sizes))
    codes, logits = sampled(generator, params, golden["in/label"], order, sampling, uniforms)
    yield exact(out + "tokens", codes, golden[out + "tokens"])
    if out + "input_pos" in golden and out + "input_len" in golden:
        places = [_places(generator.feed, step) for group in groups(order, generator.feed) for step in group]
        yield exact(out + "input_len", [len(p) for p in places], golden[out + "input_len"])
        yield exact(out + "input_pos", np.concatenate(places), golden[out + "input_pos"])
    if out + "guided_logits" in golden:
        yield close(out + "guided_logits", logits[..., -2, :], golden[out + "guided_logits"], REPRODUCED)
    if out + "probs" in golden:
        yield close(out + "probs", softmax(logits[..., -1, :]), golden[out + "probs"], REPRODUCED)
    if out + "margin" in golden:
        nearest = margin(logits, uniforms)
        yield Result(out + "margin", abs(nearest - float(golden[out + "margin"])), 1e-4)


def _places(feed, step) -> np.ndarray:
    """Rows of the cache that a step's rows take."""
    new = feed.prefix + 2 * step.before if step.begins else 2 * step.before - 1
    stop = feed.prefix + 2 * step.start + step.size
    return np.arange(stop - step.size - new, stop)
