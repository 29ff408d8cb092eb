"""The public call."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def linear_attention(
    q,
    k,
    v,
    log_decay=None,
    *,
    causal: bool = True,
    scale: float = 1.0,
    initial=None,
    return_state: bool = False,
    chunk: int = 64,
    implementation: str | None = None,
):
    """S_t = diag(exp(log_decay_t)) S_(t-1) + k_t v_t^T, o_t = scale q_t S_t.

    Args:
      q, k: [B, N, H, K].
      v: [B, N, H, V].
      log_decay: natural logarithm (at most 0) of the decay: None, [H] (fixed per head; retention), [B, N, H]
        (per head; Mamba-2) or [B, N, H, K] (per key channel; GLA).
      causal: otherwise bidirectional.
      initial: float32 [B, H, K, V], the state before the first row; zeros by default.
      return_state: also return the state after the last row.

    Returns:
      [B, N, H, V] in v's dtype; with return_state also float32 [B, H, K, V].
    """
    f32 = jnp.float32
    batch, n, heads, dim = q.shape
    state = jnp.zeros((batch, heads, dim, v.shape[-1]), f32) if initial is None else initial.astype(f32)
    if not causal and log_decay is None:
        state = state + jnp.einsum("bnhk,bnhv->bhkv", k, v, preferred_element_type=f32)
        out = scale * jnp.einsum("bnhk,bhkv->bnhv", q.astype(f32), state)
        return (out.astype(v.dtype), state) if return_state else out.astype(v.dtype)
    if log_decay is None:
        decay = jnp.ones((batch, n, heads, 1), f32)
    else:
        decay = jnp.exp(log_decay.astype(f32))
        decay = decay if decay.ndim == 4 else jnp.broadcast_to(decay, (batch, n, heads))[..., None]

    def step(state, row):
        q, k, v, a = row
        state = a[..., None] * state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bhk,bhkv->bhv", q, state)

    def forward(q, k, v, decay, state):
        rows = [jnp.moveaxis(x.astype(f32), 1, 0) for x in (q, k, v, decay)]
        state, out = jax.lax.scan(step, state, tuple(rows))
        return scale * jnp.moveaxis(out, 0, 1), state

    out, state = forward(q, k, v, decay, state)
    if not causal:
        # decay between i < j is the product over i+1 .. j, seen from both sides; the diagonal counts once.
        turned = [jnp.flip(x, 1) for x in (q, k, v, jnp.roll(decay, -1, axis=1))]
        back = jnp.flip(forward(*turned, jnp.zeros_like(state))[0], 1)
        diagonal = scale * jnp.einsum("bnhk,bnhk->bnh", q.astype(f32), k.astype(f32))[..., None] * v
        out = out + back - diagonal
    return (out.astype(v.dtype), state) if return_state else out.astype(v.dtype)
