"""What every conditioning must show: one that is registered without a row in `CONDITIONS` fails here."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vargen import parts
from vargen.conditioning import CONDITIONINGS
from vargen.errors import UserError
from vargen.layers import Initial

UNKNOWN = "caption 'c': unknown word 'c', expected among a, b"
# Name -> (options, many labels as a user gives them, something that is none, what is said of it).
CONDITIONS = dict(
    label=({}, np.arange(4000) % 5, [7], "class: expected 0 to 4, found 7"),
    caption=(
        dict(tokens=3, channels=4),
        (np.ones((4000, 3, 4)), np.ones((4000, 3))),
        7,
        "captions: expected a pair of embeddings and mask, found int",
    ),
    prompt=(
        dict(numbers=9, tokens=3, pad=1, begin=8, empty=(0, 7)),
        np.array([[0, 5, 7], [1, 2, 7], [0, 5, 1]] * 1333 + [[2, 1, 1]]),
        [[0, 9, 7]],
        "captions: expected whole numbers [B, up to 3] from 0 to 8, or None, found 9",
    ),
    text=(dict(vocabulary=("a", "b"), tokens=3), ["a b", "b"] * 2000, ["c"], UNKNOWN),
    word_memory=(dict(vocabulary=("a", "b"), tokens=3), ["a b", "b"] * 2000, ["c"], UNKNOWN),
    words=(dict(vocabulary=("a", "b"), tokens=3), ["a b", "b"] * 2000, ["c"], UNKNOWN),
)


def make(name, **changes):
    options, many, *_ = CONDITIONS[name]
    common = dict(num_classes=5, width=8, initial=Initial(0.5), dtype=jnp.float32)
    part = parts.build(CONDITIONINGS, {**options, **changes, "name": name}, "conditioning", **common)
    params = nn.meta.unbox(part.init(jax.random.key(0), part.example())["params"])
    params = jax.tree.map(lambda x: x + 0.1, params)
    # Labels may be slots of the sequence instead.
    say = part.content if part.segment else lambda labels: part.apply({"params": params}, labels)
    embed = jax.jit(say)
    return part, embed, jax.tree.map(jnp.asarray, part.parse(many))


def same(a, b):
    """bool [B]: in which examples two conditions are the same."""
    rows = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return np.all([np.all((x == y).reshape(len(x), -1), axis=1) for x, y in rows], axis=0)


def test_no_conditioning_is_left_out():
    assert CONDITIONS.keys() == CONDITIONINGS.keys()


@pytest.mark.parametrize("name", CONDITIONS)
def test_shapes(name):
    part, embed, many = make(name)
    if part.segment:
        assert embed(many).shape == (4000, part.segment.grid.size)
        return
    condition = embed(many)
    assert condition.prefix.shape == (4000, part.length, 8)
    assert (condition.vector is not None) == part.pooled
    assert (condition.padding is not None) == part.pads
    if part.pooled:
        np.testing.assert_array_equal(condition.vector, condition.prefix[:, -1])
    if part.pads:  # never the last row, which predicts the first slot
        assert condition.padding.shape == (4000, part.length) and not condition.padding[:, -1].any()


@pytest.mark.parametrize("name", CONDITIONS)
def test_what_is_taken_away(name):
    """`drop` takes away the share that it is asked for, each example by itself; `without` all of them."""
    part, embed, many = make(name, dropout=0.25)
    with_it, without = embed(many), embed(part.without(many))
    assert not same(with_it, without).any()
    for seed in (0, 1):
        dropped = embed(jax.jit(part.drop)(many, jax.random.key(seed)))
        gone, kept = same(dropped, without), same(dropped, with_it)
        np.testing.assert_array_equal(gone, ~kept)
        assert abs(gone.mean() - 0.25) < 0.03  # four standard deviations
    again = embed(jax.jit(part.drop)(many, jax.random.key(0)))
    assert not np.array_equal(same(again, without), gone)
    none, _, _ = make(name, dropout=0.0)
    assert same(embed(none.drop(many, jax.random.key(0))), with_it).all()
    # What is gone stays so.
    assert same(embed(part.drop(part.without(many), jax.random.key(0))), without).all()


@pytest.mark.parametrize("name", CONDITIONS)
def test_labels(name):
    part, _, many = make(name)
    shapes = lambda labels: jax.tree.map(lambda x: (x.shape[1:], np.dtype(x.dtype)), labels)  # noqa: E731
    assert shapes(part.example()) == shapes(many) == shapes(part.without(many))
    *_, wrong, message = CONDITIONS[name]
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        part.parse(wrong)


def test_captions_that_are_numbers():
    """No caption is one, and texts are none; what they say is no text."""
    part = CONDITIONINGS["text"](width=8, initial=Initial(0.5), tokens=3, numbers=9)
    np.testing.assert_array_equal(part.parse(None), [[1, 0, 0]])
    np.testing.assert_array_equal(part.parse([None, None]), [[1, 0, 0]] * 2)
    assert not part.writes and make("text")[0].writes
    for wrong, found in (
        ("a", "found 'a'"),
        ([None, 3], "found 3"),
        ([[9, 1, 0]], "found 9"),
        (0.5, "found float64"),
    ):
        with pytest.raises(UserError) as error:
            part.parse(wrong)
        assert str(error.value) == f"captions: expected whole numbers [B, 3] from 0 to 8, or None, {found}"
