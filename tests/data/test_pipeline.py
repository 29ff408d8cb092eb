"""Batches: a pure function of (seed, step), whichever source, wherever started, however sharded."""

import itertools

import numpy as np
import pytest
from PIL import Image

from vargen import config, data
from vargen.data import codes, transforms
from vargen.errors import UserError


class Files(data.Source):
    """Items read one by one, as files are, at different sizes."""

    def __init__(self, count):
        super().__init__("files", ["a", "b", "c"], 8, 1)
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        noise = np.random.default_rng(index).integers(0, 255, (10 + index % 3, 12, 1), np.uint8)
        return dict(image=noise, label=index % 3)


def in_memory(count=23):
    images = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 1), np.uint8)
    return data.ArraySource("noise", ["a", "b", "c"], images, np.arange(count) % 3)


def stored(tmp_path, count=23):
    codes.store(tmp_path / "codes", np.arange(count * 5).reshape(count, 5), np.arange(count) % 3, {})
    return codes.load(tmp_path / "codes")


@pytest.fixture(params=["memory", "files", "codes"])
def source(request, tmp_path):
    return {"memory": in_memory, "files": lambda: Files(23), "codes": lambda: stored(tmp_path)}[
        request.param
    ]()


AUGMENTED = dict(shift=1, flip=True, crop="random")


def take(source, steps, batch_size=6, settings=AUGMENTED, **options):
    iterator = data.batches(source, batch_size=batch_size, settings=settings, **options)
    return list(itertools.islice(iterator, steps))


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_array_equal(x[name], y[name])


def test_two_runs_are_equal_and_seeds_differ(source):
    first = take(source, 9, seed=3)
    same(first, take(source, 9, seed=3))
    other = take(source, 9, seed=4)
    assert any((a[name] != b[name]).any() for a, b in zip(first, other) for name in a)


@pytest.mark.parametrize("start", (1, 4, 7))
def test_resuming_in_the_middle_of_an_epoch(source, start):
    """23 items in batches of 6: steps 3 and 7 straddle epochs."""
    same(take(source, 10, seed=1)[start:], take(source, 10 - start, seed=1, start_step=start))


@pytest.mark.parametrize("cut", ([[0, 1], [2, 3], [4, 5]], [[0, 1, 4], [2, 3, 5]], [[5], [0, 1, 2, 3, 4]]))
def test_rows_make_up_the_batch(source, cut):
    """Row by row, whichever rows each process has, and from any step on."""
    whole = take(source, 8, seed=2)
    for rows in cut:
        for start in (0, 5):
            parts = take(source, 8 - start, seed=2, rows=rows, start_step=start)
            same(parts, [{name: x[rows] for name, x in batch.items()} for batch in whole[start:]])


def test_every_item_once_an_epoch_in_a_new_order():
    count = 20
    images = np.zeros((count, 8, 8, 1), np.uint8)
    source = data.ArraySource("numbered", [str(i) for i in range(count)], images, np.arange(count))
    labels = np.concatenate([b["label"] for b in take(source, 10, batch_size=4)]).reshape(2, count)
    assert (np.sort(labels, axis=1) == np.arange(count)).all()
    assert (labels[0] != labels[1]).any()
    assert (labels[0] != np.arange(count)).any()


def test_augmentation_changes_from_epoch_to_epoch():
    source = in_memory(1)
    images = np.concatenate([b["image"] for b in take(source, 8, batch_size=4, settings=dict(shift=2))])
    assert len({image.tobytes() for image in images}) > 10


def test_in_order_without_changes_once():
    source = in_memory(23)
    found = take(source, 100, train=False)
    assert [len(b["label"]) for b in found] == [6, 6, 6, 5]
    images = np.concatenate([b["image"] for b in found])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, source.images.astype(np.float32) / np.float32(127.5) - 1)
    assert images.min() >= -1 and images.max() <= 1
    assert (np.concatenate([b["label"] for b in found]) == source.labels).all()


def test_augmented_passes_in_order():
    source = in_memory(7)
    found = take(source, 100, train=False, augment=True, epochs=3)
    labels = np.concatenate([b["label"] for b in found])
    assert (labels == np.tile(source.labels, 3)).all()


