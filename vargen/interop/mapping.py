"""Tables that carry arrays between the authors' names and our parameters, both ways.

A table is a list of `Entry(targets, sources, read, write)`: some of our arrays, and the authors' arrays that hold
the same numbers. The helpers below make the entries of the usual layers; `read` and `write` run a table, and
check that nothing is missing, left over or of the wrong shape. Everything is NumPy.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vargen.errors import UserError
from vargen.interop import shapes
from vargen.weights_file import empty, flatten, unflatten

SHOWN = 8  # names listed in one error before "and n more"

Arrays = Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Some of our arrays, and the authors' that hold the same numbers.

    Attributes:
      targets: paths of our parameters, "/" between the keys ("encoder/conv_in/kernel").
      sources: the authors' names.
      read: the sources' arrays -> the targets'.
      write: the targets' arrays -> the sources'.
      optional: whether the sources may be missing (a buffer that the authors compute anyway).
      rows: where not 0, how many of the source's rows are used: it may have more or fewer spare ones behind them than
        are written.
      axis: along which rows lie.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    read: Callable[..., Arrays]
    write: Callable[..., Arrays]
    optional: bool = False
    rows: int = 0
    axis: int = 1


@dataclasses.dataclass(frozen=True)
class Form:
    """How one array looks there and here.

    Attributes:
      read: theirs -> ours.
      write: ours -> theirs.
    """

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


SAME = Form(lambda w: w, lambda w: w)
CONV = Form(
    lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)
)  # [O, I, h, w], [h, w, I, O]
DENSE = Form(lambda w: w.T, lambda w: w.T)  # [O, I], [I, O]
POINTWISE = Form(lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])  # [O, I, 1, 1], [I, O]
LEADING = Form(lambda w: w[0], lambda w: w[None])  # [1, ...], [...]


def patches(side: int) -> Form:
    """A convolution [D, C, p, p] that moves by its own size, whose products here are of rows [p p C, D]."""
    return Form(
        lambda w: w.transpose(2, 3, 1, 0).reshape(-1, len(w)),
        lambda w: w.reshape(side, side, -1, w.shape[-1]).transpose(3, 2, 0, 1),
    )


def turned(heads: int) -> Form:
    """Queries or keys [H d, I], [I, H d], whose rotary pairs are a head's two halves there, neighbours here."""

    def read(w: np.ndarray) -> np.ndarray:
        return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape).T

    def write(w: np.ndarray) -> np.ndarray:
        return w.T.reshape(heads, -1, 2, w.shape[0]).swapaxes(1, 2).reshape(w.T.shape)

    return Form(read, write)


# The same of scales and biases of each head's norm, [H, d].
TURNED = Form(
    lambda w: w.reshape(len(w), 2, -1).swapaxes(1, 2).reshape(w.shape),
    lambda w: w.reshape(len(w), -1, 2).swapaxes(1, 2).reshape(w.shape),
)


def array(target: str, source: str, form: Form = SAME) -> list[Entry]:
    """One array, as it is or in another form."""
    return [Entry((target,), (source,), lambda w: (form.read(w),), lambda w: (form.write(w),))]


def conv(target: str, source: str, bias: bool = True) -> list[Entry]:
    """A convolution: source.weight [O, I, h, w], source.bias; target/kernel [h, w, I, O], target/bias."""
    return _layer(target, source, CONV, bias)


def dense(target: str, source: str, bias: bool = True) -> list[Entry]:
    """A linear layer: source.weight [O, I], source.bias; target/kernel [I, O], target/bias."""
    return _layer(target, source, DENSE, bias)


def scaled(target: str, source: str, scale: str) -> list[Entry]:
    """A linear layer whose result they scale channel by channel; the scale is written as ones."""
    return [
        Entry(
            (f"{target}/kernel", f"{target}/bias"),
            (f"{source}.weight", f"{source}.bias", scale),
            lambda w, b, s: (w.T * s, b * s),
            lambda w, b: (w.T, b, np.ones_like(b)),
        )
    ]


def pointwise(target: str, source: str, bias: bool = True) -> list[Entry]:
    """A 1x1 convolution, which is a linear layer here: source.weight [O, I, 1, 1]; target/kernel [I, O]."""
    return _layer(target, source, POINTWISE, bias)


def norm(target: str, source: str, bias: bool = True) -> list[Entry]:
    """An affine normalisation: source.weight, source.bias; target/scale, target/bias."""
    entries = array(f"{target}/scale", f"{source}.weight")
    return entries + (array(f"{target}/bias", f"{source}.bias") if bias else [])


