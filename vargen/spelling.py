"""Names of classes and folders, however they are written: `é` is one character or two, 1 is 1.0 is １; and counts."""

from __future__ import annotations

import collections
import decimal
import unicodedata
from collections.abc import Callable, Hashable, Sequence

_SIGNS = str.maketrans("．＋－−", ".+--")


def composed(name: str) -> str:
    """A name in Unicode's form C, in which names are compared: disks of a Mac give form D."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A name as disks compare it that tell neither large letters from small ones nor the forms of Unicode."""
    return composed(composed(name).casefold())


def number(name: str) -> decimal.Decimal | None:
    """The finite number that a name is (`7`, `-1.5`, `1e3`, `１`, `②`); None where it is a word."""
    text = name.strip()
    if len(text) == 1 and unicodedata.category(text)[0] == "N":
        return decimal.Decimal(unicodedata.numeric(text))
    try:
        found = decimal.Decimal(text.translate(_SIGNS))
    except decimal.InvalidOperation:
        return None
    return found if found.is_finite() else None


def places(names: Sequence[str], among: Sequence[str]) -> list[int]:
    """For each name the place among others of the same one, -1 where there is none.

    The same is one that is written alike; of the rest one that alone is alike in form C.
    """
    exact, known = {name: i for i, name in reversed(list(enumerate(among)))}, set(names)
    rest = collections.Counter(composed(name) for name in known - exact.keys())
    alike = grouped(among, lambda name: None if name in known else composed(name))

    def place(name: str) -> int:
        found = alike.get(composed(name), ())
        return found[0] if len(found) == rest[composed(name)] == 1 else -1

    return [exact[name] if name in exact else place(name) for name in names]


def grouped(names: Sequence[str], key: Callable[[str], Hashable]) -> dict[Hashable, list[int]]:
    """The places of names by a key; those whose key is None are left out."""
    found: dict[Hashable, list[int]] = collections.defaultdict(list)
    for i, name in enumerate(names):
        if (k := key(name)) is not None:
            found[k].append(i)
    return dict(found)


def listed(names: Sequence[str], most: int) -> str:
    """Names in a message, the first `most` of them; in quotes where commas or blanks would mislead."""
    shown = [repr(name) if "," in name or name != name.strip() or not name else name for name in names[:most]]
    return ", ".join(shown) + ", ..." * (len(names) > most)


def counted(count: int, noun: str) -> str:
    """A number and what is counted, in the singular or the plural: 1 class, 2 classes, 0 pictures."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"
