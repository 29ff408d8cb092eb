"""The decode engine: one loop for every system, derived from the order and the feed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vargen.feeds.rows import Step

# Steps of a feed without a cache are gathered in so many scans, each padded to its longest step: more would
# waste less on padding and take longer to compile.
PIECES = 4


def decode(generator, params, quantizer, labels, key, sampling):
    """Generates contents for labels.

    Every slot's randomness depends on the key, the example's place in the batch and the slot alone, so that
    the result doesn't change with how steps are grouped or examples sharded.

    Args:
      generator: a `Generator`.
      params: its parameters.
      quantizer: the tokenizer's quantiser parameters.
      labels: int32 [B], or whatever the conditioning's `parse` gives.
      key: PRNG key.
      sampling: `Sampling`.

    Returns:
      Codes int32 [B, N] or latents float32 [B, N, C], canonical, and the `Order` in which they came.
    """
    batch, grid = jax.tree.leaves(labels)[0].shape[0], generator.tokenizer.grid
    key_order, key_slots = jax.random.split(key)
    order = generator.order.decoding(key_order, batch, sampling.steps)
    scales = sampling.scales(order.sizes)
    if sampling.guided:
        without = generator.condition.without(labels)
        labels = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), labels, without)
    condition = generator.condition.apply({"params": params["condition"]}, labels)
    modulations = generator.modulations(params, condition)
    shape = (
        (batch, grid.size)
        if generator.head.kind == "codes"
        else (batch, grid.size, generator.tokenizer.channels)
    )
    content = jnp.zeros(shape, jnp.int32 if generator.head.kind == "codes" else jnp.float32)
    keys = slot_keys(key_slots, batch, grid.size)
    sample = functools.partial(
        generator.head.apply,
        {"params": params["head"]},
        method="sample",
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p if sampling.nucleus else None,
    )
    slots_of = jnp.broadcast_to(jnp.asarray(order.slots), (batch, grid.size))

    def run(carry, step, layers=None):
        content, state, cache = carry
        hidden, cache = generator.step(
            params, quantizer, state, cache, content, condition, modulations, order, step, layers
        )
        positions = jnp.asarray(step.positions())
        slots = slots_of[:, jnp.minimum(positions, grid.size - 1)]
        slot_keys = jax.vmap(lambda k, s: k[s])(keys, slots)
        drawn = sample(hidden, slot_keys, guidance=scales[step.index] if sampling.guided else None)
        # Rows beyond the step's slots are dropped: their index lies outside.
        slots = jnp.where(positions < step.start + step.count, slots, grid.size)
        content = jax.vmap(lambda c, s, d: c.at[s].set(d, mode="drop"))(content, slots, drawn)
        state = generator.feed.apply(
            {"params": params["feed"]}, state, content, step, quantizer, method="absorb"
        )
        return content, state, cache

    state = generator.feed.apply({"params": params["feed"]}, batch, method="begin")
    conditions, length = condition.rows.shape[0], generator.feed.lead + grid.size
    carry = (content, state, generator.init_cache(conditions, 0))
    for pieces in segments(order.sizes, generator.feed):
        if len(pieces) == 1:
            carry = run(carry, pieces[0])
            continue
        layers = None
        if generator.feed.cached:
            # Layers are cut out of their stack once, before the loop: inside it that would be a copy each step.
            content, state, cache = carry
            cache = _lengthen(cache, jax.eval_shape(lambda: generator.init_cache(conditions, length)))
            stack = (params[generator.feed.stacks[0]], modulations[generator.feed.stacks[0]])
            cache, layers = (_unstack(t, generator.layers[0]) for t in (cache, stack))
            carry = (content, state, cache)
        table = {
            name: jnp.asarray([getattr(p, name) for p in pieces]) for name in ("index", "start", "count")
        }
        rows, most_known = pieces[0].rows, pieces[0].most_known

        def body(carry, at, rows=rows, most_known=most_known, layers=layers):
            return run(carry, Step(**at, rows=rows, most_known=most_known), layers), None

        carry, _ = jax.lax.scan(body, carry, table)
        if generator.feed.cached:
            content, state, cache = carry
            carry = (content, state, jax.tree.map(lambda *x: jnp.stack(x), *cache))
    return carry[0], order


def segments(sizes: np.ndarray, feed) -> list[list[Step]]:
    """Groups of steps that one scan can run.

    With a cache, neighbours of equal size (each alone where every level has its own arithmetic, and the first
    where rows of the condition lead it); a group of one runs with its place known before tracing, and touches no
    row that doesn't exist yet. Without, up to `PIECES` groups padded to their longest step.
    """
    starts = np.cumsum(sizes) - sizes
    if feed.by_level:
        cuts = np.arange(1, len(sizes))
    elif feed.cached:
        apart = np.diff(sizes) != 0
        if feed.lead:
            apart[:1] = True
        cuts = np.flatnonzero(apart) + 1
    else:
        cuts = np.unique(np.linspace(0, len(sizes), PIECES + 1).round().astype(int))[1:-1]
    groups = np.split(np.arange(len(sizes)), cuts)
    return [
        [
            Step(int(s), int(starts[s]), int(sizes[s]), int(max(sizes[group])), int(max(starts[group])))
            for s in group
        ]
        for group in groups
    ]


def slot_keys(key, batch: int, slots: int):
    """PRNG keys [B, N]."""
    fold = jax.random.fold_in
    return jax.vmap(lambda b: jax.vmap(lambda s: fold(fold(key, b), s))(jnp.arange(slots)))(jnp.arange(batch))


def _lengthen(cache, full):
    """A cache padded to the shapes of one of full length."""
    return jax.tree.map(
        lambda x, y: jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, y.shape, strict=True)]), cache, full
    )


def _unstack(tree, layers: int) -> list:
    return [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(layers)]
