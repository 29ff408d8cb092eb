"""`vargen evaluate --reference`: samples against a reference, with Inception's features or with given ones."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from vargen.cli import image_sets
from vargen.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from vargen.evaluation import fid, inception
    from vargen.paths import PathLike

BATCH = 64  # images at once, as ADM's evaluator


class Judge:
    """Inception's view of samples as they come, against a reference.

    Args:
      reference: a file of `image_sets.read`, or a folder.
      weights: Inception's, of `vargen.interop.inception.read`.
      name, count, size: the samples' name for messages, their number, height and width.

    Raises:
      UserError: files that can't be read, a reference of other sizes, too few images.
    """

    def __init__(
        self, reference: PathLike, weights: PathLike, name: str, count: int, size: tuple[int, int]
    ) -> None:
        from vargen.evaluation import fid
        from vargen.interop import inception

        found = image_sets.read(reference, "--reference")
        if found.images is None and found.statistics[0] is None:
            raise UserError(
                f"{found.name}: expected images or mu and sigma beside --inception, found features"
            )
        if found.images is not None and found.images.size != size:
            (h, w), (height, width) = found.images.size, size
            raise UserError(
                f"{found.name}: expected images of {height}x{width} pixels as the samples are, found {h}x{w}"
            )
        self._encoder = inception.read(weights)
        pool, spatial = self._encoder.sizes
        for expected, statistics in zip((pool, spatial), found.statistics, strict=True):
            if statistics is not None and len(statistics[0]) != expected:
                raise UserError(
                    f"{found.name}: expected statistics of {expected} features, found {len(statistics[0])}"
                )
        placed = found.images is not None or found.statistics[1] is not None  # then sFID is measured too
        fid.check_count(name, count, max(pool, spatial) if placed else pool)
        self._samples = fid.Gathered()
        self._reference = _reference(found, self._encoder)

    def add(self, images: np.ndarray) -> None:
        """Takes in samples, uint8 or float in [-1, 1], [b, H, W, C]."""
        from vargen.report import pictures

        self._samples.add(self._encoder(pictures.to_uint8(images)))

    def metrics(self) -> dict[str, float]:
        """Figures by name, see `fid.compare`."""
        from vargen.evaluation import fid

        return fid.compare(self._reference, self._samples)


def _reference(found: image_sets.Set, encoder: inception.Encoder) -> fid.Reference:
    """Statistics that the file tells, and of its images those that it doesn't."""
    from vargen import progress
    from vargen.evaluation import adm, fid, moments

    pool, spatial = (None if s is None else moments.Gaussian(*s) for s in found.statistics)
    if found.images is None:
        return fid.Reference(pool, spatial)
    fid.check_count(
        found.name, found.images.count, adm.NEIGHBOURS if pool is not None else max(encoder.sizes)
    )
    gathered = fid.Gathered()
    for batch in progress.each(found.images.batches(BATCH), found.images.count, "reference"):
        gathered.add(encoder(batch))
    theirs = gathered.reference()
    if pool is None:
        return theirs
    return fid.Reference(pool, spatial, theirs.features)


def run(args: argparse.Namespace) -> dict[str, float]:
    """Measures samples of a file or a folder; prints, and writes metrics.json where --out names a folder.

    Raises:
      UserError: files that can't be read or don't belong together.
    """
    from vargen import paths, progress, report
    from vargen.cli import common
    from vargen.evaluation import fid

    out = None if args.out is None else common.out_directory(args)
    samples = image_sets.read(args.samples, "--samples")
    if args.inception is None:
        reference = image_sets.read(args.reference, "--reference")
        if reference.features is None or samples.features is None:
            lacking = reference if reference.features is None else samples
            raise UserError(f"{lacking.name}: expected features [M, F], or --inception FILE, found neither")
        metrics = fid.compare_features(reference.features, samples.features)
        metrics["samples"] = len(samples.features)
    else:
        images = samples.images
        if images is None:
            raise UserError(f"{samples.name}: expected images (arr_0) beside --inception, found none")
        judge = Judge(args.reference, args.inception, samples.name, images.count, images.size)
        for batch in progress.each(images.batches(BATCH), images.count, "samples"):
            judge.add(batch)
        metrics = judge.metrics() | dict(samples=images.count)
    for key, metric in report.METRICS.items():
        if key in metrics:
            print(f"{metric.label:34} {metric.show(metrics[key])}")
    if out is not None:
        paths.write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        print(f"see {out / 'metrics.json'}")
    return metrics
