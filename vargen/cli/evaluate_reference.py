"""`vargen evaluate --reference`: samples against a reference, by networks' features or by given ones."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vargen.cli import image_sets
from vargen.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from vargen.evaluation import fid, inception
    from vargen.paths import Path, PathLike

BATCH = 64  # images at once, as ADM's evaluator
NETWORKS = ("inception", "dinov2", "clip")  # flags that name their weights
FILE = "made_from.json"
HASHED = 2**30  # bytes: larger files take a minute or more


def opened(
    reference: PathLike, weights: Mapping[str, str], name: str, count: int, size: tuple[int, int]
) -> tuple[Any, list[Any]]:
    """A reference as of `image_sets.read` and the networks that look, before either has been used; see `Judge`.

    Raises:
      UserError: as of `Judge`.
    """
    found = image_sets.read(reference, "--reference")
    if found.images is None:
        others = [flag for flag in weights if flag != "inception"]
        if others:
            raise UserError(f"{found.name}: expected images (arr_0) beside --{others[0]}, found none")
        if found.statistics[0] is None:
            raise UserError(
                f"{found.name}: expected images or mu and sigma beside --inception, found features"
            )
    elif found.images.size != size:
        (h, w), (height, width) = found.images.size, size
        raise UserError(
            f"{found.name}: expected images of {height}x{width} pixels as the samples are, found {h}x{w}"
        )
    views = [(_Inception if flag == "inception" else _View)(flag, file) for flag, file in weights.items()]
    for view in views:
        view.check(found, name, count)
    return found, views


class Judge:
    """What networks see in samples as they come, against a reference.

    Args:
      reference: a file of `image_sets.read`, or a folder.
      weights: files by the flags of `NETWORKS`, one at least.
      name, count, size: the samples' name for messages, their number, height and width.

    Attributes:
      told: of the reference and the networks' files, what `origin` says of them.

    Raises:
      UserError: files that can't be read, a reference of other sizes, too few images.
    """

    def __init__(
        self, reference: PathLike, weights: Mapping[str, str], name: str, count: int, size: tuple[int, int]
    ) -> None:
        found, self._views = opened(reference, weights, name, count, size)
        for view in self._views:
            view.look_at(found)
        self.told: dict[str, Any] = dict(
            reference=origin(reference, found.images and found.images.count),
            networks={flag: origin(file) for flag, file in weights.items()},
        )

    def add(self, images: np.ndarray) -> None:
        """Takes in samples, uint8 or float in [-1, 1], [b, H, W, C]."""
        from vargen.report import pictures

        levels = pictures.to_uint8(images)
        for view in self._views:
            view.add(levels)

    def metrics(self) -> dict[str, float]:
        """Figures by name, see `fid.compare`; of `NETWORKS` the others' too."""
        return {name: value for view in self._views for name, value in view.metrics().items()}

    def remarks(self) -> list[str]:
        """What a reader of the figures has to know besides; sentences."""
        return [remark for view in self._views for remark in view.remarks()]


class _Inception:
    """Inception's figures, see `fid.compare`."""

    def __init__(self, flag: str, file: str) -> None:
        from vargen.evaluation import fid
        from vargen.interop import inception

        self._encoder = inception.read(file)
        self._samples = fid.Gathered()

    def check(self, found: image_sets.Set, name: str, count: int) -> None:
        """Raises UserError for statistics of other features, and for too few images."""
        from vargen.evaluation import adm, fid

        pool, spatial = self._encoder.sizes
        for expected, statistics in zip((pool, spatial), found.statistics, strict=True):
            if statistics is not None and len(statistics[0]) != expected:
                raise UserError(
                    f"{found.name}: expected statistics of {expected} features, found {len(statistics[0])}"
                )
        placed = found.images is not None or found.statistics[1] is not None  # then sFID is measured too
        fid.check_count(name, count, max(pool, spatial) if placed else pool)
        if found.images is not None:
            known = found.statistics[0] is not None
            fid.check_count(found.name, found.images.count, adm.NEIGHBOURS if known else max(pool, spatial))

    def look_at(self, found: image_sets.Set) -> None:
        """Takes in the reference."""
        self._reference = _reference(found, self._encoder)

    def add(self, images: np.ndarray) -> None:
        """Takes in samples, uint8 [b, H, W, C]."""
        self._samples.add(self._encoder(images))

    def metrics(self) -> dict[str, float]:
        """Figures by name."""
        from vargen.evaluation import fid

        return fid.compare(self._reference, self._samples)

    def remarks(self) -> list[str]:
        """Which figures are of fewer images than were given."""
        from vargen.evaluation import fid

        most = max(self._samples.count, self._reference.count)
        if self._reference.features is None or most <= fid.KEPT:
            return []
        return [
            f"precision, recall and KID are of the first {fid.KEPT} images of each set; the others of all"
        ]


