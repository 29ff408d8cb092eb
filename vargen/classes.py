"""Classes by name: what training stored of them, and what a user asks for.

Where some class is called by a number, numbers are names: of classes 1, 2 and 10, `10` is the last, and of classes 1.0
and 2.0 `1` is the first. Where none is, a number is a class's place, from 0.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence

from vargen import spelling
from vargen.errors import UserError

FILE = "classes.json"
SHOWN = 12  # names in a message


def stored(directory: str | os.PathLike) -> list[str] | None:
    """The names of classes that training stored in a workdir, here or on the hub; None where there are none.

    Raises:
      UserError: the file is broken.
    """
    from vargen import hub, paths

    file = hub.directory(directory, "--workdir") / FILE
    if not paths.is_file(file):
        return None
    try:
        names = json.loads(file.read_text())
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
        found = "something else"
    except ValueError as error:
        found = f"a broken file ({error})"
    raise UserError(f"{file}: expected a list of names of classes, found {found}")


def of(directory: str | os.PathLike, count: int) -> list[str]:
    """Names of a model's `count` classes: those stored in its directory, else their numbers.

    Raises:
      UserError: the stored names are not a list of as many names.
    """
    names = stored(directory)
    if names is None:
        return [str(i) for i in range(count)]
    if len(names) != count:
        raise UserError(f"{directory}/{FILE}: expected names of {count} classes, found {len(names)}")
    return names


def check(ours: Sequence[str], theirs: Sequence[str], where: str) -> None:
    """Checks that data has the classes of a model.

    Args:
      ours: names of the model's classes.
      theirs: of the data's.
      where: what the model is called in the message.

    Raises:
      UserError: they differ, in more than the form of Unicode: how many, or the first that does.
    """
    if len(ours) != len(theirs):
        raise UserError(
            f"{where}: expected data of its {len(ours)} classes, found {len(theirs)}"
            f" ({spelling.listed(theirs, 4)})"
        )
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if spelling.composed(a) != spelling.composed(b):
            raise UserError(f"{where}: expected data of its classes, of which {i} is {a!r}, found {b!r}")


def place(word: str, names: Sequence[str]) -> int:
    """The place of the class that a name, or a number, stands for.

    Raises:
      UserError: there is no such class, or more than one.
    """
    return _known(tuple(names)).place(word)


def parse(text: str, names: Sequence[str]) -> list[int]:
    """Places of the classes that a list names: `0,3-5,cat` is [0, 3, 4, 5, that of cat]; "" or "all" is every class.

    A name may have commas in it: the longest that there is, is meant. Blanks around one count where a class has them.
    `a-b` are all numbers between two classes that there are.

    Raises:
      UserError: no such class, or more than one.
    """
    if text.strip() in ("", "all") and text not in names:
        return list(range(len(names)))
    known = _known(tuple(names))
    longest = 1 + max((name.count(",") for name in names), default=0)
    chosen: list[int] = []
    words = text.split(",")
    while words:
        for count in range(min(longest, len(words)), 0, -1):
            found = known.find(",".join(words[:count]))
            if found is not None:
                break
        chosen += [found] if found is not None else known.span(words[0])
        words = words[count:]
    return chosen


@functools.lru_cache(maxsize=8)  # many labels ask for the same names
def _known(names: tuple[str, ...]) -> _Names:
    return _Names(names)


class _Names:
    """Names of classes, to be looked up."""

    def __init__(self, names: tuple[str, ...]):
        self.names = names
        self.written = spelling.grouped(names, str)
        self.composed = spelling.grouped(names, spelling.composed)
        self.numbers = spelling.grouped(names, spelling.number)

    def find(self, word: str) -> int | None:
        """The place of a name as it is written; else of the only one that is alike, or the same number (001 for 1)."""
        if word in self.written:
            return self.written[word][0]
        bare = word.strip()
        for table, key in (
            (self.written, bare),
            (self.composed, spelling.composed(word)),
            (self.composed, spelling.composed(bare)),
            (self.numbers, spelling.number(bare)),
        ):
            if len(alike := table.get(key, ())) == 1:
                return alike[0]
        return None

    def place(self, word: str) -> int:
        """The place of a name, or the place itself where no name is a number."""
        bare = word.strip()
        found = self.find(word)
        if found is None and not self.numbers and _is_place(bare) and int(bare) < len(self.names):
            found = int(bare)
        if found is None:
            raise UserError(f"class {bare!r}: expected {self}")
        return found

    def span(self, word: str) -> list[int]:
        """The places from one to another, `3-5`; of names that are numbers those between, in their order."""
        for i in (i for i, letter in enumerate(word) if letter == "-"):
            low, high = word[:i].strip(), word[i + 1 :].strip()
            first, last = spelling.number(low), spelling.number(high)
            if first is None or last is None or first > last:
                continue
            if self.numbers:
                for end in (low, high):
                    self.place(end)  # both are classes
                return [p for n in sorted(self.numbers) if first <= n <= last for p in self.numbers[n]]
            if _is_place(low) and _is_place(high):
                return list(range(self.place(low), self.place(high) + 1))
        return [self.place(word)]

    def __str__(self) -> str:
        """What a class may be called: "a number from 0 to 9", "one of 1, 2, 10"."""
        shown, places = spelling.listed(self.names, SHOWN), f"a number from 0 to {len(self.names) - 1}"
        if list(self.names) == [str(i) for i in range(len(self.names))]:
            return places
        return f"one of {shown}" if self.numbers else f"{places} or one of {shown}"


def _is_place(text: str) -> bool:
    """Whether a text is ASCII digits, and not too many of them."""
    return text.isascii() and text.isdigit() and len(text) < 20
