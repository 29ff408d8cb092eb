"""Sets of pictures of a batch that see each other."""

from __future__ import annotations


def groups(batch: int, most: int) -> int:
    """The size of equal sets that a batch is cut into: its largest divisor of at most `most`."""
    return next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
