"""Mean and covariance of features that come batch by batch: memory doesn't grow with their number."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vargen.evaluation import metrics


class Gaussian(NamedTuple):
    """What a Fréchet distance knows of a set: float64 [F] and [F, F]."""

    mean: np.ndarray
    covariance: np.ndarray

    def distance(self, other: Gaussian) -> float:
        """The Fréchet distance to another; see `metrics.frechet_distance_of_gaussians`."""
        return metrics.frechet_distance_of_gaussians(*self, *other)


class Moments:
    """Sums of features and of their products, in float64.

    Attributes:
      count: features so far.
    """

    def __init__(self, size: int):
        self.count = 0
        self._sum = np.zeros(size)
        self._products = np.zeros((size, size))

    def add(self, features: np.ndarray) -> None:
        """Takes in features [B, F]."""
        features = np.asarray(features, np.float64)
        self.count += len(features)
        self._sum += features.sum(axis=0)
        self._products += features.T @ features

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance, as `np.cov` has it, of at least 2 features."""
        if self.count < 2:
            raise ValueError(f"features: expected at least 2, found {self.count}")
        mean = self._sum / self.count
        scatter = self._products - self.count * np.outer(mean, mean)
        return Gaussian(mean, scatter / (self.count - 1))
