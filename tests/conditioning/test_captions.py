"""Captions as a condition, as a text encoder's states or as words: how they are read, taken away and embedded."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.conditioning import CaptionEmbedding, LabelEmbedding, WordEmbedding
from vargen.errors import UserError
from vargen.layers import Initial

TOKENS, CHANNELS, WIDTH = 3, 4, 8
EMBEDDING = np.random.default_rng(0).normal(size=(2, TOKENS, CHANNELS))
MASK = np.array([[1, 1, 0], [0, 1, 1]])  # padded on the right, and on the left


def part(**options):
    return CaptionEmbedding(width=WIDTH, initial=Initial(0.5), tokens=TOKENS, channels=CHANNELS, **options)


def test_parse_moves_padding_to_the_left():
    captions = part().parse((EMBEDDING, MASK))
    first, second = EMBEDDING.astype(np.float32)
    zero = np.zeros(CHANNELS, np.float32)
    np.testing.assert_array_equal(
        captions.embedding, [[zero, first[0], first[1]], [zero, second[1], second[2]]]
    )
    np.testing.assert_array_equal(captions.mask, [[False, True, True]] * 2)
    assert captions.embedding.dtype == np.float32 and captions.mask.dtype == bool
    assert not captions.dropped.any()
    assert part().parse(captions) is captions


@pytest.mark.parametrize(
    "captions, message",
    [
        ((EMBEDDING[0], MASK[0]), "captions: expected embeddings [B, 3, 4], found [3, 4]"),
        ((EMBEDDING[:, :2], MASK[:, :2]), "captions: expected embeddings [B, 3, 4], found [2, 2, 4]"),
        ((EMBEDDING[..., :3], MASK), "captions: expected embeddings [B, 3, 4], found [2, 3, 3]"),
        ((EMBEDDING, MASK[:1]), "captions: expected a mask [2, 3], found [1, 3]"),
        ((EMBEDDING, MASK[:, :2]), "captions: expected a mask [2, 3], found [2, 2]"),
        ([1], "captions: expected a pair of embeddings and mask, found list"),
        (7, "captions: expected a pair of embeddings and mask, found int"),
    ],
)
def test_other_captions_are_refused(captions, message):
    with pytest.raises(ValueError) as error:
        part().parse(captions)
    assert str(error.value) == message


def test_drop_takes_a_share_of_the_captions_away():
    many = part().parse((np.ones((4000, TOKENS, CHANNELS)), np.ones((4000, TOKENS))))
    dropped = part(dropout=0.25).drop(many, jax.random.key(0))
    assert abs(np.mean(dropped.dropped) - 0.25) < 0.03  # four standard deviations
    np.testing.assert_array_equal(dropped.embedding, many.embedding)
    np.testing.assert_array_equal(dropped.mask, many.mask)
    assert not np.any(part(dropout=0.0).drop(many, jax.random.key(0)).dropped)
    # What is gone stays so.
    assert np.all(part(dropout=0.0).drop(part().without(many), jax.random.key(0)).dropped)


def test_rows_of_captions_and_of_none():
    condition, captions = part(), part().parse((EMBEDDING, MASK))
    params = nn.meta.unbox(condition.init(jax.random.key(0), condition.example()))["params"]

    def expected(x):
        x = x @ params["inner"]["kernel"]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x @ params["outer"]["kernel"]

    found = condition.apply({"params": params}, captions)
    assert condition.length == TOKENS and found.vector is None
    np.testing.assert_allclose(found.prefix, expected(captions.embedding), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.padding, ~captions.mask)

    none = condition.apply({"params": params}, condition.without(captions))
    null = np.broadcast_to(expected(params["null"]), none.prefix.shape)
    np.testing.assert_allclose(none.prefix, null, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(none.padding, ~captions.mask)  # the padding stays

    def total(params):
        return jnp.sum(condition.apply({"params": params}, condition.without(captions)).prefix)

    gradient = jax.grad(total)(params)
    assert not np.any(gradient["null"]) and np.any(gradient["inner"]["kernel"])


WORDS = ("blue", "circle", "red")
RED, ONE, NONE = [4, 3, 1, 0], [3, 1, 0, 0], [5, 0, 0, 0]  # "red circle", "circle", no caption


def of_words(**options):
    return WordEmbedding(
        **dict(dict(width=WIDTH, initial=Initial(0.5), vocabulary=WORDS, tokens=4), **options)
    )


def test_parse_takes_texts_and_numbers():
    condition = of_words()
    assert condition.parse("Red circle").tolist() == [RED]
    assert condition.parse(["red circle", None, "circle"]).tolist() == [RED, NONE, ONE]
    assert condition.parse(None).tolist() == [NONE]
    parsed = condition.parse(np.array([RED, NONE], np.int64))
    assert parsed.tolist() == [RED, NONE] and parsed.dtype == np.int32
    assert jax.jit(condition.parse)(parsed).tolist() == [RED, NONE]


@pytest.mark.parametrize(
    "captions, message",
    [
        (["rde circle"], "caption 'rde circle': unknown word 'rde'; did you mean red?"),
        (["red red red red"], "caption 'red red red red': expected at most 3 words, found 4"),
        (["red", 4], "captions: expected texts, found 4 among them"),
        ([1], "captions: expected texts, or whole numbers [B, 4] from 0 to 5, found an array [1]"),
        ([[1, 2, 3]], "captions: expected texts, or whole numbers [B, 4] from 0 to 5, found an array [1, 3]"),
        ([[1.5] * 4], "captions: expected texts, or whole numbers [B, 4] from 0 to 5, found float64"),
        ([[2, 6, 1, 0]], "captions: expected texts, or whole numbers [B, 4] from 0 to 5, found 6"),
        ([RED, [0] * 4], "captions: expected a word or an end in each, found none in 1"),
        ([], "captions: expected texts, or whole numbers [B, 4] from 0 to 5, found float64"),
    ],
)
def test_other_words_are_refused(captions, message):
    with pytest.raises(UserError) as error:
        of_words().parse(captions)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(vocabulary=()), "vocabulary: expected words, found none"),
        (dict(vocabulary=("red", "red")), "each once, found 'red' twice"),
        (dict(tokens=1), "length of a text: expected a whole number from 2 to 65536, found 1"),
    ],
)
def test_vocabularies_are_checked_when_the_part_is_built(options, message):
    with pytest.raises(UserError, match=message):
        of_words(**options)


def test_drop_takes_a_share_of_the_words_away():
    many = jnp.asarray(of_words().parse(["red circle"] * 4000))
    dropped = np.asarray(of_words(dropout=0.25).drop(many, jax.random.key(0)))
    gone = (dropped == NONE).all(axis=1)
    assert abs(gone.mean() - 0.25) < 0.03  # four standard deviations
    assert (dropped[~gone] == RED).all()
    assert np.asarray(of_words().without(many[:3])).tolist() == [NONE] * 3


def test_rows_of_words():
    condition = of_words()
    captions = jnp.asarray(condition.parse(["red circle", "circle", None, "blue red blue"]))
    params = nn.meta.unbox(condition.init(jax.random.key(0), condition.example()))["params"]
    table, places = params["words"]["table"], params["places"]
    assert condition.length == 4 and table.shape == (6, WIDTH) and places.shape == (4, WIDTH)
    found = jax.jit(lambda p, c: condition.apply({"params": p}, c))(params, captions)
    assert found.vector is None
    for row, hidden, caption in zip(found.prefix, found.padding, np.asarray(captions), strict=True):
        visible = caption[caption != 0]  # at the right, in their order, each with its place from the left
        assert hidden.tolist() == [True] * (4 - len(visible)) + [False] * len(visible)
        np.testing.assert_allclose(row[~hidden], table[visible] + places[: len(visible)], rtol=1e-6)


def test_labels_that_are_never_taken_away():
    """No row for none; guidance and a missing label are refused."""
    part = LabelEmbedding(4, 8, Initial(), dropout=None)
    table = part.init(jax.random.key(0), part.example())["params"]["classes"]["table"]
    assert nn.meta.unbox(table).shape == (4, 8)
    np.testing.assert_array_equal(part.drop(jnp.arange(4), jax.random.key(0)), np.arange(4))
    with pytest.raises(ValueError, match="sampling.guidance: expected none, as the model has learnt"):
        part.without(jnp.arange(4))
    with pytest.raises(UserError, match="class: expected 0 to 3, found none"):
        part.parse([1, None])
    assert part.parse([1, 3]).tolist() == [1, 3]
