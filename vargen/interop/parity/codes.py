"""What transformers over codes have in common: rotary tables, and passes whose contents are known."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, gradient_norms
from vargen.mixers.rope import rotate, squeeze
from vargen.orders import Order


def rotations(output: str, golden: Golden, generator, rows: int = 1, relative: float = REPRODUCED) -> Result:
    """The table of rotary cosines and sines: zero for the condition's `rows`, then the slots' in raster order."""
    mixer, grid = generator.stages[0].block.mixer, generator.tokenizer.grid
    # (1, 0) turned by an angle is its cosine and sine.
    coords = np.concatenate([np.full((rows, 2), -1), grid.places])
    units = np.tile(np.array([1, 0], np.float32), (1, len(coords), 1, mixer.head_dim // 2))
    turn = jax.jit(functools.partial(rotate, coords=coords, squeezed=squeeze(grid, mixer.trained_side)))
    found = turn(units)
    return close(output, found.reshape(len(coords), -1, 2), golden[output], relative)


def teacher_forced(
    golden: Golden, module: Any, generator, params, codes, labels, null, slots
) -> Iterator[Result]:
    """Logits, losses and gradients in a given order, in raster order, and with labels taken away."""
    raster = np.broadcast_to(np.arange(codes.shape[1]), codes.shape)

    def loss(params, labels, slots):
        order = Order(slots, np.arange(codes.shape[1]))
        hidden, _ = generator.hidden(params, None, jnp.asarray(codes), labels, order)
        target = jnp.take_along_axis(jnp.asarray(codes), slots, axis=1)
        head = {"params": params["head"]}
        nats = generator.head.apply(head, hidden, target, method="log_prob")
        return -jnp.mean(nats), generator.head.apply(head, hidden)

    # One program for all, with gradients only where there are some to compare.
    if graded := bool(golden.outputs("gradnorm/")):
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    else:
        run = jax.jit(lambda *args: (loss(*args), None))
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
            (value, logits), _ = run(params, jnp.asarray(given), jnp.asarray(order))
            for output, found in (("logits", logits), ("loss", value)):
                if f"out/{output}{name}" in golden:
                    yield close(f"out/{output}{name}", found, golden[f"out/{output}{name}"], REPRODUCED)
    if graded:
        gradients = run(params, jnp.asarray(labels), jnp.asarray(slots))[1]
        yield from gradient_norms(golden, module.table(generator), gradients, 1e-4)
