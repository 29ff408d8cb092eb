"""Tables that carry arrays with an authors' names over to our parameters.

A table is a list of `Entry(target, sources, transform)`. The helpers below make the entries of the usual
layers, and `apply` runs a table and checks that nothing is missing, left over or of the wrong shape.
Everything is NumPy.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vargen.errors import UserError

SHOWN = 8  # names listed in one error before "and n more"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays, and what it is made of.

    Attributes:
      target: path of our parameter, "/" between the keys ("encoder/conv_in/kernel").
      sources: the authors' names, in the order in which `transform` takes them.
      transform: NumPy arrays -> NumPy array.
    """

    target: str
    sources: tuple[str, ...]
    transform: Callable[..., np.ndarray] = lambda x: x


def conv_kernel(weight: np.ndarray) -> np.ndarray:
    """[O, I, h, w] -> [h, w, I, O]."""
    return weight.transpose(2, 3, 1, 0)


def dense_kernel(weight: np.ndarray) -> np.ndarray:
    """[O, I], or a 1x1 convolution's [O, I, 1, 1] -> [I, O]."""
    return weight.reshape(weight.shape[:2]).T


def array(target: str, source: str, transform: Callable[..., np.ndarray] | None = None) -> list[Entry]:
    """One array as it is, or through `transform`."""
    return [Entry(target, (source,), transform or (lambda x: x))]


def conv(target: str, source: str, bias: bool = True) -> list[Entry]:
    """A convolution: source.weight [O, I, h, w], source.bias -> target/kernel, target/bias."""
    return _layer(target, source, conv_kernel, bias)


def dense(target: str, source: str, bias: bool = True) -> list[Entry]:
    """A linear layer or a 1x1 convolution -> target/kernel [I, O], target/bias."""
    return _layer(target, source, dense_kernel, bias)


def third(index: int) -> Callable[..., np.ndarray]:
    """A transform: the query (0), key (1) or value (2) of a fused weight [3 D, I] -> [I, D], or bias [3 D] -> [D]."""

    def cut(x: np.ndarray) -> np.ndarray:
        part = np.split(x, 3)[index]
        return dense_kernel(part) if part.ndim > 1 else part

    return cut


def norm(target: str, source: str, bias: bool = True) -> list[Entry]:
    """An affine normalisation: source.weight, source.bias -> target/scale, target/bias."""
    entries = array(f"{target}/scale", f"{source}.weight")
    return entries + (array(f"{target}/bias", f"{source}.bias") if bias else [])


def fused_dense(target: str, sources: Sequence[str], bias: bool = True) -> list[Entry]:
    """Linear layers of one input side by side -> target/kernel [I, sum of O], target/bias."""
    names = tuple(f"{s}.weight" for s in sources)
    entries = [
        Entry(f"{target}/kernel", names, lambda *w: np.concatenate([dense_kernel(x) for x in w], axis=1))
    ]
    if bias:
        names = tuple(f"{s}.bias" for s in sources)
        entries.append(Entry(f"{target}/bias", names, lambda *b: np.concatenate(b)))
    return entries


def stacked(count: int, make: Callable[[int], Iterable[Entry]], axis: int = 0) -> list[Entry]:
    """Layers 0..count-1 stacked along a new axis, as `nn.scan` keeps them.

    `make(i)` gives the entries of layer i; its targets are the same for every i.
    """
    layers = [list(make(i)) for i in range(count)]
    entries = []
    for same in zip(*layers, strict=True):
        if len({e.target for e in same}) != 1:
            raise ValueError(f"stacked layers differ in their targets: {[e.target for e in same]}")
        entries.append(Entry(same[0].target, sum((e.sources for e in same), ()), _Stack(same, axis)))
    return entries


def apply(
    entries: Iterable[Entry],
    arrays: Mapping[str, Any],
    like: Any,
    *,
    ignore: Sequence[str] = (),
    what: str = "checkpoint",
) -> dict:
    """Runs a table.

    Args:
      entries: the table; every leaf of `like` once.
      arrays: the authors' arrays by name (anything that `np.asarray` takes).
      like: nested dict of arrays or ShapeDtypeStructs: our parameters' shapes and dtypes.
      ignore: patterns (as of `fnmatch`) of the authors' names that may be left over.
      what: the name of the thing in error messages.

    Returns:
      Nested dict of NumPy arrays with the structure, shapes and dtypes of `like`.

    Raises:
      UserError: arrays are missing, left over or of the wrong shape; all of them are named.
    """
    entries = list(entries)
    shapes = dict(flatten(like))
    targets = [e.target for e in entries]
    if set(targets) != set(shapes) or len(targets) != len(set(targets)):
        unfilled, unknown = sorted(set(shapes) - set(targets)), sorted(set(targets) - set(shapes))
        raise UserError(
            f"{what}: the model's sizes differ: unfilled {_names(unfilled)}, unknown {_names(unknown)}"
        )
    used = {s for e in entries for s in e.sources}
    missing = sorted(used - set(arrays))
    extra = sorted(n for n in set(arrays) - used if not any(fnmatch.fnmatchcase(n, p) for p in ignore))
    if missing or extra:
        raise UserError(f"{what}: missing arrays: {_names(missing)}; unexpected arrays: {_names(extra)}")
    flat, wrong = {}, []
    for entry in entries:
        expected = shapes[entry.target]
        values = [np.asarray(arrays[s]) for s in entry.sources]
        try:
            value = entry.transform(*values)
            found = str(tuple(value.shape))
        except ValueError:
            found = " and ".join(str(tuple(v.shape)) for v in values)
        if found != str(tuple(expected.shape)):
            wrong.append(
                f"{entry.sources[0]} (expected {tuple(expected.shape)} after conversion, found {found})"
            )
        else:
            flat[entry.target] = np.ascontiguousarray(value, dtype=expected.dtype)
    if wrong:
        raise UserError(f"{what}: wrong shapes: {_names(wrong)}")
    return unflatten(flat)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """("a/b/c", leaf) for every leaf of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return tree


@dataclasses.dataclass(frozen=True)
class _Stack:
    entries: tuple[Entry, ...]
    axis: int

    def __call__(self, *values: np.ndarray) -> np.ndarray:
        out, at = [], 0
        for entry in self.entries:
            out.append(entry.transform(*values[at : at + len(entry.sources)]))
            at += len(entry.sources)
        return np.stack(out, axis=self.axis)


def _layer(target: str, source: str, kernel: Callable[..., np.ndarray], bias: bool) -> list[Entry]:
    entries = array(f"{target}/kernel", f"{source}.weight", kernel)
    return entries + (array(f"{target}/bias", f"{source}.bias") if bias else [])


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) + more) if names else "none"
