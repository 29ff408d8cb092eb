"""What long work says of itself."""

import pytest

from vargen import progress


@pytest.mark.parametrize(
    "seconds, text",
    [(3.21, "3.2 s"), (42, "42 s"), (59.7, "1 min 0 s"), (312, "5 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
