"""Who sees whom: as a layout says it, and drawn by hand."""

import numpy as np


def seen(layout):
    """bool [M, K]: which of the first example's rows see which keys, by the definition of times and views."""
    visible = 0
    keys = layout.times if layout.key_times is None else layout.key_times
    if layout.memory is not None:
        keys = layout.memory.times
    views = [(v.times, v.key_times, v.window) for v in layout.views]
    for times, key_times, window in [(layout.times, keys, layout.window), *views]:
        times, key_times = (np.atleast_2d(np.asarray(t))[0] for t in (times, key_times))
        back = times[:, None].astype(np.int64) - key_times
        visible += (back >= 0) & (back <= (np.inf if window is None else window))
    assert np.max(visible) == 1  # views don't overlap
    return visible.astype(bool)


def drawn(drawing):
    """bool [M, K] of a drawing: "#.. ##. ###", a word for each row, "#" where it sees the column's."""
    return np.array([[mark == "#" for mark in row] for row in drawing.split()])
