"""TensorFlow Datasets sets, built offline, read without TensorFlow."""

import io
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from vargen import config, data
from vargen.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


def png(grey, size):
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(file, "png")
    return file.getvalue()


class Squares(tfds.core.GeneratorBasedBuilder):
    """Grey squares of two classes."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 10, "test": 4}

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
                "id": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, download_manager):
        return {name: self._generate_examples(count) for name, count in self.SPLITS.items()}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(10 * i, (9, 7)), "label": i % 2, "id": str(i)}


class TrainOnly(Squares):
    SPLITS = {"train": 10}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    for builder in (Squares, TrainOnly):
        builder(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def settings(path, dataset="squares", **changes):
    return config.images("tfds", 8, 3, 2, path=str(path), dataset=dataset, **changes)


def test_images_and_labels(directory):
    train, test = (data.load(settings(directory), split) for split in ("train", "test"))
    assert train.classes == ["even", "odd"]
    assert (len(train), len(test)) == (10, 4)
    item = test[0]
    assert item["image"].shape == (9, 7, 3) and item["image"].dtype == np.uint8
    assert item["label"] == (item["image"][0, 0, 0] // 10) % 2
    images, labels = data.arrays(train)
    assert images.shape == (10, 8, 8, 3)
    assert (images[:, 0, 0, 0] // 10 % 2 == labels).all()
    assert "tensorflow" not in sys.modules


def test_batches(directory):
    source = data.load(settings(directory), "train")
    found = list(data.batches(source, batch_size=4, epochs=1))
    assert [len(b["label"]) for b in found] == [4, 4, 2]
    levels = np.concatenate([b["image"][:, 0, 0, 0] for b in found])
    np.testing.assert_allclose(np.sort((levels + 1) * 127.5), np.arange(10) * 10, atol=1e-4)
    assert "tensorflow" not in sys.modules


def test_the_last_tenth_is_held_out_where_there_is_no_other_split(directory):
    train, test = (data.load(settings(directory, "train_only"), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 1)


def test_a_version_directory_is_found_without_a_name(directory):
    assert len(data.load(settings(directory / "squares" / "1.0.0", ""), "train")) == 10


def test_what_is_not_there(directory, tmp_path):
    with pytest.raises(UserError, match="nonesuch: expected a prepared set"):
        data.load(settings(directory, "nonesuch"))
    with pytest.raises(UserError, match="data.path"):
        data.load(settings(""))
    with pytest.raises(UserError, match="data.num_classes"):
        data.load(config.images("tfds", 8, 3, 5, path=str(directory), dataset="squares"))


def test_another_file_format(directory, tmp_path):
    """A set of TFRecord files has no random access: the message says what to do."""
    shutil.copytree(directory / "squares", tmp_path / "squares")
    info = tmp_path / "squares" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for file in info.parent.glob("*array_record*"):
        file.rename(info.parent / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="expected ArrayRecord.*found tfrecord"):
        data.load(settings(tmp_path))
    assert "tensorflow" not in sys.modules


def write(name, text):
    return lambda version: (version / name).write_text(text)


def shards(change):
    return lambda version: [change(file) for file in version.glob("*array_record*")]


def pipe(version):
    (version / "features.json").unlink()
    os.mkfifo(version / "features.json")


@pytest.mark.parametrize(
    "damage, message",
    [
        *(
            (write("dataset_info.json", text), "a broken one")
            for text in ("", "{", "[]", '{"splits": 3}', "\xff")
        ),
        *((write("features.json", text), "a broken one") for text in ("", "{}", "[]")),
        (lambda version: (version / "features.json").unlink(), "a broken one"),
        (pipe, "expected plain files, found another: features.json"),
        (shards(lambda file: file.unlink()), "found no file squares-train.array_record-00000-of-00001"),
        (shards(lambda file: file.write_bytes(b"")), "record at 0, found one that cannot be read"),
        (
            shards(lambda file: file.write_bytes(file.read_bytes()[:999])),
            "record at 0, found one that cannot",
        ),
    ],
)
def test_broken_sets(directory, tmp_path, damage, message):
    """Each is one line that names the set, from the reading threads too."""
    shutil.copytree(directory / "squares", tmp_path / "squares")
    damage(tmp_path / "squares" / "1.0.0")
    with pytest.raises(UserError, match=f"squares/1.0.0: .*{message}") as error:
        source = data.load(settings(tmp_path), "train")
        with pytest.raises(UserError, match=message):
            source[0]
        next(data.batches(source, batch_size=2, train=False))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "dataset, message",
    [
        ("", "data.dataset: expected one of squares, train_only, found none"),
        ("squares:2.0.0", "squares/2.0.0: expected a prepared set"),
        ("../squares/x", "expected a prepared set"),
        ("**", "data.dataset: expected NAME"),
        ("a\0b", "data.dataset: expected NAME"),
        ("/etc", "data.dataset: expected NAME"),
    ],
)
def test_names_of_sets(directory, dataset, message):
    with pytest.raises(UserError, match=message):
        data.load(settings(directory, dataset))


def test_a_folder_with_a_patterns_name(directory, tmp_path):
    shutil.copytree(directory / "squares", tmp_path / "[ab]*" / "squares")
    assert len(data.load(settings(tmp_path / "[ab]*"))) == 10


def test_fingerprints(directory, tmp_path):
    """Of name, version, split and description, wherever the set lies."""
    marks = [data.load(settings(directory), split).fingerprint() for split in ("train", "test")]
    marks.append(data.load(settings(directory, "train_only")).fingerprint())
    assert len(set(marks)) == 3
    shutil.copytree(directory / "squares", tmp_path / "squares")
    assert data.load(settings(tmp_path)).fingerprint() == marks[0]
    info = tmp_path / "squares" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"name": "squares"', '"name": "squares", "citation": "new"'))
    assert data.load(settings(tmp_path)).fingerprint() != marks[0]


class Unlabelled(Squares):
    """Labels of -1, as the test split of ImageNet has."""

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": png(10 * i, (9, 7)), "label": -1, "id": str(i)}


def test_labels_of_no_class(tmp_path):
    Unlabelled(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match="expected a label from 0 to 1 at 0, found -1"):
        data.load(settings(tmp_path, "unlabelled"))[0]


def test_levels_of_other_types():
    """Sets of 16 bits and of floats become what files of them become."""
    wide = np.arange(0, 65_536, 257 * 3 + 1, dtype=np.uint16)[:80].reshape(8, 10, 1)
    floats = (wide / 65_535).astype(np.float32)
    records = [dict(image=x, label=0) for x in (wide, floats, floats * 255 - 1)]
    source = tfds_source(records)
    np.testing.assert_array_equal(source[0]["image"], np.repeat(np.round(wide / 257), 3, axis=-1))
    assert np.abs(source[1]["image"] - np.round(floats * 255.0)).max() <= 1
    with pytest.raises(
        UserError, match="set at 2: expected levels from 0 to 1 or from 0 to 255, found -1 to"
    ):
        source[2]


def tfds_source(records):
    from vargen.data.tfds import TfdsSource

    return TfdsSource("set", ["a"], records, ("image", "label"), "", 8, 3)