def split(targets: Sequence[str], source: str, sizes: Sequence[int], form: Form = SAME) -> list[Entry]:
    """Ours one after the other along the source's first axis, of `sizes` each, then every one in its form."""
    bounds = np.cumsum(sizes)[:-1]

    def write(*parts: np.ndarray) -> Arrays:
        return (np.concatenate([form.write(p) for p in parts]),)

    # With `sizes`, their sum must be the axis: np.split gives the rest to the last part.
    return [
        Entry(tuple(targets), (source,), lambda w: [form.read(p) for p in np.split(w, bounds)], write),
    ]


def split_dense(targets: Sequence[str], source: str, sizes: Sequence[int], bias: bool = True) -> list[Entry]:
    """Linear layers that the authors keep as one of sum(sizes) outputs, as query, key and value often are."""
    entries = split([f"{t}/kernel" for t in targets], f"{source}.weight", sizes, DENSE)
    return entries + (split([f"{t}/bias" for t in targets], f"{source}.bias", sizes) if bias else [])


def joined(target: str, sources: Sequence[str], sizes: Sequence[int], form: Form = SAME) -> list[Entry]:
    """The sources one after the other along their first axis, of `sizes` each, then in our form."""
    bounds = np.cumsum(sizes)[:-1]
    return [
        Entry(
            (target,),
            tuple(sources),
            lambda *w: (form.read(np.concatenate(w)),),
            lambda w: np.split(form.write(w), bounds),
        )
    ]


def permuted(target: str, source: str, order: Sequence[int], form: Form = SAME) -> list[Entry]:
    """The source's first axis cut into len(order) equal parts; ours are its parts number `order`."""
    back = list(np.argsort(order))

    def reorder(w: np.ndarray, parts: Sequence[int]) -> np.ndarray:
        cut = np.split(w, len(parts))
        return np.concatenate([cut[i] for i in parts])

    moved = Form(lambda w: form.read(reorder(w, order)), lambda w: reorder(form.write(w), back))
    return array(target, source, moved)


def some_rows(target: str, source: str, start: int, size: int, total: int) -> list[Entry]:
    """A table [1, total, D] of which `size` rows from `start` are used; the others are written as zeros."""

    def write(w: np.ndarray) -> Arrays:
        return (np.pad(w, [(start, total - start - size), (0, 0)])[None],)

    return [Entry((target,), (source,), lambda w: (w[0, start : start + size],), write, rows=start + size)]


def constant(target: str, make: Callable[[], np.ndarray]) -> list[Entry]:
    """A parameter of ours that the authors keep in their program and not in their files."""
    return [Entry((target,), (), lambda: (make(),), lambda w: ())]


def buffer(source: str, make: Callable[[], np.ndarray]) -> list[Entry]:
    """An array of the authors' that says nothing new: passed over when read, made anew when written."""
    return [Entry((), (source,), lambda w: (), lambda: (make(),), optional=True)]


def inside(prefix: str, entries: Iterable[Entry]) -> list[Entry]:
    """The same entries of a part of the authors' module, whose names all begin with `prefix`."""
    return [dataclasses.replace(e, sources=tuple(prefix + s for s in e.sources)) for e in entries]


def under(prefix: str, entries: Iterable[Entry]) -> list[Entry]:
    """The same entries of a part of our parameters, whose names all begin with `prefix`."""
    return [dataclasses.replace(e, targets=tuple(prefix + t for t in e.targets)) for e in entries]


def moved(places: Mapping[str, str], entries: Iterable[Entry]) -> list[Entry]:
    """The same entries of parameters whose first key is in the table of other places for what is below it."""

    def move(target: str) -> str:
        first, _, rest = target.partition("/")
        return f"{places[first]}/{rest}"

    return [dataclasses.replace(e, targets=tuple(map(move, e.targets))) for e in entries]


