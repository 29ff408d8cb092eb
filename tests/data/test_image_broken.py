"""What is a broken picture, and what is none."""

import errno
import os

import numpy as np
import pytest
from picture_files import COLOUR, claiming
from PIL import Image

from vargen.data.image_file import BrokenImage, read_image
from vargen.errors import UserError


@pytest.mark.parametrize("name", ("notes", "profile"))
def test_megabytes_beside_the_pixels(tmp_path, name):
    """Pillow takes a megabyte of text or profile in a PNG for an attack."""
    from PIL import PngImagePlugin

    notes = PngImagePlugin.PngInfo()
    notes.add_text("workflow", "x" * 3_000_000, zip=True)
    options = dict(notes=dict(pnginfo=notes), profile=dict(icc_profile=bytes(3_000_000)))[name]
    Image.fromarray(COLOUR).save(tmp_path / "0.png", **options)
    np.testing.assert_array_equal(read_image(tmp_path / "0.png", 3), COLOUR)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "expected a whole image, found a broken one, or of a kind that Pillow doesn't read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "found PostScript"),
        (claiming(8, 8), "expected a whole image, found a broken one"),
        (claiming(8, 8, "jpeg")[:-20], "expected a whole image, found a broken one"),
        (bytes(1000), "expected a whole image, found a broken one"),
    ],
)
def test_no_pictures_inside(tmp_path, content, message):
    (tmp_path / "0.png").write_bytes(content)
    with pytest.raises(BrokenImage, match=f"0.png: .*{message}"):
        read_image(tmp_path / "0.png", 3)


@pytest.mark.parametrize("suffix", ("png", "jpg", "webp", "gif", "bmp", "tif"))
def test_half_a_picture_is_broken(tmp_path, suffix):
    file = tmp_path / f"0.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[: os.path.getsize(file) // 2])
    with pytest.raises(BrokenImage, match=f"0.{suffix}: expected a whole image, found a broken one"):
        read_image(file, 3)


def test_what_fails_another_time_is_no_broken_picture(tmp_path, monkeypatch):
    """The disk or the network, and files that are gone: nothing that may be skipped."""
    file = tmp_path / "0.png"
    with pytest.raises(UserError, match="0.png: expected a file, found none") as caught:
        read_image(file, 3)
    assert not isinstance(caught.value, BrokenImage)
    Image.fromarray(COLOUR).save(file)

    def refuse(*args, **options):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(
        UserError, match="0.png: expected one that can be read, found: Input/output error"
    ) as caught:
        read_image(file, 3)
    assert not isinstance(caught.value, BrokenImage)
