"""Who sees whom: as a layout says it, and drawn by hand."""

import numpy as np


def seen(layout):
    """int [M, K]: how often the first example's rows see which keys, by the definition of times and views: 0 or 1, as
    views don't overlap; traced where times are."""
    visible = 0
    keys = layout.times if layout.key_times is None else layout.key_times
    if layout.memory is not None:
        keys = layout.memory.times
    views = [(v.times, v.key_times, v.window) for v in layout.views]
    for times, key_times, window in [(layout.times, keys, layout.window), *views]:
        times, key_times = (t[0] if t.ndim > 1 else t for t in (times, key_times))
        back = times[:, None] - key_times
        visible += ((back >= 0) & (True if window is None else back <= window)).astype(int)
    return visible


def drawn(drawing):
    """bool [M, K] of a drawing: "#.. ##. ###", a word for each row, "#" where it sees the column's."""
    return np.array([[mark == "#" for mark in row] for row in drawing.split()])
