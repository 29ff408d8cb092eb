"""Semanticist's tokenizer against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.interop import mapping, semanticist, systems
from vargen.interop.parity.golden import REPRODUCED, SINGLE, Golden, Result, close, gradient_norms


def matches(golden: Golden) -> bool:
    """Whether it is a golden of Semanticist's tokenizer."""
    return "encoder2slot.weight" in golden.weights and "dit.null_cond" in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    images, latents = (_last(golden[f"in/{name}"]) for name in ("img", "latent"))
    tokenizer = _tokenizer(golden, images.shape, latents.shape)
    params = jax.tree.map(jnp.asarray, systems.read(semanticist, tokenizer, golden.weights))
    yield from _training(golden, tokenizer, params, 2 * images - 1, latents)
    yield from _sampling(golden, tokenizer, params, 2 * images - 1)


def _tokenizer(golden: Golden, images: tuple[int, ...], latents: tuple[int, ...]) -> Any:
    """The inner tokenizer, built within a stand-in for the autoencoder, for shapes [B, H, W, C]."""
    (_, side, _, channels), args = latents, golden.meta["args"]
    inner = semanticist.inner(golden.weights, side)
    # What the arrays don't tell; of the published models heads have 64 channels.
    inner.encoder.heads = args["encoder"]["num_heads"]
    inner.encoder.decoder.heads = args["dit"]["num_heads"]
    inner.encoder.decoder.steps = int(args["num_sampling_steps"])
    patch = part("patch", patch=images[1] // side, width=8, blocks=1)
    whole = part("within", outer=part("kl", channels=channels, encoder=patch), inner=inner, reads="pixels")
    return tokenizers.build(whole, images[1], images[3]).inner


def _training(
    golden: Golden, tokenizer: Any, params: dict, images: np.ndarray, latents: np.ndarray
) -> Iterator[Result]:
    """Slots, the noise with some of them and with all, the loss and its gradients at the recorded times and noise."""
    codec, seen = tokenizer.codec, jnp.asarray(golden["in/drop_mask"])[:, None]
    t, noise = jnp.asarray(golden["in/t"]), jnp.asarray(_last(golden["in/noise"]))

    def run(params):
        normed, slots = _encoded(tokenizer, params, images)
        features, weights = codec.noised(params, slots, seen, latents, t, noise)
        error = jnp.square(codec.last(params, features) - latents)
        mse, bound = weights * jnp.mean(error, axis=(1, 2, 3)), codec.bound(params, features, latents)
        variables, noisy = {"params": params["decoder"]}, features["noisy"]
        found = dict(enc=normed, slots=slots[:, 0], x_t=noisy, mse=mse, vb=bound, loss=mse + bound)
        found["dit"] = codec.decoder.apply(variables, slots, noisy, t, seen)
        found["dit_nomask"] = codec.decoder.apply(variables, slots, noisy, t)
        return jnp.mean(mse + bound), found

    (_, found), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(params)
    for name, value in found.items():
        if f"out/{name}" in golden:
            # Times reach 999: the last digit of a frequency is 6e-5 of an angle.
            tolerance = REPRODUCED if name in ("enc", "slots", "x_t") else SINGLE
            yield close(f"out/{name}", _first(value), golden[f"out/{name}"], tolerance)
    table = [_addends(entry) for entry in semanticist.table(tokenizer)]
    yield from gradient_norms(golden, table, gradients, SINGLE, "grad_norm/")


def _sampling(golden: Golden, tokenizer: Any, params: dict, images: np.ndarray) -> Iterator[Result]:
    """Whole samplers with the recorded noise, of the first few slots."""
    slots = tokenizer.codec.encode(params, images)[:, :, : int(golden["in/n_slots"])]
    for output in golden.outputs("sample_cfg"):
        name = output.removeprefix("out/sample_")
        guidance = float(re.sub(r"cfg(\d+)p?(\d*)", r"\1.\g<2>0", name))
        codec = dataclasses.replace(tokenizer.codec, guidance=guidance)
        if not np.array_equal(golden["in/z0"], golden[f"in/z0_{name}"]):
            raise UserError(f"golden {golden.path}: expected in/z0 in in/z0_{name}, found other numbers")
        start = _last(golden["in/z0"])
        # Theirs draws for the rows without slots too, and throws it away.
        each = [_last(golden[f"in/z_noise_{name}_{i}"])[: len(start)] for i in range(codec.steps)]
        found = _sampled(codec, params, slots, start, jnp.asarray(np.stack(each)))
        yield close(output, _first(found), golden[output], SINGLE)


@functools.partial(jax.jit, static_argnums=0)
def _sampled(codec: Any, params: dict, slots: jax.Array, start: np.ndarray, noise: jax.Array) -> jax.Array:
    """The whole sampler, noise [S, B, h, w, C] as it is recorded."""
    return codec.denoised(params, slots, None, start, lambda step: noise[step])


def _encoded(tokenizer: Any, params: dict, images: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Registers as the last norm gives them, [B, K, D], and their latents, [B, 1, K, C]."""
    latents, kept = tokenizer.codec.encoder.apply(
        {"params": params["encoder"]},
        images,
        capture_intermediates=lambda module, method: module.name == "norm_out",
        mutable=["intermediates"],
    )
    return kept["intermediates"]["norm_out"]["__call__"][0], latents


def _addends(entry: mapping.Entry) -> mapping.Entry:
    """The entry for gradients, which what is only ever added up has in common."""
    if "encoder/anchor" not in entry.targets:
        return entry
    return dataclasses.replace(
        entry, write=lambda a, b, c: (a[None], np.concatenate([a, b, c])[None], c[None])
    )


def _last(x: np.ndarray) -> np.ndarray:
    """Channels last."""
    return np.moveaxis(x, 1, -1)


def _first(x: Any) -> np.ndarray:
    """Channels first, of what has places."""
    return np.moveaxis(np.asarray(x), -1, 1) if np.ndim(x) == 4 else np.asarray(x)
