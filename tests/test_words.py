"""Words as numbers and back."""

import numpy as np
import pytest

from vargen.errors import UserError
from vargen.words import END, PAD, Words, join, split

TEXTS = ["A red circle, and a cross.", "a cross", ""]
WORDS = Words.of(TEXTS)


def test_words_of_texts():
    assert WORDS.vocabulary == (",", ".", "a", "and", "circle", "cross", "red")
    assert WORDS.length == 9 and WORDS.size == 9
    np.testing.assert_array_equal(
        WORDS.encode(TEXTS),
        [[4, 8, 6, 2, 5, 4, 7, 3, END], [4, 7, END, *[PAD] * 6], [END, *[PAD] * 8]],
    )
    assert WORDS.encode(TEXTS).dtype == np.int32
    assert WORDS.decode(WORDS.encode(TEXTS)) == ["a red circle, and a cross.", "a cross", ""]
    assert Words.of(TEXTS, 20).encode(["a"]).tolist() == [[4, END, *[PAD] * 18]]


def test_decode_stops_at_the_end_or_at_padding():
    numbers = [[4, 7, END, 4, 8], [4, PAD, 7, 7, 7], [4, 7, 4, 7, 4]]
    assert WORDS.decode(numbers) == ["a cross", "a", "a cross a cross a"]


def test_join_gives_what_split_takes():
    for text in ("a, b and c.", "one", ""):
        assert join(split(text)) == text


@pytest.mark.parametrize(
    "texts, message",
    [
        (["a rde circle"], "caption 'a rde circle': unknown word 'rde'; did you mean red?"),
        (
            ["a xyzzy"],
            "caption 'a xyzzy': unknown word 'xyzzy', expected among ,, ., a, and, circle, cross, red",
        ),
        (["a a a a a a a a a"], "caption 'a a a a a a a a a': expected at most 8 words, found 9"),
        (["a", 3], "captions: expected texts, found 3 among them"),
    ],
)
def test_texts_that_do_not_fit(texts, message):
    with pytest.raises(UserError) as error:
        WORDS.encode(texts)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "numbers, found",
    [
        ([[9]], "found 9"),
        ([[-1]], "found -1"),
        ([[0.5]], "found float64 of shape [1, 1]"),
        ([2], "shape [1]"),
    ],
)
def test_numbers_that_are_no_words(numbers, found):
    with pytest.raises(UserError, match="words: expected whole numbers") as error:
        WORDS.decode(numbers)
    assert str(error.value).endswith(found)


@pytest.mark.parametrize(
    "vocabulary, length, message",
    [
        ((), 4, "conditioning.vocabulary: expected words, found none"),
        (
            ("a", "b", "a"),
            4,
            "conditioning.vocabulary: expected words in small letters, each once, found 'a' twice",
        ),
        (("a b",), 4, "conditioning.vocabulary: expected words in small letters, each once, found 'a b'"),
        (("Red",), 4, "conditioning.vocabulary: expected words in small letters, each once, found 'Red'"),
        ((3,), 4, "conditioning.vocabulary: expected words in small letters, each once, found 3"),
        (("a",), 1, "length of a text: expected a whole number from 2 to 65536, found 1"),
    ],
)
def test_vocabularies_that_will_not_do(vocabulary, length, message):
    with pytest.raises(UserError) as error:
        Words(vocabulary, length)
    assert str(error.value) == message
