"""Reading goldens: what the authors' own code computed at tiny sizes."""

from __future__ import annotations

import json
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "goldens"


class Golden:
    """Arrays of one file: `weights` by the authors' names, `[...]` for inputs and outputs, `meta`."""

    def __init__(self, name: str):
        self.arrays = np.load(FOLDER / f"{name}.npz")
        self.meta = json.loads(str(self.arrays["meta"]))
        self.weights = {k[3:]: self.arrays[k] for k in self.arrays.files if k.startswith("sd/")}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def gradient_norms(self) -> dict[str, float]:
        """By the authors' parameter names."""
        names = [k for k in self.arrays.files if k.startswith("out/gradnorm/")]
        return {k.removeprefix("out/gradnorm/"): float(self.arrays[k]) for k in names}
