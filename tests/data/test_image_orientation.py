"""Pictures stand upright as their EXIF says, whatever else it says."""

import struct
import warnings

import numpy as np
import pytest
from picture_files import COLOUR, STORED, orientation
from PIL import Image, ImageOps

from vargen.data import image_file
from vargen.data.image_file import read_image

LOSSLESS = dict(png={}, webp=dict(lossless=True), tiff={}, tif=dict(compression="tiff_lzw"))


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("suffix", LOSSLESS)
def test_pictures_stand_upright(tmp_path, suffix, number):
    file = tmp_path / f"0.{suffix}"
    stored = Image.fromarray(np.ascontiguousarray(STORED[number](COLOUR)))
    stored.save(file, exif=orientation(number), **LOSSLESS[suffix])
    np.testing.assert_array_equal(read_image(file, 3), COLOUR)
    grey = np.asarray(Image.fromarray(COLOUR).convert("L"))
    np.testing.assert_array_equal(read_image(file, 1)[..., 0], grey)
    stored.convert("L").save(file, exif=orientation(number), **LOSSLESS[suffix])
    np.testing.assert_array_equal(read_image(file, 1)[..., 0], grey)


@pytest.mark.parametrize("number", STORED)
@pytest.mark.parametrize("image_size", (0, 8, 16, 99))
def test_jpegs_stand_upright_at_every_scale(tmp_path, number, image_size):
    """A half black, half white picture: which half is where, and the shape, say how it stands."""
    upright = np.zeros((48, 80, 3), np.uint8)
    upright[:, 40:, 0], upright[24:, :, 1] = 255, 255
    file = tmp_path / "0.jpg"
    Image.fromarray(np.ascontiguousarray(STORED[number](upright))).save(
        file, exif=orientation(number), quality=95, subsampling=0
    )
    found = read_image(file, 3, image_size)
    scale = 48 // len(found)
    assert found.shape == (48 // scale, 80 // scale, 3)
    assert scale == {0: 1, 8: 2, 16: 1, 99: 1}[image_size]
    step = 8 // scale
    assert np.abs(found[:: len(found) - 1, :: 80 // scale - 1].astype(int) - upright[::47, ::79]).max() < 12
    blocks = found[step // 2 :: step, step // 2 :: step].astype(int)
    assert np.abs(blocks - upright[4::8, 4::8]).max() < 40
    if image_size == 0:
        with Image.open(file) as picture:
            np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(picture)))


def test_what_phones_write_is_a_jpeg(tmp_path):
    """MPO: several JPEGs in a file, of which the first is the picture; decoded at a reduced scale as well."""
    file = tmp_path / "0.jpg"
    first, second = (Image.new("RGB", (640, 480), c) for c in ((200, 30, 40), (1, 2, 3)))
    first.save(file, "MPO", save_all=True, append_images=[second], exif=orientation(6))
    with Image.open(file) as picture:
        assert picture.format == "MPO"
    found = read_image(file, 3, 16)
    assert found.shape == (80, 60, 3) and np.abs(found.astype(int) - (200, 30, 40)).max() < 4


@pytest.mark.parametrize(
    "exif",
    (b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x" * 99),
)
def test_broken_exif_is_no_broken_picture(tmp_path, exif):
    for suffix in ("jpg", "png"):
        file = tmp_path / f"0.{suffix}"
        Image.new("RGB", (8, 6), (9, 9, 9)).save(file, exif=exif)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image_file._prepare.cache_clear()
            assert read_image(file, 3).shape == (6, 8, 3)
            image_file._prepare.cache_clear()


@pytest.mark.parametrize(
    "tag", (struct.pack("<HHI4s", 0x011A, 2, 4, b"300\0"), struct.pack("<HHIi", 0x0102, 9, 1, -5))
)
def test_exif_that_cannot_be_written_again_still_turns(tmp_path, tag):
    """A resolution as text, a size below 0: Pillow reads them, and turning writes them anew, which fails."""
    entries = struct.pack("<HHHIHH", 2, 0x0112, 3, 1, 6, 0) + tag + bytes(4)
    file = tmp_path / "0.jpg"
    Image.new("RGB", (16, 8)).save(file, exif=b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries)
    with pytest.raises((TypeError, struct.error)), Image.open(file) as picture:
        ImageOps.exif_transpose(picture)
    assert read_image(file, 3).shape == (16, 8, 3)
