"""The one reader: of every kind of file what Pillow and NumPy make of it, upright, over white, in 8 bits."""

import errno
import io
import os
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from picture_files import pictures, settings
from PIL import Image, ImageCms, ImageOps

from vargen import data
from vargen.data import folder, image_file, kept, transforms
from vargen.data.image_file import BrokenImage, read_image
from vargen.errors import UserError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (13, 21, 3), np.uint8)
WIDE = RNG.integers(0, 65_536, (13, 21), dtype=np.uint16)
EIGHT = np.round(WIDE / 257).astype(np.uint8)
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
LOSSLESS = dict(png={}, webp=dict(lossless=True), tiff={}, tif=dict(compression="tiff_lzw"))


def orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


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
    np.testing.assert_array_equal(transforms.to_bytes(np.array([-5, 70_000])), [0, 255])
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
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(file)
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
