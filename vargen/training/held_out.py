"""Measuring and showing a run on held-out images, on the mesh that it trains on.

Parameters stay where training has them, however they are sharded; batches, keys and so the numbers are those of one
device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vargen import data, sharding
from vargen.samplers import Sampling, decode
from vargen.segments import PICTURE
from vargen.tokenizers import usage
from vargen.training.state import TrainState
from vargen.training.step import OnMesh

SHOWN = 16  # pictures

Validate = Callable[[TrainState], Mapping[str, float]]
Pictures = Callable[[TrainState], Mapping[str, np.ndarray]]


def on_mesh(function: Callable, mesh: Mesh) -> OnMesh:
    """The function, jitted; every process can read its results, which are whole on every device."""
    return OnMesh(jax.jit(function, out_shardings=sharding.replicated(mesh)), mesh)


def of_tokenizer(
    tokenizer: Any, images: np.ndarray, batch_size: int, mesh: Mesh
) -> tuple[Validate, Pictures]:
    """What a tokenizer makes of held-out images.

    Args:
      tokenizer: see `vargen.tokenizers`.
      images: float32 [M, H, W, C] in [-1, 1], the same in every process.
      batch_size: images at once.
      mesh: that of the run.

    Returns:
      state -> loss (mean squared error), psnr_db and for codes `usage.statistics`; state -> originals and
      reconstructions.
    """

    def error(params: Any, content: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean((tokenizer.decode(params, content) - x) ** 2, axis=(-3, -2, -1))  # of each frame

    encode, errors = on_mesh(tokenizer.encode, mesh), on_mesh(error, mesh)
    reconstruct = on_mesh(lambda params, x: tokenizer.decode(params, tokenizer.encode(params, x)), mesh)

    def validate(state: TrainState) -> dict[str, float]:
        def put(*arrays: np.ndarray) -> Any:
            return sharding.put_evenly(arrays, mesh)

        content = data.in_batches(lambda x: encode(state.ema, *put(x)), images, batch_size)
        mse = data.in_batches(
            lambda i: errors(state.ema, *put(content[i], images[i])), np.arange(len(images)), batch_size
        )
        psnr_db = 10 * np.log10(4 / np.maximum(mse, 1e-10))  # of images in [-1, 1]
        found = dict(loss=float(mse.mean()), psnr_db=float(psnr_db.mean()))
        if (codes := tokenizer.slot.codes(content)) is not None:
            found |= usage.statistics(usage.count(codes, tokenizer.grid.level_sizes, tokenizer.vocab))
        return found

    def pictures(state: TrainState) -> dict[str, np.ndarray]:
        shown = sharding.put_evenly(images[:SHOWN], mesh)
        return dict(originals=images[:SHOWN], reconstructions=np.asarray(reconstruct(state.ema, shown)))

    return validate, pictures


def of_generator(
    generator: Any,
    tokenizer_params: Any,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    sampling: Sampling,
    mesh: Mesh,
    drawing: Any = None,
) -> tuple[Validate, Pictures]:
    """What a generator makes of held-out images, and what it draws.

    Args:
      generator: see `vargen.generator`.
      tokenizer_params: whole on every device of the mesh.
      images, labels: float32 [M, H, W, C] and int32 [M, ...], the same in every process.
      batch_size: images at once; a last batch that isn't full is left out of the loss.
      sampling: of the pictures.
      mesh: that of the run.
      drawing: the generator that draws them, of the same parameters (`models.sampled`); None: the same.

    Returns:
      state -> loss, with the same randomness each time; state -> samples of the first classes.
    """
    drawing = generator if drawing is None else drawing
    encode = on_mesh(generator.tokenizer.encode, mesh)
    content = data.in_batches(
        lambda x: encode(tokenizer_params, sharding.put_evenly(x, mesh)), images, batch_size
    )
    batch_size = min(batch_size, len(labels))

    def loss(params: Any, tokenizer_params: Any, x: jax.Array, y: jax.Array, seed: jax.Array) -> jax.Array:
        quantizer = tokenizer_params["quantizer"]
        return generator.loss(params, quantizer, x, y, jax.random.key(seed), train=False)[0]

    def draw(params: Any, tokenizer_params: Any, classes: jax.Array) -> jax.Array:
        quantizer = tokenizer_params["quantizer"]
        drawn = decode(drawing, params, quantizer, classes, jax.random.key(0), sampling).content
        return drawing.tokenizer.decode(tokenizer_params, drawing.sequence.part(drawn, PICTURE))

    loss_on_mesh, draw_on_mesh = on_mesh(loss, mesh), on_mesh(draw, mesh)

    def validate(state: TrainState) -> dict[str, float]:
        losses = []
        for i in range(0, len(labels) - batch_size + 1, batch_size):
            batch = sharding.put_evenly((content[i : i + batch_size], labels[i : i + batch_size]), mesh)
            losses.append(loss_on_mesh(state.ema, tokenizer_params, *batch, np.uint32(i)))
        return dict(loss=float(np.mean(jax.device_get(losses))))

    def pictures(state: TrainState) -> dict[str, np.ndarray]:
        classes = labels[:SHOWN]
        if generator.condition.takes == "classes":
            classes = np.arange(SHOWN, dtype=np.int32) % generator.condition.num_classes
        classes = sharding.put_evenly(classes, mesh)
        return dict(samples=np.asarray(draw_on_mesh(state.ema, tokenizer_params, classes)))

    return validate, pictures
