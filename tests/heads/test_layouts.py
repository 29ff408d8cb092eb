"""What heads are told of the slots that they predict: when, where, and of which segment they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import labels_for, make, some_slow

from vargen.samplers.policies import groups

NAMES = "llamagen rar arpg randar acdit mar himar var flexvar flowar hart hmar_masked orthus".split()
SLOW = "himar flexvar hart hmar_masked".split()


def by_hand(generator, order, slots):
    """Times, places and segments of slots int [B, n], looked up one by one."""
    sequence, steps = (np.broadcast_to(x, (len(slots), x.shape[-1])) for x in (order.slots, order.steps))
    at = np.array(
        [[row.tolist().index(slot) for slot in own] for row, own in zip(sequence, slots, strict=True)]
    )
    segments = None
    if order.segments is not None:
        segments = np.take_along_axis(np.broadcast_to(order.segments, sequence.shape), at, axis=1)
    return np.take_along_axis(steps, at, axis=1), generator.feed.lie[slots], segments


@pytest.mark.parametrize("name", some_slow(NAMES, SLOW))
def test_of_a_whole_pass(name):
    """As many as there are hidden vectors, and of the slots whose contents the loss compares them with."""
    _, generator, params, tokenizer_params = make(name)
    quantizer, labels = tokenizer_params["quantizer"], labels_for(generator, 2)

    @jax.jit
    def run(key):
        content, _ = generator.joined(
            generator.tokenizer.slot.zeros(2, generator.tokenizer.grid.size), labels
        )
        order = generator.ordering.training(key, content)
        if generator.head.noise_levels is not None:
            content = generator.noised(params, content, order, key)
        hidden, rows = generator.hidden(params, quantizer, content, labels, order)
        layout, shape = generator.layout_of(order, rows.slots), hidden.shape[:2]
        assert layout.times.shape[-1] == layout.coords.shape[-2] == shape[1]
        segments = None if layout.segments is None else jnp.broadcast_to(layout.segments, shape)
        coords = jnp.broadcast_to(layout.coords, (*shape, layout.coords.shape[-1]))
        found = jnp.broadcast_to(layout.times, shape), coords, segments
        return found, jax.tree.map(jnp.asarray, order), jnp.broadcast_to(rows.slots, shape)

    found, order, slots = jax.device_get(run(jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, found, by_hand(generator, order, slots))


@pytest.mark.parametrize("name", some_slow(NAMES, SLOW))
def test_of_a_step(name):
    """Its own slots are of one time, those that only fill it up later."""
    _, generator, _, _ = make(name)
    order = generator.ordering.decoding(jax.random.key(1), 2)
    proposes = generator.ordering.proposes
    for step in (s for group in groups(order, generator.feed, proposes) for s in group):
        layout, own = generator.layout_of_step(order, step), step.count if proposes == "step" else step.size
        np.testing.assert_array_equal(layout.times, np.arange(step.size) >= own)
        slots = np.asarray(order.slots)[..., step.start : step.start + own]
        np.testing.assert_array_equal(layout.coords[..., :own, :], generator.feed.lie[slots])
        if order.segments is not None:
            here = order.segments[step.start : step.start + own]
            np.testing.assert_array_equal(layout.segments[:own], here)
