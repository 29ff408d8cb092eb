"""Generation by whole parallel passes, which know nothing of caches, steps in scans or padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vargen.content import Noised, put, take
from vargen.draws import keyed
from vargen.heads import Flow, Hybrid
from vargen.heads.head import Around
from vargen.layout import Layout
from vargen.orders import Order


def uncached(generator, params, quantizer, labels, key, sampling, given=None):
    """Generation by a whole parallel pass for every step; `given` as of `decode`."""
    if generator.ordering.proposes != "step":
        how = dict(rest=revised, level=level_by_level)[generator.ordering.proposes]
        return how(generator, params, quantizer, labels, key, sampling, given)
    batch, n = jax.tree.leaves(labels)[0].shape[0], generator.sequence.grid.size
    given = generator.given_by(labels) if given is None else given
    key_order, key_slots = jax.random.split(key)
    known = None if given is None else given[1]
    order = generator.ordering.decoding(key_order, batch, sampling.steps, known)
    draws, scales = keyed(key_slots, batch, n), sampling.scales(order.sizes)
    masked = not generator.feed.cached
    if masked:
        generator = dataclasses.replace(generator, feed=generator.feed.clone(most_known=n))
    content = generator.sequence.slot.zeros(batch, n)
    if given is not None:
        content = jax.tree.map(lambda x, y: x.at[:, known].set(y[:, known]), content, given[0])

    # Heads that draw a step at once ask where its slots lie, and which they are.
    together = isinstance(generator.head, (Flow, Hybrid))

    def hidden(content, labels, steps):
        order_now = dataclasses.replace(order, steps=steps) if masked else order
        hidden, rows = generator.hidden(params, quantizer, content, labels, order_now)
        slots = jnp.broadcast_to(jnp.asarray(rows.slots), hidden.shape[:2])
        # From the feed's rows to canonical slots.
        return jax.vmap(lambda h, s: jnp.zeros_like(h).at[s].set(h))(hidden, slots)

    hidden_of, null = jax.jit(hidden), generator.condition.without(labels)
    staged, around = generator.head.each_stage, generator.head.around  # `around` takes all rows

    @jax.jit
    def asked(content, steps):
        """Hidden vectors of all slots, [B, n, ...] or under guidance [2B, n, ...], by the same program."""
        both = [(content, labels)]
        if sampling.guided:
            unasked = content
            if (other := generator.given_by(null)) is not None and known[other[1]].all():
                unasked = jax.tree.map(lambda x, y: x.at[:, other[1]].set(y[:, other[1]]), content, other[0])
            both.append((unasked, null))
        found = jax.lax.map(lambda x: hidden(*x, steps), jax.tree.map(lambda *x: jnp.stack(x), *both))
        return found.reshape(-1, *found.shape[2:])

    @functools.partial(jax.jit, static_argnums=(5, 6))
    def drawn(found, content, steps, slots, scale, which, code):
        """Contents of slots [B, m]; `which` is the number of their segment."""
        lies = None
        if order.segments is not None:
            lies = Layout(None, None, segments=np.array([which]))
        elif together:
            places = jnp.asarray(generator.feed.lie)[slots]
            lies = Layout(np.zeros(slots.shape[1], int), places, slots=slots)
        more = (Around(slots, content, put(steps == 1, order.slots, steps == 0)),) if around else ()
        found = found if around else take(found, jnp.concatenate([slots] * (len(found) // batch)))
        return generator.head.apply(
            generator.of_head(params),
            found[:, :, : code + 1] if staged else found,
            draws if around else draws.at(slots),
            lies,
            sampling,
            scale if sampling.guided else None,
            quantizer,
            *more,
            method="sample",
        ).content

    sequence = np.broadcast_to(np.asarray(order.slots), (batch, n))
    for s, (start, size) in enumerate(zip(order.starts, order.sizes, strict=True)):
        if start < order.given:
            continue
        slots = sequence[:, start : start + size]
        scale = scales[s] if sampling.guided else None
        if generator.feed.drafts:
            args = (content, labels, order, slots, draws, sampling, scale)
            content = drafted(generator, params, hidden_of, *args)
            continue
        steps = np.broadcast_to((np.asarray(order.steps) >= s).astype(np.int32), (batch, n))
        which = int(order.segments[start]) if order.segments is not None else 0
        for code in range(content.shape[-1]) if staged else (0,):  # one after each stage
            found = asked(content, steps)
            if together or around:
                new = drawn(found, content, steps, slots, scale, which, code)
            else:  # each slot by itself: all may be drawn, by one program for all steps
                new = drawn(found, content, steps, sequence, scale, which, code)
                new = jax.tree.map(lambda x: x[:, start : start + size], new)  # noqa: B023
            if staged:
                content = content.at[np.arange(batch)[:, None], slots, code].set(new)
            else:
                content = put(content, jnp.asarray(slots), new)
    return content


def drafted(generator, params, hidden_of, content, labels, order, slots, draws, sampling, scale):
    """A step of a head that drafts it, by a whole pass for each refinement; what is known has no noise."""
    head = generator.head.bind({"params": params["head"]})
    here, known = slots[0], order.slots[: list(order.slots).index(slots[0, 0])]
    draft = head.start(draws.at(jnp.asarray(slots)), sampling)
    for at, level in enumerate(head.noise_levels):
        noise_levels = np.full(content.shape[:2], level, np.float32)
        noise_levels[:, known] = 0
        noised = Noised(content, content.at[:, here].set(draft.content), jnp.asarray(noise_levels))
        # Noise at later steps plays no role, whatever it is.
        anything = 1 if generator.tokenizer.vocab else 7.0
        later = np.setdiff1d(np.asarray(order.slots), [*known, *here])
        noised = dataclasses.replace(noised, content=noised.content.at[:, later].set(anything))
        hidden = [hidden_of(noised, labels, None)[:, here]]
        if sampling.guided:
            hidden.append(hidden_of(noised, generator.condition.without(labels), None)[:, here])
        draft = head.refine(jnp.concatenate(hidden), draft, at, sampling, scale)
    return content.at[:, here].set(draft.content)


def revised(generator, params, quantizer, labels, key, sampling, given):
    """The same where a step draws all that is unknown: MaskGIT's rule, by a threshold on whole pictures."""
    batch, n = len(labels), generator.tokenizer.grid.size
    unknown = np.ones((batch, n), bool)
    content = np.zeros((batch, n), np.int32)
    if given is not None:
        unknown, content = np.tile(~given[1], (batch, 1)), np.where(given[1], given[0], 0)
    order = generator.ordering.decoding(None, batch, sampling.steps, None if given is None else given[1])
    scales, draws = sampling.scales(order.sizes), keyed(jax.random.split(key)[1], batch, n)
    both = jnp.concatenate([labels, generator.condition.without(labels)])

    @jax.jit
    def propose(content, slots, known, draws, scale):
        content, slots, known = (jnp.tile(x, (2, 1)) for x in (content, slots, known))
        hidden, _ = generator.hidden(params, quantizer, content, both, Order(slots, 1 - known))
        of_head = generator.of_head(params)
        return generator.head.apply(of_head, hidden, draws, None, sampling, scale, method="sample")

    for s, size in enumerate(order.sizes):
        if order.given and s == 0:
            continue
        now = draws.of(s)
        slots = np.argsort(unknown, axis=1, kind="stable")
        known = 1 - np.take_along_axis(unknown, slots, axis=1).astype(np.int32)
        sample = propose(content, slots, known, now, scales[s])
        content = np.where(unknown, sample.content, content)
        worth = np.asarray(sample.score + generator.ordering.amounts(order)[s] * now.gumbel())
        worth = np.where(unknown, worth, np.inf)
        left = int(unknown.sum(axis=1)[0]) - size
        cut = np.sort(worth, axis=1)[:, left, None]
        unknown = worth < cut
        assert (unknown.sum(axis=1) == left).all()
    return content


