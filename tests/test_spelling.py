"""Names, however they are written."""

import decimal
import unicodedata

import pytest

from vargen import spelling

CAFE, CAFE_OF_A_MAC = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "text, value",
    [
        *(("7", 7), ("007", 7), ("-1.5", -1.5), ("+2", 2), ("1e3", 1000), (" 4 ", 4), (".5", 0.5)),
        *(
            ("１２", 12),
            ("１．５", 1.5),
            ("－３", -3),
            ("−3", -3),
            ("٣", 3),
            ("④", 4),
            ("²", 2),
            ("½", 0.5),
            ("Ⅳ", 4),
        ),
        *(
            (word, None)
            for word in ("", "cat", "nan", "inf", "1-2", "0x1", "1²", "4 cats", "1/2", "e3", "1e" + "9" * 30)
        ),
        ("9" * 30, int("9" * 30)),
    ],
)
def test_numbers(text, value):
    assert spelling.number(text) == (None if value is None else decimal.Decimal(value))


@pytest.mark.parametrize(
    "names, among, expected",
    [
        (["a", "b", "c"], ["c", "a"], [1, -1, 0]),
        ([CAFE, "tea"], ["tea", CAFE_OF_A_MAC], [1, 0]),
        ([CAFE, CAFE_OF_A_MAC], [CAFE_OF_A_MAC, CAFE], [1, 0]),
        ([CAFE, CAFE_OF_A_MAC], [CAFE_OF_A_MAC], [-1, 0]),  # no row for two classes
        ([CAFE], [CAFE_OF_A_MAC, CAFE], [1]),
        ([], ["a"], []),
        (["a", "a"], ["a", "a"], [0, 0]),
    ],
)
def test_places(names, among, expected):
    assert spelling.places(names, among) == expected


def test_names_in_messages():
    assert spelling.listed(["a", "golden, retriever", " b", ""], 9) == "a, 'golden, retriever', ' b', ''"
    assert spelling.listed(["a", "b", "c"], 2) == "a, b, ..."


@pytest.mark.parametrize(
    "count, noun, text",
    [(1, "class", "1 class"), (2, "class", "2 classes"), (0, "picture", "0 pictures"), (1, "run", "1 run")],
)
def test_counted(count, noun, text):
    assert spelling.counted(count, noun) == text
