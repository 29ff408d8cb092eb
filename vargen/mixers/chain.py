"""Mixers one after another in one block."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from vargen.layout import Layout
from vargen.mixers.mixer import Mixer


class Chain(nn.Module):
    """`x -> mixers[0](x) -> mixers[1](...) -> ...`: the 2-D SSM before a block's attention (arXiv 2306.06635).

    Attributes:
      mixers: already built.
    """

    mixers: tuple[Mixer, ...]

    reads_ahead = False

    @property
    def keeps_rows(self) -> bool:
        """Whether all of them do; else all are run row by row where rows may be taken back."""
        return all(mixer.keeps_rows for mixer in self.mixers)

    def check(self, layout) -> None:
        """Raises ValueError for a layout that one of them can't honour."""
        for mixer in self.mixers:
            mixer.check(layout)

    def init_cache(self, batch: int, length: int) -> list[Any]:
        """Theirs, in a list."""
        return [mixer.init_cache(batch, length) for mixer in self.mixers]

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False):
        """[B, N, D] -> [B, N, D] and the caches (None in the parallel form)."""
        caches = []
        for i, mixer in enumerate(self.mixers):
            x, after = mixer(x, layout, None if cache is None else cache[i], train)
            caches.append(after)
        return x, None if cache is None else caches
