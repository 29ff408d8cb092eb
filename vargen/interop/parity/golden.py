"""Reading goldens, and what a comparison with one of their outputs came to."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vargen.config import config, images, part
from vargen.errors import UserError
from vargen.interop import mapping

# Relative to an output's largest value, in float32: where the authors' outputs were reproduced independently, and
# for other single passes.
REPRODUCED, SINGLE = 2e-5, 1e-4


class Golden:
    """One file: `weights` by the authors' names, `[...]` for inputs and outputs, `meta`.

    Raises:
      UserError: not an .npz with weights, outputs and a JSON `meta`.
    """

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            found = "a directory" if self.path.is_dir() else "no plain file" if self.path.exists() else "none"
            raise UserError(f"golden {path}: expected an .npz, found {found}")
        try:
            with np.load(self.path, allow_pickle=False) as file:
                self.arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"golden {path}: expected an .npz, found {error or 'a broken file'}") from error
        except MemoryError as error:
            raise UserError(
                f"golden {path}: expected arrays that fit in memory, found larger ones"
            ) from error
        try:
            self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"])) if "meta" in self.arrays else {}
        except (ValueError, RecursionError) as error:
            raise UserError(f"golden {path}: expected JSON in meta, found {error}") from error
        if not isinstance(self.meta, dict) or not self.meta:
            raise UserError(f"golden {path}: expected meta, a JSON object of what was computed, found none")
        self._read = {"meta"}
        for name, array in self.arrays.items():
            kinds = "iuf" if name.startswith("sd/") else "biuf"
            if name != "meta" and (array.dtype.kind not in kinds or not array.size):
                raise UserError(
                    f"golden {path}: expected numbers in {name}, found {array.dtype} of shape {list(array.shape)}"
                )
            if name.startswith("in/") and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise UserError(f"golden {path}: expected finite numbers in {name}, found others")
        self.weights = {k.removeprefix("sd/"): v for k, v in self.arrays.items() if k.startswith("sd/")}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UserError(f"golden {self.path}: expected the array {name}, found none of that name")
        self._read.add(name)
        return self.arrays[name]

    def unread(self) -> list[str]:
        """Names of the arrays beside weights and outputs that nothing has asked for."""
        return [n for n in self.arrays if n not in self._read and not n.startswith(("sd/", "out/"))]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def outputs(self, prefix: str = "") -> list[str]:
        """Names of the outputs that start with `out/` and `prefix`."""
        return [name for name in self.arrays if name.startswith(f"out/{prefix}")]

    def beside(self, name: str) -> Golden | None:
        """Another golden in the same folder, or None."""
        path = self.path.parent / name
        return Golden(path) if path.is_file() else None


@dataclasses.dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
      output: the output's name in the golden.
      error: the largest absolute difference.
      tolerance: the largest that is allowed.
      restated: whether it says the golden's inputs again, in the authors' terms, and tries no computation of ours.
    """

    output: str
    error: float
    tolerance: float
    restated: bool = False

    @property
    def holds(self) -> bool:
        """Whether the outputs agree; not where either is not a number."""
        return bool(self.error <= self.tolerance < np.inf)


def close(output: str, found: Any, expected: np.ndarray, relative: float) -> Result:
    """Agreement up to `relative` times the largest value expected."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return Result(output, float("inf"), relative * _largest(expected))
    return Result(output, _largest(found - expected), relative * _largest(expected))


def exact(output: str, found: Any, expected: np.ndarray, restated: bool = False) -> Result:
    """The same numbers, as codes are; `restated` as of `Result`."""
    return dataclasses.replace(close(output, found, expected, 0.0), tolerance=0.0, restated=restated)


def gradient_norms(
    golden: Golden, table: list[mapping.Entry], gradients: Any, relative: float, prefix: str = "gradnorm/"
) -> Iterator[Result]:
    """The norm of every gradient in the golden, ours carried to the authors' names by the table.

    Args:
      golden: whose outputs out/<prefix><name> they are.
      table: of the parameters.
      gradients: ours.
      relative: tolerance.
      prefix: of the outputs' names.
    """
    yield from norms(golden, mapping.write(table, gradients), relative, prefix)


def norms(golden: Golden, theirs: Mapping[str, np.ndarray], relative: float, prefix: str) -> Iterator[Result]:
    """The norm of every gradient in the golden, of gradients by the authors' names; see `gradient_norms`."""
    outputs = [o for o in golden.outputs(prefix) if o.removeprefix(f"out/{prefix}") in theirs]
    # Some gradients vanish in exact arithmetic (of a bias that all keys share): theirs and ours are rounding.
    least = 1e-4 * max((float(golden[o]) for o in outputs), default=0.0)
    for output in outputs:
        found = np.linalg.norm(theirs[output.removeprefix(f"out/{prefix}")].astype(np.float64))
        error = abs(float(found) - float(golden[output]))
        yield Result(output, error, relative * max(float(golden[output]), least))


def unscaled(
    found: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], layers: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Gradients as `mapping.scaled` writes them, with those of the layer and of its scale by the chain rule.

    Args:
      found: by the authors' names.
      weights: the parameters.
      layers: by how a scale's name ends, how its layer's name does.
    """
    theirs = dict(found)
    for end, layer_end in layers.items():
        for name in [x for x in found if x.endswith(end)]:
            layer = name.removesuffix(end) + layer_end
            kernel, bias, scale = found[f"{layer}.weight"], found[f"{layer}.bias"], weights[name]
            theirs[name] = (kernel * weights[f"{layer}.weight"]).sum(1) + bias * weights[f"{layer}.bias"]
            theirs |= {f"{layer}.weight": kernel * scale[:, None], f"{layer}.bias": bias * scale}
    return theirs


def stand_in(side: int | tuple[int, int], classes: int = 10, **tokenizer: Any) -> ConfigDict:
    """A float32 config whose tokenizer has a slot for every pixel, for goldens of a generator alone.

    Args:
      side: of the grid of slots, or (height, width).
      classes: number of classes.
      **tokenizer: `name` and options of the tokenizer; its encoder plays no role.
    """
    c = config()
    c.compute_dtype = "float32"
    c.data = images("folder", 8, 3, classes)
    with c.data.ignore_type():
        c.data.image_size = side
    c.tokenizer = part(encoder=part("patch", patch=1, width=8, blocks=1), **tokenizer)
    return c


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0.0))
