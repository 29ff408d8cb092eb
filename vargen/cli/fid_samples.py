"""`vargen sample --fid-samples N --out FILE.npz`: the samples of a FID in the file that ADM's evaluator reads.

That is openai/guided-diffusion's form: `arr_0` uint8 [N, H, W, 3] and `arr_1` int64 [N], the classes, uncompressed.
Levels are whole numbers, as those of PNGs. Batches lie in FILE.npz.parts until all are there, so that a run that ends
early goes on where it was; the settings are the archive's comment.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vargen import paths
from vargen.cli import common, flags, processes, sample_files
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.model import Model

SUFFIX = ".npz"
PARTS, SETTINGS = ".parts", "settings.json"
BATCH = 64
DATE = (1980, 1, 1, 0, 0, 0)  # of the archive's members, so that equal samples make equal files
WITHOUT = ("captions", "codes", "count", "like")


def check(args: argparse.Namespace) -> paths.Path:
    """The file to write.

    Raises:
      UserError: flags that don't go with it; no such name, or no folder that takes it.
    """
    for flag in WITHOUT:
        if getattr(args, flag) is not None:
            raise UserError(f"sample: expected --fid-samples or --{flag}, found both")
    if args.out is None or not args.out.endswith(SUFFIX):
        raise UserError(f"--out: expected FILE{SUFFIX} for --fid-samples, found {args.out or 'none'}")
    out = paths.absolute(args.out, "--out")
    if out.is_dir() or (out.exists() and not paths.is_file(out)):
        raise UserError(
            f"--out {out}: expected a file, or nothing, found {'a directory' if out.is_dir() else 'another thing'}"
        )
    if not paths.is_remote(out) and not out.parent.is_dir():
        raise UserError(f"--out {out}: expected a folder {out.parent} to write it in, found none")
    paths.check_directory(out.parent)
    return out


def run(model: Model, args: argparse.Namespace, preset: dict[str, Any], out: paths.Path) -> None:
    """Draws what isn't drawn yet and writes the file.

    Raises:
      UserError: a model of captions; fewer samples than classes, where each is to have some; samples of other settings
        there; a batch that was written halfway.
    """
    import vargen
    from vargen import classes

    if model.needs_generator().condition.takes != "classes":
        raise UserError(f"--fid-samples: expected a model of classes, found {model.config.name}, of captions")
    common.check_pictures(model, "--fid-samples")
    wanted = list(dict.fromkeys(classes.parse(paths.text(args.classes or ""), model.classes)))
    total, seed, options = args.fid_samples, args.seed or 0, flags.sampling_options(args)
    labels = labels_of(wanted, total, preset["labels"], seed)
    height, width = (preset["resize"],) * 2 if preset["resize"] else model.tokenizer.image_size
    sampling = {k: v for k, v in options.items() if v is not None}
    made_by = sample_files.common_settings(
        model,
        args.workdir,
        version=vargen.__version__,
        dtype=model.config.compute_dtype,
        fid_samples=total,
        labels=f"{preset['labels']} of {sample_files.ranges(wanted)}",
        batch_size=min(args.batch_size or BATCH, total),
        seed=seed,
        resize=preset["resize"],
        rounding=preset["rounding"],
        sampling=model.config.sampling.to_dict() | sampling,
    )
    made_by = json.loads(json.dumps(made_by))
    store = Store(out, made_by, (total, height, width, 3), args.overwrite)
    if store.finished:
        processes.say(f"{total} samples of these settings are in {out}")
        return
    store.begin()
    processes.wait_for_first("fid_samples_begun")
    _draw(model, labels, store, options)
    processes.wait_for_first("fid_samples_drawn")
    if processes.is_first():
        store.join(labels)
        print(f"{total} samples in {out}")


def labels_of(wanted: Sequence[int], total: int, how: str, seed: int) -> np.ndarray:
    """The classes of samples, int64 [total]: "balanced", the wanted in turn, over and over (an inception score is taken
    of chunks of them); or "random", each drawn.

    Raises:
      UserError: fewer samples than classes, balanced.
    """
    if how == "random":
        return np.random.default_rng(seed).choice(np.asarray(wanted, np.int64), total)
    if total < len(wanted):
        raise UserError(f"--fid-samples: expected at least {len(wanted)}, one of each class, found {total}")
    return np.resize(np.asarray(wanted, np.int64), total)


def levels(images: np.ndarray, rounding: str) -> np.ndarray:
    """Images float32 [..., C] in [-1, 1] as uint8 [..., 3]: levels to the nearest, or down as a cast does (RAR)."""
    scaled = (images + np.float32(1)) * np.float32(127.5)
    whole = np.clip(np.round(scaled) if rounding == "nearest" else scaled, 0, 255).astype(np.uint8)
    return np.broadcast_to(whole, (*whole.shape[:-1], 3))


def _draw(model: Model, labels: np.ndarray, store: Store, options: dict[str, Any]) -> None:
    """Draws this process's batches that aren't there, as many at once as it has devices."""
    import jax

    from vargen import progress, seeds
    from vargen.across import Across
    from vargen.data import padded

    made_by, devices = store.made_by, jax.local_devices()
    size, key = made_by["batch_size"], seeds.key(made_by["seed"])
    starts = range(0, len(labels), size)[jax.process_index() :: jax.process_count()]
    missing = [start for start in starts if not store.has(start)]
    across = Across(model, devices[: max(len(missing), 1)], made_by["resize"], **options)
    own = sum(min(size, len(labels) - start) for start in starts)
    drawn = own - sum(min(size, len(labels) - start) for start in missing)
    with progress.bar("sampling", own, done=drawn) as shown:
        for first in range(0, len(missing), len(devices)):
            some = missing[first : first + len(devices)]
            full = some + some[-1:] * (min(len(devices), len(missing)) - len(some))
            batches = np.stack([padded(labels[start : start + size], size) for start in full])
            images = across(batches, [jax.random.fold_in(key, start) for start in full])
            for start, batch in zip(some, images):
                count = min(size, len(labels) - start)
                store.put(start, levels(batch[:count], made_by["rounding"]))
                shown.update(count)


class Store:
    """The batches of a run on their way into one file.

    Args:
      out: the file.
      made_by: the run's settings, as JSON has them.
      shape: of all samples.
      overwrite: whether those of other settings may go.

    Raises:
      UserError: they are there, and may not.
    """

    def __init__(self, out: paths.Path, made_by: dict[str, Any], shape: tuple[int, ...], overwrite: bool):
        self.out, self.made_by, self.shape = out, made_by, shape
        self.parts = out.parent / f"{out.name}{PARTS}"
        self._begun, there = _settings(self.parts / SETTINGS), _comment(out)
        self.finished = there == made_by
        for where, found in ((out, there), (self.parts, self._begun)):
            if not overwrite and not self.finished and found not in (None, made_by):
                raise UserError(
                    f"--out {where}: expected samples of these settings, or none, found {_difference(found, made_by)}; "
                    "--overwrite draws them anew, or name another --out"
                )

    def begin(self) -> None:
        """Makes the folder of parts, where it isn't there of the same settings; by the first process alone."""
        if self._begun == self.made_by or not processes.is_first():
            return
        if self._begun is not None:
            self.parts.rmtree()
        self.parts.mkdir(parents=True, exist_ok=True)
        paths.write_text(self.parts / SETTINGS, json.dumps(self.made_by, indent=1) + "\n")

    def has(self, start: int) -> bool:
        """Whether the batch that begins at a sample is there, whole."""
        try:
            return paths.size_and_time(self._part(start))[0] == self._count(start) * int(
                np.prod(self.shape[1:])
            )
        except OSError:
            return False

    def put(self, start: int, images: np.ndarray) -> None:
        """Writes a batch, uint8 [b, H, W, 3]."""
        paths.write_bytes(self._part(start), images.tobytes())

    def join(self, labels: np.ndarray) -> None:
        """Writes the file, batch by batch, and removes the parts.

        Raises:
          UserError: a batch is missing.
        """
        size = self.made_by["batch_size"]
        starts = range(0, len(labels), size)
        for start in starts:
            if not self.has(start):
                raise UserError(
                    f"{self._part(start)}: expected a batch, found none; the same command draws it again"
                )
        header = dict(descr="|u1", fortran_order=False, shape=self.shape)
        with paths.replacing(self.out) as file, zipfile.ZipFile(file, "w") as archive:
            archive.comment = json.dumps(self.made_by, sort_keys=True).encode()
            with archive.open(zipfile.ZipInfo("arr_0.npy", DATE), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for start in starts:
                    member.write(self._part(start).read_bytes())
            with archive.open(zipfile.ZipInfo("arr_1.npy", DATE), "w") as member:
                np.lib.format.write_array(member, np.asarray(labels, np.int64))
        self.parts.rmtree()

    def _count(self, start: int) -> int:
        return min(self.made_by["batch_size"], self.shape[0] - start)

    def _part(self, start: int) -> paths.Path:
        return self.parts / f"{start:08d}.bin"


def _settings(file: paths.Path) -> Any:
    """What a file of settings holds; None where there is none, {} where it is broken."""
    if not paths.is_file(file):
        return None
    try:
        return json.loads(file.read_text())
    except ValueError:
        return {}


def _comment(file: paths.Path) -> Any:
    """The settings in an archive's comment; None where there is no file, {} where it isn't one of these."""
    if not paths.is_file(file):
        return None
    try:
        with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            return json.loads(archive.comment)
    except (ValueError, OSError, zipfile.BadZipFile):
        return {}


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """In few words, how settings differ from those that are wanted."""
    if not isinstance(found, dict) or not found:
        return "a file of something else"
    for group, ours in (("", wanted), ("sampling.", wanted["sampling"])):
        theirs = found if not group else found.get("sampling", {})
        for name in ours:
            if name != "sampling" and theirs.get(name) != ours[name]:
                return f"{group}{name} {theirs.get(name)!r:.60} and not {ours[name]!r:.60}"
    return "others"
