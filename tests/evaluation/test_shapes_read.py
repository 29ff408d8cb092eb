"""Both directions between words and pictures, by exact reading."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from vargen import data
from vargen.data import scenes, shapes
from vargen.errors import UserError
from vargen.evaluation import shapes as measured
from vargen.evaluation.shapes import UNREADABLE

SIZES = (16, 20, 32)


def source(size, split="test"):
    return shapes.load(dict(image_size=size, channels=3), split)


def every_drawing():
    """Scenes that hold a shape at each place, and each drawing once at each: codes and moves."""
    drawings = np.tile(np.arange(9 * (scenes.CODES - 1)), (9, 1))
    shown, moves = np.divmod(np.random.default_rng(0).permuted(drawings, axis=1).T, 9)
    return shown + 1, moves


@pytest.mark.parametrize("size", SIZES)
def test_clean_pictures_are_read_without_fault(size):
    """Every drawing at every place, with neighbours on all sides, which the set never has; and the set itself."""
    shown, moves = every_drawing()
    np.testing.assert_array_equal(measured.read(shapes.draw(shown, moves, size)), shown)
    test = source(size)
    images, _ = data.arrays(test)
    np.testing.assert_array_equal(measured.read(images), test.scenes)
    found = measured.words_to_pictures(data.to_float(images[:200]), test.captions[:200])
    assert all(found[name] == 1 for name in ("right", "all", "place", "colour", "shape", "size", "readable"))


def blur(images, deviation):
    return ndimage.gaussian_filter(images, (0, deviation, deviation, 0), mode="nearest")


# Least shares of pictures read without fault. Measured with 2000 of 16 pixels: 1, 0.997, 1, 0.994, 1; of 32: 1.
WORN = dict(
    noise=(lambda x, noise: x + 0.1 * noise, 0.999),
    much_noise=(lambda x, noise: x + 0.2 * noise, 0.99),
    blur=(lambda x, noise: blur(x, 0.5), 0.999),
    more_blur=(lambda x, noise: blur(x, 0.7), 0.98),
    both=(lambda x, noise: blur(x, 0.5) + 0.1 * noise, 0.998),
)


@pytest.mark.parametrize("worn", WORN)
@pytest.mark.parametrize("size", (16, pytest.param(32, marks=pytest.mark.slow)))
def test_worn_pictures_are_read(size, worn):
    """Noise's deviation is of levels in [-1, 1], blur's of pixels."""
    test = source(size)
    change, least = WORN[worn]
    images = data.to_float(test.gather(np.arange(1000))["image"])
    noise = np.random.default_rng(0).normal(size=images.shape)
    found = measured.read(np.clip(change(images, noise), -1, 1).astype(np.float32))
    assert (found == test.scenes[:1000]).all(axis=1).mean() >= least


@pytest.mark.parametrize("size", (16, 32))
def test_other_pictures_are_not_read(size):
    rng = np.random.default_rng(0)
    whole = slice(0, size)
    between = shapes.coverage("circle", shapes.HALVES[0], 0.5, 1 / 3, whole, whole, size)[..., None]
    cyan = shapes.coverage("square", shapes.HALVES[0], 0.5, 0.5, whole, whole, size)[..., None]
    pictures = np.stack(
        [
            rng.integers(0, 256, (size, size, 3)),  # noise
            np.full((size, size, 3), 128),
            255 - between * (255 - shapes.COLOURS[0]),
            255 - cyan * [255, 55, 55],
        ]
    )
    found = measured.read(np.rint(pictures).astype(np.uint8))
    nothing = np.zeros(9)
    nothing[[3, 4]] = UNREADABLE
    assert (found[:2] == UNREADABLE).all()
    np.testing.assert_array_equal(found[2], nothing)
    np.testing.assert_array_equal(found[3], UNREADABLE * (np.arange(9) == 4))


def test_what_a_picture_gets_wrong():
    """One thing wrong at a time, of a caption that asks for two shapes."""
    asked = "a red circle at the left and a small blue square at the top"
    drawn = {
        "a red circle at the left and a small blue square at the top": (1, 1, 1, 1, 1, 1),
        "a red circle at the left": (0, 0.5, 0.5, 0.5, 0.5, 0.5),
        "a green circle at the left and a small blue square at the top": (0, 1, 0.5, 1, 1, 0.5),
        "a red cross at the left and a small blue square at the top": (0, 1, 1, 0.5, 1, 0.5),
        "a red circle at the left and a blue square at the top": (0, 1, 1, 1, 0.5, 0.5),
        "a red circle at the right and a small blue square at the top": (0, 0.5, 0.5, 0.5, 0.5, 0.5),
        "a red circle at the left, a small blue square at the top and a red circle at the right": (
            0,
            *[1] * 5,
        ),
    }
    names = ("right", "place", "colour", "shape", "size", "all")
    for caption, expected in drawn.items():
        picture = shapes.draw(scenes.parse(caption)[None], np.zeros((1, 9), int), 32)
        for found in (
            measured.words_to_pictures(picture, [asked]),
            measured.pictures_to_words([caption], [asked]),
        ):
            assert tuple(found[name] for name in names) == expected, caption
            assert found.get("readable", found.get("parsable")) == 1


def test_agreement_and_chance_by_loops():
    test = source(16)
    asked = test.scenes[:60]
    found = np.where(np.arange(60)[:, None] % 3 == 0, asked, test.scenes[60:120])
    found[5], found[7, 4] = UNREADABLE, UNREADABLE
    found[1] = asked[8]
    got = measured.agreement(found, asked)

    def share(pairs):
        hits, right = np.zeros(5), 0
        for f, a in pairs:
            right += (f == a).all()
            for p in range(9):
                if a[p] and f[p] > 0:
                    same = [x == y for x, y in zip(scenes.parts(f[p]), scenes.parts(a[p]), strict=True)]
                    hits += [1, same[2], same[1], same[0], all(same)]
        return right / len(pairs), hits / sum((a > 0).sum() for _, a in pairs)

    for prefix, pairs in (
        ("", list(zip(found, asked, strict=True))),
        ("chance_", list(itertools.product(found, asked))),
    ):
        right, shares = share(pairs)
        np.testing.assert_allclose(got[f"{prefix}right"], right, atol=1e-12)
        for name, value in zip(("place", "colour", "shape", "size", "all"), shares, strict=True):
            np.testing.assert_allclose(got[f"{prefix}{name}"], value, atol=1e-12)


def test_chance_of_the_set_itself():
    """As the numbers of colours, shapes, sizes and places have it."""
    found = measured.agreement(source(16, "train").scenes, source(16, "train").scenes)
    assert found["right"] == 1 and found["chance_right"] < 2e-3
    place = 2 / 9  # of nine places two hold a shape on average
    for name, chance in dict(place=1, colour=1 / 6, shape=1 / 4, size=1 / 2, all=1 / 48).items():
        np.testing.assert_allclose(found[f"chance_{name}"], place * chance, rtol=0.15)


def test_texts_that_are_no_captions():
    asked = ["a red circle at the left and a small blue square at the top"] * 4
    texts = [
        "a small blue square at the top and a red circle at the left",  # another order
        "a red circle at the left and a small blue square",
        "",
        "circle circle circle",
    ]
    found = measured.pictures_to_words(texts, asked)
    assert (found["right"], found["parsable"], found["all"], found["place"]) == (0.25, 0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: measured.read(np.zeros((2, 16, 16, 1), np.uint8)), "[M, S, S, 3], found an array [2, 16, 16, 1]"),
        (lambda: measured.read(np.zeros((0, 16, 16, 3), np.uint8)), "found an array [0, 16, 16, 3]"),
        (lambda: measured.read(np.zeros((1, 8, 8, 3), np.uint8)), "expected sides of 16 to 128 pixels, found 8"),
        (lambda: measured.read(np.full((1, 16, 16, 3), np.nan, np.float32)), "found nan"),
        (
            lambda: measured.words_to_pictures(np.zeros((2, 16, 16, 3), np.uint8), ["a red circle at the top"]),
            "evaluation: expected as many pictures as captions, 1, found 2",
        ),
        (lambda: measured.pictures_to_words([], ["a red circle at the top"]), "as many texts as captions, 1, found 0"),
        (lambda: measured.pictures_to_words([""], ["a rde circle"]), "found 'rde'"),
        (lambda: measured.pictures_to_words([], []), "evaluation: expected captions, found none"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured(call, message):
    with pytest.raises(UserError) as error:
        call()
    assert str(error.value).endswith(message)
