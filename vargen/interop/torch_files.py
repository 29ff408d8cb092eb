"""PyTorch's own files: tensors in plain containers, read without running anything that is in them.

PyTorch is imported when a file of its own is read or written, and not before.
"""

from __future__ import annotations

import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from vargen import weights_file
from vargen.errors import UserError
from vargen.interop.lazy import Array, Found, Path, head, unreadable

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
PLAIN = ("model", "module", "state_dict")  # names of one set of weights among other things in a file
AVERAGED = ("model_ema", "ema", "ema_state_dict")
FLAT = "model_ema"  # begins names of averages beside plain weights, whose own dots are left out (latent diffusion's)
MEMBERS = {"generator": "var_wo_ddp", "tokenizer": "vae_local"}  # in a file of VAR's trainer


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
            mmap = head(path).startswith(b"PK")  # not with the format of before PyTorch 1.6
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever bytes make the reader of a foreign format stumble
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            raise UserError(
                f"{path}: refused, since it asks for {asked[1]}, which might run code: expected tensors in plain "
                "containers; nothing in it was run"
            ) from error
        raise unreadable(path, "PyTorch", error) from error


def read(path: pathlib.Path, member: str | None) -> dict[str, Found]:
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
    for name in PLAIN:
        sets[name], averaged = _apart(sets[name])
        sets[FLAT] = sets[FLAT] or averaged
    sets[""] = {} if any(sets.values()) else _tensors(content)
    if not any(sets.values()):
        raise UserError(
            f"{path}: expected a dict of weights, found {', '.join(map(str, content)) or 'nothing'}"
        )
    return sets


def _apart(found: Found) -> tuple[Found, Found]:
    """Plain weights; and averaged ones, among them as it is what has no average: empty where nothing has."""
    plain = {k: v for k, v in found.items() if not k.startswith(f"{FLAT}.")}
    averages = {k: found.get(f"{FLAT}.{k.replace('.', '')}") for k in plain}
    if not any(averages.values()):
        return found, {}
    return plain, {k: averages[k] or v for k, v in plain.items()}


def _tensors(content: Any) -> Found:
    import torch

    def array(tensor: torch.Tensor) -> Array:
        halves = (torch.float16, torch.bfloat16)
        return Array(
            tuple(tensor.shape),
            lambda: (tensor.detach().float() if tensor.dtype in halves else tensor.detach()).numpy(),
        )

    if not isinstance(content, Mapping):
        return {}
    return {k: array(v) for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}


def write(path: pathlib.Path, arrays: Mapping[str, Any], wrapped: Sequence[str] = ()) -> None:
    """Writes arrays as one dict of tensors, or as a dict that has it under each name of `wrapped`."""
    torch = _import_torch(path)

    def tensor(array: np.ndarray) -> Any:
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    with warnings.catch_warnings(), open(path, "wb") as file:
        warnings.simplefilter("ignore")  # on arrays that may not be written to; nobody does
        tensors = {k: tensor(weights_file.numbers(k, v)) for k, v in arrays.items()}
        torch.save(dict.fromkeys(wrapped, tensors) if wrapped else tensors, file)
