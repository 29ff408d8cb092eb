"""Shapes by name, for tests and benchmarks."""

from __future__ import annotations

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes, and the decay: None, "constant" ([H]), "head" ([B, N, H]) or "channel" ([B, N, H, K])."""

    batch: int
    rows: int
    heads: int
    keys: int
    values: int
    decay: str | None = "channel"

    @property
    def shapes(self):
        """Of q, k, v and log_decay (None without)."""
        rows = (self.batch, self.rows, self.heads)
        q = (*rows, self.keys)
        decay = {None: None, "constant": (self.heads,), "head": rows, "channel": q}[self.decay]
        return q, q, (*rows, self.values), decay


SHAPES = {
    "tiny": Shape(2, 37, 2, 8, 12),  # no multiple of any block
    "small": Shape(1, 1024, 4, 64, 64),
    "gla_1k": Shape(8, 1024, 4, 128, 256),
    "gla_4k": Shape(2, 4096, 4, 128, 256),
    "gla_16k": Shape(1, 16384, 4, 128, 256),
    "mamba2_1k": Shape(8, 1024, 24, 128, 64, "head"),
    "mamba2_4k": Shape(2, 4096, 24, 128, 64, "head"),
    "mamba2_16k": Shape(1, 16384, 24, 128, 64, "head"),
    "retention_4k": Shape(2, 4096, 4, 256, 256, "constant"),
    "linear_4k": Shape(2, 4096, 12, 64, 64, None),
}
