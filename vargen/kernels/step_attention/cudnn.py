"""cuDNN's attention where spans come to full, padded or causal attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels import static


def attend(q, k, v, low, high, *, scale: float):
    """[B, N, H, D] by `jax.nn.dot_product_attention` with its own gradient; arguments as `reference.attend`.

    Raises:
      ValueError: spans or dtypes that it can't express.
    """
    n, m = q.shape[1], k.shape[1]
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"step_attention: implementation 'cudnn': expected bfloat16 or float16, found {q.dtype}"
        )
    first = static.known(low) and not low.any()
    causal = first and n == m and np.array_equal(high, np.arange(1, n + 1))
    padded = first and high[0] > 0 and np.all(high == high[0])
    if not (causal or padded):
        raise ValueError(
            "step_attention: implementation 'cudnn': expected static steps under which every query sees the same "
            "first keys, or causal ones of as many queries as keys"
        )
    keys = slice(None, None if causal else int(high[0]))
    return jax.nn.dot_product_attention(
        q, k[:, keys], v[:, keys], scale=scale, is_causal=causal, implementation="cudnn"
    )
