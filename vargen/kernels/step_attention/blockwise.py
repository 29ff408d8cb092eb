"""Step-masked attention in XLA, one block of queries at a time: no N x M mask or matrix is kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels.step_attention.reference import attend, visible

# Queries per block: at least, so that matrix products stay large; at most, so that a block's logits stay small.
SMALLEST, LARGEST = 64, 256


def step_attention(q, k, v, q_step, k_step, *, strict=False, window=None, scale=None) -> jax.Array:
    """Attention in which query i sees key j iff `k_step[j] <= q_step[i]`.

    Causal, block-causal, prefix, random-order and bidirectional attention are all step vectors. Where steps
    are NumPy arrays they are known before tracing: queries are then cut at the steps' own bounds and each
    block meets only the keys that some query of it sees.

    Args:
      q: [B, N, H, D].
      k, v: [B, M, G, D], H a multiple of G (grouped-query heads).
      q_step, k_step: int [N], [M], or per example [B, N], [B, M].
      strict: a query sees earlier steps only (`<`).
      window: a query sees no key more than this many steps before it.
      scale: factor on the logits, 1/sqrt(D) by default.

    Returns:
      [B, N, H, D] in v's dtype (logits and softmax in float32); zeros for a query that sees nothing.

    Raises:
      ValueError: shapes that don't fit.
    """
    (batch, n, heads, dim), (m, groups) = q.shape, k.shape[1:3]
    if heads % groups or k.shape != v.shape or k.shape[0] != batch or k.shape[3] != dim:
        raise ValueError(f"step_attention: q {q.shape} does not fit k {k.shape} and v {v.shape}")
    if q_step.shape[-1] != n or k_step.shape[-1] != m:
        raise ValueError(f"step_attention: steps {q_step.shape}, {k_step.shape} for {n} queries and {m} keys")
    scale = dim**-0.5 if scale is None else scale
    q = q.transpose(0, 2, 1, 3).reshape(batch, groups, heads // groups, n, dim)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    static = all(isinstance(s, np.ndarray) and s.ndim == 1 for s in (q_step, k_step))
    blocks = _static_blocks if static else _traced_blocks
    out = blocks(q, k, v, q_step, k_step, strict=strict, window=window, scale=scale)
    return out.reshape(batch, heads, n, dim).transpose(0, 2, 1, 3)


def _static_blocks(q, k, v, q_step, k_step, *, strict, window, scale):
    def run(queries, keys, values, q_step, k_step, masked):
        mask = visible(q_step, k_step, strict=strict, window=window) if masked else None
        return attend(queries, keys, values, mask, scale)

    bounds = query_bounds(q_step)
    if len(bounds) > 2:
        # A block alone is kept for the backward pass as it is; of several, each is computed again there.
        run = jax.checkpoint(run, static_argnums=5)
    # Masks are computed block by block from the steps: hidden behind a barrier, or the compiler folds them
    # into constants that together are the N x M mask.
    q_steps, k_steps = jax.lax.optimization_barrier((jnp.asarray(q_step), jnp.asarray(k_step)))
    out = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        mask = visible(q_step[start:end], k_step, strict=strict, window=window)
        seen = np.flatnonzero(mask.any(axis=0))
        queries = q[..., start:end, :]
        if not len(seen):
            out.append(jnp.zeros_like(queries))
            continue
        low, high = int(seen[0]), int(seen[-1]) + 1
        if out:
            # One block after another (a sum with zero is no barrier that a compiler drops), or the logits
            # of all blocks live at once.
            queries = queries + 0 * jax.lax.stop_gradient(out[-1][..., -1:, :1]).astype(q.dtype)
        steps = (q_steps[start:end], k_steps[low:high])
        out.append(run(queries, k[:, :, low:high], v[:, :, low:high], *steps, not mask[:, low:high].all()))
    return out[0] if len(out) == 1 else jnp.concatenate(out, axis=-2)


def query_bounds(steps: np.ndarray) -> list[int]:
    """Where to cut the queries: at changes of step, in blocks of SMALLEST to LARGEST queries."""
    n = len(steps)
    changes = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), n]
    bounds = [0]
    for change in changes[1:]:
        while change - bounds[-1] > LARGEST:
            bounds.append(bounds[-1] + LARGEST)
        if change - bounds[-1] >= SMALLEST:
            bounds.append(change)
    if bounds[-1] != n:
        bounds.append(n)
    return bounds


def _traced_blocks(q, k, v, q_step, k_step, *, strict, window, scale):
    n, size = q.shape[-2], LARGEST
    q_step, k_step = jnp.asarray(q_step), jnp.asarray(k_step)

    def block(q, q_step):
        mask = visible(q_step, k_step, strict=strict, window=window)
        mask = mask if mask.ndim == 2 else mask[:, None, None]
        return attend(q, k, v, mask, scale)

    if n <= size:
        return block(q, q_step)
    pad = -n % size
    q = jnp.pad(q, [(0, 0)] * 3 + [(0, pad), (0, 0)])
    q_step = jnp.pad(q_step, [(0, 0)] * (q_step.ndim - 1) + [(0, pad)], mode="edge")
    count = (n + pad) // size
    q = jnp.moveaxis(q.reshape(*q.shape[:3], count, size, q.shape[-1]), 3, 0)
    q_step = jnp.moveaxis(q_step.reshape(*q_step.shape[:-1], count, size), -2, 0)
    out = jax.lax.map(lambda args: jax.checkpoint(block)(*args), (q, q_step))
    return jnp.moveaxis(out, 0, 3).reshape(*out.shape[1:4], n + pad, out.shape[-1])[..., :n, :]
