"""Pictures kept in memory: decoded once, up to a bound, and again where the file has changed."""

import os

import numpy as np
from picture_files import pictures
from PIL import Image

from vargen import paths
from vargen.data import image_file, kept


def test_pictures_are_decoded_once(tmp_path, monkeypatch):
    root = pictures(tmp_path, *(f"a/{i}.png" for i in range(4)))
    read = []

    def watched(file, channels, image_size):
        read.append(file.name)
        return image_file.read_image(file, channels, image_size)

    monkeypatch.setattr(kept, "read_image", watched)
    files = sorted((paths.path(root) / "a").iterdir())
    size = image_file.read_image(files[0], 3, 8).nbytes
    memory = kept.Kept(3 * size + 1)
    first = [memory.read(file, 3, 8) for file in files]
    again = [memory.read(file, 3, 8) for file in files]
    for a, b, file in zip(first, again, files):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, image_file.read_image(file, 3, 8))
    assert read == ["0.png", "1.png", "2.png", "3.png", "3.png"]  # three fit
    assert memory.bytes == 3 * size
    assert memory.read(files[0], 1, 8).shape[-1] == 1  # as grey it is another picture
    Image.new("RGB", (4, 4), (1, 2, 3)).save(os.fspath(files[1]), "png")
    os.utime(files[1], ns=(1, 1))
    assert not np.array_equal(memory.read(files[1], 3, 8), first[1])
    assert memory.bytes == 3 * size
