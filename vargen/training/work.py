"""How much work an update is, counted before it runs, and what devices do at best: for tokens/s and MFU.

Counted are products, as in PaLM (arXiv 2204.02311, appendix B): three times those of the forward pass, and nothing that
is computed anew. Of attention the pairs count that see each other, where that is known before tracing; there all.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import jax
from jax.extend import core

from vargen.kernels.step_attention.call import PAIRS

# FLOP/s of dense products in bfloat16, by data sheet, and how JAX calls the device (`device_kind`).
PEAKS = dict(
    b200=(2250e12, r"NVIDIA G?B200"),
    h200=(989e12, r"NVIDIA H200"),
    h100_pcie=(756e12, r"NVIDIA H100 PCIe"),
    h100=(989e12, r"NVIDIA (H100|GH200)"),
    a100=(312e12, r"NVIDIA A100"),
    l4=(121e12, r"NVIDIA L4$"),
    v4=(275e12, r"TPU v4$"),
    v5e=(197e12, r"TPU v5( lite|e)"),
    v5p=(459e12, r"TPU v5p?$"),
    v6e=(918e12, r"TPU v6( lite|e)"),
)


def peak(device_kind: str) -> float | None:
    """FLOP/s of a device at best; None for one that isn't in the table, such as a CPU."""
    return next((flops for flops, kind in PEAKS.values() if re.match(kind, device_kind)), None)


class Work(NamedTuple):
    """Of one example in an update.

    Attributes:
      flops: of products, in the passes forward and back.
      tokens: slots that are learnt; 0 where images are what counts.
    """

    flops: float
    tokens: int


def of_generator(generator: Any, tokenizer: Any) -> Work:
    """What training a generator on content that is known already takes; nothing is computed."""
    params, quantizer, key = _shapes(generator, tokenizer)
    content, labels = tokenizer.slot.zeros(1, tokenizer.grid.size), generator.condition.example()
    trace = jax.make_jaxpr(lambda p, q, k: generator.loss(p, q, content, labels, k)[0])(
        params, quantizer["quantizer"], key
    )
    return Work(3.0 * products(trace.jaxpr), generator.sequence.grid.size)


def of_tokenizer(tokenizer: Any) -> Work:
    """What training a tokenizer takes: pixels to slots and back, without the networks that only judge it."""
    image = jax.ShapeDtypeStruct((1, *tokenizer.image_size, tokenizer.image_channels), "float32")
    params = jax.eval_shape(tokenizer.init, jax.eval_shape(lambda: jax.random.key(0)))
    there = jax.make_jaxpr(tokenizer.encode)(params, image)
    content = jax.eval_shape(tokenizer.encode, params, image)
    back = jax.make_jaxpr(tokenizer.decode)(params, content)
    return Work(3.0 * (products(there.jaxpr) + products(back.jaxpr)), 0)


def _shapes(generator: Any, tokenizer: Any) -> tuple[Any, Any, Any]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(generator.init, key), jax.eval_shape(tokenizer.init, key), key


def products(jaxpr: core.Jaxpr) -> int:
    """FLOPs of a jaxpr's matrix products and convolutions (a multiplication and an addition are two).

    Loops with a known length count it, others count once, of branches the one with most. Step attention counts two
    products of the pairs that see each other, whatever computes it; other kernels (Pallas) count none, and those here
    are a branch beside one of XLA's.
    """
    total = 0
    for eqn in jaxpr.eqns:
        if pairs := re.search(PAIRS.format(r"(\d+)"), str(eqn.source_info.name_stack)):
            if eqn.primitive.name.startswith("custom_vjp_call"):
                batch, _, heads, dim = eqn.invars[0].aval.shape
                total += 4 * batch * heads * dim * int(pairs[1])
            continue
        if eqn.primitive.name == "pallas_call":
            continue
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += 2 * eqn.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval
            out_features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * eqn.outvars[0].aval.size * kernel.size // out_features
        inner = [products(j) for value in eqn.params.values() for j in _jaxprs(value)]
        if inner:
            combined = max(inner) if eqn.primitive.name == "cond" else sum(inner)
            total += combined * eqn.params.get("length", 1)
    return total


def _jaxprs(value: Any) -> list:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    return [j for v in value for j in _jaxprs(v)] if isinstance(value, (tuple, list)) else []
