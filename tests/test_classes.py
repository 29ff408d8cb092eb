"""Classes by name and by number."""

import pytest

from vargen import classes
from vargen.errors import UserError

ANIMALS = ["cat", "dog", "golden, retriever", "cow"]
FOLDERS = ["1", "2", "3", "10", "11", "12"]
PLAIN = [str(i) for i in range(10)]


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
    ],
)
def test_lists(names, text, expected):
    assert classes.parse(text, names) == expected


@pytest.mark.parametrize(
    "names, text, words",
    [
        (ANIMALS, "4", "class '4': expected a number from 0 to 3 or one of cat, dog"),
        (ANIMALS, "1-4", "'4'"),
        (ANIMALS, "3-1", "'3-1'"),
        (ANIMALS, "bird", "'bird'"),
        (ANIMALS, "cow, cat", "' cat'"),
        (PLAIN, " 5", "' 5'"),
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
