"""ACDiT's transformer and sampler against its authors' outputs, of images and of videos."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import models
from vargen.config import part
from vargen.content import Noised
from vargen.draws import Recorded
from vargen.feeds.rows import Step
from vargen.heads import Epsilon, Sample
from vargen.heads.dpm import linear_signal
from vargen.heads.epsilon import NOISE_LEVELS
from vargen.interop import acdit, systems
from vargen.interop.parity.golden import (
    REPRODUCED,
    Golden,
    Result,
    close,
    exact,
    gradient_norms,
    stand_in,
)
from vargen.interop.parity.recording import instead
from vargen.layout import Layout, View
from vargen.mixers.rope import half_angles, half_base
from vargen.samplers import Sampling, decode
from vargen.slots import Grid


def matches(golden: Golden) -> bool:
    """Whether it is a golden of ACDiT."""
    return {"x_embedder.weight", "final_layer.norm_final.weight"} <= golden.weights.keys()


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    generator = _generator(golden)
    params = jax.tree.map(jnp.asarray, systems.read(acdit, generator, golden.weights))
    slots = np.asarray(generator.ordering.decoding(None, 1).slots)
    yield from _tables(golden, generator, slots)
    yield from _training(golden, generator, params, slots)
    sample = _sampler(golden, generator, params, slots)
    for output in golden.outputs("sample_cfg"):
        if run := re.fullmatch(r"out/sample_cfg([\d.]+)", output):
            yield from _sampled(golden, sample, slots, float(run[1]), output)


def _generator(golden: Golden) -> Any:
    """The generator that the golden's `meta` tells, over a tokenizer whose slots are what it says."""
    args = golden.meta["args"]
    side, size = math.isqrt(args["spatial_len"]), args["block_size"]
    c = stand_in(side, name="kl", channels=golden.weights["x_embedder.weight"].shape[1])
    acdit.fill(c, golden.weights, args["num_heads"])
    count = side // math.isqrt(size)
    c.order = part("cells", count=(count, count)) if args["square_block"] else part("chunks", size=size)
    c.head.sample_steps = golden.meta["steps"]
    tokenizer = models.build_tokenizer(c)
    grid = Grid(((side, side),), frames=args["temporal_len"])
    return models.build_generator(c, dataclasses.replace(tokenizer, grid=grid))


def _tables(golden: Golden, generator, slots) -> Iterator[Result]:
    """Places, rotary tables, visibilities, and the solver's times."""
    grid, order = generator.tokenizer.grid, generator.ordering.decoding(None, 1)
    places, dim = grid.places[slots], generator.stages[0].block.mixer.head_dim
    angles = np.asarray(half_angles(places, dim, grid))
    sides = grid.levels[0] if grid.frames == 1 else (grid.frames, *grid.levels[0])
    solver = generator.head.solver
    for output, found in (
        ("position_ids", places.T),
        ("rope_bases", [half_base(side) for side in sides]),
        ("sampler_timesteps", solver.times),
    ):
        if f"out/{output}" in golden:
            yield exact(f"out/{output}", found, golden[f"out/{output}"])
    for output, found in (
        ("rope_cos", np.cos(angles)),
        ("rope_sin", np.sin(angles)),
        ("ddpm_alphas_cumprod", linear_signal(NOISE_LEVELS)),
        ("sampler_sigmas", solver.sigmas),
    ):
        if f"out/{output}" in golden:
            yield close(f"out/{output}", found, golden[f"out/{output}"], REPRODUCED)
    if "out/mask" in golden:
        # Theirs has the last block's clean rows too, which nobody sees.
        (layout,), n = generator.layouts(), len(slots)
        rows = np.concatenate([np.arange(layout.keep), np.arange(n, 2 * n)])
        yield exact("out/mask", _seen(layout), golden["out/mask"][np.ix_(rows, rows)])
    for output in golden.outputs("inference_mask_block"):
        step = int(output.removeprefix("out/inference_mask_block"))
        start, size, before = (int(x) for x in (order.starts[step], order.sizes[step], order.sizes[step - 1]))
        layout = _layout_of(generator, order, Step(step, start, size, size, start, before))
        yield exact(output, _seen(layout)[:, : start + size], golden[output])


def _layout_of(generator, order, step: Step) -> Layout:
    """How the rows of a step's first pass are laid out."""
    found = []

    def rows():
        params = generator.init(jax.random.key(0))
        content = generator.tokenizer.slot.zeros(1, generator.tokenizer.grid.size)
        condition = generator.condition.apply({"params": params["condition"]}, jnp.zeros(1, jnp.int32))
        noised = Noised(content, content, jnp.zeros(()))
        args = ((), noised, condition, order, step)
        found.append(generator.feed.apply({"params": params["feed"]}, *args, method="step_inputs").layout)

    jax.eval_shape(rows)
    return found[0]


def _seen(layout: Layout) -> np.ndarray:
    """bool [M, K]: which rows see which."""
    key_times = layout.times if layout.key_times is None else layout.key_times
    seen = np.zeros((len(layout.times), len(key_times)), bool)
    for view in (View(layout.times, key_times), *layout.views):
        apart = np.asarray(view.times)[:, None] - np.asarray(view.key_times)[None]
        seen |= (apart >= 0) if view.window is None else (apart >= 0) & (apart <= view.window)
    return seen


