"""MAR's whole samplers against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vargen.draws import Recorded
from vargen.interop.parity.golden import SINGLE, Golden, Result, close
from vargen.orders import Order, cosine_sizes
from vargen.samplers import Sampling, decode
from vargen.tokenizers.autoencoder import flat


def content(latents: np.ndarray) -> jax.Array:
    """[B, C, h, w] -> [B, N, C]."""
    return flat(jnp.asarray(latents).transpose(0, 2, 3, 1))


def results(golden: Golden, generator, params) -> Iterator[Result]:
    """Whole samplers with the recorded noise."""
    if "in/orders" not in golden:
        return
    linear = dataclasses.replace(generator, head=generator.head.clone(schedule="linear"))
    outputs = list(dict.fromkeys(o.removesuffix("_float64run") for o in golden.outputs("sample_")))
    relative = max(SINGLE, 4 * _rounding(golden, outputs))
    for output in outputs:
        settings = re.fullmatch(
            r"out/sample_(?:cfg([\d.]+)|uncond)(?:_(linear|constant))?(?:_T([\d.]+))?(_LINBETA)?", output
        )
        name = output.removeprefix("out/")
        if not settings or f"in/{name}/init_0" not in golden:
            continue
        scale = float(settings[1] or 1)
        order, draws = _recorded(golden, name)
        sampling = Sampling.make(
            guidance=scale,
            # One program for both schedules: a constant one starts where it ends.
            guidance_schedule="linear",
            guidance_start=1.0 if settings[2] == "linear" else scale,
            # As they were recorded, where the name doesn't say.
            temperature=float(settings[3] or (0.95 if scale != 1 else 1.0)),
        )
        labels = golden["in/label"] if settings[1] else np.full(len(order.slots), generator.condition.null)
        found = _sample(
            linear if settings[4] else generator,
            params,
            jnp.asarray(labels),
            order.slots,
            draws,
            sampling,
            tuple(order.sizes),
        )
        for name in (output, f"{output}_float64run"):
            if name in golden:
                yield _by_slot(name, found, content(golden[name]), relative)


def _recorded(golden: Golden, name: str) -> tuple[Order, Recorded]:
    """A sampler's order, in which the slots of one step are in canonical sequence, and its noise.

    The noise of a slot is where its reverse process starts and what the S steps of that add: float32 [B, N, 1 + S, C].
    """
    steps = len([a for a in golden.arrays if a.startswith(f"in/{name}/init_")])
    # Their order is masked from the front: generation runs through it backwards.
    slots = golden["in/orders"][:, ::-1]
    batch, n = slots.shape
    sizes = cosine_sizes(n, steps)
    slots = np.concatenate(
        [np.sort(s, axis=1) for s in np.split(slots, np.cumsum(sizes)[:-1], axis=1)], axis=1
    )
    noise = []
    for s, size in enumerate(sizes):
        start, added = golden[f"in/{name}/init_{s}"], golden[f"in/{name}/steps_{s}"]
        # With guidance theirs draws noise for both halves and uses the first.
        each = np.concatenate([start[None], added[:, : len(start)]])
        noise.append(each.reshape(len(each), batch, size, -1).transpose(1, 2, 0, 3))
    of_slot = np.empty((batch, n, *noise[0].shape[2:]), np.float32)
    np.put_along_axis(of_slot, slots[..., None, None], np.concatenate(noise, axis=1), axis=1)
    return Order(slots, np.repeat(np.arange(steps), sizes)), Recorded(normals=jnp.asarray(of_slot))


@functools.partial(jax.jit, static_argnames=("generator", "sizes"))
def _sample(generator, params, labels, slots, draws, sampling, sizes):
    """The engine's own loop with a given order and noise: latents [B, N, C]."""
    order = Order(slots, np.repeat(np.arange(len(sizes)), sizes))
    key = jax.random.key(0)
    return decode(generator, params, None, labels, key, sampling, order=order, draws=draws)[0]


def _rounding(golden: Golden, outputs: Iterable[str]) -> float:
    """How far the authors' own float32 and float64 runs lie apart at most, as `_by_slot` measures it.

    The first step of the cosine process multiplies an error of the predicted noise by 2e4, and later slots are made
    from what follows: all that can be asked of another float32 run is to lie not much farther away. (The two runs
    share the times' float32 frequencies, which in ours may differ in the last digit.) One pair of runs is one draw:
    parameters half a last digit off move a sampler by 4e-5 to 2e-4, so the farthest pair speaks for all. 1e-4 where
    there is none.
    """
    pairs = [(o, f"{o}_float64run") for o in outputs if o in golden and f"{o}_float64run" in golden]
    apart = [_by_slot(one, content(golden[one]), content(golden[two]), 0.0).error for one, two in pairs]
    return max(apart, default=1e-4)


def _by_slot(output: str, found, expected, relative: float) -> Result:
    """Agreement of every slot's latent, of [B, N, C], up to `relative` times its largest value.

    The largest of the slots are a thousand times the others.
    """
    expected = np.asarray(expected, np.float64)
    scale = np.abs(expected).max(axis=-1, keepdims=True)
    return close(output, np.asarray(found, np.float64) / scale, expected / scale, relative)
