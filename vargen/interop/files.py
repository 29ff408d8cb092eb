"""The files in which people exchange weights: safetensors, npz, and PyTorch's own.

`read` gives a Mapping from the authors' names to NumPy arrays that converts each array when asked for; `write`
the way back. PyTorch is imported for its own files only, and nothing in a file is ever run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import os
import pathlib
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import ml_dtypes  # makes "bfloat16" a NumPy dtype, by which safetensors hands out such tensors
import numpy as np
from safetensors import SafetensorError, safe_open

from vargen import paths, weights_file
from vargen.errors import UserError

Path = str | os.PathLike[str]
Found = dict[str, "_Array"]

INDEX = ".safetensors.index.json"
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
PLAIN = ("model", "module", "state_dict")  # names of one set of weights among other things in a PyTorch file
AVERAGED = ("model_ema", "ema")
MEMBERS = {"generator": "var_wo_ddp", "tokenizer": "vae_local"}  # in a file of VAR's trainer
WRAPPERS = ("module.", "_orig_mod.")  # put before every name by DistributedDataParallel and torch.compile
GOLDEN = "sd/"  # stands before the weights' names in an npz that holds other things too

# What the readers of the formats raise on bytes or dtypes that they do not know.
_FAILURES = (
    *(OSError, ValueError, TypeError, AttributeError, EOFError, RuntimeError),
    *(SafetensorError, zipfile.BadZipFile, zlib.error),
)


@dataclasses.dataclass(frozen=True)
class _Array:
    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]


def _odd(array: np.ndarray) -> str:
    """The first number that isn't finite, and how many there are."""
    odd = array[~np.isfinite(array)]
    return f"{odd[0]} (one of {odd.size})"


class Weights(Mapping[str, np.ndarray]):
    """Arrays by name, each read and converted anew whenever it is asked for.

    float16 and bfloat16 come out as float32, every other dtype as it is. `len`, iteration and `in` read nothing.
    """

    def __init__(self, path: Path, arrays: Found):
        self._path, self._arrays = path, arrays

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._arrays[name]
        try:
            array = found.load()
        except _FAILURES as error:
            raise UserError(f"{self._path}: {name} cannot be read: {weights_file.line(error)}") from error
        if array.dtype in weights_file.HALVES:
            return array.astype(np.float32)
        if array.dtype.kind not in "biufc":
            raise UserError(f"{self._path}: {name}: expected an array of numbers, found dtype {array.dtype}")
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading it."""
        return self._arrays[name].shape

    def parameters(self) -> Parameters:
        """The same arrays as a model's parameters.

        Raises:
          UserError: an empty array.
        """
        for name, array in self._arrays.items():
            if 0 in array.shape:
                raise UserError(
                    f"{self._path}: {name}: expected numbers, found an empty array of shape {array.shape}"
                )
        return Parameters(self._path, self._arrays)


class Parameters(Weights):
    """Weights that a model can have: whole numbers, and floats that aren't finite, are refused when asked for."""

    def __getitem__(self, name: str) -> np.ndarray:
        array = super().__getitem__(name)
        if array.dtype.kind != "f":
            raise UserError(f"{self._path}: {name}: expected an array of floats, found dtype {array.dtype}")
        if not np.isfinite(array).all():
            raise UserError(f"{self._path}: {name}: expected finite numbers, found {_odd(array)}")
        return array


def read(
    path: Path,
    weights: Literal["auto", "ema", "plain"] = "auto",
    member: Literal["generator", "tokenizer"] | None = None,
) -> Weights:
    """The weights in a file, by their authors' names.

    The suffix says the format: .safetensors, .npz or PyTorch's .pth, .pt, .bin, .ckpt; with any other, the first
    bytes do. Of safetensors in several files the index (model.safetensors.index.json) is given, or a directory that has
    one. Of an npz with names "sd/..." only those are taken, without the "sd/". In a PyTorch file the weights
    are the dict itself or lie in it as "model", "module" or "state_dict", averaged ones as "model_ema" or "ema";
    a file of VAR's trainer holds them under "trainer". "module." and "_orig_mod." are dropped where every name
    starts with them. What is not a tensor is passed over.

    Args:
      path: the file.
      weights: "auto" takes averaged weights where there are some and plain ones elsewhere; "ema" and "plain"
        insist.
      member: which model of a file of VAR's trainer; other files hold one model, and it says nothing for them.

    Raises:
      UserError: no such file, a damaged one, one of another kind, one that would run code (it is refused, and
        nothing is run), other weights than those asked for; PyTorch is needed and missing.
    """
    if weights not in ("auto", "ema", "plain"):
        raise UserError(f"weights: expected auto, ema or plain, found {weights!r}")
    path = _existing(path)
    kind = "sharded" if path.name.endswith(INDEX) else _kind(path)
    if kind == "sharded":
        sets = {"": _sharded_arrays(path)}
    elif kind == "torch":
        sets = _torch_sets(path, member)
    elif kind == "npz":
        sets = {"": _npz_arrays(path)}
    else:
        sets = {"": _safetensors_arrays(path)}
    wanted = {"ema": AVERAGED, "plain": (*PLAIN, ""), "auto": (*AVERAGED, *PLAIN, "")}[weights]
    chosen = next((name for name in wanted if sets.get(name)), None)
    if chosen is None:
        found = ", ".join(name or "one set of weights without a name" for name in sets if sets[name])
        names = " or ".join(name for name in wanted if name)
        raise UserError(f"{path}: expected {weights} weights ({names}), found {found or 'no arrays'}")
    return Weights(path, _unwrapped(sets[chosen]))


