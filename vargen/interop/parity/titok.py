"""TiTok's generators and their decoding against their authors' outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.draws import Recorded
from vargen.interop import mapping, systems, titok
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms, stand_in
from vargen.interop.parity.maskgit import Fixed, order_of
from vargen.orders.schedules import share
from vargen.samplers import Sampling, engine, policies
from vargen.samplers.step import advance


def matches(golden: Golden) -> bool:
    """Whether it is a golden of TiTok's BERT or U-ViT."""
    return titok.WORDS in golden.weights or "in_blocks.0.attn.qkv.weight" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    ids, config = golden["in/ids"], golden.meta["config"]["model"]
    c = stand_in((1, ids.shape[1]), name="vq", vocab=config["vq_model"]["codebook_size"], channels=8)
    titok.fill(c, golden.weights, config["generator"]["num_attention_heads"])
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(titok, generator, golden.weights))
    masks, labels = _masks(golden, generator), jnp.asarray(golden["in/cond"])
    for name, made in dict(masks=masks, masked=np.where(masks, generator.tokenizer.vocab, ids)).items():
        if f"out/{name}" in golden:
            yield exact(f"out/{name}", made, golden[f"out/{name}"])
    order = jax.tree.map(jnp.asarray, order_of(masks))

    @jax.jit
    def logits(params, labels):
        hidden, _ = generator.hidden(params, None, jnp.where(masks, 0, ids), labels, order)
        return generator.head.apply(generator.of_head(params), hidden)

    found = np.asarray(logits(params, labels))
    hits = ((found.argmax(axis=-1) == ids) & masks).sum(axis=1) / masks.sum(axis=1)
    outputs = dict(
        logits=found,
        logits_null=logits(params, generator.condition.without(labels)),
        correct_tokens=hits.mean(),
    )

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        known = dataclasses.replace(generator, ordering=Fixed(order))
        return known.loss(params, None, jnp.asarray(ids), labels, jax.random.key(0), train=False)[0]

    value, gradients = loss(params)
    for name, output in (outputs | dict(loss=value)).items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", output, golden[f"out/{name}"], REPRODUCED)
    table = [_addends(entry) for entry in titok.table(generator)]
    yield from gradient_norms(golden, table, gradients, 1e-4, "grad_norm/")
    for run, settings in golden.meta["runs"].items():
        if f"out/{run}/ids" in golden:
            yield from _decoded(golden, generator, params, labels, run, settings)


def _masks(golden: Golden, generator: Any) -> np.ndarray:
    """bool [B, N]: which tokens are masked, as told, or by the uniform numbers that the authors drew."""
    if "in/masks" in golden:
        return golden["in/masks"].astype(bool)
    chance = golden["in/perm_u"]
    n = chance.shape[1]
    masked = share(generator.ordering.curve, golden["in/t"][:, None], n)
    return np.argsort(chance, axis=1) < np.maximum(np.round(masked * n), 1)


def _addends(entry: mapping.Entry) -> mapping.Entry:
    """The entry for gradients: a kind of rows has what all its places have together."""
    if titok.KINDS not in entry.sources:
        return entry
    return dataclasses.replace(entry, write=lambda w: (w, np.stack([w.sum(axis=0), np.zeros_like(w[0])])))


def _guidance(settings: dict) -> dict[str, Any]:
    """Settings of sampling."""
    scale, steps = settings["guidance_scale"], settings["num_sample_steps"]
    return {
        "constant": dict(guidance=1 + scale),
        "linear": dict(guidance=scale * (1 - 1 / steps), guidance_schedule="ramp"),
        "power-cosine": dict(
            guidance=scale,
            guidance_schedule="cosine",
            guidance_power=settings.get("guidance_scale_pow", 3.0),
        ),
    }[settings["guidance_decay"]]


def _decoded(
    golden: Golden, generator: Any, params: Any, labels: jax.Array, run: str, settings: dict
) -> Iterator[Result]:
    """One of the authors' runs, step by step."""
    steps, vocab = settings["num_sample_steps"], generator.tokenizer.vocab
    tempered = settings.get("softmax_temperature_annealing", False)
    ordering = dataclasses.replace(
        generator.ordering,
        steps=steps,
        noise=settings["randomize_temperature"],
        softness=titok.SOFTNESS if tempered else (1.0, 1.0),
    )
    generator = dataclasses.replace(generator, ordering=ordering)
    numbers, noise = (
        np.stack([_gumbel(golden[f"in/{run}/{name}_{s}"]) for s in range(steps)], axis=2)
        for name in ("u_logits", "u_conf")
    )
    content, slots = _run(generator, params, labels, numbers, noise, _guidance(settings))
    done = np.cumsum(ordering.decoding(None, 1).sizes)
    fed = np.full_like(content[:, 0], vocab)
    for s in range(steps):
        if (output := f"out/{run}/ids_{s}") in golden:
            yield exact(output, fed, golden[output])
        known = np.zeros(fed.shape, bool)
        np.put_along_axis(known, slots[:, s, : done[s]], True, axis=1)
        fed = np.where(known, content[:, s], vocab)
    yield exact(f"out/{run}/ids", fed, golden[f"out/{run}/ids"])


def _gumbel(uniform: np.ndarray) -> np.ndarray:
    """Gumbel noise of uniform numbers, as the authors make it."""
    return -np.log(np.maximum(-np.log(np.maximum(uniform, 1e-20)), 1e-20))


def _run(
    generator: Any, params: Any, labels: jax.Array, numbers: np.ndarray, noise: np.ndarray, guidance: dict
) -> tuple[np.ndarray, np.ndarray]:
    """The engine's own steps on recorded noise, of the codes [B, N, T, K] and of the choice [B, N, T]: contents and
    the sequence of the slots after each, int [B, T, N]."""
    draws = Recorded(gumbels=jnp.asarray(numbers), apart=jnp.asarray(noise))

    @jax.jit
    def go(params, labels, draws):
        sampling = Sampling.make(**guidance)
        call, begin = engine.begin(generator, params, None, labels, jax.random.key(0), sampling, draws=draws)
        steps = [s for group in policies.groups(call.order, generator.feed, "rest") for s in group]
        alike = dataclasses.replace(steps[0], begins=False, most_known=steps[-1].start)

        def step(decoding, at):
            decoding = advance(call, decoding, dataclasses.replace(alike, **at))
            return decoding, (decoding.content, decoding.slots)

        return jax.lax.scan(step, begin, policies.table(steps))[1]

    content, slots = (np.moveaxis(np.asarray(x), 0, 1) for x in go(params, labels, draws))
    return content, slots
