"""Folders of pictures, each of a colour that its name decides."""

import os
import zlib

from PIL import Image

from vargen import config


def settings(path, **changes):
    return config.images("folder", 8, 3, 0, path=os.fspath(path), **changes)


def colour(name):
    """Three levels that tell a name from others."""
    return tuple(zlib.crc32(os.fsencode(name)).to_bytes(4, "big")[:3])


def picture(file, size=(4, 4)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour(file)).save(os.fspath(file), "png")
    return file


def pictures(root, *names):
    for name in names:
        picture(root / name)
    return root
