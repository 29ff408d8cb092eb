"""Pictures for people: pixels, grids and their labels."""

import numpy as np

from vargen.report import pictures


def test_to_uint8_rounds_and_clips():
    values = np.array([-2, -1, 0, 1, 2, 1 / 127.5]).reshape(1, 1, 6, 1)
    assert pictures.to_uint8(values).ravel().tolist() == [0, 0, 128, 255, 255, 128]
    kept = np.array([7], np.uint8)
    assert pictures.to_uint8(kept) is kept


def test_grid_places_images_and_grey_works():
    images = np.zeros((2, 3, 4, 4, 1), np.uint8)
    images[1, 2] = 255
    sheet = np.asarray(pictures.grid(images, scale=2))
    assert (sheet == 255).all(-1).sum() == 64 and (sheet == 0).all(-1).sum() == 5 * 64


def test_labels_in_every_script():
    """A letter that no font here has gets a mark instead, never a box or a question mark."""
    cells = np.zeros((2, 1, 16, 16, 3), np.uint8)
    labels = ["cat", "\U0001f9ff\uffff"]
    assert pictures.undrawable(labels) == {"#2": labels[1]}
    marked = pictures.grid(cells, row_labels=["cat", "#2"])
    assert marked.size == pictures.grid(cells, row_labels=labels).size
    np.testing.assert_array_equal(np.asarray(pictures.grid(cells, row_labels=labels)), np.asarray(marked))
    assert not pictures.undrawable(["dog"])
    assert pictures._has("", frozenset("aλ犬")) >= {"a"} and "犬" not in pictures._has("", frozenset("a犬"))