def test_codes_keep_content_and_label_together(tmp_path):
    for batch in take(stored(tmp_path), 5):
        assert batch["content"].dtype == np.int32
        assert (batch["content"][:, 0] // 5 % 3 == batch["label"]).all()


def test_sizes_that_do_not_fit():
    with pytest.raises(UserError, match="batch_size: expected at least 1, found 0"):
        data.batches(in_memory(), batch_size=0)
    with pytest.raises(UserError, match="rows: expected some of 0 to 5, found"):
        data.batches(in_memory(), batch_size=6, rows=[4, 6])
    with pytest.raises(UserError, match="data.crop"):
        data.batches(in_memory(), batch_size=6, settings=dict(crop="middle"))


def test_config_settings_are_taken():
    settings = config.digits()
    batch = next(data.batches(data.load(settings), batch_size=5, settings=settings))
    assert batch["image"].shape == (5, 16, 16, 1) and batch["label"].dtype == np.int32


def test_shift_repeats_the_edge():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    draws = np.zeros((1, transforms.DRAWS))
    draws[0, :2] = 0.99, 0.5  # one row on, no columns
    moved = transforms.augment(image, draws, shift=1)[0, :, :, 0]
    np.testing.assert_array_equal(moved, image[0, [1, 2, 3, 3], :, 0])


def test_flip_mirrors_half():
    image = np.arange(4, dtype=np.uint8).reshape(1, 1, 4, 1)
    draws = np.full((1, transforms.DRAWS), 0.4)
    assert transforms.augment(image, draws, flip=True).ravel().tolist() == [3, 2, 1, 0]
    draws[:] = 0.6
    assert transforms.augment(image, draws, flip=True).ravel().tolist() == [0, 1, 2, 3]


def test_draws_are_uniform_and_independent_of_their_company():
    draws = transforms.uniform_draws(5, np.arange(20_000))
    assert draws.min() >= 0 and draws.max() < 1
    np.testing.assert_allclose(draws.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(draws.var(axis=0), 1 / 12, atol=0.003)
    assert np.abs(np.corrcoef(draws.T) - np.eye(transforms.DRAWS)).max() < 0.03
    np.testing.assert_array_equal(transforms.uniform_draws(5, np.array([77])), draws[77:78])


def test_center_crop_is_central():
    image = np.zeros((8, 16, 1), np.uint8)
    image[:, 4:12] = 200
    assert (transforms.fit(image, 8) == 200).all()


def test_large_images_are_averaged():
    """A checkerboard of single pixels becomes grey instead of aliasing."""
    image = (np.indices((64, 64)).sum(axis=0) % 2 * 254).astype(np.uint8)[..., None]
    assert (transforms.fit(image, 8) == 127).all()


def test_random_crops_stay_inside_and_vary():
    image = np.asarray(Image.linear_gradient("L"))[..., None]
    draws = np.random.default_rng(0).random((30, transforms.DRAWS))
    draws[0, 3:], draws[1, 3:] = 0, 1 - 2**-53
    crops = [transforms.fit(image, 32, "random", d) for d in draws]
    assert all(c.shape == (32, 32, 1) for c in crops)
    assert len({c.tobytes() for c in crops}) > 15


def test_grey_and_colour():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 100
    assert (transforms.to_channels(red, 1) == 30).all()
    assert transforms.to_channels(red[..., 0], 3).shape == (2, 2, 3)


@pytest.mark.parametrize("size", ((1, 20_000), (20_000, 1), (3, 65_535), (40, 9000)))
@pytest.mark.parametrize("channels", (1, 3))
def test_very_long_pictures_cost_little(size, channels, monkeypatch):
    """Only the square is enlarged, and the middle is what is seen."""
    resize, pixels = Image.Image.resize, []

    def counted(self, size, *args, **options):
        pixels.append(size[0] * size[1])
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", counted)
    image = np.zeros((*size, channels), np.uint8)
    long = int(np.argmax(size))
    middle, reach = size[long] // 2, 2 * min(size) + 2
    image[(slice(None),) * long + (slice(middle - reach, middle + reach),)] = 200
    for crop, draws in (("center", None), ("random", np.full(transforms.DRAWS, 0.5))):
        assert (transforms.fit(image, 64, crop, draws) == 200).all()
    assert pixels == [64 * 64] * 2


@pytest.mark.parametrize("long", (9, 12, 20, 33))
@pytest.mark.parametrize("short", (1, 5, 16, 70))
def test_the_square_of_a_long_picture_is_as_if_all_of_it_were_scaled(monkeypatch, short, long):
    """Whether it is of the centre or anywhere; to the last bit, as Pillow rounds between rows and columns."""
    image = np.random.default_rng(0).integers(100, 150, (short, short * long + 1, 3), np.uint8)
    ways = [("center", None), *(("random", np.full(transforms.DRAWS, u)) for u in (0, 0.3, 1 - 2**-53))]

    def fitted():
        return [
            transforms.fit(x, 16, *way).astype(int) for x in (image, image.swapaxes(0, 1)) for way in ways
        ]

    cut = fitted()
    monkeypatch.setattr(transforms, "LONG", 10**6)
    assert max(np.abs(x - y).max() for x, y in zip(cut, fitted())) <= 1


def test_opaque_and_transparent_channels():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert transforms.to_channels(pixels, 3).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
    assert transforms.to_channels(pixels[..., 2:], 1).tolist() == [[[30], [255], [204]]]


class Broken(Files):
    """One of the files cannot be read."""

    def __getitem__(self, index):
        if index == 17:
            raise UserError("image 17: broken")
        return super().__getitem__(index)


@pytest.mark.parametrize("rows", (None, [0, 1]))
@pytest.mark.parametrize("train", (True, False))
def test_a_broken_picture_in_the_middle_is_the_readers_own_error(train, rows):
    stream = data.batches(Broken(23), batch_size=4, train=train, rows=rows, seed=5)
    if not train:
        assert [len(next(stream)["label"]) for _ in range(3)] == [2 if rows else 4] * 3
    with pytest.raises(UserError) as error:
        for _ in range(50):
            next(stream)
    assert str(error.value) == "image 17: broken"
    with pytest.raises(UserError, match="^image 17: broken$"):
        data.arrays(Broken(23))


def test_labels_in_the_place_of_the_source_s(tmp_path):
    """Captions as numbers go with their pictures, whatever the order; codes of two copies of M pictures repeat them."""
    source = in_memory()
    captions = np.stack([np.arange(23), np.arange(23) % 3], axis=1)
    for batch in take(source, 6, settings={}, labels=captions):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            np.testing.assert_array_equal(image, data.to_float(source.images[label[0]]))
    twice = stored(tmp_path, 46)
    for batch in take(twice, 6, settings={}, labels=captions):
        np.testing.assert_array_equal(batch["content"][:, 0] // 5 % 23, batch["label"][:, 0])
    assert batch["label"].shape == (6, 2)
