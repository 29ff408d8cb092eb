"""Linear attention by its definition, one position after another: the truth for every implementation."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def forward(q, k, v, log_decay, state, *, scale: float, diagonal: bool, dtype, **_):
    """S_t = diag(exp(log_decay_t)) S_(t-1) + k_t v_t^T, o_t = scale q_t S_t.

    Args:
      q, k: [B, N, H, K].
      v: [B, N, H, V].
      log_decay: None, [B, N, H] or [B, N, H, K].
      state: [B, H, K, V], S before the first position.
      scale: factor on the output.
      diagonal: False leaves a position's own k_t v_t^T out of its output (not out of S).
      dtype: of the output.

    Returns:
      [B, N, H, V] in `dtype` and S after the last position; computed in state's dtype.
    """
    decay = jnp.ones(k.shape[:3]) if log_decay is None else jnp.exp(log_decay)
    decay = decay if decay.ndim == 4 else decay[..., None]

    def step(state, row):
        q, k, v, decay = row
        before = decay[..., None] * state
        state = before + k[..., :, None] * v[..., None, :]
        out = jnp.einsum("bhk,bhkv->bhv", q, state if diagonal else before, precision="highest")
        return state, scale * out

    rows = [jnp.moveaxis(x.astype(state.dtype), 1, 0) for x in (q, k, v, decay)]
    state, out = jax.lax.scan(step, state, tuple(rows))
    return jnp.moveaxis(out, 0, 1).astype(dtype), state


def backward(q, k, v, log_decay, state, out_grad, state_grad, **options):
    """Gradients of `forward` in q, k, v, log_decay and state, by automatic differentiation."""
    if log_decay is None:
        pull = jax.vjp(lambda q, k, v, s: forward(q, k, v, None, s, **options), q, k, v, state)[1]
        dq, dk, dv, ds = pull((out_grad, state_grad))
        return dq, dk, dv, None, ds
    pull = jax.vjp(lambda *args: forward(*args, **options), q, k, v, log_decay, state)[1]
    return pull((out_grad, state_grad))
