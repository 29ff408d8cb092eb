"""What every order must show: one that is registered without a row in `ORDERINGS` fails here."""

import jax
import numpy as np
import pytest

from vargen import parts
from vargen.orders import ORDERS, Order
from vargen.slots import Grid

PLAIN, LEVELS, VIDEO = Grid(((3, 4),)), Grid(((1, 1), (2, 2), (2, 3))), Grid(((2, 2),), frames=3)
BATCH = 6

# Name -> (grid, options, steps of decoding, slots that may be given first).
ORDERINGS = dict(
    cells=(PLAIN, dict(count=(3, 2)), 6, (0, 1)),
    chunks=(PLAIN, dict(size=3), 4, range(3)),
    confidence=(PLAIN, dict(steps=4), 4, (1, 4, 11)),
    level_sets=(Grid(((2, 2), (3, 4))), dict(steps=(2, 4)), 6, (1, 4, 11)),
    raster=(PLAIN, {}, 12, range(5)),
    levels=(LEVELS, {}, 3, range(5)),
    frames=(VIDEO, {}, 3, range(4)),
    random=(PLAIN, dict(steps=5), 5, (1, 4, 11)),
    random_sets=(PLAIN, dict(steps=4), 4, (1, 4, 11)),
    random_to_raster=(PLAIN, {}, 12, range(5)),
    segments=(Grid(((1, 4), (2, 2))), {}, 8, range(4)),
    masked_levels=(LEVELS, {}, 3, range(5)),
    some_levels=(LEVELS, dict(groups=((1, 1, 1), (1, 2, 3))), 3, range(5)),
    thinned_levels=(LEVELS, dict(mask_ratio_min=0.2, least=2), 3, range(5)),
)


def make(name):
    grid, options, steps, given = ORDERINGS[name]
    known = np.isin(np.arange(grid.size), given)
    return (
        parts.build(ORDERS, dict(options, name=name), "order", grid=grid, sizes=grid.level_sizes),
        steps,
        known,
    )


def check(order, n):
    """A permutation in steps that don't decrease; where only some exist, these first, each once."""
    slots, steps = np.asarray(order.slots), np.asarray(order.steps)
    if order.exists is not None and slots.ndim == 2:  # of each example its own
        for one in zip(slots, steps, np.asarray(order.exists), strict=True):
            check(Order(*one[:2], exists=one[2]), n)
        return
    if order.exists is not None:
        count = int(np.sum(order.exists))
        assert order.exists[:count].all() and len(set(slots[:count])) == count
        assert (
            np.all(np.diff(steps) >= 0)
            and steps[0] == 0
            and steps[:count].max() < steps[count:].min(initial=n)
        )
        return
    assert slots.dtype.kind == steps.dtype.kind == "i" and slots.shape[-1] == steps.shape[-1] == n
    np.testing.assert_array_equal(np.sort(slots, axis=-1), np.broadcast_to(np.arange(n), slots.shape))
    assert steps.min() >= 0 and np.all(np.diff(steps, axis=-1) >= 0)


def test_no_order_is_left_out():
    assert ORDERINGS.keys() == ORDERS.keys()


@pytest.mark.parametrize("name", ORDERINGS)
def test_training(name):
    ordering, _, _ = make(name)
    n = ordering.grid.size
    content = np.zeros((BATCH, n))
    for progress in (None, 0.0, 0.6, 1.0):
        order = ordering.training(jax.random.key(1), content, progress)
        check(order, n)
        assert order.given == 0
        known = np.sum(np.asarray(order.steps) == 0, axis=-1)
        assert np.all(known <= ordering.most_known)
    # Where it is random, passes differ, and examples but for passes of some slots; else the key doesn't matter.
    orders = [ordering.training(jax.random.key(k), content, 0.0) for k in range(5)]
    slots = [np.asarray(order.slots) for order in orders]
    assert all(np.array_equal(slots[0], other) for other in slots) != ordering.random
    if orders[0].exists is None:
        assert (slots[0].ndim == 2 and len(np.unique(slots[0], axis=0)) > 1) == ordering.random


@pytest.mark.parametrize("name", ORDERINGS)
def test_decoding(name):
    ordering, steps, known = make(name)
    n, key = ordering.grid.size, jax.random.key(0)
    order = ordering.decoding(key, BATCH)
    check(order, n)
    assert isinstance(order.steps, np.ndarray) and order.steps.shape == (n,) and order.given == 0
    assert len(order.sizes) == steps and order.sizes.min() > 0 and order.sizes.sum() == n
    np.testing.assert_array_equal(order.starts, np.cumsum(order.sizes) - order.sizes)
    own = ordering.random_decoding and ordering.proposes == "step"  # else examples part as they are revised
    assert (np.ndim(order.slots) == 2) == own

    prompted = ordering.decoding(key, BATCH, given=known)
    check(prompted, n)
    assert prompted.given == known.sum() and prompted.given in [*prompted.starts, n]
    slots = np.broadcast_to(np.asarray(prompted.slots), (BATCH, n))
    assert known[slots[:, : prompted.given]].all() and not known[slots[:, prompted.given :]].any()
    # Nothing given is no prompt, and all given leaves nothing to do.
    np.testing.assert_array_equal(ordering.decoding(key, BATCH, given=np.zeros(n, bool)).steps, order.steps)
    assert ordering.decoding(key, BATCH, given=np.ones(n, bool)).given == n


@pytest.mark.parametrize("name", ORDERINGS)
def test_under_jit(name):
    """Slots may be traced; steps of decoding never are."""
    ordering, _, _ = make(name)
    content, sizes = np.zeros((BATCH, ordering.grid.size)), []

    def both(key):
        order = ordering.decoding(key, BATCH)
        sizes.append(order.sizes)
        return ordering.training(key, content, 0.6), order

    np.testing.assert_array_equal(both(jax.random.key(3))[1].slots, jax.jit(both)(jax.random.key(3))[1].slots)
    np.testing.assert_array_equal(*sizes)
    with pytest.raises(ValueError, match="^sampling.steps: "):
        ordering.decoding(jax.random.key(0), BATCH, ordering.grid.size + 1)
