"""Image sets prepared by TensorFlow Datasets as ArrayRecord files, read without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vargen import paths
from vargen.data.listing import listed
from vargen.data.sources import Source, digest
from vargen.data.transforms import to_bytes, to_channels
from vargen.errors import UserError

# "validation" first: the test split of some sets (ImageNet's) has no labels.
TEST_SPLITS = ("validation", "test")
NAME = re.compile(r"[\w.+-]+([/:][\w.+-]+)*")
INFO = "dataset_info.json"


class TfdsSource(Source):
    """Records decoded when they are asked for, at their own size."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        records: Any,
        keys: tuple[str, str],
        description: str,
        image_size: int,
        channels: int,
    ):
        super().__init__(name, classes, image_size, channels)
        self.records = records
        self.image_key, self.label_key = keys
        self.description = description

    def __len__(self) -> int:
        return len(self.records)

    def fingerprint(self) -> str:
        """A hash of the set's description, its split and size, and the names of classes."""
        return digest(self.description, len(self.records), self.classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self.records[index]
        except Exception as error:  # the decoders raise many kinds
            raise UserError(
                f"{self.name}: expected a whole record at {index}, found one that cannot be read ({error})"
            ) from error
        try:
            levels = to_bytes(np.asarray(record[self.image_key]))
        except ValueError as error:
            raise UserError(f"{self.name} at {index}: {error}") from error
        image = to_channels(levels, self.channels)
        label = int(record[self.label_key])
        if not 0 <= label < len(self.classes):
            raise UserError(
                f"{self.name}: expected a label from 0 to {len(self.classes) - 1} at {index}, found {label}"
            )
        return dict(image=image, label=label)


def load(settings: Mapping[str, Any], split: str) -> TfdsSource:
    """A prepared set on disk: `data.path` / `data.dataset` / version, or `data.path` itself.

    Held out are its `validation` or else `test` split, or else the last tenth of `train`.

    Raises:
      UserError: no set there, a file format without random access, or no image and class features.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            "tfds: expected the package tensorflow-datasets, found none: pip install tensorflow-datasets"
        ) from error
    directory = _prepared(settings["path"], settings["dataset"])
    name = f"tfds {directory}"
    _check_plain(directory, name)
    try:
        description = (directory / INFO).read_text()
        builder = tfds.builder_from_directory(directory)
    except Exception as error:  # its parsers raise many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{name}: expected a prepared set, found a broken one ({lines[0]})") from error
    keys = _keys(builder.info.features, name, tfds)
    available = builder.info.splits
    if "train" not in available:
        raise UserError(f"{name}: expected a split called train, found {', '.join(available) or 'none'}")
    held = next((s for s in TEST_SPLITS if s in available), None)
    chosen = {"train": "train" if held else "train[:90%]", "test": held or "train[90%:]"}[split]
    for file in available[chosen.partition("[")[0]].filenames:
        if not paths.is_file(directory / file):
            raise UserError(f"{name}: expected a whole set, found no file {file}")
    try:
        records = builder.as_data_source(split=chosen)
    except NotImplementedError as error:
        raise UserError(
            f"{name}: expected ArrayRecord files (download_and_prepare with file_format='array_record'), "
            f"found {builder.info.file_format.value}"
        ) from error
    classes = builder.info.features[keys[1]].names
    return TfdsSource(
        name,
        classes,
        records,
        keys,
        f"{directory.parent.name} {directory.name} {chosen} {description}",
        settings["image_size"],
        settings["channels"],
    )


def _prepared(path: str, dataset: str) -> paths.Path:
    """The directory of the newest version, which holds dataset_info.json."""
    if not path:
        raise UserError("data.path: expected the TensorFlow Datasets directory, found nothing")
    root = paths.path(path, "data.path")
    if dataset and not NAME.fullmatch(dataset):
        raise UserError(f"data.dataset: expected NAME, NAME/CONFIG or NAME:VERSION, found {dataset!r:.80}")
    base = root / dataset.replace(":", "/") if dataset else root
    found: list[paths.Path] = []
    level = [base] if base.is_dir() else []
    for _ in range(3):
        found += [folder for folder in level if (folder / INFO).exists()]
        level = [p for folder in level for p in listed(folder) if p.is_dir()]
    if not found:
        raise UserError(f"tfds {base}: expected a prepared set ({INFO}), found none")
    if (
        len(
            sets := sorted({folder.parent.relative_to(root).as_posix() for folder in found if folder != base})
        )
        > 1
    ):
        raise UserError(f"data.dataset: expected one of {', '.join(sets)}, found {dataset or 'none'}")
    return max(found, key=_version)


def _check_plain(directory: paths.Path, name: str) -> None:
    """Raises UserError where a pipe or a device would be read, which may never end."""
    odd = [p.name for p in listed(directory) if not paths.is_file(p) and not p.is_dir()]
    if odd:
        raise UserError(f"{name}: expected plain files, found another: {odd[0]}")


def _version(directory: paths.Path) -> tuple[int, ...]:
    parts = directory.name.split(".")
    return tuple(int(p) for p in parts) if all(p.isdigit() for p in parts) else (-1,)


def _keys(features: Any, name: str, tfds: Any) -> tuple[str, str]:
    """The names of the first image feature and of the first class label."""
    image = [k for k, f in features.items() if isinstance(f, tfds.features.Image)]
    label = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if not image or not label:
        raise UserError(f"{name}: expected an image and a class label, found {', '.join(features)}")
    return image[0], label[0]
