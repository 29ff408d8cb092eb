"""Classes by name and by number."""

import unicodedata

import pytest

from vargen import classes
from vargen.errors import UserError

ANIMALS = ["cat", "dog", "golden, retriever", "cow"]
FOLDERS = ["1", "2", "3", "10", "11", "12"]
PLAIN = [str(i) for i in range(10)]
MIXED = ["-1", "-2", "1.5", "2.5"]
CAFE, CAFE_OF_A_MAC = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "names, text, expected",
    [
        (ANIMALS, "", [0, 1, 2, 3]),
        (ANIMALS, "all", [0, 1, 2, 3]),
        (ANIMALS, "1", [1]),
        (ANIMALS, "0,dog", [0, 1]),
        (ANIMALS, "1-3", [1, 2, 3]),
        (ANIMALS, "golden, retriever", [2]),
        (ANIMALS, "cow,golden, retriever,cat", [3, 2, 0]),
        (PLAIN, "0,3-5", [0, 3, 4, 5]),
        # Classes that have numbers for names are meant by them.
        (FOLDERS, "1", [0]),
        (FOLDERS, "1-3", [0, 1, 2]),
        (FOLDERS, "10-12", [3, 4, 5]),
        (FOLDERS, "2-11", [1, 2, 3, 4]),
        (["001", "002", "010"], "1-10", [0, 1, 2]),
        (["001", "002", "010"], "010,2", [2, 1]),
        (["cat", "7", "dog"], "7", [1]),
        (["1-3", "1", "3"], "1-3", [0]),  # a name, as it is written
        (["all", "some"], "all", [0]),
        (["1.0", "2.0", "3.0"], "1", [0]),
        (["1.0", "2.0", "3.0"], "1-2.00", [0, 1]),
        (["１", "２"], "1", [0]),
        (["１", "２"], "１-2", [0, 1]),
        (["①", "②"], "1,②", [0, 1]),
        (["٣", "٤"], "3", [0]),
        (["1e3", "2e3"], "1000", [0]),
        (["1", "1.0"], "1.0", [1]),
        (["1", "1.0", "2"], "1-2", [0, 1, 2]),
        (MIXED, "-2--1", [1, 0]),
        (MIXED, "-1-1.5,2.5", [0, 2, 3]),
        (["nan", "inf"], "1", [1]),  # words
        ([CAFE_OF_A_MAC, "tea"], CAFE, [0]),
        ([CAFE, "tea"], CAFE_OF_A_MAC, [0]),
        ([CAFE_OF_A_MAC, CAFE], f"{CAFE},{CAFE_OF_A_MAC}", [1, 0]),
        # Blanks around names.
        (ANIMALS, "cow, cat", [3, 0]),
        (ANIMALS, " cow , golden, retriever ", [3, 2]),
        (PLAIN, " 5", [5]),
        (PLAIN, "1 - 2, 4", [1, 2, 4]),
        ([" 2", "1", "2"], "1, 2,2", [1, 0, 2]),  # names, as they are written
        (ANIMALS, " all ", [0, 1, 2, 3]),
    ],
)
def test_lists(names, text, expected):
    assert classes.parse(text, names) == expected


@pytest.mark.parametrize(
    "names, text, words",
    [
        (
            ANIMALS,
            "4",
            "class '4': expected a number from 0 to 3 or one of cat, dog, 'golden, retriever', cow",
        ),
        (ANIMALS, "1-4", "'4'"),
        (ANIMALS, "3-1", "'3-1'"),
        (ANIMALS, "bird", "'bird'"),
        (ANIMALS, "cow, bird", "class 'bird'"),
        (PLAIN, "1, 2 3", "class '2 3'"),
        (ANIMALS, "golden", "'golden'"),
        (ANIMALS, "-1", "'-1'"),
        (ANIMALS, "1,,2", "''"),
        (ANIMALS, "１", "'１'"),  # no ASCII digit
        (FOLDERS, "5", "class '5': expected one of 1, 2, 3, 10, 11, 12"),
        (FOLDERS, "0", "'0'"),
        (FOLDERS, "1-5", "'5'"),
        (["cat", "7", "dog"], "0", "expected one of cat, 7, dog"),
        (["01", "1", "001"], "0001", "expected one of"),  # which of them?
        (PLAIN, "10", "class '10': expected a number from 0 to 9"),
        (PLAIN, "9" * 5000, "expected a number from 0 to 9"),
        (["1.0", "2.0", "3.0"], "0", "class '0': expected one of 1.0, 2.0, 3.0"),
        (["1.0", "2.0", "3.0"], "0-1", "class '0'"),
        (MIXED, "1-2", "class '1': expected one of -1, -2, 1.5, 2.5"),
        (MIXED, "0", "class '0'"),
        (["１", "２"], "0", "class '0'"),
        (["1.0", "01"], "1", "class '1': expected one of 1.0, 01"),  # which of them?
        (["9007199254740992", "x"], "9007199254740993", "expected one of"),  # equal as floats
        ([" a", "b"], "c", "one of ' a', b"),
    ],
)
def test_what_there_is_not(names, text, words):
    with pytest.raises(UserError) as caught:
        classes.parse(text, names)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_stored_names(tmp_path):
    assert classes.of(tmp_path, 2) == ["0", "1"]
    (tmp_path / classes.FILE).write_text('["a", "b"]')
    assert classes.of(tmp_path, 2) == ["a", "b"]
    with pytest.raises(UserError, match="expected names of 3 classes, found 2"):
        classes.of(tmp_path, 3)


def test_data_of_the_same_classes():
    classes.check([CAFE, "tea"], [CAFE_OF_A_MAC, "tea"], "model")
    with pytest.raises(UserError, match="of which 1 is 'tea', found 'tee'"):
        classes.check([CAFE, "tea"], [CAFE_OF_A_MAC, "tee"], "model")
    with pytest.raises(UserError, match=r"its 1 classes, found 5 \('a,b', c, d, e, \.\.\.\)"):
        classes.check(["a"], ["a,b", "c", "d", "e", "f"], "model")
