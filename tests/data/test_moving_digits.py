"""Digits in motion: clips against a slow drawing, one change for all frames, pictures as they were."""

import numpy as np
import pytest

from vargen import config, data
from vargen.data import moving_digits, transforms
from vargen.errors import UserError

SETTINGS = config.images("moving_digits", 18, 1, 10, frames=12)


def test_clips_move_and_bounce():
    """Drawn pixel by pixel along a path that turns round at each edge; a digit's clips differ, and carry its label."""
    source, still = data.load(SETTINGS), data.load(config.images("digits", 9, 1, 10))
    assert len(source) == 4 * 1437 and source.fingerprint() == data.load(SETTINGS).fingerprint()
    chosen = np.array([5, 1437 + 5, 2 * 1437 + 5, 900])
    found = source.gather(chosen)
    assert found["image"].shape == (4, 12, 18, 18, 1) and found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["label"], still.labels[chosen % 1437])
    draws = transforms.uniform_draws(0, chosen)
    turned = 0
    for clip, digit, u in zip(found["image"], still.images[chosen % 1437], draws, strict=True):
        place = [int(u[0] * 10), int(u[1] * 10)]
        speed = [moving_digits.SPEEDS[int(x * 4)] for x in u[2:4]]
        for frame in clip:
            expected = np.zeros_like(frame)
            expected[place[0] : place[0] + 9, place[1] : place[1] + 9] = digit
            np.testing.assert_array_equal(frame, expected)
            for axis in range(2):
                place[axis] += speed[axis]
                if not 0 <= place[axis] <= 9:
                    place[axis] = -place[axis] if place[axis] < 0 else 18 - place[axis]
                    speed[axis], turned = -speed[axis], turned + 1
    assert turned > 8 and not np.array_equal(found["image"][0], found["image"][1])
    test = data.load(SETTINGS, "test")
    assert len(test) == 360 and test[3]["image"].shape == (12, 18, 18, 1)
    np.testing.assert_array_equal(test.labels, data.load(config.images("digits", 9, 1, 10), "test").labels)


@pytest.mark.parametrize("crop", ["center", "random"])
def test_all_frames_change_alike(crop):
    """A batch is a function of seed and step; a shift, a mirror image, a crop is the same for all frames of a clip."""
    settings = {**SETTINGS, "shift": 2, "flip": True, "crop": crop}
    source = data.load(SETTINGS)
    first, second = (
        next(data.batches(source, batch_size=8, settings=settings, start_step=step))["image"]
        for step in (0, 3)
    )
    again = next(data.batches(source, batch_size=8, settings=settings, start_step=3))["image"]
    assert first.shape == (8, 12, 18, 18, 1) and not np.array_equal(first, second)
    np.testing.assert_array_equal(again, second)

    class Frames:
        """The same source, of one frame of each clip."""

        in_memory, image_size = True, 18

        def __init__(self, frame):
            self.frame = frame

        def __len__(self):
            return len(source)

        def gather(self, indices):
            record = source.gather(indices)
            return record | dict(image=record["image"][:, self.frame])

    for frame in (0, 11):
        one = next(data.batches(Frames(frame), batch_size=8, settings=settings))["image"]
        np.testing.assert_array_equal(one, first[:, frame])


def test_pictures_change_as_they_did():
    """`augment` of pictures by loops."""
    rng = np.random.default_rng(0)
    images, draws = rng.integers(0, 256, (6, 5, 7, 3), np.uint8), rng.random((6, transforms.DRAWS))
    found = transforms.augment(images, draws, 2, True)
    for image, u, changed in zip(images, draws, found, strict=True):
        rows = np.clip(np.arange(5) + int(np.floor(u[0] * 5)) - 2, 0, 4)
        columns = np.clip(np.arange(7) + int(np.floor(u[1] * 5)) - 2, 0, 6)
        expected = image[rows][:, columns]
        np.testing.assert_array_equal(changed, expected[:, ::-1] if u[2] < 0.5 else expected)


@pytest.mark.parametrize(
    "source, fields, message",
    [
        ("moving_digits", dict(frames=1), "data.frames: expected at least 2 for moving_digits, found 1"),
        ("moving_digits", dict(image_size=15), "data.image_size: expected at least 16 for moving_digits"),
        ("digits", {}, "data.frames: expected 1 for digits, which has pictures, found 12"),
        ("folder", dict(path="."), "data.frames: expected 1 for folder, which has pictures, found 12"),
    ],
)
def test_what_has_no_clips(source, fields, message):
    with pytest.raises(UserError, match=message):
        data.load({**SETTINGS, "source": source, **fields})
