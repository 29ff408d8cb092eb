"""Shapes [B, N, C] by name, for tests and benchmarks."""

from __future__ import annotations

SHAPES: dict[str, tuple[int, int, int]] = {
    "tiny": (2, 5, 3),
    "ragged": (2, 37, 20),  # no multiple of any block
    "cpu": (2, 4096, 512),
    "1k": (8, 1024, 1024),
    "4k": (8, 4096, 1024),
    "16k": (8, 16384, 1024),
    "mamba": (8, 1024, 1536 * 16),  # channels times states
}
