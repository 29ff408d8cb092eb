"""Folders of pictures, each of a colour that its name decides; and files as cameras and broken programs write them."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

from vargen import config, data

COLOUR = np.random.default_rng(0).integers(0, 256, (13, 21, 3), np.uint8)
# What a camera wrote: the picture's rows and columns as they lie in the file, for each orientation of EXIF 2.3.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


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


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def claiming(width, height, kind="png"):
    """The first bytes of a picture, which say its size."""
    if kind == "png":
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        first = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        return b"\x89PNG\r\n\x1a\n" + first + struct.pack(">I", 9) + b"IDAT"
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def loaded(root, **changes):
    return [data.load(settings(root, **changes), split) for split in ("train", "test")]


def names_of(source):
    return [file.relative_to(source.root).as_posix() for file in source.files]


def copy(root, old, *new):
    for name in new:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((root / old).read_bytes())
