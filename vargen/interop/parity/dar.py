"""D-AR's tokenizer and transformer against their authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import dar, dar_tokenizer, mapping, systems
from vargen.interop.parity.golden import (
    REPRODUCED,
    SINGLE,
    Golden,
    Result,
    close,
    exact,
    gradient_norms,
    norms,
    stand_in,
)
from vargen.interop.parity.recording import margin, sampled
from vargen.mixers.rope import rotate
from vargen.orders import Order
from vargen.samplers import Sampling
from vargen.tokenizers.distances import distances, nearest

TOKENIZER, GENERATOR = "tok.", "gpt."


def matches(golden: Golden) -> bool:
    """Whether it is a golden of D-AR's."""
    return f"{TOKENIZER}{dar_tokenizer.NET}.cond_mlp.weight" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer = built(golden)
    arrays = mapping.Inside(TOKENIZER, golden.weights)
    params = jax.tree.map(jnp.asarray, systems.read(dar_tokenizer, tokenizer, arrays))
    yield from _encoding(golden, tokenizer, params)
    yield from _training(golden, tokenizer, params)
    for run in golden.meta["config"]["dec"]:
        if f"out/dec/{run}/image" in golden:
            yield from _decoding(golden, tokenizer, params, run)
    if any(name.startswith(GENERATOR) for name in golden.weights):
        yield from _generating(golden)


def built(golden: Golden) -> Any:
    """The tokenizer; what arrays don't tell is as `meta` says."""
    told, head = golden.meta["config"]["tok"], golden.meta["config"]["head_dim"]
    part = dar_tokenizer.part(mapping.Inside(TOKENIZER, golden.weights))
    part.encoder.tokens = told["num_all_queries"]
    part.encoder.heads = part.encoder.width // head
    decoder, drawn = part.encoder.decoder, told["diff_decoder"]
    decoder.update(
        heads=decoder.width // head, groups=told["num_query_groups"], steps=told["num_denoising_steps"]
    )
    decoder.update(shift=float(drawn["time_shift"]), scale=drawn["data_std"])
    images = golden["in/x"]
    return tokenizers.build(part, images.shape[2:], images.shape[1])


def _encoding(golden: Golden, tokenizer: Any, params: dict) -> Iterator[Result]:
    """Latents, codes and how near these are to others, and what the decoder is told of them."""
    images, codebook = _last(golden["in/x"]), tokenizer.codes(params["quantizer"])

    def run(params):
        z = tokenizer.codec.encode(params, images)
        (vectors,) = tokenizer.levels(z)
        squared = jnp.sort(distances(vectors, codebook), axis=-1)
        codes = tokenizer.encode(params, images)
        latents = tokenizer.latents(params["quantizer"], codes)
        told = _told(tokenizer, params, latents)[0]
        gap = jnp.min(squared[:, 1] - squared[:, 0]) / 2  # of products of unit vectors
        return dict(z=_first(z), quant=_first(latents), cond=told, code_margin=gap), codes

    found, codes = jax.jit(run)(params)
    if "out/codes" in golden:
        yield exact("out/codes", codes, golden["out/codes"])
    for name, value in found.items():
        if f"out/{name}" not in golden:
            continue
        if name == "code_margin":
            # Differences of numbers near 1 whose last digit is 1e-7.
            yield Result(f"out/{name}", abs(float(value) - float(golden[f"out/{name}"])), 2e-6)
        else:
            yield close(f"out/{name}", value, golden[f"out/{name}"], REPRODUCED)


def _training(golden: Golden, tokenizer: Any, params: dict) -> Iterator[Result]:
    """Losses at the recorded times and noise, of codes as far as the group that is drawn, and their gradients."""
    images, noise = (jnp.asarray(_last(golden[f"in/{name}"])) for name in ("x", "noise"))
    s, codec, table = 1.0 - golden["in/t"], tokenizer.codec, dar_tokenizer.table(tokenizer)
    window = codec.seen(jnp.asarray(s), None)["window"]
    counts = jnp.arange(codec.registers) <= window[:, -1:]

    def run(params):
        (vectors,) = tokenizer.levels(codec.encode(params, images))
        codes = tokenizer.codes(params["quantizer"])
        chosen = codes[nearest(vectors, codes)]
        straight = vectors + jax.lax.stop_gradient(chosen - vectors)
        straight = straight.reshape(len(images), *codec.grid, -1)

        def counted(a, b):
            error = jnp.mean(jnp.square(a - jax.lax.stop_gradient(b)), axis=-1).reshape(counts.shape)
            return jnp.sum(error * counts) / jnp.sum(counts)

        features, weights = codec.noised(params, straight, None, images, jnp.asarray(s), noise)
        estimate = codec.last(params, features)
        error = jnp.mean(jnp.square(estimate - images), axis=(1, 2, 3))
        losses = dict(
            vq_loss=counted(chosen, vectors),
            commit_loss=tokenizer.beta * counted(vectors, chosen),
            diff_loss=jnp.mean(weights * error),
        )
        found = dict(
            cond=jnp.take_along_axis(_told(tokenizer, params, straight)[0], window[..., None], axis=1),
            predict_x1_scaled=_first(estimate),
            xt_scaled=_first(features["noisy"]) / codec.decoder.scale,
            time_shifted=1.0 - features["t"],
        )
        return sum(losses.values()), losses | found

    (_, found), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    for name, value in found.items():
        if f"out/train/{name}" in golden:
            yield close(f"out/train/{name}", value, golden[f"out/train/{name}"], REPRODUCED)
    yield from norms(golden, mapping.write(table, gradients), 2 * SINGLE, "train/gradnorm/")


