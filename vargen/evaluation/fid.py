"""The field's figures of a set of samples against a reference: FID, sFID, inception score, precision, recall, KID."""

from __future__ import annotations

import dataclasses

import numpy as np

from vargen.errors import UserError
from vargen.evaluation import adm, metrics, mmd
from vargen.evaluation.inception import Outputs
from vargen.evaluation.moments import Gaussian, Moments

KEPT = 50_000  # images whose features are held for what compares them one by one: 0.4 GB


@dataclasses.dataclass(frozen=True)
class Reference:
    """What is known of the reference; None of what isn't.

    Attributes:
      pool: of the features `Outputs.pool`.
      spatial: of `Outputs.spatial`.
      features: `Outputs.pool` of images of it, float32 [M, F], the first `KEPT`.
      count: its images.
    """

    pool: Gaussian
    spatial: Gaussian | None = None
    features: np.ndarray | None = None
    count: int = 0


class Gathered:
    """Statistics of images as they come; of the first `KEPT` the features too. Memory doesn't grow beyond.

    Attributes:
      count: images so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._moments: tuple[Moments, Moments] | None = None
        self._score = adm.InceptionScore()
        self._features: list[np.ndarray] = []

    def add(self, outputs: Outputs) -> None:
        """Takes in what the network makes of some images."""
        if self._moments is None:
            self._moments = Moments(outputs.pool.shape[1]), Moments(outputs.spatial.shape[1])
        for moments, features in zip(self._moments, (outputs.pool, outputs.spatial), strict=True):
            moments.add(features)
        self._score.add(outputs.logits)
        if self.count < KEPT:
            # A copy: a view, be it of nothing, would hold the whole batch.
            self._features.append(np.array(outputs.pool[: KEPT - self.count]))
        self.count += len(outputs.pool)

    def reference(self) -> Reference:
        """The same as a reference.

        Raises:
          ValueError: fewer than 2 images.
        """
        if self._moments is None:
            raise ValueError("images: expected at least 2, found none")
        pool, spatial = (moments.gaussian() for moments in self._moments)
        return Reference(pool, spatial, np.concatenate(self._features), self.count)

    def inception_score(self) -> float:
        """See `adm.InceptionScore`."""
        return self._score.value()


def check_count(what: str, count: int, needed: int) -> None:
    """Checks that a set is large enough: a covariance of F features is of full rank with more than F of them.

    Raises:
      UserError: it has no more than `needed`; `what` is the set.
    """
    if count <= needed:
        raise UserError(f"{what}: expected more than {needed}, which the statistics need, found {count}")


def compare(reference: Reference, samples: Gathered) -> dict[str, float]:
    """Figures by name: those of `fid`, `sfid`, `inception_score`, `inception_precision`, `inception_recall` and `kid`
    (where both sets have enough images for it) that the reference allows.

    Raises:
      UserError: features of another number than the reference's.
    """
    theirs = samples.reference()
    found = dict(inception_score=samples.inception_score())
    for name, ours, gaussian in (
        ("fid", reference.pool, theirs.pool),
        ("sfid", reference.spatial, theirs.spatial),
    ):
        if ours is not None:
            _check_features(len(ours.mean), len(gaussian.mean))
            found[name] = ours.distance(gaussian)
    if reference.features is not None:
        both = reference.features, theirs.features
        found["inception_precision"], found["inception_recall"] = adm.precision_recall(*both)
        if min(map(len, both)) >= mmd.SUBSET_SIZE:
            found["kid"] = mmd.kid(*both).mean
    return found


def compare_features(reference: np.ndarray, samples: np.ndarray) -> dict[str, float]:
    """Figures of features [M, F] and [G, F] of any network: DINOv2's give FD-DINOv2, CLIP's CMMD.

    Returns:
      `features_frechet_distance`, `features_precision`, `features_recall`, `features_cmmd`, and `features_kid` where
      both sets have enough for it.

    Raises:
      UserError: features of two lengths, or no more of them than they have numbers.
    """
    _check_features(reference.shape[1], samples.shape[1])
    found = {}
    for name, features in (("reference", reference), ("samples", samples)):
        check_count(name, *features.shape)
    found["features_frechet_distance"] = metrics.frechet_distance(reference, samples)
    found["features_precision"], found["features_recall"] = adm.precision_recall(
        *(np.asarray(x[:KEPT], np.float32) for x in (reference, samples))
    )
    if min(len(reference), len(samples)) >= mmd.SUBSET_SIZE:
        found["features_kid"] = mmd.kid(reference, samples).mean
    found["features_cmmd"] = mmd.cmmd(reference[:KEPT], samples[:KEPT])
    return found


def _check_features(expected: int, found: int) -> None:
    if expected != found:
        raise UserError(f"features: expected {expected} of an image, as the reference has, found {found}")
