"""One step of decoding: the blocks, the head, and what it drew put in its place."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vargen import content as contents
from vargen.draws import Draws
from vargen.feeds.rows import Step
from vargen.heads.head import Around, Sample, together
from vargen.samplers.call import Call, Decoding


def advance(call: Call, decoding: Decoding, step: Step, drawn: bool = True) -> Decoding:
    """One step: the blocks, the head, and what it drew put in its place.

    Args:
      call, decoding: what stays, and what changes.
      step: the step, or one of several under `lax.scan`.
      drawn: whether contents are drawn; else they are known, and only remembered.
    """
    call = call.at(decoding, step)
    content, score, cache, sequence = decoding.content, decoding.score, decoding.cache, decoding.slots
    state = decoding.state
    if not drawn:
        cache = call.step(decoding, content, step)[2]
    else:
        at, n = jnp.asarray(step.at()), call.slots.shape[1]
        slots = call.slots[:, jnp.minimum(at, n - 1)]
        # Rows beyond the step's slots are dropped: their index lies outside.
        put = jnp.where(at < (step.start + step.count if sequence is None else n), slots, n)
        draws, guidance = call.draws.at(slots), call.guidance(step.index)
        if call.generator.head.noise_levels is None:
            sample, cache, state = at_once(call, decoding, step, put, draws, guidance)
        else:
            sample, cache = jointly(call, decoding, step, put, draws, guidance)
        if (slot := call.generator.tokenizer.slot).stop is not None:  # so is what comes after a stop code
            put = jnp.where(slot.stopped(content)[:, None], n, put)
        if sequence is not None:
            sequence = _revised(call, step, slots, sample, draws)
        content = keeping(call.kept, contents.put(content, put, sample.content))
        if score is not None and sample.score is not None:
            score = contents.put(score, put, sample.score)
    state = call.feed("absorb", state, content, step, call.quantizer)
    return Decoding(content, state, cache, score, sequence)


def at_once(call: Call, decoding: Decoding, step: Step, slots, draws: Draws, guidance):
    """A step in one pass, of which the head draws from the last hidden vectors, or a code after each stage.

    Args:
      call, decoding, step: as of `advance`.
      slots: int [B, size]: of the step; N where there is none.
      draws, guidance: of the step.

    Returns:
      The `Sample`, the cache, and the feed's state.
    """
    head = call.generator.head
    layout = call.generator.layout_of_step(call.order, step)
    around = Around(slots, decoding.content, known_before(call, step)) if head.around else None
    samples: list[Sample] = []
    sampling = call.sampling.of_step(step.size)
    if (factor := call.generator.ordering.temperature(call.order, step.index)) is not None:
        sampling = dataclasses.replace(sampling, temperature=sampling.temperature * factor)

    def draw(hidden, rows):
        """Draws from the hidden vectors; the rows, told what was drawn of their slots."""
        how = (layout, sampling, guidance, call.quantizer, around)
        own = call.draws if head.around else draws
        samples.append(call.head("sample", hidden, own, *how, branch=rows.layout.branch))
        if rows.content is None:
            return rows
        told = rows.content.at[..., len(samples) - 1].set(samples[-1].content)
        return dataclasses.replace(rows, content=told)

    between = draw if head.each_stage else None
    hidden, rows, cache = call.step(decoding, decoding.content, step, between)
    draw(hidden, rows)
    own = call.generator.rows_of(hidden, rows, slots) if head.around else hidden
    return together(samples), cache, call.feed("remember", decoding.state, own, slots)


def known_before(call: Call, step: Step) -> jax.Array:
    """bool [B, N], canonical: which slots are known when a step begins."""
    known = jnp.broadcast_to(jnp.arange(call.slots.shape[1]) < step.start, call.slots.shape)
    return contents.put(jnp.zeros(known.shape, bool), call.slots, known)


def _revised(call: Call, step: Step, slots, sample, draws) -> jax.Array:
    """The sequence int32 [B, N] after a step that proposed more than it keeps, int [B, size]: what it keeps first, and
    before it what it must."""
    at = jnp.broadcast_to(jnp.asarray(step.at()), slots.shape)
    worth = call.generator.ordering.revise(call.order, step.index, slots, sample, draws)
    worth = jnp.where(at < call.slots.shape[1], worth, -jnp.inf)
    if call.kept is not None:
        worth = jnp.where(jnp.asarray(call.kept[1])[slots], jnp.inf, worth)
    best = jnp.argsort(-worth, axis=-1, stable=True)
    return contents.put(call.slots, at, jnp.take_along_axis(slots, best, axis=-1))


def jointly(call: Call, decoding: Decoding, step: Step, slots, draws: Draws, guidance):
    """A step that the head drafts and refines over several passes, of which the first brings what the step before left.

    Args:
      call, decoding, step: as of `advance`.
      slots: int [B, size]: of the step; N where there is none.
      draws, guidance: of the step.

    Returns:
      The `Sample`, and the cache, in which none of the drafts stays.
    """
    noise_levels = jnp.asarray(call.generator.head.noise_levels)

    def one(draft, cache, at, step):
        content = contents.put(decoding.content, slots, draft.content)
        noised = contents.Noised(decoding.content, content, noise_levels[at])
        hidden, _, cache = call.step(dataclasses.replace(decoding, cache=cache), noised, step)
        return call.head("refine", hidden, draft, at, call.sampling, guidance), cache

    draft, cache = one(call.head("start", draws, call.sampling), decoding.cache, 0, step)
    if len(noise_levels) == 1:
        return draft, cache
    alone = dataclasses.replace(step, before=0, begins=False)
    (draft, cache), _ = jax.lax.scan(
        lambda carry, at: (one(*carry, at, alone), None),
        (draft, cache),
        jnp.arange(1, len(noise_levels)),
    )
    return draft, cache


def keeping(known, content):
    """Content [B, N, ...] with that of the slots that are known (content, bool [N]); None for none."""
    return content if known is None else contents.choose(known[1], known[0], content)