def _canonical(x, slots) -> np.ndarray:
    """[B, T, n, C] in generation sequence -> [B, N, C]."""
    return np.reshape(x, (len(x), len(slots), -1))[:, np.argsort(slots)]


def _training(golden: Golden, generator, params, slots) -> Iterator[Result]:
    """Noised contents, predictions, losses and gradients at the recorded times and noise."""
    batch, steps, size = golden["in/latent"].shape[:3]
    order = generator.ordering.decoding(None, 1)
    step_of = np.asarray(order.steps)[np.argsort(slots)]
    content, noise = (_canonical(golden[f"in/{name}"], slots) for name in ("latent", "noise"))
    null = np.full_like(golden["in/y"], generator.condition.null)
    labels, t = np.where(golden["in/drop"] == 1, null, golden["in/y"]), golden["in/t"]
    at = jax.jit(lambda *args: generator.head.apply({}, *args, method="at"))
    noised = at(content, t[:, step_of], noise)

    def loss(params, labels, noised):
        hidden, _ = generator.hidden(params, None, noised, labels, order)
        found = generator.head.apply({"params": params["head"]}, hidden)
        error = found - noised.target[:, slots]
        return jnp.mean(error**2), (found, jnp.mean(error.reshape(batch, steps, -1) ** 2, axis=-1))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (found, each)), gradients = run(params, jnp.asarray(labels), noised)
    alone = dataclasses.replace(
        noised, level=jnp.broadcast_to(t[:, :1].astype(np.float32), noised.level.shape)
    )
    for output, ours in (
        ("noised", np.asarray(noised.content)[:, slots].reshape(batch, steps, size, -1)),
        ("pred", found),
        ("loss", value),
        ("pred_block_mse", each),
        ("logits_null", lambda: run(params, jnp.asarray(null), noised)[0][1][0]),
        # Theirs keeps the contents as they were noised and says another time for them.
        ("pred_t1d", lambda: run(params, jnp.asarray(labels), alone)[0][1][0]),
    ):
        if f"out/{output}" in golden:
            ours = ours() if callable(ours) else ours
            yield close(f"out/{output}", ours, golden[f"out/{output}"], REPRODUCED)
    yield from gradient_norms(golden, acdit.table(generator), gradients, REPRODUCED)


class Recording(Epsilon):
    """Its score is all that it predicted: [B, n, P, R, C] of P passes and R conditions."""

    def start(self, draws, settings) -> Sample:
        """As `Epsilon.start`."""
        draft = super().start(draws, settings)
        shape = (*draws.shape, self.sample_steps, 1 + settings.guided, self.channels)
        return draft._replace(memory=(draft.memory, jnp.zeros(shape)))

    def refine(self, hidden, draft, at, settings, guidance=None) -> Sample:
        """As `Epsilon.refine`."""
        before, predicted = draft.memory
        each = jnp.split(self(hidden), 1 + settings.guided)
        predicted = predicted.at[:, :, at].set(jnp.stack(each, axis=2))
        found = super().refine(hidden, draft._replace(memory=before), at, settings, guidance)
        return Sample(found.content, predicted, (found.memory, predicted))


def _sampler(golden: Golden, generator, params, slots) -> Callable[[float], Any]:
    """Runs of the engine with the recorded noise by guidance scale: one program, which makes both passes for all."""
    recording = dataclasses.replace(generator, head=instead(generator.head, Recording))

    @jax.jit
    def run(params, labels, normals, sampling):
        draws, key = Recorded(normals=normals), jax.random.key(0)
        return decode(recording, params, None, labels, key, sampling, draws=draws, scored=True)

    def sample(scale: float):
        sampling = dataclasses.replace(Sampling.make(guidance=scale), guided=True)
        noise = _canonical(_noise(golden), slots)
        return run(params, jnp.asarray(golden["in/sample/y"]), noise, sampling)

    return sample


def _noise(golden: Golden) -> np.ndarray:
    """Where the blocks' passes start: float32 [B, T, n, C]."""
    return golden["in/sample/noise"][:, :, 0].swapaxes(0, 1)


def _sampled(golden: Golden, sample, slots, scale: float, output: str) -> Iterator[Result]:
    """A run's contents, and what every pass predicted."""
    noise, found = _noise(golden), sample(scale)
    batch, steps, size, channels = noise.shape
    contents = np.asarray(found.content)[:, slots].reshape(noise.shape)
    yield close(output, contents, golden[output], REPRODUCED)
    if f"{output}_preds" in golden:
        theirs = golden[f"{output}_preds"]
        passes = len(theirs) // steps
        predicted = np.asarray(found.score)[:, slots].reshape(batch, steps, size, passes, 2, channels)
        # Theirs makes one pass at a scale of 1.
        predicted = predicted.transpose(1, 3, 4, 0, 2, 5)[:, :, : theirs.shape[1] // batch]
        predicted = predicted.reshape(steps * passes, -1, size, channels)
        yield close(f"{output}_preds", predicted, theirs, REPRODUCED)
