"""Which codes training stores, and when it keeps those that are there."""

import jax
import pytest
from systems import SYSTEMS

from vargen import data, models
from vargen.cli import tokenize
from vargen.data import codes


@pytest.fixture
def stored(tmp_path):
    """Copies in the config, passes of training -> how many copies lie there, and when they were written."""
    c = SYSTEMS["llamagen"]()
    params = models.build_tokenizer(c).init(jax.random.key(0))

    def store(copies, passes, again=False, **changes):
        c.training.augmented_copies = copies
        c.data.update(changes)
        source = data.load(c.data)
        folder = tokenize.store(c, tmp_path, source, params, 1, again=again, passes=passes)
        times = [file.stat().st_mtime_ns for file in sorted(folder.iterdir())]
        return len(codes.load(folder)) / len(source), times

    return store


def test_no_more_copies_than_passes(stored):
    """Nor fewer than views; of more that are there none is made anew, of fewer all are."""
    count, first = stored(4, 2)
    assert count == 2
    assert stored(4, 1) == stored(4, 2) == (2, first)
    assert stored(4, 9)[0] == 4
    assert stored(3, 9)[0] == 3
    assert stored(3, None, again=True)[0] == 3
    assert stored(4, 1, crop="center", shift=0, flip=True)[0] == 2
