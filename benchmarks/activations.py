"""What products and attention must move of the rows themselves: the floor of passes of hundreds of rows.

Weights and cache, each read once a step (`floors`), are what a step of few rows moves. Of many rows each product also
reads its inputs and writes its outputs, in the compute dtype, with all that stands around it (norms, activations,
gates and residuals) made on the way: of a row of a layer D in and Q + 2 K out for query, key and value; of attention
these in (what lies in the cache counts there) and Q out; Q and the residual D in and D out; D in and F out; F and the
residual in and D out. No program of such products moves less, unless it makes several of them one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.feeds.mask import Mask
from vargen.feeds.refine import Refine
from vargen.feeds.shift import Shift
from vargen.heads.categorical import Codes
from vargen.mixers.attention import Attention


def knows(generator: Any) -> bool:
    """Whether all rows of its feed are known here, its mixer is attention, and its head has a code's logits or none."""
    known = isinstance(generator.feed, (Mask, Refine, Shift))
    known &= isinstance(generator.head, Codes) or not generator.head.explicit
    return known and all(
        isinstance(stage.block.mixer, Attention) and stage.block.cross is None for stage in generator.stages
    )


def sampling(generator: Any, batch: int, settings: Any) -> float:
    """Bytes of the rows of all stages and of the logits through sampling.

    Args:
      generator: a `Generator` whose mixer is attention, and whose feed has a cache or fills every place in one pass.
      batch: B.
      settings: `Sampling`; under guidance every row counts twice.

    Raises:
      KeyError: another mixer.
    """
    params = jax.eval_shape(generator.init, jax.random.key(0))
    sizes = generator.ordering.decoding(jax.random.key(0), batch, settings.steps).sizes
    times = batch * (2 if settings.guided else 1)
    feed, before = generator.feed, np.cumsum(sizes) - sizes
    if feed.cached:
        rows = sizes + np.where(before == 0, feed.length - feed.grid.size, 0)
        passes = dict.fromkeys(feed.stages, rows)
    else:
        passes = dict.fromkeys(feed.stages, np.full(len(sizes), feed.buffer + feed.grid.size))
        if len(feed.stages) > 1:
            passes[feed.stages[0]] = feed.buffer + before
    numbers = 0.0
    for stage in generator.stages:
        block = params[stage.name]
        query, key = (block["mixer"][name]["kernel"].shape[-1] for name in ("query", "key"))
        inner, width = block["feed_forward"]["down"]["kernel"].shape[-2:]
        numbers += passes[stage.name].sum() * stage.layers * (6 * width + 4 * query + 4 * key + 2 * inner)
    if isinstance(generator.head, Codes):
        numbers += sizes.sum() * (generator.width + generator.head.vocab)
    return float(times * numbers * jnp.dtype(generator.stages[0].block.dtype).itemsize)
