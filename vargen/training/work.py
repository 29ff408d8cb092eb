"""How much work an update is, counted before it runs, and what devices do at best: for tokens/s and MFU.

Counted are products, as in PaLM (arXiv 2204.02311, appendix B): three times those of the forward pass, and nothing that
is computed anew. Of attention the pairs count that see each other, where that is known before tracing; there all.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax

from vargen.flops import products

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
    """What training a tokenizer takes: its loss on pixels, without the networks that only judge it."""
    image = jax.ShapeDtypeStruct((1, *tokenizer.image_size, tokenizer.image_channels), "float32")
    key = jax.eval_shape(lambda: jax.random.key(0))
    trace = jax.make_jaxpr(lambda p, s, x, k: tokenizer.loss(p, s, x, k, 0, dict(l2=1.0))[0])(
        jax.eval_shape(tokenizer.init, key), jax.eval_shape(tokenizer.init_stats), image, key
    )
    return Work(3.0 * products(trace.jaxpr), 0)


def _shapes(generator: Any, tokenizer: Any) -> tuple[Any, Any, Any]:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(generator.init, key), jax.eval_shape(tokenizer.init, key), key
