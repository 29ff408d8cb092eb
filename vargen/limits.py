"""What a field may hold, said beside the field: `heads: Annotated[int, AtLeast(1)]`.

Constructors of parts and the groups of a config declare their fields so; `check` holds values against them. A number is
finite unless it may be infinite, a whole number is no bool.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Union

from vargen.errors import UserError

INT = 2**31 - 1  # whole numbers become int32 somewhere
FLOAT = 1e30  # numbers become float32


@dataclasses.dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both included unless said."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low itself is not allowed
    below: bool = False  # high itself is not allowed

    def holds(self, value: Any) -> bool:
        """Whether a number lies there."""
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low, high = (str(x) if isinstance(x, int) else f"{x:g}" for x in (self.low, self.high))
        if self.high == math.inf:
            return f"above {low}" if self.above else f"of at least {low}"
        if self.above or self.below:
            return f"{'above' if self.above else 'from'} {low} {'and below' if self.below else 'to'} {high}"
        return f"from {low} to {high}"


def AtLeast(low: float) -> Between:
    """A number of at least `low`."""
    return Between(low)


def Above(low: float) -> Between:
    """A number above `low`."""
    return Between(low, above=True)


RATE = Between(0, 1, below=True)  # dropout and the like: not all
SHARE = Between(0, 1)


class OneOf:
    """One of several words."""

    def __init__(self, *words: str):
        self.words = words

    def holds(self, value: Any) -> bool:
        """Whether it is one of them."""
        return value in self.words

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.words))}"


@dataclasses.dataclass(frozen=True)
class Text:
    """Any text, which means something only where it is used: `Text("a file's path")`."""

    meaning: str

    def holds(self, value: Any) -> bool:
        """Whether it is text."""
        return isinstance(value, str)

    def __str__(self) -> str:
        return self.meaning


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """What a field is where a trained model is trained on: `start: Annotated[float, SHARE, FineTuned(0.0)]`."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a constructor.

    Attributes:
      name: of the parameter.
      kind: its type without `Annotated`: int, float, bool, str, tuple[...], a union, Any.
      limit: what limits it, or None.
      default: or `inspect.Parameter.empty`.
      fine_tuned: what it is in fine-tuning; None where it stays.
    """

    name: str
    kind: Any
    limit: Any
    default: Any
    fine_tuned: FineTuned | None = None


@functools.cache
def fields(constructor: Callable) -> dict[str, Field]:
    """The fields of a class or function by name, as its signature and annotations declare them."""
    if isinstance(constructor, type):
        annotations: dict[str, Any] = {}
        for base in reversed(constructor.__mro__):
            scope = vars(sys.modules.get(base.__module__, types))
            for name, text in base.__dict__.get("__annotations__", {}).items():
                annotations[name] = (text, scope)
    else:
        scope = getattr(constructor, "__globals__", {})
        annotations = {k: (v, scope) for k, v in getattr(constructor, "__annotations__", {}).items()}
    found = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        text, scope = annotations.get(name, (Any, {}))
        annotation = _resolved(text, scope)
        said = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is Annotated else ()
        fine_tuned = next((x for x in said if isinstance(x, FineTuned)), None)
        found[name] = Field(name, *_split(annotation), parameter.default, fine_tuned)
    return found


def _resolved(text: Any, scope: Mapping[str, Any]) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return eval(
            text, dict(scope)
        )  # our own annotations, kept as text by `from __future__ import annotations`
    except NameError:  # a name for type checkers alone
        return Any


def _split(annotation: Any) -> tuple[Any, Any]:
    if typing.get_origin(annotation) is Annotated:
        kind, *limits = typing.get_args(annotation)
        return kind, next((x for x in limits if hasattr(x, "holds")), None)
    return annotation, None


def check(known: Mapping[str, Field], values: Mapping[str, Any], where: str) -> None:
    """Checks values against the fields of a constructor.

    Args:
      known: of `fields`.
      values: by name; names that are not known are refused.
      where: "model." or "mixer.", what stands before the field's name in messages.

    Raises:
      UserError: an unknown name, or a value of another type, choice or range; the nearest right word is named.
    """
    for name, value in values.items():
        if name not in known:
            raise UserError(f"config field {where}{name}: unknown{suggestion(name, known)}")
        if problem := problem_with(value, known[name].kind, known[name].limit):
            raise UserError(f"config field {where}{name}: {problem}")


def problem_with(value: Any, kind: Any, limit: Any = None) -> str:
    """'' or "expected a whole number of at least 1, found 0"."""
    if _fits(value, kind, limit):
        return ""
    near = suggestion(value, limit.words) if isinstance(limit, OneOf) and isinstance(value, str) else ""
    return f"expected {_words(kind, limit)}, found {value!r:.200}{near}"


def words(field: Field) -> str:
    """What a field may hold: "a whole number of at least 1", "one of none, places"."""
    return _words(field.kind, field.limit)


def nearest(name: str, known: Iterable[Any], alike: float = 0.6) -> list[str]:
    """The word that somebody meant, or none: nothing is better than a word that shares some letters."""
    alike = 0.5 if len(name) == 2 else alike  # of two letters one is half
    return difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=alike)


def suggestion(name: str, known: Any) -> str:
    """'; did you mean X?' or '; expected among ...'."""
    close = nearest(str(name), known)
    if close:
        return f"; did you mean {close[0]}?"
    return "" if isinstance(known, tuple) else f", expected among {', '.join(sorted(known)) or 'none'}"


def check_heads(heads: int, width: int, field: str = "mixer.heads") -> None:
    """Raises UserError for heads, which a config has at a field, that don't share the width evenly."""
    if width % heads:
        raise UserError(f"config field {field}: expected a divisor of the width {width}, found {heads}")


