"""Large pictures are reduced while they are read, and too large ones refused by their header."""

import time

import numpy as np
import pytest
from picture_files import claiming, pictures, settings
from PIL import Image

from vargen import data
from vargen.data import folder, image_file, kept, transforms
from vargen.data.image_file import BrokenImage, read_image

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "size, shape",
    (((200, 333), (25, 41)), ((64, 64), (16, 16)), ((40, 700), (20, 350)), ((31, 31), (31, 31))),
)
@pytest.mark.parametrize("channels", (1, 3))
def test_large_pictures_are_reduced_to_the_same_pixels(tmp_path, size, shape, channels):
    """What is reduced while reading would be reduced so by `fit`, for every crop."""
    pixels = RNG.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    whole, reduced = read_image(tmp_path / "0.png", channels), read_image(tmp_path / "0.png", channels, 8)
    assert whole.shape == (*size, channels) and reduced.shape == (*shape, channels)
    ways = [("center", None), *(("random", np.full(transforms.DRAWS, u)) for u in (0, 0.4, 1 - 2**-53))]
    for way in ways:
        np.testing.assert_array_equal(transforms.fit(whole, 8, *way), transforms.fit(reduced, 8, *way))


@pytest.mark.parametrize("size", ((1, 20_000), (20_000, 1), (3, 65_000), (65_000, 3)))
@pytest.mark.parametrize("mode", ("RGB", "L", "RGBA", "I;16"))
def test_very_long_pictures_are_quick(tmp_path, size, mode):
    file = tmp_path / "0.png"
    Image.new(mode, size).save(file)
    started = time.process_time()
    for crop, draws in (("center", None), ("random", np.full(transforms.DRAWS, 0.9))):
        assert transforms.fit(read_image(file, 3, 256), 256, crop, draws).shape == (256, 256, 3)
    assert time.process_time() - started < 5  # it was 71 s


TOO_LARGE = {
    "13001x13000.png": (claiming(13001, 13000), "100 megapixels.*found 13001 x 13000"),
    "2000000000x9.png": (claiming(2_000_000_000, 9), "found 2000000000 x 9"),
    "1x70000.png": (claiming(1, 70_000), "65535 pixels a side, found 1 x 70000"),
    "60000x60000.jpg": (claiming(60_000, 60_000, "jpeg"), "400 megapixels.*found 60000 x 60000"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_pictures_too_large_are_refused_by_their_header(tmp_path, name):
    content, message = TOO_LARGE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BrokenImage, match=f"{name}: expected at most .*{message}"):
        read_image(tmp_path / name, 3, 8)


def test_a_jpeg_is_refused_at_the_scale_at_which_it_is_read(tmp_path):
    """Of 169 megapixels; as many as that are read for small images only."""
    file = tmp_path / "large.jpg"
    file.write_bytes(claiming(13_000, 13_000, "jpeg"))
    assert read_image(file, 3, 512).shape == (1625, 1625, 3)
    with pytest.raises(BrokenImage, match="at most 100 megapixels.*found 13000 x 13000"):
        read_image(file, 3)


def test_large_pictures_below_the_limit_are_read(tmp_path):
    file = tmp_path / "large.png"
    Image.new("1", (9600, 9600)).save(file)  # of which Pillow would warn
    assert read_image(file, 1).shape == (9600, 9600, 1)
    assert read_image(file, 1, 100).shape == (300, 300, 1)


def test_few_large_pictures_are_decoded_at_once(tmp_path, monkeypatch):
    """Sixteen readers would fill the memory."""
    running, most = [], []
    converted = image_file._converted

    def counted(*given):
        running.append(given)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return converted(*given)

    monkeypatch.setattr(folder, "KEPT", kept.Kept(0))
    monkeypatch.setattr(image_file, "LARGE", 100)
    monkeypatch.setattr(image_file, "_converted", counted)
    source = data.load(settings(pictures(tmp_path, *(f"a/{i}.png" for i in range(30)))))
    data.arrays(source)
    assert max(most) > 4
    most.clear()
    monkeypatch.setattr(image_file, "LARGE", 10)
    data.arrays(source)
    assert max(most) == 4 and len(most) == len(source)