class Inside(Mapping):
    """Arrays of a part of the authors' module, by their names without the `prefix` that they begin with."""

    def __init__(self, prefix: str, arrays: Mapping[str, Any]):
        self._prefix, self._arrays = prefix, arrays

    def __getitem__(self, name: str) -> Any:
        return self._arrays[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (x.removeprefix(self._prefix) for x in self._arrays if x.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return f"{self._prefix}{name}" in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        return shapes.shape(self._arrays, self._prefix + name)


def stacked(count: int, make: Callable[[int], Iterable[Entry]]) -> list[Entry]:
    """Layers 0..count-1 stacked along a new first axis, as `nn.scan` keeps them.

    `make(i)` gives the entries of layer i; its targets are the same for every i.
    """
    layers = [list(make(i)) for i in range(count)]
    return [_stack(same) for same in zip(*layers, strict=True)]


def read(
    table: Iterable[Entry],
    arrays: Mapping[str, Any],
    like: Any,
    *,
    ignore: Sequence[str] = (),
    what: str = "checkpoint",
) -> dict:
    """Our parameters from the authors' arrays.

    Args:
      table: every leaf of `like` once.
      arrays: the authors' arrays by name (anything that `np.asarray` takes; each is asked for once).
      like: nested dict of arrays or ShapeDtypeStructs: our parameters' shapes and dtypes.
      ignore: patterns (as of `fnmatch`) of the authors' names that may be left over.
      what: the name of the thing in error messages.

    Returns:
      Nested dict of NumPy arrays with the structure, shapes and dtypes of `like`.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape; they are named, with what was expected.
    """
    table = list(table)
    ours = dict(flatten(like))
    _check_targets(table, ours, what)
    expected = source_shapes(table, ours)
    optional = {s for e in table if e.optional for s in e.sources}
    missing = [n for n in expected if n not in arrays and n not in optional]
    extra = [n for n in arrays if n not in expected and not any(fnmatch.fnmatchcase(n, p) for p in ignore)]
    if missing or extra:
        named = [f"{n} {expected[n]}" for n in sorted(missing)]
        raise UserError(
            f"{what}: missing arrays: {_names(named)}; unexpected arrays: {_names(sorted(extra))}"
        )
    rows = {s: (e.rows, e.axis) for e in table for s in e.sources}
    wrong = [
        f"{n} (expected {expected[n]}, found {found})"
        for n in expected
        if n not in optional and not _fits(found := shapes.shape(arrays, n), expected[n], *rows[n])
    ]
    if wrong:
        raise UserError(f"{what}: wrong shapes: {_names(wrong)}")
    flat = {}
    for entry in table:
        if not entry.targets:
            continue
        values = entry.read(*(np.asarray(arrays[s]) for s in entry.sources))
        for target, value in zip(entry.targets, values, strict=True):
            flat[target] = np.asarray(value, dtype=ours[target].dtype, order="C")
    return unflatten(flat, empty(like))


def write(table: Iterable[Entry], params: Any, *, what: str = "checkpoint") -> dict[str, np.ndarray]:
    """The authors' arrays from our parameters (or from gradients with respect to them).

    Raises:
      UserError: the parameters are not those that the table describes.
    """
    table = list(table)
    ours = {name: np.asarray(value) for name, value in flatten(params)}
    _check_targets(table, ours, what)
    arrays: dict[str, np.ndarray] = {}
    for entry in table:
        values = entry.write(*(ours[t] for t in entry.targets))
        arrays |= {s: np.asarray(v, order="C") for s, v in zip(entry.sources, values, strict=True)}
    return arrays


def _layer(target: str, source: str, kernel: Form, bias: bool) -> list[Entry]:
    entries = array(f"{target}/kernel", f"{source}.weight", kernel)
    return entries + (array(f"{target}/bias", f"{source}.bias") if bias else [])


def _stack(layers: Sequence[Entry]) -> Entry:
    if len({e.targets for e in layers}) != 1:
        raise ValueError(f"stacked layers differ in their targets: {[e.targets for e in layers]}")
    width = len(layers[0].sources)

    def read(*values: np.ndarray) -> Arrays:
        each = [e.read(*values[i * width : (i + 1) * width]) for i, e in enumerate(layers)]
        return [np.stack(same) for same in zip(*each, strict=True)]

    def write(*values: np.ndarray) -> Arrays:
        return [w for i, e in enumerate(layers) for w in e.write(*(v[i] for v in values))]

    sources = tuple(s for e in layers for s in e.sources)
    return Entry(layers[0].targets, sources, read, write, layers[0].optional)


def _check_targets(table: Sequence[Entry], ours: Mapping[str, Any], what: str) -> None:
    targets = [t for e in table for t in e.targets]
    if set(targets) != set(ours) or len(targets) != len(set(targets)):
        unfilled, unknown = sorted(set(ours) - set(targets)), sorted(set(targets) - set(ours))
        raise UserError(
            f"{what}: the model's parts differ: unfilled {_names(unfilled)}, unknown {_names(unknown)}"
        )


def source_shapes(table: Sequence[Entry], ours: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every source, from what a model of our shapes would write."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in table:
        # Zeros without memory of their own; what is put together of them takes a byte for each.
        zeros = (np.broadcast_to(np.zeros((), np.int8), ours[t].shape) for t in entry.targets)
        shapes |= {s: w.shape for s, w in zip(entry.sources, entry.write(*zeros), strict=True)}
    return shapes


def _fits(found: tuple[int, ...], expected: tuple[int, ...], rows: int, axis: int) -> bool:
    if not rows or len(found) != len(expected):
        return found == expected
    same = (*found[:axis], *found[axis + 1 :]) == (*expected[:axis], *expected[axis + 1 :])
    return same and found[axis] >= rows


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) if names else "none"
