"""MaskGIT's transformer and its decoding against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.draws import Recorded
from vargen.feeds import Mask
from vargen.interop import maskgit, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms, stand_in
from vargen.interop.parity.recording import instead
from vargen.orders import Confidence, Order
from vargen.orders.schedules import share
from vargen.samplers import Sampling, engine, policies
from vargen.samplers.step import advance

MASKED = -1  # in the authors' sequences
CURVES = {
    "uniform": "linear",
    "pow2": "square",
    "pow3": "cubic",
    "pow0.5": "root",
}  # the others have the same name


def matches(golden: Golden) -> bool:
    """Whether it is a golden of MaskGIT."""
    return "MlmLayer_0/mlm_dense/kernel" in golden.weights


class Whole(Mask):
    """The mask feed with the condition's rows among its outputs."""

    def outputs(self, hidden, rows):
        """[B, M, D], as they are."""
        return hidden


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    ids, config = golden["in/ids"], golden.meta["config"]
    n, vocab = ids.shape[1] - 1, config["codebook"]
    c = stand_in(math.isqrt(n), name="vq", vocab=vocab, channels=8)
    maskgit.fill(c, golden.weights)
    c.data.num_classes = config["classes"]
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(maskgit, generator, golden.weights))
    logits = functools.partial(_logits, generator, params)
    if "out/logits" in golden:
        yield close("out/logits", logits(golden["in/masked"]), golden["out/logits"], REPRODUCED)
    yield from _losses(golden, generator, params)
    for output in golden.outputs("schedule/"):
        curve, steps = output.rpartition("/")[2], config["T"]
        ratios = np.arange(steps + 1) / steps
        ratios = np.maximum(ratios, 1e-3) if curve == "log" else ratios
        yield close(output, share(CURVES.get(curve, curve), ratios, n), golden[output], 1e-6)
    for run, settings in config.get("runs", {}).items():
        if f"out/gen/{run}/tokens" in golden:
            yield from _decoded(golden, generator, params, run, settings)


def order_of(unknown: np.ndarray) -> Order:
    """The order of a training pass in which slots bool [B, N] are masked."""
    slots = np.argsort(unknown, axis=1, kind="stable")
    return Order(slots, np.take_along_axis(unknown, slots, axis=1).astype(np.int32))


def _parts(generator: Any, ids: np.ndarray) -> tuple[jax.Array, jax.Array, Order]:
    """Labels, contents and the order of the authors' sequences int [B, 1 + N]."""
    labels, content, unknown = ids[:, 0] - generator.tokenizer.vocab, ids[:, 1:], ids[:, 1:] == MASKED
    order = jax.tree.map(jnp.asarray, order_of(unknown))
    return jnp.asarray(labels), jnp.asarray(np.where(unknown, 0, content)), order


def _logits(generator: Any, params: Any, ids: np.ndarray) -> np.ndarray:
    """float32 [B, 1 + N, V]: of all rows, the class's too."""
    whole = dataclasses.replace(generator, feed=instead(generator.feed, Whole))

    @jax.jit
    def run(params, labels, content, order):
        hidden, _ = whole.hidden(params, None, content, labels, order)
        return whole.head.apply(whole.of_head(params), hidden)

    return np.asarray(run(params, *_parts(generator, ids)))


def _losses(golden: Golden, generator: Any, params: Any) -> Iterator[Result]:
    """The losses of masked slots, and the gradients of the one with smoothing."""
    labels, _, order = _parts(generator, golden["in/masked"])
    content = jnp.asarray(golden["in/ids"][:, 1:])
    for output in golden.outputs("loss_smooth"):
        smoothing = float(output.removeprefix("out/loss_smooth"))
        head = generator.head.clone(label_smoothing=smoothing)
        smoothed = dataclasses.replace(generator, head=head, ordering=Fixed(order))

        @jax.jit
        @jax.value_and_grad
        def loss(params, generator=smoothed):
            return generator.loss(params, None, content, labels, jax.random.key(0), train=False)[0]

        found, gradients = loss(params)
        yield close(output, found, golden[output], REPRODUCED)
        if smoothing == 0.1:
            yield from gradient_norms(golden, maskgit.table(generator), gradients, 1e-4)


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed:
    """An ordering whose training pass is known."""

    order: Order

    def training(self, key, content, progress=None) -> Order:
        """The order."""
        return self.order


