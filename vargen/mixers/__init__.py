"""Mixers: how rows exchange information inside a block.

A mixer is a Linen module with one signature, `mixer(x, layout, cache=None, train=False) -> (y, cache)`, and
`init_cache(batch, length)`: whatever it must remember, a pytree of arrays [B, ...]. Its parallel form (no cache)
and its cached form are tested equal for every order that `check(order, feed)` lets pass.
"""

from vargen.mixers.attention import Attention
from vargen.mixers.layout import Layout

MIXERS = {"attention": Attention}

__all__ = ["MIXERS", "Attention", "Layout"]
