"""Reading the files of other networks' weights that users name in a config."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from vargen import hub, paths
from vargen.errors import UserError


def read(path: str, field: str, what: str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors or npz file by name.

    Args:
      path: of this machine, in a bucket or on the hub.
      field: of the config that names it, for messages.
      what: is in it, for messages.

    Raises:
      UserError: no path, no such file, or one of another kind.
    """
    file = hub.weights(path, field)
    if not paths.is_file(file):
        raise UserError(f"{what} {path}: expected a file, found none")
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        data = file.read_bytes()
        return dict(np.load(io.BytesIO(data))) if file.suffix == ".npz" else load(data)
    except (SafetensorError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{what} {path}: expected safetensors or npz, found {error}") from error