def _decoded(golden: Golden, generator: Any, params: Any, run: str, settings: dict) -> Iterator[Result]:
    """One of the authors' runs, step by step; each picture by itself where their numbers of masked slots differ."""
    start, steps = golden[f"in/{run}/start"], settings["T"]
    first = settings.get("start_iter", 0)
    numbers, noise = (
        np.stack([golden[f"in/{run}/{name}_{s}"] for s in range(first, steps)], axis=2)[:, 1:]
        for name in ("g_tok", "g_conf")
    )
    ordering = Confidence(
        generator.ordering.grid,
        steps,
        CURVES.get(settings["method"], settings["method"]),
        noise=settings["choice_temperature"],
        skipped=first,
    )
    generator = dataclasses.replace(generator, ordering=ordering)
    unknown = start == MASKED
    apart = [slice(i, i + 1) for i in range(len(start))]
    groups = [slice(None)] if (unknown == unknown[:1]).all() else apart
    told = [_run(generator, params, start[g], numbers[g], noise[g]) for g in groups]
    found = {name: np.concatenate([t[name] for t in told]) for name in told[0]}
    batch, count, width = found["ids_fed"].shape
    logits = _logits(generator, params, found["ids_fed"].reshape(-1, width))
    logits = logits.reshape(batch, count, width, -1)[..., : generator.tokenizer.vocab]
    out = f"out/gen/{run}/"
    before = np.repeat(start[:, None], first, axis=1)
    exactly = {
        "ids_fed": found["ids_fed"],
        "mask_len": found["mask_len"],
        "masking": found["masking"],
        "final_seqs": np.concatenate([before, found["proposed"]], axis=1),
        "tokens": found["proposed"][:, -1, 1:],
    }
    for name, value in exactly.items():
        if out + name in golden:
            yield exact(out + name, value, golden[out + name])
    if out + "logits" in golden:
        yield close(out + "logits", logits, golden[out + "logits"], REPRODUCED)
    asked = found["ids_fed"] == MASKED
    if out + "selected_probs" in golden:
        expected = golden[out + "selected_probs"]
        probs = np.where(asked, np.exp(found["score"]), 0)
        expected = np.where(expected > 1e29, 0, expected)  # of what is known
        yield close(out + "selected_probs", probs, expected, REPRODUCED)
    # By step, then by row, of which the class is the first.
    row = [(0, 0), (0, 0), (1, 0)]
    numbers, noise = np.pad(numbers.swapaxes(1, 2), [*row, (0, 0)]), np.pad(noise.swapaxes(1, 2), row)
    if out + "margin_token" in golden:
        best = np.sort(logits + numbers, axis=-1)
        gap = np.where(asked, best[..., -1] - best[..., -2], np.inf).min()
        yield Result(out + "margin_token", abs(gap - float(golden[out + "margin_token"])), 1e-4)
    if out + "margin_mask" in golden:
        amounts = settings["choice_temperature"] * (1 - (np.arange(first, steps) + 1) / steps)
        worth = np.sort(np.where(asked, found["score"] + amounts[:, None] * noise, np.inf), axis=-1)
        cut = found["mask_len"].astype(int)[..., None]
        high, low = (np.take_along_axis(worth, cut - i, axis=-1) for i in (0, 1))
        yield Result(out + "margin_mask", abs((high - low).min() - float(golden[out + "margin_mask"])), 1e-4)


def _run(generator: Any, params: Any, start: np.ndarray, numbers: np.ndarray, noise: np.ndarray) -> dict:
    """The engine's own steps on recorded noise; what each saw and made, in the authors' terms: [B, steps, ...].

    Args:
      generator, params: the generator.
      start: int [B, 1 + N], with the same slots masked for all.
      numbers, noise: Gumbel noise float32 [B, N, steps, K] of the codes, [B, N, steps] of the choice.
    """
    labels, content, _ = _parts(generator, start)
    known = start[0, 1:] != MASKED
    given = (content, known) if known.any() else None
    if given:  # which is the first step of the order
        numbers, noise = (np.concatenate([x[:, :, :1], x], axis=2) for x in (numbers, noise))
    draws = Recorded(gumbels=jnp.asarray(numbers), apart=jnp.asarray(noise))

    @jax.jit
    def go(params, labels, content, draws):
        given = (content, known) if known.any() else None
        key, sampling = jax.random.key(0), Sampling.make()
        call, begin = engine.begin(
            generator, params, None, labels, key, sampling, given, draws=draws, scored=True
        )
        steps = [s for group in policies.groups(call.order, generator.feed, "rest") for s in group]
        alike = dataclasses.replace(steps[0], begins=False, most_known=steps[-1].start)

        def step(decoding, at):
            decoding = advance(call, decoding, dataclasses.replace(alike, **at))
            return decoding, (decoding.slots, decoding.content, decoding.score)

        found = jax.lax.scan(step, begin, policies.table(steps))[1]
        return tuple(jnp.moveaxis(x, 0, 1) for x in (*found,))

    sequence, proposed, score = (np.asarray(x) for x in go(params, labels, content, draws))
    sizes = generator.ordering.decoding(None, 1, 0, known).sizes
    done = np.cumsum(sizes)[int(known.any()) :]
    left = np.maximum(known.size - done, 1)  # of the last step's slots one is masked again
    masking = np.zeros((len(start), len(left), start.shape[1]), bool)
    for s, count in enumerate(left):
        np.put_along_axis(masking[:, s], 1 + sequence[:, s, -count:], True, axis=-1)
    classes = np.broadcast_to(start[:, None, :1], (*proposed.shape[:2], 1))
    whole = np.concatenate([classes, proposed], axis=-1)
    fed = np.concatenate([start[:, None], np.where(masking, MASKED, whole)[:, :-1]], axis=1)
    return {
        "ids_fed": fed,
        "proposed": whole,
        "score": np.pad(score, [(0, 0), (0, 0), (1, 0)]),
        "mask_len": np.broadcast_to(left.astype(np.float32), masking.shape[:2]),
        "masking": masking,
    }
