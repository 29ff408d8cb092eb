"""LlamaGen's transformer, conditioned on classes or on captions, against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.generator import Generator
from vargen.interop import llamagen, systems
from vargen.interop.parity.codes import rotations
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
from vargen.samplers import Sampling, decode


def matches(golden: Golden) -> bool:
    """Whether it is a golden of LlamaGen's transformer."""
    return "tok_embeddings.weight" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    codes = golden["in/idx"]
    slots = codes.shape[1]
    vocab = golden.weights["tok_embeddings.weight"].shape[0]
    c = stand_in(math.isqrt(slots), name="vq", vocab=vocab, channels=8)
    llamagen.fill(c, golden.weights, _heads(golden))
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(llamagen, generator, golden.weights))
    mixer, ahead = generator.stages[0].block.mixer, generator.feed.ahead
    relative = REPRODUCED if generator.condition.pooled and not mixer.kv_heads else SINGLE

    if "out/freqs_cis" in golden:
        yield rotations("out/freqs_cis", golden, generator, ahead + 1, relative)

    def loss(params, labels):
        order = generator.ordering.decoding(None, len(codes))
        hidden, _ = generator.hidden(params, None, jnp.asarray(codes), labels, order)
        head = functools.partial(generator.head.apply, {"params": params["head"]}, hidden)
        return -jnp.mean(head(codes, method="log_prob")), head()

    visible, masked = _labels(golden, generator)
    graded = bool(golden.outputs("gradnorm/"))
    run = jax.jit(jax.value_and_grad(loss, has_aux=True) if graded else lambda *args: (loss(*args), None))
    # Captions without a mask are what the loss is of.
    (value, logits), gradients = run(params, visible)
    if "out/loss" in golden:
        yield close("out/loss", value, golden["out/loss"], relative)
    if graded:
        yield from gradient_norms(golden, llamagen.table(generator), gradients, SINGLE)
    for name, labels in (
        ("logits_nomask", None),
        ("logits", None if masked is visible else masked),
        ("logits_null", generator.condition.without(visible)),
    ):
        if f"out/{name}" in golden:
            found = logits if labels is None else run(params, labels)[0][1]
            yield close(f"out/{name}", found, golden[f"out/{name}"], relative)

    sample = jax.jit(functools.partial(decode, generator))
    for output in golden.outputs("greedy/"):
        # Any temperature chooses the same.
        settings = re.fullmatch(r"out/greedy/cfg([\d.]+)(?:_interval(-?\d+)|_T[\d.]+)*", output)
        if settings:
            scale, last = float(settings[1]), int(settings[2] or -1)
            sampling = Sampling.make(
                # A scale up to 1 turns guidance off.
                guidance=max(scale, 1.0),
                # The interval is the last guided step, counted from the second; negative: no end.
                guidance_steps=last + 2 if last >= 0 else 0,
                temperature=0.0,
            )
            sampling = dataclasses.replace(sampling, guided=True)  # one program for all scales
            yield exact(output, sample(params, None, masked, jax.random.key(0), sampling)[0], golden[output])


def _heads(golden: Golden) -> int:
    """Attention heads; 0: as the published models' rule has it."""
    if "out/freqs_cis" in golden:
        return golden.weights["norm.weight"].shape[0] // (2 * golden["out/freqs_cis"].shape[1])
    return golden.meta.get("n_head", 0)


def _labels(golden: Golden, generator: Generator) -> tuple[Any, Any]:
    """Labels with all of a caption's rows visible, and with its padding hidden; classes are the same twice."""
    if generator.condition.pooled:
        labels = jnp.asarray(golden["in/label"])
        return labels, labels
    captions = golden["in/caption"]
    ones = np.ones(captions.shape[:2], bool)
    visible = generator.condition.parse((captions, ones))
    if "in/emb_mask" not in golden:
        return visible, visible
    return visible, generator.condition.parse((captions, golden["in/emb_mask"]))
