"""Dropout by a hash of random words and of counters: the same mask wherever and however often it is asked for.

Random bits for every number cost more than what is done with them, and a mask that is kept is read again. Here one word
is drawn for a row of numbers, and the rest is two multiplications. All is int32, which every device multiplies, shifts
and compares.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# An integer hash of two rounds (github.com/skeeto/hash-prospector: shifts 16, 15, 15, bias 0.107).
FACTORS = tuple(int(np.uint32(x).astype(np.int32)) for x in (0x21F0AAAD, 0xD35A2D97))


def draw_words(key, shape) -> jax.Array:
    """int32 [shape]: random words, one for each row of numbers that `drop` is of."""
    return jax.lax.bitcast_convert_type(jax.random.bits(key, shape, jnp.uint32), jnp.int32)


def drop(x, words, index, rate: float):
    """Zeros at a rate, all others grow by 1 / (1 - rate).

    Args:
      x: float [...].
      words: int32, a random one for each row of numbers; broadcasts with x.
      index: int32, the number's place in its row; broadcasts with x, and is hashed in its own shape.
      rate: in [0, 1).
    """
    bits = _mixed(words ^ _last(_mixed(index)))
    # Compared by the highest bits, into which the products carry all others; what would mix the low ones is left out.
    kept = bits >= np.int32(round(rate * 2**32) - 2**31)
    # No choice between x and zeros: autodiff puts those before a loop over layers, which then reads them in each.
    return (x * (kept.astype(jnp.float32) * np.float32(1.0 / (1.0 - rate)))).astype(x.dtype)


def _mixed(x):
    for shift, factor in zip((16, 15), FACTORS, strict=True):
        x = (x ^ jax.lax.shift_right_logical(x, np.int32(shift))) * np.int32(factor)
    return x


def _last(x):
    return x ^ jax.lax.shift_right_logical(x, np.int32(15))
