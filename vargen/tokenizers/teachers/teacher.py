"""What a teacher is: a frozen network that says what pictures show, and the file of its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import hub, paths
from vargen.errors import UserError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its images in [0, 1]


class Features(NamedTuple):
    """What a teacher says of images.

    Attributes:
      grid: float32 [B, h, w, D], of each place.
      pooled: float32 [B, D], of the whole.
    """

    grid: jax.Array
    pooled: jax.Array


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A frozen network. Parameters are arguments, as everywhere; `load` reads them.

    Attributes:
      network: module, images [B, side, side, 3] normalised -> `Features`.
      read: arrays of a file, whose names it knows -> the network's parameters as a nested dict.
      side: pixels per side that images are resized to.
      mean, deviation: of images in [0, 1], by which they are normalised; of each colour.
      grid: (h, w) of the features.
      channels: D.
      weights: the file, safetensors; "": none.
      published: what it holds, for whoever has none.
      place: of the part in a config, for messages.
    """

    network: nn.Module
    read: Callable[[Arrays], dict] = dataclasses.field(compare=False)  # follows from the network
    side: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    grid: tuple[int, int]
    channels: int
    weights: str
    published: str
    place: str

    def init_boxed(self, key: jax.Array) -> dict:
        """Random parameters with logical axis names: what training and tests without a file start from."""
        return self.network.init(key, jnp.zeros((1, self.side, self.side, 3)))["params"]

    def init(self, key: jax.Array) -> dict:
        """The same, a plain tree of float32."""
        return nn.meta.unbox(self.init_boxed(key))

    def load(self) -> dict:
        """The file's parameters, a plain tree of float32.

        Raises:
          UserError: no file, or one that is not this network's.
        """
        field = f"config field {self.place}.weights"
        if not self.weights:
            raise UserError(f"{field}: expected a file of {self.published}, found none")
        file = hub.weights(self.weights, f"{self.place}.weights")
        if not paths.is_file(file):
            raise UserError(f"{field}: expected a file, found none at {self.weights}")
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(file.read_bytes())
        except SafetensorError as error:
            raise UserError(f"{field}: expected safetensors, found {error} in {self.weights}") from error
        params = self.read(Arrays(arrays, f"{field}: {self.weights}"))
        self._check(params, field)
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)

    def _check(self, params: dict, field: str) -> None:
        """Raises UserError where parameters have other shapes than the network's."""
        expected = jax.eval_shape(self.init, jax.random.key(0))
        found = jax.tree_util.tree_flatten_with_path(params)[0]
        for (path, own), (_, array) in zip(
            jax.tree_util.tree_flatten_with_path(expected)[0], found, strict=True
        ):
            if own.shape != np.shape(array):
                name = "/".join(key.key for key in path)
                raise UserError(
                    f"{field}: expected {name} of shape {own.shape}, as the sizes of {self.place} say, found "
                    f"{np.shape(array)}"
                )

    def __call__(self, params: dict, images: jax.Array) -> Features:
        """Images [B, H, W, 1 or 3] in [-1, 1] -> `Features`; no gradient reaches the parameters."""
        x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:3], 3))
        shape = (len(x), self.side, self.side, 3)
        # Cubic, and smoothed before it is made smaller, as pictures are resized for these networks.
        x = x if x.shape == shape else jax.image.resize(x, shape, "cubic", antialias=True)
        x = ((x + 1) / 2 - np.float32(self.mean)) / np.float32(self.deviation)
        found = self.network.apply({"params": jax.lax.stop_gradient(params)}, x)
        return Features(*(y.astype(jnp.float32) for y in found))


class Arrays:
    """Arrays of a file by name; what is missing is named."""

    def __init__(self, arrays: Mapping[str, np.ndarray], where: str):
        self.arrays = arrays
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        """The array as float32.

        Raises:
          UserError: there is none.
        """
        if name not in self.arrays:
            raise UserError(f"{self.where}: expected the array {name}, found none")
        return np.asarray(self.arrays[name], np.float32)

    def dense(self, *names: str) -> dict[str, Any]:
        """dict(kernel [I, O], bias [O]) of PyTorch's weight [O, I] and bias; of several, side by side."""
        kernels, biases = zip(*((self[f"{n}.weight"], self[f"{n}.bias"]) for n in names), strict=True)
        return dict(kernel=np.concatenate(kernels).T, bias=np.concatenate(biases))

    def patches(self, name: str) -> dict[str, Any]:
        """dict(kernel [p p 3, D], bias [D]) of a convolution of patches [D, 3, p, p] without overlap."""
        kernel = self[f"{name}.weight"]
        return dict(kernel=kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel)), bias=self[f"{name}.bias"])

    def norm(self, name: str) -> dict[str, Any]:
        """dict(scale, bias) of a norm."""
        return dict(scale=self[f"{name}.weight"], bias=self[f"{name}.bias"])
