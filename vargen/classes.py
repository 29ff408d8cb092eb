"""Classes by name: what training stored of them, and what a user asks for.

Where some class is called by a number, numbers are names: of classes 1, 2 and 10, `10` is the last. Where none is, a
number is a class's place, from 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

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
      UserError: they differ: how many, or the first that does.
    """
    if len(ours) != len(theirs):
        raise UserError(
            f"{where}: expected data of its {len(ours)} classes, found {len(theirs)}"
            f" ({', '.join(theirs[:4])}{', ...' if len(theirs) > 4 else ''})"
        )
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a != b:
            raise UserError(f"{where}: expected data of its classes, of which {i} is {a!r}, found {b!r}")


def place(word: str, names: Sequence[str]) -> int:
    """The place of the class that a name, or a number, stands for.

    Raises:
      UserError: there is no such class.
    """
    found = _named(word, names)
    if found is None and _is_number(word) and not any(map(_is_number, names)) and int(word) < len(names):
        found = int(word)
    if found is None:
        raise UserError(f"class {word!r}: expected {_known(names)}")
    return found


def parse(text: str, names: Sequence[str]) -> list[int]:
    """Places of the classes that a list names: `0,3-5,cat` is [0, 3, 4, 5, that of cat]; "" or "all" is every class.

    A name may have commas in it: the longest that there is, is meant. `a-b` are all numbers between two classes that
    there are.

    Raises:
      UserError: no such class.
    """
    if text in ("", "all") and text not in names:
        return list(range(len(names)))
    chosen: list[int] = []
    words = text.split(",")
    while words:
        for count in range(len(words), 0, -1):
            found = _named(",".join(words[:count]), names)
            if found is not None:
                break
        chosen += [found] if found is not None else _numbers(words[0], names)
        words = words[count:]
    return chosen


def _numbers(word: str, names: Sequence[str]) -> list[int]:
    low, dash, high = word.partition("-")
    if not (dash and _is_number(low) and _is_number(high) and int(low) <= int(high)):
        return [place(word, names)]
    first, last = place(low, names), place(high, names)
    if not any(map(_is_number, names)):
        return list(range(first, last + 1))
    numbers = {int(name): i for i, name in enumerate(names) if _is_number(name)}
    return [numbers[n] for n in sorted(numbers) if int(low) <= n <= int(high)]


def _named(word: str, names: Sequence[str]) -> int | None:
    """The place of a name as it is written, or of the same number (001 for 1)."""
    if word in names:
        return list(names).index(word)
    if _is_number(word):
        alike = [i for i, name in enumerate(names) if _is_number(name) and int(name) == int(word)]
        if len(alike) == 1:
            return alike[0]
    return None


def _is_number(text: str) -> bool:
    """Whether a text is ASCII digits, and not too many of them."""
    return text.isascii() and text.isdigit() and len(text) < 20


def _known(names: Sequence[str]) -> str:
    """What a class may be called: "a number from 0 to 9", "one of 1, 2, 10"."""
    shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    if list(names) == [str(i) for i in range(len(names))]:
        return f"a number from 0 to {len(names) - 1}"
    if any(map(_is_number, names)):
        return f"one of {shown}"
    return f"a number from 0 to {len(names) - 1} or one of {shown}"