def _decoding(golden: Golden, tokenizer: Any, params: dict, run: str) -> Iterator[Result]:
    """A run of the sampler with the recorded noise: where it is clipped, the picture of the first groups. Of such
    pictures come the velocities too: each lies where the last step would lead."""
    settings, out = golden.meta["config"]["dec"][run], f"out/dec/{run}/"
    adams = settings["method"] == "adams2"
    codec = dataclasses.replace(tokenizer.codec, solver="adams" if adams else "euler")
    latents = tokenizer.latents(params["quantizer"], jnp.asarray(golden["out/codes"]))
    noise, count = _last(golden["in/x0"]), settings.get("clip_steps", codec.steps)
    each = codec.registers // codec.groups
    draw = jax.jit(codec.drawn)
    ends = (np.arange(1, count + 1) * each)[:, None, None, None]
    known = np.broadcast_to(np.arange(codec.registers) < ends, (count, len(noise), 1, codec.registers))
    images = [np.asarray(draw(params, latents, k, noise), np.float64) for k in known]
    yield close(out + "image", _first(images[-1]), golden[out + "image"], SINGLE)
    times = np.asarray(codec.moved(jnp.linspace(1.0, 0.0, codec.steps + 1)), np.float64)
    if out + "times" in golden:
        yield close(out + "times", 1.0 - times[:count], golden[out + "times"], REPRODUCED)
    x, velocities = np.float64(noise), list[Any]()
    for i, image in enumerate(images):
        step = (codec.decoder.scale * image - x) / times[i]
        velocities.append((step + 0.5 * velocities[-1]) / 1.5 if adams and velocities else step)
        x = x + (times[i] - times[i + 1]) * step
    for name, velocity in (("first", velocities[0]), ("last", velocities[-1])):
        if f"{out}velocity_{name}" in golden:
            # Of differences over the time that is left.
            yield close(f"{out}velocity_{name}", _first(velocity), golden[f"{out}velocity_{name}"], SINGLE)


def _generating(golden: Golden) -> Iterator[Result]:
    """The transformer's logits, loss and gradients, and runs with guidance."""
    arrays, out = mapping.Inside(GENERATOR, golden.weights), "out/gpt/"
    codes, labels = golden["in/idx"], golden["in/label"]
    c = stand_in(1, name="vq", vocab=len(arrays["tok_embeddings.weight"]), channels=8)
    dar.fill(c, arrays, golden.meta["config"]["gpt"]["n_head"])
    with c.data.ignore_type():
        c.data.image_size = (1, codes.shape[1])
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(dar, generator, arrays))
    if out + "freqs_cis" in golden:
        expected = golden[out + "freqs_cis"]
        units = np.tile(np.array([1, 0], np.float32), (1, len(expected), 1, expected.shape[1]))
        found = jax.jit(functools.partial(rotate, coords=np.arange(len(expected))[:, None]))(units)
        yield close(out + "freqs_cis", found.reshape(expected.shape), expected, REPRODUCED)

    def loss(params, labels):
        order = generator.ordering.decoding(None, len(codes))
        hidden, _ = generator.hidden(params, None, jnp.asarray(codes), labels, order)
        head = functools.partial(generator.head.apply, {"params": params["head"]}, hidden)
        return -jnp.mean(head(codes, method="log_prob")), head()

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, logits), gradients = run(params, jnp.asarray(labels))
    null = run(params, generator.condition.without(jnp.asarray(labels)))[0][1]
    for name, found in (("logits", logits), ("loss", value), ("logits_null", null)):
        if out + name in golden:
            yield close(out + name, found, golden[out + name], REPRODUCED)
    yield from gradient_norms(golden, dar.table(generator), gradients, SINGLE, "gpt/gradnorm/")
    for name, settings in golden.meta["config"]["gen"].items():
        if f"{out}gen/{name}/tokens" in golden:
            yield from _run(golden, generator, params, f"{out}gen/{name}/", settings)


def _run(golden: Golden, generator: Any, params: dict, out: str, settings: dict) -> Iterator[Result]:
    """A greedy run: tokens, the guided logits behind them, how near these are to others."""
    labels, count = golden["in/label"], golden[out + "tokens"].shape[1]
    scales = [float(x) for x in str(settings["cfg"]).split(",")]
    # Theirs begins a ramp that would be without guidance a little above.
    first = scales[0] + 1e-3 * (scales[0] == 1.0 < scales[-1])
    # The interval is the last guided step, counted from the second.
    last = settings["interval"] + 2 if "interval" in settings else 0
    rising = dar.rising(first, scales[-1], count)
    sampling = Sampling.make(**rising, guidance_steps=last, temperature=0.0)
    order = Order(np.tile(np.arange(count), (len(labels), 1)), np.arange(count))
    codes, logits = sampled(generator, params, labels, order, sampling)
    yield exact(out + "tokens", codes, golden[out + "tokens"])
    yield close(out + "guided_logits", logits[..., -2, :], golden[out + "guided_logits"], REPRODUCED)
    yield Result(out + "margin", abs(margin(logits) - float(golden[out + "margin"])), 1e-4)


def _told(tokenizer: Any, params: dict, latents: jax.Array) -> Any:
    """What patches look at, of all registers: [B, K, D], before the decoder's own map of it."""
    _, kept = tokenizer.codec.decoder.apply(
        {"params": params["decoder"]},
        latents,
        capture_intermediates=lambda module, method: module.name == "told_out",
        mutable=["intermediates"],
    )
    return kept["intermediates"]["told_out"]["__call__"]


def _last(x: np.ndarray) -> np.ndarray:
    """Channels last."""
    return np.moveaxis(x, 1, -1)


def _first(x: Any) -> Any:
    """Channels first."""
    return jnp.moveaxis(x, -1, 1) if isinstance(x, jax.Array) else np.moveaxis(x, -1, 1)
