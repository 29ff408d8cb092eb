"""What a mask in a file says stays: white or opaque, through the crop that its picture goes through."""

import functools

import numpy as np
import pytest
from PIL import Image

from vargen.cli import main, masks
from vargen.data import image_file, transforms
from vargen.errors import UserError

SIZE = 16
LEFT = np.arange(SIZE) < SIZE // 2
SQUARE = {"a.png": (SIZE, SIZE)}


def saved(tmp_path, pixels, **options):
    file = tmp_path / "mask.png"
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, **options)
    return str(file)


def layered(colour, opacity):
    """RGBA [SIZE, SIZE, 4] of a grey level and an opacity for each column."""
    return np.broadcast_to(np.stack([colour, colour, colour, opacity], -1), (SIZE, SIZE, 4))


@pytest.mark.parametrize(
    "pixels, kept",
    [
        (np.broadcast_to(255 * LEFT, (SIZE, SIZE)), LEFT),
        (layered(255 * LEFT, np.full(SIZE, 255)), LEFT),  # nothing transparent: white stays
        (layered(np.zeros(SIZE), 255 * LEFT), LEFT),  # opaque stays, and be it black
        (layered(255 * LEFT, 255 * ~LEFT), ~LEFT),
        (layered(np.full(SIZE, 255), np.where(LEFT, 130, 120)), LEFT),
    ],
)
def test_white_or_opaque_stays(tmp_path, pixels, kept):
    found = masks.read(saved(tmp_path, pixels), (SIZE, SIZE), SQUARE)
    np.testing.assert_array_equal(found, np.broadcast_to(kept, (SIZE, SIZE)))


def test_opacity_of_every_kind_of_file(tmp_path):
    """Of palettes, of grey levels with opacity, and of one level of 8 or 16 bits that is transparent."""
    grey = np.uint8(np.where(LEFT, 40, 90))[None].repeat(SIZE, 0)
    palette = Image.fromarray(grey).convert("P")
    for name, picture, options in (
        ("p", palette, dict(transparency=int(palette.getpixel((SIZE - 1, 0))))),
        ("la", Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.uint8(255 * (grey == 40)))]), {}),
        ("l", Image.fromarray(grey), dict(transparency=90)),
        ("i", Image.fromarray(grey.astype(np.uint16)), dict(transparency=90)),
    ):
        picture.save(tmp_path / f"{name}.png", **options)
        found = image_file.read_mask(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(found, np.broadcast_to(LEFT, (SIZE, SIZE)), err_msg=name)


def test_as_many_columns_as_were_painted(tmp_path):
    """Of a wide picture, 27 x 16 after scaling of which 5 to 20 stay, white up to its middle is up to column 8."""
    pixels = np.zeros((48, 80))
    pixels[:, :40] = 255
    found = masks.read(saved(tmp_path, pixels), (SIZE, SIZE), {"a.png": (48, 80), "b.png": (480, 800)})
    np.testing.assert_array_equal(found, np.broadcast_to(np.arange(SIZE) < 8, (SIZE, SIZE)))


@pytest.mark.parametrize("shape", [(48, 80), (100, 67), (16, 16), (5, 7), (33, 16), (129, 200)])
def test_more_than_half_of_a_pixel(shape):
    """Against each pixel of the old picture cut into many."""
    mask = np.random.default_rng(0).random(shape) < 0.5
    halved = functools.reduce(
        lambda s, _: tuple(n // 2 for n in s) if min(s) >= 2 * SIZE else s, range(4), shape
    )
    sides = [round(n * SIZE / min(halved)) for n in halved]
    fine = mask
    for axis, side in enumerate(sides):  # each scaled pixel is as many of these as the old side has pixels
        fine = fine.repeat(side, axis)
    down, across = shape
    shares = fine.reshape(sides[0], down, sides[1], across).mean((1, 3))
    top, left = ((side - SIZE) // 2 for side in sides)
    expected = shares[top : top + SIZE, left : left + SIZE] > 0.5
    np.testing.assert_array_equal(transforms.cut(mask, SIZE), expected)


def test_the_crop_is_the_pictures():
    """A mask that is its picture stays where the picture is bright: edges apart, where a filter mixes."""
    picture = np.zeros((90, 60, 1), np.uint8)
    picture[30:70, 10:40] = 255
    fitted = transforms.fit(picture, SIZE)[..., 0]
    found = transforms.cut(picture[..., 0] >= 128, SIZE)
    sure = (fitted < 20) | (fitted > 235)
    np.testing.assert_array_equal(found[sure], fitted[sure] >= 128)
    assert found[sure].any() and sure.mean() > 0.7


def test_other_proportions_are_refused(tmp_path):
    file = saved(tmp_path, np.zeros((48, 80)))
    with pytest.raises(UserError) as found:
        masks.read(file, (SIZE, SIZE), {"a.png": (96, 160), "b.png": (80, 48)})
    assert str(found.value) == (
        f"--keep {file}: expected the proportions of b.png, 48 x 80 pixels, found 80 x 48"
    )


def test_sizes_are_those_of_pictures_upright(tmp_path):
    exif = Image.Exif()
    for number, size in ((1, (4, 6)), (3, (4, 6)), (6, (6, 4)), (8, (6, 4))):
        exif[0x0112] = number
        Image.new("L", (6, 4)).save(tmp_path / "x.jpg", exif=exif)
        assert image_file.size_of(tmp_path / "x.jpg") == size
        assert image_file.read_image(tmp_path / "x.jpg", 1).shape[:2] == size


@pytest.mark.parametrize(
    "line, words",
    [
        ("sample --image x.png --keep m.png", "; did you mean vargen complete --input x.png --keep m.png?"),
        ("sample --keep=top --workdir w", "; did you mean vargen complete --keep=top --workdir w?"),
        ("complete --image x.png --mask m.png", "; did you mean vargen complete --input x.png --keep m.png?"),
        ("sample --keep top --batch-size 3", "unknown flag --keep; vargen complete has --keep"),
        ("sample --seeds 3", "; did you mean --seed? vargen compare has --seeds"),
        ("train --classes 3 --wokdir w", "unknown flag --classes; vargen sample has --classes"),
    ],
)
def test_a_flag_of_another_command(line, words, capsys):
    assert main.main(line.split()) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
