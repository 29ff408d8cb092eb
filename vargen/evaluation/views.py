"""Networks other than Inception that figures rest on: DINOv2's of FD-DINOv2 (Stein et al. 2023, arXiv 2306.04675),
CLIP's of CMMD (Jayasumana et al. 2024, arXiv 2401.09603). `vargen.interop.views` reads their weights.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vargen.data import pipeline
from vargen.evaluation import fid, mmd
from vargen.evaluation.moments import Moments


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A vision transformer with its parameters, as a function of pictures.

    Attributes:
      network: module, normalised pictures [B, side, side, 3] -> (grid, float32 [B, D]).
      params: its parameters.
      side: pixels per side that pictures are scaled to.
      cut: whether the middle square of a picture is taken first; else it is squeezed.
      mean, deviation: of pictures in [0, 1], by which they are normalised.
      projection: float32 [D, F], applied to what the network gives; None for none.
      size: length of the features.
      batch_size: the one shape that it compiles for.
    """

    network: nn.Module
    params: Any
    side: int
    cut: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    projection: np.ndarray | None
    size: int
    batch_size: int = 64

    @functools.cached_property
    def _apply(self):
        def features(params: Any, projection: Any, images: jax.Array) -> jax.Array:
            with jax.default_matmul_precision("highest"):  # as the evaluators' float32
                pooled = self.network.apply({"params": params}, images)[1]
                return pooled if projection is None else pooled @ projection

        return jax.jit(features)

    @functools.cached_property
    def _params(self) -> Any:
        return jax.device_put((self.params, self.projection))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 [M, F] for images uint8 [M, H, W, 3], or [M, H, W, 1], whose one channel is taken thrice."""
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = np.stack([self._scaled(x) for x in images[start : start + self.batch_size]])
            batch = (batch / np.float32(255) - np.float32(self.mean)) / np.float32(self.deviation)
            features = self._apply(*self._params, pipeline.padded(batch, self.batch_size))
            found.append(np.asarray(features)[: len(batch)])
        return np.concatenate(found)

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        """float32 [side, side, 3] of whole levels: both evaluators scale by Pillow's cubic, which gives such."""
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
        if self.cut:
            (width, height), least = picture.size, min(picture.size)
            left, top = (width - least) // 2, (height - least) // 2
            picture = picture.crop((left, top, left + least, top + least))
        return np.asarray(picture.resize((self.side, self.side), Image.Resampling.BICUBIC), np.float32)


class FrechetDistance:
    """Statistics of features as they come, for FD-DINOv2; memory doesn't grow.

    Attributes:
      count: features so far.
    """

    figure = "fd_dinov2"

    def __init__(self, size: int) -> None:
        self._moments = Moments(size)

    @property
    def count(self) -> int:
        """Features so far."""
        return self._moments.count

    def add(self, features: np.ndarray) -> None:
        """Takes in features float32 [B, F]."""
        self._moments.add(features)

    def to(self, other: FrechetDistance) -> float:
        """The distance of two sets.

        Raises:
          ValueError: fewer than 2 features in one.
        """
        return self._moments.gaussian().distance(other._moments.gaussian())


class Discrepancy:
    """Features as they come, for CMMD: of the first `fid.KEPT`.

    Attributes:
      count: features that are held.
    """

    figure = "cmmd"

    def __init__(self, size: int) -> None:
        self._held: list[np.ndarray] = [np.zeros((0, size), np.float32)]
        self.count = 0

    def add(self, features: np.ndarray) -> None:
        """Takes in features float32 [B, F]."""
        if self.count < fid.KEPT:
            some = np.array(features[: fid.KEPT - self.count])  # a view would hold the whole batch
            self._held.append(some)
            self.count += len(some)

    def to(self, other: Discrepancy) -> float:
        """CMMD of two sets, see `mmd.cmmd`."""
        return mmd.cmmd(np.concatenate(self._held), np.concatenate(other._held))