def check_suffix(path: Path) -> None:
    """Raises UserError for a name by which `write` knows no format."""
    suffixes = (".safetensors", ".npz", ".pth", ".pt", ".bin")
    if pathlib.Path(path).suffix not in suffixes:
        raise UserError(
            f"{path}: expected a name that ends in {', '.join(suffixes)}, found {pathlib.Path(path).suffix!r}"
        )


def write(path: Path, arrays: Mapping[str, np.ndarray], wrapped: Sequence[str] = ()) -> None:
    """Writes arrays in the format of the path's suffix: .safetensors, .npz, or .pth, .pt, .bin for PyTorch.

    A PyTorch file holds one flat dict of tensors, or a dict that has it under each name of `wrapped`. npz knows no
    bfloat16: such arrays are written as float32. The file appears when it is complete; an older one of that name
    stays until then, and for good on an error.

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
    writers.get(suffix, functools.partial(_write_torch, wrapped=wrapped))(path, arrays)


def _existing(path: Path) -> pathlib.Path:
    """The file of this machine; of a directory the one index of shards in it."""
    where = paths.path(path)
    if where.is_dir():
        found = sorted(p for p in where.iterdir() if p.name.endswith(INDEX))
        if len(found) != 1:
            raise UserError(
                f"{path}: expected a file, or a directory with one *{INDEX}, found {len(found)} of them"
            )
        where = found[0]
    if not paths.is_file(where):
        raise UserError(f"{path}: expected a file, found {'no plain file' if where.exists() else 'none'}")
    return paths.local(where)


def _sharded_arrays(path: pathlib.Path) -> Found:
    """The arrays of all files that an index names, each from the file that the index says.

    Raises:
      UserError: a broken index, one that names files elsewhere, a missing file, an array that isn't where it says.
    """
    try:
        table = json.loads(path.read_bytes())["weight_map"]
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
        shards[file] = _safetensors_arrays(_existing(path.with_name(file)))
    for name, file in table.items():
        if name not in shards[file]:
            raise UserError(f"{path}: expected {name} in {file}, found none")
    held = [name for found in shards.values() for name in found]
    if extra := sorted(set(held) - set(table)) or sorted({n for n in held if held.count(n) > 1}):
        raise UserError(
            f"{path}: expected every array once, in the file it says, found {extra[0]} elsewhere too"
        )
    return {name: shards[file][name] for name, file in table.items()}


def _head(path: pathlib.Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _kind(path: pathlib.Path) -> str:
    head = _head(path)
    if path.suffix in (".safetensors", ".npz"):
        return path.suffix[1:]
    if path.suffix in TORCH_SUFFIXES:
        return "torch"
    if (
        head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    ):  # the header and its length
        return "safetensors"
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "npz" if any(name.endswith(".npy") for name in archive.namelist()) else "torch"
    if head.startswith((b"PK", b"\x80")):  # \x80 begins a pickle
        return "torch"
    raise _unreadable(path, "safetensors, npz or PyTorch")


def _unreadable(path: pathlib.Path, kind: str, error: Exception | None = None) -> UserError:
    head = _head(path)
    if not head:
        found = "an empty file"
    elif all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):  # a web page, a pointer of Git LFS
        found = f"text that starts {head.decode().splitlines()[0][:48]!r}"
    else:
        found = f"a truncated or damaged one ({weights_file.line(error)})" if error else "something else"
    return UserError(f"{path}: expected a {kind} file, found {found}")


def _unwrapped(arrays: Found) -> Found:
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in arrays)), ""):
        arrays = {name[len(prefix) :]: array for name, array in arrays.items()}
    return arrays


def _open_safetensors(path: pathlib.Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, "safetensors", error) from error


def _safetensors_arrays(path: pathlib.Path) -> Found:
    file = _open_safetensors(path)

    def array(name: str) -> _Array:
        return _Array(tuple(file.get_slice(name).get_shape()), lambda: file.get_tensor(name))

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
    except _FAILURES as error:
        raise _unreadable(path, "npz", error) from error
    return {name: array for name, array in arrays.items() if array}


def _npy_array(archive: zipfile.ZipFile, member: str) -> _Array | None:
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

    return None if dtype.kind in "OSUmM" else _Array(tuple(shape), load)


def _import_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: PyTorch's own files need PyTorch, found none: pip install 'vargen[torch]', or take safetensors"
        ) from error
    return torch


class _Inert:
    """Stands for an object in a PyTorch file that is not a weight; takes what unpickling gives it, and drops it."""

    def __new__(cls, *args: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_in(name: str) -> type:
    # PyTorch's list of safe globals goes by module and name: under the name of the real class this one is found,
    # and the real one (NumPy's dtype, say, which trusts the state it is given) never sees what the file holds.
    module, _, last = name.rpartition(".")
    return type(last, (_Inert,), {"__module__": module})


# What training scripts keep beside the weights: arguments, paths, numbers.
_STAND_INS = [
    _stand_in(name)
    for name in (
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"pathlib{m}.{c}" for m in ("", "._local") for c in ("Path", "PosixPath", "WindowsPath")),
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{m}.multiarray.{f}" for m in ("core", "_core") for f in ("scalar", "_reconstruct")),
    )
]


def _torch_load(path: pathlib.Path) -> Any:
    torch = _import_torch(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how the file was written
            mmap = _head(path).startswith(b"PK")  # not with the format of before PyTorch 1.6
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever bytes make the reader of a foreign format stumble
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            raise UserError(
                f"{path}: refused, since it asks for {asked[1]}, which might run code: expected tensors in plain "
                "containers; nothing in it was run"
            ) from error
        raise _unreadable(path, "PyTorch", error) from error


def _torch_sets(path: pathlib.Path, member: str | None) -> dict[str, Found]:
    """The sets of weights in a PyTorch file by name, "" for a dict that is one itself."""
    content = _torch_load(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected a dict of weights, found {type(content).__name__}")
    trainer = content.get("trainer")
    if isinstance(trainer, Mapping):
        if member not in MEMBERS:
            raise UserError(
                f"{path}: a file of VAR's trainer: expected member to be one of {', '.join(MEMBERS)}, found {member}"
            )
        if not isinstance(trainer.get(MEMBERS[member]), Mapping):
            raise UserError(
                f"{path}: expected {MEMBERS[member]} in trainer, found {', '.join(map(str, trainer))}"
            )
        return {"": _tensors(trainer[MEMBERS[member]])}
    sets = {name: _tensors(content.get(name)) for name in (*PLAIN, *AVERAGED)}
    sets[""] = {} if any(sets.values()) else _tensors(content)
    if not any(sets.values()):
        raise UserError(
            f"{path}: expected a dict of weights, found {', '.join(map(str, content)) or 'nothing'}"
        )
    return sets


def _tensors(content: Any) -> Found:
    import torch

    def array(tensor: torch.Tensor) -> _Array:
        halves = (torch.float16, torch.bfloat16)
        return _Array(
            tuple(tensor.shape),
            lambda: (tensor.detach().float() if tensor.dtype in halves else tensor.detach()).numpy(),
        )

    if not isinstance(content, Mapping):
        return {}
    return {k: array(v) for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def _write_npz(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    # np.savez holds all arrays at once and knows names (file, allow_pickle) that it cannot write.
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays.items():
            array = weights_file.numbers(name, value)
            if array.dtype == ml_dtypes.bfloat16:
                array = array.astype(np.float32)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_torch(path: pathlib.Path, arrays: Mapping[str, Any], wrapped: Sequence[str]) -> None:
    torch = _import_torch(path)

    def tensor(array: np.ndarray) -> Any:
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    with warnings.catch_warnings(), open(path, "wb") as file:
        warnings.simplefilter("ignore")  # on arrays that may not be written to; nobody does
        tensors = {k: tensor(weights_file.numbers(k, v)) for k, v in arrays.items()}
        torch.save(dict.fromkeys(wrapped, tensors) if wrapped else tensors, file)
