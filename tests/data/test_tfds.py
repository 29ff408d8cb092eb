"""TensorFlow Datasets sets, built offline, read without TensorFlow."""

import io
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
    import shutil

    shutil.copytree(directory / "squares", tmp_path / "squares")
    info = tmp_path / "squares" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    for file in info.parent.glob("*array_record*"):
        file.rename(info.parent / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="expected ArrayRecord.*found tfrecord"):
        data.load(settings(tmp_path))
    assert "tensorflow" not in sys.modules
