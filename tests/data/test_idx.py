# ruff: noqa: E501 (a table: a row stands on a line)
"""IDX files: the standard split, sizes, channels and classes; and what is said of files that are broken."""

import gzip
import os
import struct

import numpy as np
import pytest

from vargen import config, data
from vargen.data import idx, transforms
from vargen.errors import UserError

NAMES = {
    (split, what): f"{split}-{what}-idx{dimensions}-ubyte"
    for split in ("train", "t10k")
    for what, dimensions in (("images", 3), ("labels", 1))
}
FASHION = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it


def idx_bytes(array):
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write(folder, size=(6, 6), counts=(12, 5), labels=4):
    """Random pictures as IDX files: the images and labels of both splits."""
    folder.mkdir(exist_ok=True)
    rng, found = np.random.default_rng(0), {}
    for split, count in zip(("train", "t10k"), counts, strict=True):
        found[split, "images"] = rng.integers(0, 256, (count, *size), np.uint8)
        found[split, "labels"] = (np.arange(count) % labels).astype(np.uint8)
    for key, array in found.items():
        (folder / NAMES[key]).write_bytes(idx_bytes(array))
    return found


def settings(folder, size=6, channels=1):
    return config.images("idx", size, channels, 0, path=str(folder))


def test_the_standard_split(tmp_path):
    written = write(tmp_path)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        source = data.load(settings(tmp_path), split)
        np.testing.assert_array_equal(source.images[..., 0], written[prefix, "images"])
        np.testing.assert_array_equal(source.labels, written[prefix, "labels"])
        assert source.classes == ["0", "1", "2", "3"]


def test_compressed_files_are_the_same(tmp_path):
    write(tmp_path)
    before = data.load(settings(tmp_path)).fingerprint()
    for name in NAMES.values():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    assert data.load(settings(tmp_path)).fingerprint() == before


@pytest.mark.parametrize("size, side, channels", [((6, 6), 4, 1), ((6, 6), 9, 3), ((9, 6), 3, 3)])
def test_other_sizes_as_those_of_folders(tmp_path, size, side, channels):
    stored = write(tmp_path, size)["train", "images"]
    images = data.load(settings(tmp_path, side, channels)).images
    assert images.shape == (12, side, side, channels)
    for image, raw in zip(images, stored, strict=True):
        coloured = transforms.to_channels(raw, channels)
        np.testing.assert_array_equal(image, transforms.fit(coloured, side))


def test_classes_have_names_where_these_are_known(tmp_path, monkeypatch):
    written = write(tmp_path)
    digest = idx.digest_of(written["train", "labels"])
    monkeypatch.setitem(idx.KNOWN, digest, tuple("abcd"))
    assert data.load(settings(tmp_path), "test").classes == ["a", "b", "c", "d"]
    (tmp_path / "classes.txt").write_text("Stiefel\n\nMütze\nSchal\nHose\n", "utf-8")
    assert data.load(settings(tmp_path)).classes == ["Stiefel", "Mütze", "Schal", "Hose"]
    (tmp_path / "classes.txt").write_text("Stiefel\n")
    with pytest.raises(UserError, match="classes.txt: expected names of 4 classes, found 1$"):
        data.load(settings(tmp_path))


@pytest.mark.parametrize(
    "name, change, words",
    [
        (NAMES["train", "images"], None, "expected train-images-idx3-ubyte or train-images-idx3-ubyte.gz, found none"),
        (NAMES["t10k", "labels"], None, "expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz, found none"),
        (NAMES["train", "images"], lambda x: b"PNG!" + x[4:], "begins with 00000803, found 504e4721"),
        (NAMES["train", "images"], lambda x: b"", "begins with 00000803, found nothing"),
        (NAMES["train", "images"], lambda x: x[:10], "expected 3 sizes"),
        (NAMES["train", "images"], lambda x: x[:8] + bytes(8) + x[16:], "expected 3 sizes"),
        (NAMES["train", "images"], lambda x: x[:8] + b"\xff" * 8 + x[16:], "expected at most 4294967296 bytes"),
        (NAMES["train", "images"], lambda x: x[:-1], "expected 432 bytes of 12 x 6 x 6, found 431"),
        (NAMES["train", "images"], lambda x: x + b"0", "expected 432 bytes of 12 x 6 x 6, found more"),
        (NAMES["train", "labels"], lambda x: idx_bytes(np.zeros(11, np.uint8)), "expected 11 images, one for each label, found 12"),
        (NAMES["t10k", "labels"], lambda x: idx_bytes(np.zeros((5, 6, 6), np.uint8)), "begins with 00000801, found 00000803"),
    ],
)  # fmt: skip
def test_broken_sets_in_one_line(tmp_path, name, change, words):
    write(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if change is not None:
        (tmp_path / name).write_bytes(change(whole))
    with pytest.raises(UserError) as found:
        data.load(settings(tmp_path))
    assert words in str(found.value) and str(tmp_path) in str(found.value) and "\n" not in str(found.value)


def test_a_broken_archive_in_one_line(tmp_path):
    write(tmp_path)
    name = NAMES["train", "images"]
    packed = gzip.compress((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    for broken in (packed[:-20], b"no archive", packed[:30] + b"0000" + packed[34:]):
        (tmp_path / f"{name}.gz").write_bytes(broken)
        with pytest.raises(UserError, match=f"{name}.gz: expected a whole file, found a broken one"):
            data.load(settings(tmp_path))


def test_no_folder(tmp_path):
    for path, words in (("", "data.path: expected the folder"), (tmp_path / "none", "found no such folder")):
        with pytest.raises(UserError, match=words):
            data.load(settings(path))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir(FASHION), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist():
    train, test = (data.load(settings(FASHION, 28), split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [6000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes[9] == "Ankle boot" and train.labels[0] == 9
