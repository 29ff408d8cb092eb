"""Levels of 12 and 16 bits and floating-point ones, rounded to 8 bits."""

import struct
import zlib

import numpy as np
import pytest
from picture_files import STORED, orientation
from PIL import Image

from vargen.data import transforms
from vargen.data.image_file import BrokenImage, read_image

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 65_536, (13, 21), dtype=np.uint16)
EIGHT = np.round(WIDE / 257).astype(np.uint8)


def as_png16(file, chunk=b""):
    Image.fromarray(WIDE).save(file)
    if chunk:
        content = file.read_bytes()
        at = content.index(b"IDAT") - 4
        head = struct.pack(">I", len(chunk) - 4) + chunk
        file.write_bytes(content[:at] + head + struct.pack(">I", zlib.crc32(chunk)) + content[at:])


def big_endian(file, values=WIDE):
    Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()).save(file)


SIXTEEN = {
    "grey.png": as_png16,
    "little.tif": lambda file: Image.fromarray(WIDE).save(file),
    "big.tif": big_endian,
    "packed.tif": lambda file: Image.fromarray(WIDE).save(file, compression="tiff_lzw"),
    "int32.tif": lambda file: Image.fromarray(WIDE.astype(np.int32)).save(file),  # mode "I"
    "grey.pgm": lambda file: Image.fromarray(WIDE.astype(np.int32)).save(file, "PPM"),
}


@pytest.mark.parametrize("name", SIXTEEN)
@pytest.mark.parametrize("channels", (1, 3))
def test_sixteen_bits_of_grey_are_rounded(tmp_path, name, channels):
    SIXTEEN[name](tmp_path / name)
    found = read_image(tmp_path / name, channels)
    np.testing.assert_array_equal(found, np.repeat(EIGHT[..., None], channels, axis=-1))


@pytest.mark.parametrize("number", STORED)
def test_sixteen_bits_stand_upright(tmp_path, number):
    stored = np.ascontiguousarray(STORED[number](WIDE))
    Image.fromarray(stored).save(tmp_path / "0.png", exif=orientation(number))
    Image.frombytes("I;16B", stored.shape[::-1], stored.astype(">u2").tobytes()).save(
        tmp_path / "0.tif", exif=orientation(number)
    )
    for name in ("0.png", "0.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name, 1)[..., 0], EIGHT)


def test_every_level_of_sixteen_bits():
    levels = np.arange(65_536)
    for kind in (np.uint16, np.int32, ">u2", np.uint32):
        np.testing.assert_array_equal(transforms.to_bytes(levels.astype(kind)), np.round(levels / 257))
    np.testing.assert_array_equal(transforms.to_bytes(np.array([False, True])), [0, 255])


def test_a_transparent_grey_of_sixteen_bits_is_white(tmp_path):
    level = int(WIDE[3, 4])
    as_png16(tmp_path / "0.png", b"tRNS" + struct.pack(">H", level))
    found = read_image(tmp_path / "0.png", 1)[..., 0]
    np.testing.assert_array_equal(found, np.where(WIDE == level, 255, EIGHT))


def test_twelve_bits(tmp_path):
    """Packed, two levels in three bytes, as microscopes write them."""
    levels = np.array([[0, 1, 9, 4095], [2048, 4094, 8, 100]], np.uint16)
    first, second = levels.ravel()[::2].astype(int), levels.ravel()[1::2].astype(int)
    data_ = (
        np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(np.uint8).tobytes()
    )
    tags = [
        (256, 3, 4),
        (257, 3, 2),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 2),
    ]
    tags.append((279, 4, len(data_)))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    file = tmp_path / "0.tif"
    header = b"II*\0" + struct.pack("<I", 8 + len(data_)) + data_
    file.write_bytes(header + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))
    np.testing.assert_array_equal(read_image(file, 1)[..., 0], np.round(levels / 4095 * 255))


def test_sixteen_bits_of_colour_are_pillows(tmp_path):
    """It keeps the upper byte."""
    levels = RNG.integers(0, 65_536, (5, 4, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0))
    file = tmp_path / "0.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_image(file, 3), levels >> 8)
    np.testing.assert_array_equal(read_image(file, 3), np.asarray(Image.open(file)))


def as_tiff(file, values):
    """Grey levels of any whole type, which Pillow doesn't write."""
    data_, (height, width) = values.tobytes(), values.shape
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, values.itemsize * 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
    ]
    tags += [
        (277, 3, 1),
        (278, 3, height),
        (279, 4, len(data_)),
        (339, 3, 2 if values.dtype.kind == "i" else 1),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    header = b"II*\0" + struct.pack("<I", 8 + len(data_)) + data_
    file.write_bytes(header + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))


@pytest.mark.parametrize(
    "kind, levels, most",
    [
        ("int32", (5, 100_000), 65_535),
        ("int32", (-1, 5), 65_535),
        ("int32", (-(2**31), 2**31 - 1), 65_535),
        ("uint32", (5, 65_536), 65_535),
        ("uint32", (5, 2**32 - 1), 65_535),
        ("int16", (-1, 5), 65_535),
        ("int8", (-1, 5), 255),
    ],
)
def test_whole_numbers_without_a_scale(tmp_path, kind, levels, most):
    """Refused as floats are: clipped they would be another picture."""
    as_tiff(tmp_path / "0.tif", np.array([levels], kind))
    words = f"0.tif: expected whole levels from 0 to {most}, found {levels[0]} to {levels[1]}"
    for channels in (1, 3):
        with pytest.raises(BrokenImage, match=words):
            read_image(tmp_path / "0.tif", channels)


@pytest.mark.parametrize("kind", ("int8", "uint8", "int16", "uint16", "int32", "uint32"))
def test_whole_numbers_of_every_type(tmp_path, kind):
    """The largest of the type that is a level, which is what 8 bits have for 8 and else 16."""
    top = min(np.iinfo(kind).max, 65_535)
    levels = np.array([[0, 1, top // 2, top]], kind)
    as_tiff(tmp_path / "0.tif", levels)
    expected = levels if kind.endswith("t8") else np.round(levels / 257)
    np.testing.assert_array_equal(read_image(tmp_path / "0.tif", 1)[..., 0], expected)


@pytest.mark.parametrize("most", (1.0, 0.5, 255.0, 2.0))
def test_floating_point(tmp_path, most):
    """From 0 to 1, or to 255 where one is above 1."""
    levels = RNG.random((6, 5), np.float32) * np.float32(most)
    levels[0, 0], levels[1, 1] = most, 0
    Image.fromarray(levels).save(tmp_path / "0.tif")
    expected = np.round(levels.astype(np.float64) * (255 if most <= 1 else 1))
    found = read_image(tmp_path / "0.tif", 1)[..., 0]
    assert np.abs(found - expected).max() <= (np.abs(levels * 255 % 1 - 0.5) < 1e-4).any()


@pytest.mark.parametrize("wrong", (-0.1, 255.5, np.nan, np.inf))
def test_floating_point_without_a_scale(tmp_path, wrong):
    levels = np.full((3, 3), 0.5, np.float32)
    levels[1, 1] = wrong
    Image.fromarray(levels).save(tmp_path / "0.tif")
    with pytest.raises(BrokenImage, match="0.tif: expected levels from 0 to 1 or from 0 to 255, found"):
        read_image(tmp_path / "0.tif", 3)
