"""VAR's transformer against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.generator import Generator
from vargen.interop import systems, var, var_tokenizer
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
from vargen.interop.parity.var_tokenizer import options
from vargen.samplers import Sampling, decode


def matches(golden: Golden) -> bool:
    """Whether it is a golden of VAR's transformer."""
    return {"pos_1LC", "lvl_embed.weight", "head_nm.ada_lin.1.weight"} <= set(golden.weights)


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow; of samples, where its tokenizer lies beside it."""
    name = golden.meta.get("tokenizer")
    beside = golden.beside(name) if name else None
    tokenizer, generator = _build(golden, beside)
    params = jax.tree.map(jnp.asarray, systems.read(var, generator, golden.weights))
    labels = jnp.asarray(golden["in/label"])
    if "in/x_BLCv_wo_first_l" in golden:
        yield from _whole_pass(golden, generator, params, labels)
    if beside is None:
        return
    ends = jax.tree.map(jnp.asarray, systems.read(var_tokenizer, tokenizer, beside.weights))
    sample = jax.jit(functools.partial(_sample, tokenizer, generator))
    runs = dict.fromkeys(re.findall(r"out/(greedy_cfg([\d.]+))/", " ".join(golden.outputs("greedy_cfg"))))
    for run, scale in runs:
        sampling = Sampling.make(guidance=float(scale), guidance_schedule="ramp", temperature=0.0)
        # As their code, which always makes both passes; and one program for all scales.
        sampling = dataclasses.replace(sampling, guided=True)
        for output, found in sample(params, ends, labels, sampling).items():
            name = f"out/{run}/{output}"
            if name in golden and output.startswith("idx_"):
                yield exact(name, found, golden[name])
            elif name in golden:
                # Guidance multiplies the difference of two passes; the image is a convolutional decoder's.
                f_hat = output == "f_hat"
                yield close(name, found, golden[name], REPRODUCED if f_hat else SINGLE)


def _build(golden: Golden, beside: Golden | None) -> tuple[Any, Generator]:
    """The tokenizer and the generator; without the tokenizer's golden, one whose quantiser alone has its sizes."""
    heads = int(golden.meta.get("num_heads", 0))
    if beside is not None:
        c = systems.infer(systems.system("var"), beside.weights, golden.weights, heads=heads)
        c.tokenizer.update(options(beside))
        c.compute_dtype = "float32"
        return systems.build(c)
    levels = var.levels(golden.weights)
    vocab, channels = golden.weights["head.weight"].shape[0], golden.weights["word_embed.weight"].shape[1]
    c = stand_in(levels[-1], name="multiscale_vq", levels=levels, vocab=vocab, channels=channels)
    var.fill(c, golden.weights, heads)
    return systems.build(c)


def _whole_pass(golden: Golden, generator: Generator, params: dict, labels: jax.Array) -> Iterator[Result]:
    """The teacher-forced pass, whose inputs the golden holds as latents."""
    latents = jnp.asarray(golden["in/x_BLCv_wo_first_l"])
    scored = "in/target" in golden
    shape = (len(labels), generator.tokenizer.grid.size)
    target = jnp.asarray(golden["in/target"]) if scored else jnp.zeros(shape, jnp.int32)

    def loss(params):
        both = jnp.concatenate([labels, generator.condition.without(labels)])
        condition = generator.condition.apply({"params": params["condition"]}, both)
        twice = jnp.concatenate([latents, latents])
        rows = generator.feed.apply({"params": params["feed"]}, twice, condition, method="rows_from_latents")
        modulations = generator.modulations(params, condition)
        given, null = jnp.split(generator.through(params, rows, condition, modulations)[0], 2)
        head = {"params": params["head"]}
        per_token = -generator.head.apply(head, given, target, method="log_prob")
        found = {
            "logits": generator.head.apply(head, given),
            "logits_null": generator.head.apply(head, null),
        }
        if scored:
            found["loss_per_token"] = per_token
        return jnp.mean(per_token), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for name, value in found.items():
        if f"out/{name}" in golden:
            yield close(f"out/{name}", value, golden[f"out/{name}"], REPRODUCED)
    if scored:
        yield from gradient_norms(golden, var.table(generator), gradients, SINGLE)


def _sample(tokenizer, generator: Generator, params: dict, ends: dict, labels, sampling: Sampling) -> dict:
    """What the authors' sampling gives, by their names; latents and images NCHW."""
    quantizer, sizes = ends["quantizer"], tokenizer.grid.level_sizes
    codes, order, *_ = decode(generator, params, quantizer, labels, jax.random.key(0), sampling)
    both = jnp.concatenate([labels, generator.condition.without(labels)])
    twice = jnp.concatenate([codes, codes])
    hidden, _ = generator.hidden(params, quantizer, twice, both, order)
    logits: Any = generator.head.apply({"params": params["head"]}, hidden)
    given, null = jnp.split(logits, 2)
    scales = jnp.repeat(sampling.scales(np.asarray(sizes)), np.asarray(sizes), total_repeat_length=sum(sizes))
    guided = tokenizer.split(null + scales[:, None] * (given - null))
    f_hat = tokenizer.latents(quantizer, codes)
    image = jnp.clip(tokenizer.decode_latents(ends, f_hat), -1, 1)
    outputs = {"f_hat": f_hat.transpose(0, 3, 1, 2), "img01": (image.transpose(0, 3, 1, 2) + 1) / 2}
    for level, level_codes in enumerate(tokenizer.split(codes)):
        outputs |= {f"idx_{level}": level_codes, f"cfg_logits_{level}": guided[level]}
    return outputs
