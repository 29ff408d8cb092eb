"""Views of a picture: what stored codes (or the loop) of the papers' sizes are made of, against the authors' code."""

import itertools
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from vargen import config, data
from vargen.data import transforms

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SIDE = 64  # instead of 256


class One(data.Source):
    """A picture of noise, wider than high, read as a file is."""

    def __init__(self, size=SIDE, shape=(3 * SIDE + 7, 4 * SIDE)):
        super().__init__("one", ["a"], size, 3)
        self.picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return dict(image=self.picture, label=0)


def center_crop(picture, size):
    """guided-diffusion, image_datasets.py: center_crop_arr, which the authors of LlamaGen, RAR and MAR copied."""
    while min(*picture.size) >= 2 * size:
        picture = picture.resize(tuple(x // 2 for x in picture.size), resample=Image.BOX)
    scale = size / min(*picture.size)
    picture = picture.resize(tuple(round(x * scale) for x in picture.size), resample=Image.BICUBIC)
    array = np.array(picture)
    y, x = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[y : y + size, x : x + size]


def ten_crops(picture, size, crop_range):
    """torchvision's TenCrop of a centre crop of int(size * crop_range): five, then five of the mirrored square."""
    side = int(size * crop_range)
    square, found = center_crop(picture, side), []
    middle = round((side - size) / 2)
    for s in (square, square[:, ::-1]):
        places = [(0, 0), (0, side - size), (side - size, 0), (side - size, side - size), (middle, middle)]
        found += [s[y : y + size, x : x + size] for y, x in places]
    return found


def center_and_mirror(picture, size):
    """LTH14/mar, main_cache.py and cache_latents: moments of the centre crop, and of its mirror image."""
    crop = center_crop(picture, size)
    return [crop, crop[:, ::-1]]


def all_windows(picture, size):
    """FoundationVision/VAR, utils/data.py: Resize(1.125 size, Lanczos), RandomCrop; never mirrored."""
    side = round(1.125 * size)
    short = min(picture.size)
    sizes = [side if x == short else int(side * x / short) for x in picture.size]
    array = np.array(picture.resize(sizes, resample=Image.LANCZOS))
    rows, columns = array.shape[0] - size + 1, array.shape[1] - size + 1
    return [array[y : y + size, x : x + size] for y in range(rows) for x in range(columns)]


AUTHORS = dict(
    llamagen=lambda p, n: [view for r in (1.05, 1.1) for view in ten_crops(p, n, r)],
    rar=lambda p, n: ten_crops(p, n, 1.1),
    mar=center_and_mirror,
    var=all_windows,
)
COUNTS = dict(llamagen=20, rar=10, mar=2)


def seen(source, c, **options):
    """Distinct pictures, as uint8 bytes."""
    images = [b["image"] for b in data.batches(source, batch_size=1, settings=c.data, **options)]
    return [np.rint((x[0] + 1) * 127.5).astype(np.uint8) for x in images]


@pytest.mark.parametrize("system, size", [
    *(("llamagen", s) for s in ("b", "l", "xl", "xxl", "3b")),
    *(("mar", s) for s in "blh"),
    *(("rar", s) for s in ("b", "l", "xl", "xxl")),
])  # fmt: skip
def test_stored_codes_hold_every_view_of_the_authors(system, size):
    """As `vargen tokenize` reads the pictures: each view once, of the authors' pixels."""
    c = config.load(f"{CONFIGS / system}.py:{size}")
    copies = c.training.augmented_copies
    assert c.training.codes and copies == COUNTS[system] == transforms.views(c.data)
    source = One()
    found = seen(source, c, train=False, augment=True, epochs=copies)
    expected = {x.tobytes() for x in AUTHORS[system](Image.fromarray(source.picture), SIDE)}
    assert len(found) == len({x.tobytes() for x in found}) == len(expected) == copies
    assert {x.tobytes() for x in found} == expected


@pytest.mark.parametrize("size", ["d16", "d20", "d24", "d30", "d36"])
def test_var_cuts_anywhere_in_the_loop(size):
    c = config.load(f"{CONFIGS}/var.py:{size}")
    assert not c.training.codes and transforms.views(c.data) == 0
    source = One(16, (33, 40))
    expected = {x.tobytes() for x in all_windows(Image.fromarray(source.picture), 16)}
    assert len(expected) == 3 * 6  # places of a window of 16 in 18 x 21
    iterator = data.batches(source, batch_size=1, settings=c.data)
    images = [next(iterator)["image"][0] for _ in range(300)]
    assert {np.rint((x + 1) * 127.5).astype(np.uint8).tobytes() for x in images} == expected


@pytest.mark.parametrize("side", [256, 384])
@pytest.mark.parametrize("scale", [1.05, 1.1])
@pytest.mark.parametrize("shape", [(500, 375), (300, 301), (1200, 2000)])
def test_ten_crops_at_full_size(side, scale, shape):
    """Pixel for pixel, in torchvision's order; 281 - 256 is odd, where the mirrored middle is another place's."""
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    for view, expected in enumerate(ten_crops(Image.fromarray(picture), side, scale)):
        settings = dict(crop="five", crop_range=(scale,), flip=True)
        draws = transforms.chosen(np.zeros((1, transforms.DRAWS)), np.array([view]), settings)
        mirrored = bool(transforms.is_mirrored(draws)[0])
        found = transforms.fit(picture, side, "five", draws[0], crop_range=(scale,), mirrored=mirrored)
        found = transforms.augment(found[None], draws, flip=True)[0]
        np.testing.assert_array_equal(found, expected)


def test_views_are_counted():
    count = lambda **s: transforms.views(s)  # noqa: E731
    assert [count(), count(flip=True), count(crop="five"), count(crop="five", flip=True)] == [1, 2, 10, 20]
    assert count(crop="five", crop_range=(1.1,), flip=True) == 10
    assert count(shift=1) == count(crop="random", flip=True) == count(crop="five", shift=2) == 0


def test_random_draws_of_views_reach_all():
    """In the loop, where views are drawn: all ten, about equally often."""
    c = config.load(f"{CONFIGS}/rar.py:b")
    iterator = data.batches(One(32, (40, 44)), batch_size=1, settings=c.data)
    images = [x["image"].tobytes() for x in itertools.islice(iterator, 1000)]
    counts = [images.count(image) for image in set(images)]
    assert len(counts) == 10 and 60 < min(counts) <= max(counts) < 140  # four deviations of 9.5


@pytest.mark.parametrize("size", [16, 18, 32, 64, 100, 256])
def test_random_crops_are_those_of_guided_diffusion(size):
    """random_crop_arr: a shorter side from ceil(size / 1) to ceil(size / 0.8), then any place."""
    picture = np.random.default_rng(2).integers(0, 256, (size + 40, size + 90, 1), np.uint8)
    for draws in np.random.default_rng(3).random((5, transforms.DRAWS)):
        shorter = size + int(draws[3] * (math.ceil(size / 0.8) - size + 1))
        scale = shorter / (size + 40)
        image = Image.fromarray(picture[..., 0])
        if size + 40 >= 2 * shorter:
            continue
        array = np.array(
            image.resize((round((size + 90) * scale), round((size + 40) * scale)), Image.BICUBIC)
        )
        y = int(draws[4] * (array.shape[0] - size + 1))
        x = int(draws[5] * (array.shape[1] - size + 1))
        found = transforms.fit(picture, size, "random", draws)[..., 0]
        np.testing.assert_array_equal(found, array[y : y + size, x : x + size])


def test_a_tokenizer_may_be_trained_on_other_crops():
    """LlamaGen's: vq_train.py cuts at random (random_crop_arr), whatever the codes are made of."""
    from vargen import sharding
    from vargen.cli import stages

    c = config.load(f"{CONFIGS}/llamagen.py:b")
    assert (c.tokenizer_training.crop, c.tokenizer_training.crop_range) == ("random", (1.0, 1.25))
    for group in ("tokenizer_training", "training"):
        c[group].batch_size = 1
    mesh = sharding.make_mesh()
    views = {}
    for group in ("tokenizer_training", "training"):
        iterator = stages._batches(One(16, (33, 40)), c, c[group], mesh, 0)
        views[group] = {next(iterator)["image"].tobytes() for _ in range(150)}
    assert len(views["training"]) <= 20 < len(views["tokenizer_training"])
