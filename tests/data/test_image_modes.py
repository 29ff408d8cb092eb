"""Of every kind of file what Pillow makes of it, over white."""

import numpy as np
import pytest
from picture_files import COLOUR
from PIL import Image, ImageCms

from vargen.data.image_file import read_image

RNG = np.random.default_rng(1)


def palette(file, **options):
    Image.fromarray(COLOUR).quantize(16).save(file, **options)


def translucent(mode):
    colours = Image.fromarray(np.dstack([COLOUR, RNG.integers(0, 256, COLOUR.shape[:2], np.uint8)]))
    return lambda file: colours.convert(mode).save(file)


def with_profile(file):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(COLOUR).save(file, icc_profile=profile)


def animated(file):
    frames = [Image.fromarray(COLOUR), Image.new("RGB", (21, 13), (1, 2, 3))]
    frames[0].save(
        file,
        save_all=True,
        append_images=frames[1:],
        **(dict(lossless=True) if file.suffix == ".webp" else {}),
    )


MODES = {
    "rgb.bmp": lambda file: Image.fromarray(COLOUR).save(file),
    "cmyk.jpg": lambda file: Image.fromarray(COLOUR).convert("CMYK").save(file),
    "cmyk.tif": lambda file: Image.fromarray(COLOUR).convert("CMYK").save(file),
    "lab.tif": lambda file: Image.frombytes("LAB", (21, 13), COLOUR.tobytes()).save(file),
    "jpeg.tif": lambda file: Image.fromarray(COLOUR).save(file, compression="jpeg"),
    "palette.png": palette,
    "palette.bmp": palette,
    "palette.gif": palette,
    "clear.png": lambda file: palette(file, transparency=3),
    "alphas.png": lambda file: palette(file, transparency=bytes(range(0, 256, 16))),
    "clear.gif": lambda file: palette(file, transparency=3),
    "grey.jfif": lambda file: Image.fromarray(COLOUR[..., 0]).save(file, "JPEG"),
    "la.png": translucent("LA"),
    "rgba.png": translucent("RGBA"),
    "rgba.webp": translucent("RGBA"),
    "rgba.tiff": translucent("RGBA"),
    "la.tif": translucent("LA"),
    "bits.png": lambda file: Image.fromarray(COLOUR[..., 0] > 99).save(file),
    "bits.tif": lambda file: Image.fromarray(COLOUR[..., 0] > 99).save(file, compression="group4"),
    "profile.png": with_profile,
    "profile.jpg": with_profile,
    "moving.gif": animated,
    "moving.webp": animated,
    "moving.png": animated,
    "pages.tif": animated,
}


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("channels", (1, 3))
def test_every_mode_is_pillows(tmp_path, name, channels):
    """Its plain conversion of the first frame, over white where it is transparent; a profile changes nothing."""
    file = tmp_path / name
    MODES[name](file)
    with Image.open(file) as picture:
        if picture.has_transparency_data:
            layers = np.asarray(picture.convert("RGBA")).astype(np.float64)
            opacity = layers[..., 3:] / 255
            over = np.round(layers[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
            assert (over != layers[..., :3]).any()
            expected, tolerance = Image.fromarray(over), 1  # Pillow composes in whole numbers
        else:
            expected, tolerance = picture.convert("RGB") if picture.mode == "LAB" else picture, 0
        expected = np.asarray(expected.convert("L" if channels == 1 else "RGB")).astype(int)
    found = read_image(file, channels)
    assert found.dtype == np.uint8 and found.shape == (13, 21, channels)
    assert np.abs(found - expected.reshape(found.shape)).max() <= tolerance
    if name in ("rgb.bmp", "moving.png", "moving.webp", "profile.png"):
        np.testing.assert_array_equal(
            found,
            np.asarray(Image.fromarray(COLOUR).convert("L" if channels == 1 else "RGB")).reshape(found.shape),
        )


def test_grey_of_a_jpeg_is_that_of_its_colours(tmp_path):
    """Not its luminance channel, which differs where colours were clipped; whatever the scale asked for."""
    file = tmp_path / "0.jpg"
    Image.fromarray(COLOUR).save(file)
    with Image.open(file) as picture:
        expected = np.asarray(picture.convert("L"))
    for image_size in (0, 8, 100):
        np.testing.assert_array_equal(read_image(file, 1, image_size)[..., 0], expected)
