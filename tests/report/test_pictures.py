"""Pictures for people: pixels, grids and their labels; clips that move, and lie in strips."""

import base64
import io
import json

import numpy as np
from PIL import Image, ImageSequence

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


CLIPS = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4, 6, 3), np.uint8)  # rows, columns, frames


def frames(file):
    with Image.open(file) as opened:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]


def test_a_clip_moves(tmp_path):
    """Every frame is in the file, and beside them what made it; a grey clip too, and one within a page."""
    where, clip = tmp_path / "a.png", CLIPS[0, 0]
    pictures.save(clip, where, dict(index=3))
    np.testing.assert_array_equal(frames(where), clip)
    assert json.loads(pictures.settings(where)) == dict(index=3)
    with Image.open(where) as opened:
        assert opened.is_animated and opened.info["duration"] == pictures.FRAME and opened.info["loop"] == 0
    grey = clip[..., :1]
    address = pictures.data_address(grey / np.float32(127.5) - 1)
    found = frames(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    np.testing.assert_array_equal(found, np.repeat(grey, 3, axis=-1))


def test_clips_lie_in_strips():
    """Frame after frame, from left to right; a sheet of clips is that of their strips."""
    strips = np.concatenate([CLIPS[:, :, t] for t in range(5)], axis=3)
    np.testing.assert_array_equal(np.asarray(pictures.to_pil(CLIPS[1, 2])), strips[1, 2])
    sheet = pictures.grid(CLIPS, row_labels=["a", "b"], scale=2)
    expected = pictures.grid(strips, row_labels=["a", "b"], scale=2)
    np.testing.assert_array_equal(np.asarray(sheet), np.asarray(expected))
