"""FlexVAR's transformer against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.interop import flexvar, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms, stand_in
from vargen.interop.parity.recording import margin, sampled, softmax
from vargen.orders import Order
from vargen.samplers import Sampling
from vargen.tokenizers import resample

# Sides of the levels that the authors' code samples; others take the likeliest codes.
DRAWN = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 23, 24, 32)


def matches(golden: Golden) -> bool:
    """Whether it is a golden of FlexVAR."""
    return "var.pos_1LC" in golden.weights and golden.weights["var.pos_1LC"].ndim == 4


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    config = golden.meta["config"]
    weights = {k.removeprefix("var."): v for k, v in golden.weights.items() if k.startswith("var.")}
    quantizer = dict(codebook=jnp.asarray(golden.weights["vae.quantize.embedding.weight"]))

    def built(sides):
        vocab, channels = quantizer["codebook"].shape
        sizes = dict(levels=tuple(sides), vocab=vocab, channels=channels)
        c = stand_in(sides[-1], name="pyramid_vq", level_weight=0.0, **sizes)
        flexvar.fill(c, weights, config["model"]["num_heads"])
        c.order = dict(name="levels")
        tokenizer, generator = systems.build(c)
        return tokenizer, generator, jax.tree.map(jnp.asarray, systems.read(flexvar, generator, weights))

    if "out/pos_area/16" in golden:
        size = golden["out/pos_area/16"].shape[2:]
        area = jax.jit(resample.area, static_argnums=1)
        found = area(weights["pos_1LC"].transpose(0, 2, 3, 1), size).transpose(0, 3, 1, 2)
        yield close("out/pos_area/16", found, golden["out/pos_area/16"], REPRODUCED)
    for name, sides in config["scales"].items():
        if golden.outputs(f"tf/{name}/"):
            yield from _teacher_forced(golden, name, built(sides), quantizer)
    for run, settings in config["runs"].items():
        if golden.outputs(f"gen/{run}/"):
            yield from _sampled(golden, run, settings, built(settings["scales"]), quantizer)


def _teacher_forced(golden: Golden, name: str, built: tuple, quantizer) -> Iterator[Result]:
    """Codes, inputs, logits and losses of one set of levels, of latents that the golden gives."""
    tokenizer, generator, params = built
    out, labels = f"out/tf/{name}/", golden["in/label"]
    null = np.full_like(labels, generator.condition.num_classes)
    dropped = np.where(golden["in/drop_u"] < generator.condition.dropout, null, labels)

    @jax.jit
    def known(features):
        codes = tokenizer.quantise(quantizer, features)
        before = jnp.arange(len(tokenizer.grid.levels)) - 1
        return codes, tokenizer.rows(quantizer, codes, before)[:, tokenizer.grid.level_sizes[0] :]

    codes, inputs = known(golden["in/h"].transpose(0, 2, 3, 1))

    def loss(params, labels):
        order = generator.ordering.decoding(None, len(labels))
        hidden, _ = generator.hidden(params, quantizer, codes, labels, order)
        of_head = {"params": params["head"]}
        nats, smooth = (
            generator.head.clone(label_smoothing=s).apply(of_head, hidden, codes, method="loss")[0]
            for s in (0.0, 0.1)
        )
        return nats, (smooth, generator.head.apply(of_head, hidden))

    graded = name == golden.meta["config"]["grad"] and bool(golden.outputs("gradnorm/"))
    run = jax.jit(jax.value_and_grad(loss, has_aux=True) if graded else lambda *args: (loss(*args), None))
    (nats, (smooth, logits)), gradients = run(params, labels)
    found = {"inputs": inputs, "logits": logits, "loss": nats, "loss_smooth0.1": smooth}
    for output, given in (("logits_null", null), ("logits_dropped", dropped)):
        if out + output in golden:
            found[output] = run(params, given)[0][1][1]
    if out + "ids" in golden:
        yield exact(out + "ids", codes, golden[out + "ids"])
    for output, value in found.items():
        if out + output in golden:
            yield close(out + output, value, golden[out + output], REPRODUCED)
    if graded:
        yield from gradient_norms(golden, flexvar.table(generator), gradients, 1e-4)


def _sampled(golden: Golden, run: str, settings: Any, built: tuple, quantizer) -> Iterator[Result]:
    """One of the authors' sampling runs: codes, the logits behind them, and the latents."""
    tokenizer, generator, params = built
    out, sizes = f"out/gen/{run}/", np.asarray(tokenizer.grid.level_sizes)
    random, largest = settings.get("random", False), settings["max_pn"]
    ramp = {} if settings["llamagen_cfg"] else dict(guidance_schedule="ramp", guidance_side=largest)
    sampling = Sampling.make(
        guidance=settings["cfg"],
        guidance_rise=9,
        temperature=1.0 if random else 0.0,
        top_k=settings.get("top_k", 0),
        top_p=settings.get("top_p", 1.0),
        random_sides=[side for side in DRAWN if side <= largest],
        **ramp,
    )
    if out + "top_k_used" in golden:
        used = [sampling.of_step(n).top_k for n in sizes]
        yield exact(out + "top_k_used", used, golden[out + "top_k_used"])
    if banned := settings.get("invalid"):
        # Codes that can't be drawn: theirs writes -100 over their logits.
        layer = {k: np.array(v) for k, v in params["head"]["out"].items()}
        layer["kernel"][:, banned], layer["bias"][banned] = 0, -100
        params = params | dict(head=dict(out=layer))
    uniforms = golden[f"in/u/{run}"] if random else None
    labels = golden["in/label"]
    order = Order(
        np.broadcast_to(np.arange(sizes.sum()), (len(labels), sizes.sum())),
        np.repeat(np.arange(len(sizes)), sizes),
    )
    codes, logits = sampled(generator, params, labels, order, sampling, uniforms, quantizer)
    if out + "ids" in golden:
        yield exact(out + "ids", codes, golden[out + "ids"])
    latents = jax.jit(tokenizer.latents)(quantizer, codes).transpose(0, 3, 1, 2)
    found = dict(guided_logits=logits[..., -2, :], quant=latents, probs=softmax(logits[..., -1, :]))
    for output, value in found.items():
        if out + output in golden:
            yield close(out + output, value, golden[out + output], REPRODUCED)
    if out + "margin" in golden:
        nearest = margin(logits, uniforms)
        yield Result(out + "margin", abs(nearest - float(golden[out + "margin"])), 1e-4)