def level_by_level(generator, params, quantizer, labels, key, sampling, given, kept=None):
    """The same where a step draws what is unknown of a level: HMAR's rule, on whole pictures."""
    grid, batch = generator.tokenizer.grid, len(labels)
    level, n = grid.coords[:, 0], grid.size
    content, known = np.zeros((batch, n), np.int32), np.zeros(n, bool)
    if given is not None:
        content, known = np.where(given[1], given[0], 0), given[1]
    draws = keyed(jax.random.split(key)[1], batch, n)
    both = jnp.concatenate([labels, generator.condition.without(labels)])
    fixed = np.zeros(n, bool) if kept is None else kept[1]

    @functools.partial(jax.jit, static_argnums=4)
    def propose(content, unknown, draws, scale, branch):
        content, unknown = (jnp.tile(x, (2, 1)) for x in (content, unknown))
        order = Order(np.arange(n), level)
        if branch:
            steps = 2 * level + unknown
            slots = jnp.argsort(steps, axis=1, stable=True)
            order = Order(slots, jnp.take_along_axis(steps, slots, axis=1))
        hidden, rows = generator.hidden(params, quantizer, content, both, order)
        assert rows.layout.branch == branch
        of_head = generator.of_head(params, branch)
        return generator.head.apply(of_head, hidden, draws, None, sampling, scale, method="sample")

    s, passes = 0, 0
    for at, own in enumerate(sampling.schedule):
        here = level == at
        if known[here].all():
            s += 1
            continue
        unknown, first, t = np.tile(here, (batch, 1)), True, at / max(level[-1], 1)
        while unknown.any():
            scale = 1 + sampling.guidance * t if first and sampling.guided else 1.0
            sample = propose(content, unknown, draws.of(s), scale, 0 if first else 1)
            content = np.where(unknown, sample.content, content)
            if kept is not None:
                content = np.where(fixed, kept[0], content)
            passes += 1
            worth = np.where(unknown & ~fixed, sample.drawn, np.inf)
            # As many as later steps keep, and never what is kept anyway.
            own = own[1:] if not first else own
            left = min(sum(own[1:]), (here & ~fixed).sum())
            while own and left == unknown.sum(axis=1)[0]:  # such a step keeps nothing
                own = own[1:]
                left = min(sum(own[1:]), (here & ~fixed).sum())
            unknown = unknown & (worth < np.sort(worth, axis=1)[:, left, None]) if left < n else unknown
            assert (unknown.sum(axis=1) == left).all()
            s, first = s + 1, False
    return content