class _View:
    """One figure of a network of `vargen.evaluation.views`."""

    def __init__(self, flag: str, file: str) -> None:
        from vargen.evaluation import views as figures
        from vargen.interop import views

        self._encoder = dict(dinov2=views.dinov2, clip=views.clip)[flag](file)
        kind = dict(dinov2=figures.FrechetDistance, clip=figures.Discrepancy)[flag]
        self._sets: Any = [kind(self._encoder.size) for _ in range(2)]
        self._flag, self._count = flag, 0

    def check(self, found: image_sets.Set, name: str, count: int) -> None:
        """Raises UserError for too few images."""
        from vargen.evaluation import fid

        needed = self._encoder.size if self._flag == "dinov2" else 1
        assert found.images is not None
        for what, number in ((name, count), (found.name, found.images.count)):
            fid.check_count(what, number, needed)

    def look_at(self, found: image_sets.Set) -> None:
        """Takes in the reference."""
        from vargen import progress

        assert found.images is not None
        self._count = found.images.count
        name = f"reference, --{self._flag}"
        for batch in progress.each(found.images.batches(BATCH), self._count, name):
            self._sets[0].add(self._encoder(batch))

    def add(self, images: np.ndarray) -> None:
        """Takes in samples, uint8 [b, H, W, C]."""
        self._count = max(self._count, self._sets[1].count + len(images))
        self._sets[1].add(self._encoder(images))

    def metrics(self) -> dict[str, float]:
        """The figure by its name."""
        reference, samples = self._sets
        return {samples.figure: reference.to(samples)}

    def remarks(self) -> list[str]:
        """Whether the network or the images aren't those of published figures."""
        from vargen.evaluation import fid
        from vargen.interop import views

        said = []
        if not views.large(self._encoder):
            network = self._encoder.network
            said.append(
                f"--{self._flag}: width {network.width} and {network.layers} layers; published figures are ViT-L/14's"
            )
        if self._flag == "clip" and self._count > fid.KEPT:
            said.append(f"CMMD is of the first {fid.KEPT} images of each set")
        return said


def origin(path: PathLike, count: int | None = None) -> dict[str, Any]:
    """What names a file, or a folder, so that a figure can be had again: its path, bytes and SHA-256 (of files up to
    `HASHED` bytes), and how many images it has."""
    import hashlib

    from vargen import hub, paths

    told: dict[str, Any] = dict(path=str(path)) | ({} if count is None else dict(images=count))
    if hub.is_hub(path):
        return told | hub.origin(hub.pin({"path": path})["path"])
    where = paths.path(path)
    if where.is_dir():
        return told
    told["bytes"] = paths.size_and_time(where)[0]
    if told["bytes"] <= HASHED:
        with where.open("rb") as opened:
            told["sha256"] = hashlib.file_digest(opened, "sha256").hexdigest()
    return told


def _reference(found: image_sets.Set, encoder: inception.Encoder) -> fid.Reference:
    """Statistics that the file tells, and of its images those that it doesn't."""
    from vargen import progress
    from vargen.evaluation import fid, moments

    pool, spatial = (None if s is None else moments.Gaussian(*s) for s in found.statistics)
    if found.images is None:
        return fid.Reference(pool, spatial)
    gathered = fid.Gathered()
    for batch in progress.each(found.images.batches(BATCH), found.images.count, "reference"):
        gathered.add(encoder(batch))
    theirs = gathered.reference()
    if pool is None:
        return theirs
    return fid.Reference(pool, spatial, theirs.features, theirs.count)


def networks(args: argparse.Namespace) -> dict[str, str]:
    """The files of `NETWORKS` that flags name."""
    return {flag: getattr(args, flag) for flag in NETWORKS if getattr(args, flag) is not None}


def write(out: Path, **told: Any) -> None:
    """Writes what figures were made from into the folder, as `FILE`."""
    import vargen
    from vargen import paths

    told = dict(version=vargen.__version__, **told)
    paths.write_text(out / FILE, json.dumps(told, indent=2) + "\n")


def run(args: argparse.Namespace) -> dict[str, float]:
    """Measures samples of a file or a folder; prints, and writes metrics.json and what it was made from (`FILE`) where
    --out names a folder.

    Raises:
      UserError: files that can't be read or don't belong together.
    """
    from vargen import paths, progress, report
    from vargen.cli import common
    from vargen.evaluation import fid

    out = None if args.out is None else common.out_directory(args)
    samples = image_sets.read(args.samples, "--samples")
    if weights := networks(args):
        images = samples.images
        if images is None:
            flag = next(iter(weights))
            raise UserError(f"{samples.name}: expected images (arr_0) beside --{flag}, found none")
        judge = Judge(args.reference, weights, samples.name, images.count, images.size)
        for batch in progress.each(images.batches(BATCH), images.count, "samples"):
            judge.add(batch)
        metrics = judge.metrics() | dict(samples=images.count)
        remarks, told, count = judge.remarks(), judge.told, images.count
    else:
        reference = image_sets.read(args.reference, "--reference")
        if reference.features is None or samples.features is None:
            lacking = reference if reference.features is None else samples
            raise UserError(f"{lacking.name}: expected features [M, F], or --inception FILE, found neither")
        metrics = fid.compare_features(reference.features, samples.features)
        count = metrics["samples"] = len(samples.features)
        told = dict(reference=origin(args.reference, len(reference.features)))
        remarks = []
        if max(count, len(reference.features)) > fid.KEPT:
            remarks.append(f"precision, recall and CMMD are of the first {fid.KEPT} features of each set")
    for key, metric in report.METRICS.items():
        if key in metrics:
            print(f"{metric.label:34} {metric.show(metrics[key])}")
    for remark in remarks:
        print(remark)
    if out is not None:
        paths.write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        write(out, samples=origin(args.samples, count), **told, remarks=remarks)
        print(f"see {out / 'metrics.json'} and {out / FILE}")
    return metrics
