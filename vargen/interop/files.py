"""The files in which people exchange weights: safetensors, npz, PyTorch's own, Flax's, TensorFlow's graphs.

`read` gives a Mapping from the authors' names to NumPy arrays that converts each array when asked for; `write`
the way back. PyTorch is imported for its own files only, and nothing in a file is ever run.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import ml_dtypes  # makes "bfloat16" a NumPy dtype, by which safetensors hands out such tensors
import numpy as np
from safetensors import SafetensorError, safe_open

from vargen import hub, paths, weights_file
from vargen.errors import UserError
from vargen.interop import flax_files, graph_files, sentencepiece, torch_files
from vargen.interop.lazy import FAILURES, Array, Found, Path, Weights, head, unreadable

INDICES = (".safetensors.index.json", ".bin.index.json")  # of weights in several files
WRAPPERS = ("module.", "_orig_mod.")  # put before every name by DistributedDataParallel and torch.compile
GOLDEN = "sd/"  # stands before the weights' names in an npz that holds other things too


def read(
    path: Path,
    weights: Literal["auto", "ema", "plain"] = "auto",
    member: Literal["generator", "tokenizer"] | None = None,
) -> Weights:
    """The weights in a file, by their authors' names.

    The suffix says the format: .safetensors, .npz, PyTorch's .pth, .pt, .bin, .ckpt, Flax's .msgpack, or .pb of
    TensorFlow's frozen graphs; with any other, the first bytes do, also of SentencePiece's .model. Of weights in
    several files the index is given (model.safetensors.index.json, pytorch_model.bin.index.json), or a directory
    that has one. Of an npz with names "sd/..." only those are taken, without the "sd/". In a PyTorch file the
    weights are the dict itself or lie in it as "model", "module" or "state_dict", averaged ones as "model_ema",
    "ema" or "ema_state_dict"; a file of VAR's trainer holds them under "trainer". "module." and "_orig_mod." are
    dropped where every name starts with them, "_orig_mod." also within names, of parts that were compiled. What is
    not a tensor is passed over.

    Args:
      path: the file; also hf://OWNER/REPO[@REVISION]/FILE, the commit of which is fixed when it is opened.
      weights: "auto" takes averaged weights where there are some and plain ones elsewhere; "ema" and "plain"
        insist.
      member: which model of a file of VAR's trainer; other files hold one model, and it says nothing for them.

    Raises:
      UserError: no such file, a damaged one, one of another kind, one that would run code (it is refused, and
        nothing is run), other weights than those asked for; PyTorch is needed and missing.
    """
    if weights not in ("auto", "ema", "plain"):
        raise UserError(f"weights: expected auto, ema or plain, found {weights!r}")
    path = hub.pin({"path": path})["path"]
    with hub.named():
        where = _existing(path)
        sets = {"": _sharded_arrays(where)} if where.name.endswith(INDICES) else _sets(where, member)
    averaged, plain = torch_files.AVERAGED, (*torch_files.PLAIN, "")
    wanted = {"ema": averaged, "plain": plain, "auto": (*averaged, *plain)}[weights]
    chosen = next((name for name in wanted if sets.get(name)), None)
    if chosen is None:
        found = ", ".join(name or "one set of weights without a name" for name in sets if sets[name])
        names = " or ".join(name for name in wanted if name)
        raise UserError(f"{path}: expected {weights} weights ({names}), found {found or 'no arrays'}")
    return Weights(path, _unwrapped(sets[chosen]))


def beside(path: Path, name: str) -> dict[str, Any]:
    """What the JSON file `name` says that lies beside weights, or in their directory.

    Raises:
      UserError: no such file, or it holds no JSON object.
    """
    if hub.is_hub(path):
        where = hub.place(path)
        folder, _, last = where.path.rpartition("/")
        file = hub.weights(str(where.at(where.revision, folder if "." in last else where.path) / name))
    else:
        given = paths.path(path)
        file = (given if given.is_dir() else given.parent) / name
    if not paths.is_file(file):
        raise UserError(f"{path}: expected {name} beside it, which tells what arrays don't, found none")
    try:
        found = json.loads(paths.local(file).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: expected JSON, found {weights_file.line(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: expected a JSON object, found {type(found).__name__}")
    return found


def check_suffix(path: Path) -> None:
    """Raises UserError for a name by which `write` knows no format."""
    suffixes = (".safetensors", ".npz", ".pth", ".pt", ".bin", flax_files.SUFFIX, sentencepiece.SUFFIX)
    if pathlib.Path(path).suffix not in suffixes:
        raise UserError(
            f"{path}: expected a name that ends in {', '.join(suffixes)}, found {pathlib.Path(path).suffix!r}"
        )


def write(path: Path, arrays: Mapping[str, np.ndarray], wrapped: Sequence[str] = ()) -> None:
    """Writes arrays in the format of the path's suffix: .safetensors, .npz, or .pth, .pt, .bin for PyTorch,
    .msgpack for Flax, .model for SentencePiece's vocabularies.

    A PyTorch file holds one flat dict of tensors, or a dict that has it under each name of `wrapped`. npz and
    Flax know no bfloat16: such arrays are written as float32. The file appears when it is complete; an older one of
    that name stays until then, and for good on an error.

    Args:
      path: the file.
      arrays: arrays of numbers by name.
      wrapped: what the authors' programs ask a PyTorch file for; the other formats hold arrays alone.

    Raises:
      UserError: another suffix, an array that does not hold numbers, PyTorch is needed and missing, or the file
        cannot be written.
    """
    check_suffix(path)
    with written(path) as temporary:
        write_as(paths.path(path).suffix, temporary, arrays, wrapped)


@contextlib.contextmanager
def written(path: Path) -> Iterator[pathlib.Path]:
    """`paths.replacing` in a folder that is there; UserError where the file cannot be written."""
    where = paths.path(path)
    try:
        if not paths.is_remote(where) and not where.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(where))
        with paths.replacing(where) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # RuntimeError is PyTorch's
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or weights_file.line(error)
        raise UserError(f"{path}: cannot be written: {reason}") from error


def write_as(
    suffix: str, path: pathlib.Path, arrays: Mapping[str, np.ndarray], wrapped: Sequence[str] = ()
) -> None:
    """Writes arrays in the format of a suffix at once to `path`; see `write`."""
    writers: dict[str, Callable] = {".safetensors": weights_file.write_safetensors, ".npz": _write_npz}
    writers |= {flax_files.SUFFIX: flax_files.write, sentencepiece.SUFFIX: sentencepiece.write}
    writers.get(suffix, functools.partial(torch_files.write, wrapped=wrapped))(path, arrays)


def _existing(path: Path) -> paths.Path:
    """The file; of a directory the one index of shards in it."""
    where = hub.weights(path)
    if where.is_dir():
        found = sorted(p for p in where.iterdir() if p.name.endswith(INDICES))
        if len(found) != 1:
            raise UserError(
                f"{path}: expected a file, or a directory with one *.index.json of shards, found {len(found)} of them"
            )
        where = found[0]
    if not paths.is_file(where):
        raise UserError(f"{path}: expected a file, found {'no plain file' if where.exists() else 'none'}")
    return where


def _sets(path: paths.Path, member: str | None) -> dict[str, Found]:
    """The sets of weights in one file by name; "" for what has none."""
    file = paths.local(path)
    kind = _kind(file)
    if kind == "torch":
        return torch_files.read(file, member)
    if kind == "flax":
        return {"": flax_files.read(file)}
    if kind == "sentencepiece":
        return {"": sentencepiece.read(file)}
    if kind == "graph":
        return {"": graph_files.read(file)}
    return {"": _npz_arrays(file) if kind == "npz" else _safetensors_arrays(file)}


def _sharded_arrays(path: paths.Path) -> Found:
    """The arrays of all files that an index names, each from the file that the index says.

    Raises:
      UserError: a broken index, one that names files elsewhere, a missing file, an array that isn't where it says.
    """
    try:
        table = json.loads(paths.local(path).read_bytes())["weight_map"]
        named = all(isinstance(k, str) and isinstance(v, str) for k, v in table.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: expected an index with a weight_map, found a broken one ({error})"
        ) from error
    if not named or not table:
        raise UserError(f"{path}: expected a weight_map of arrays to files, found something else")
    shards: dict[str, Found] = {}
    for file in sorted(set(table.values())):
        if pathlib.PurePath(file).name != file or not file:
            raise UserError(f"{path}: expected files beside it, found {file!r}")
        shards[file] = _sets(_existing(path.parent / file), None).get("", {})
    for name, file in table.items():
        if name not in shards[file]:
            raise UserError(f"{path}: expected {name} in {file}, found none")
    held = [name for found in shards.values() for name in found]
    if extra := sorted(set(held) - set(table)) or sorted({n for n in held if held.count(n) > 1}):
        raise UserError(
            f"{path}: expected every array once, in the file it says, found {extra[0]} elsewhere too"
        )
    return {name: shards[file][name] for name, file in table.items()}


def _kind(path: pathlib.Path) -> str:
    first = head(path)
    if path.suffix in (".safetensors", ".npz"):
        return path.suffix[1:]
    if path.suffix in torch_files.SUFFIXES:
        return "torch"
    if path.suffix == flax_files.SUFFIX:
        return "flax"
    if path.suffix == graph_files.SUFFIX:
        return "graph"
    if path.suffix == sentencepiece.SUFFIX and first.startswith(sentencepiece.FIRST):
        return "sentencepiece"
    length = int.from_bytes(first[:8], "little")  # of the header that follows it
    if first[8:9] == b"{" and length < path.stat().st_size:
        return "safetensors"
    if first.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "npz" if any(name.endswith(".npy") for name in archive.namelist()) else "torch"
    if first.startswith((b"PK", b"\x80")):  # \x80 begins a pickle
        return "torch"
    if flax_files.begins(first):
        return "flax"
    raise unreadable(path, "safetensors, npz, PyTorch or Flax")


def _unwrapped(arrays: Found) -> Found:
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in arrays)), ""):
        arrays = {name[len(prefix) :]: array for name, array in arrays.items()}
    inside = {name.replace("._orig_mod.", "."): array for name, array in arrays.items()}
    return inside if len(inside) == len(arrays) else arrays


def _open_safetensors(path: pathlib.Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise unreadable(path, "safetensors", error) from error


def _safetensors_arrays(path: pathlib.Path) -> Found:
    file = _open_safetensors(path)

    def array(name: str) -> Array:
        return Array(tuple(file.get_slice(name).get_shape()), lambda: file.get_tensor(name))

    return {name: array(name) for name in file.keys()}


def _npz_arrays(path: pathlib.Path) -> Found:
    try:
        archive = zipfile.ZipFile(path)
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        if any(name.startswith(GOLDEN) for name in names):
            members = {name[len(GOLDEN) :]: f"{name}.npy" for name in names if name.startswith(GOLDEN)}
        else:
            members = {name: f"{name}.npy" for name in names}
        arrays = {name: _npy_array(archive, member) for name, member in members.items()}
    except FAILURES as error:
        raise unreadable(path, "npz", error) from error
    return {name: array for name, array in arrays.items() if array}


def _npy_array(archive: zipfile.ZipFile, member: str) -> Array | None:
    """An array of the archive, of which only the header is read; None if it holds text, dates or objects."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        header = (
            np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)

    def load() -> np.ndarray:
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)

    return None if dtype.kind in "OSUmM" else Array(tuple(shape), load)


def _write_npz(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    # np.savez holds all arrays at once and knows names (file, allow_pickle) that it cannot write.
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            array = weights_file.numbers(name, value)
            if array.dtype == ml_dtypes.bfloat16:
                array = array.astype(np.float32)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