def divisors(size: int, near: int, least: int = 1) -> str:
    """What to propose in place of a number that doesn't divide a size: "2, 3 or 5", up to three of the nearest."""
    fitting = [d for d in range(least, size + 1) if size % d == 0] or [1]
    *first, last = map(str, sorted(sorted(fitting, key=lambda d: abs(d - near))[:3]))
    return f"{', '.join(first)} or {last}" if first else last


def _fits(value: Any, kind: Any, limit: Any) -> bool:
    origin = typing.get_origin(kind)
    if kind is Any:
        return limit is None or limit.holds(value)
    if origin in (Union, types.UnionType):
        return any(_fits(value, k, None if k in (type(None), bool) else limit) for k in typing.get_args(kind))
    if origin is Annotated:
        return _fits(value, *_split(kind))
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        bounded = isinstance(limit, Between) and limit.high != math.inf
        return whole and (bounded or abs(value) <= INT) and (limit is None or limit.holds(value))
    if kind is float:
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        return number and abs(value) <= FLOAT and (limit is None or limit.holds(value))  # nan is neither
    if kind is str:
        return isinstance(value, str) and (limit is None or limit.holds(value))
    if kind is tuple or origin is tuple:
        return isinstance(value, (tuple, list)) and all(_fits(v, k, limit) for v, k in _members(value, kind))
    if origin is not None:  # Mapping[str, Any] and the like, which a ConfigDict is but for the name
        return isinstance(value, origin) or (origin is Mapping and hasattr(value, "items"))
    return not isinstance(kind, type) or isinstance(value, kind)


def _members(values: Any, kind: Any) -> Iterator[tuple[Any, Any]]:
    inner = typing.get_args(kind) or (Any, ...)
    if len(inner) == 2 and inner[1] is ...:
        yield from ((value, inner[0]) for value in values)
    elif len(inner) == len(values):
        yield from zip(values, inner, strict=True)
    else:
        yield None, type  # nothing fits: another length


def _words(kind: Any, limit: Any) -> str:
    origin = typing.get_origin(kind)
    suffix = f" {limit}" if isinstance(limit, Between) else ""
    if limit is not None and not isinstance(limit, Between):
        return str(limit)
    if origin in (Union, types.UnionType):
        return " or ".join(
            _words(k, None if k in (type(None), bool) else limit) for k in typing.get_args(kind)
        )
    if origin is Annotated:
        return _words(*_split(kind))
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    if kind in plain:
        return plain[kind] + suffix
    if kind is tuple or origin is tuple:
        inner = [k for k in typing.get_args(kind) if k is not ...]
        if len(inner) > 1:
            return f"({', '.join(_words(k, limit) for k in inner)})"
        return f"a tuple, each {_words(inner[0], limit)}" if inner else "a tuple"
    return f"a {getattr(origin or kind, '__name__', kind)}".lower()


SIZE = Between(1, 2**20)  # of widths, channels, sides
COUNT = Between(1, 4096)  # of layers, heads, blocks
EPS = Between(0, 1, above=True)
STD = Between(-1, 100)  # deviations of initialisers; negative ones mean a rule
