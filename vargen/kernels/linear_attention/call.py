"""The public call: arguments checked, the bidirectional form put together, the gradient given."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vargen.kernels import dispatch
from vargen.kernels.linear_attention import gpu, reference, tpu, xla

NAME = "linear_attention"
FORWARD = {
    "xla": xla.forward,
    **dispatch.kernels(tpu.forward, gpu.forward),
    "reference": reference.forward,
}
BACKWARD = {
    "xla": xla.backward,
    **dispatch.kernels(tpu.backward, gpu.backward),
    "reference": reference.backward,
}


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
    chunk: int | None = None,
    implementation: str | None = None,
):
    """Linear attention with no decay, one per head or one per key channel, in chunks.

    Causal: S_t = diag(exp(log_decay_t)) S_(t-1) + k_t v_t^T, o_t = scale q_t S_t. Without decay this is linear
    attention (arXiv 2006.16236, equations 16 to 20), with a constant per head retention (2307.08621, equation 6),
    per head and position Mamba-2 (2405.21060, equation 16), per channel gated linear attention (2312.06635,
    equation 3). Not causal: o_i = scale sum_j (q_i D_ij) . k_j v_j over all j, D_ij the product of the decays at
    min(i, j) + 1 .. max(i, j).

    Products are in the inputs' common dtype with float32 accumulation; decays and states are float32. Decays down
    to 1e-6 lose no accuracy, in gradients either. The gradient keeps the inputs alone.

    Args:
      q, k: [B, N, H, K].
      v: [B, N, H, V].
      log_decay: natural logarithm of the decay, finite and at most 0: None, [H], [B, N, H] or [B, N, H, K].
      causal: otherwise bidirectional.
      scale: factor on the output.
      initial: [B, H, K, V], the state before the first row; zeros by default. Not causal, without decay: added
        to the sum that every row sees.
      return_state: also return the state after the last row (not causal: after all rows).
      chunk: positions per chunk, a power of 2; by default what suits the shape and the platform.
      implementation: None (by platform), "xla", "reference", "tpu", "gpu", "tpu_interpret" or "gpu_interpret".

    Returns:
      [B, N, H, V] in v's dtype; with return_state also float32 [B, H, K, V].

    Raises:
      ValueError: shapes or options that don't fit; a state asked of the bidirectional form with decay, which has
        none; an implementation that is unknown or can't run on the platform.
    """
    _check(q, k, v, log_decay, initial, chunk)
    dispatch.check(NAME, implementation, FORWARD)
    batch, n, heads, dim = q.shape
    if not causal and log_decay is not None and (initial is not None or return_state):
        raise ValueError(
            f"{NAME}: initial and return_state: expected causal=True or no log_decay, found neither"
        )
    shape = (batch, heads, dim, v.shape[-1])
    state = jnp.zeros(shape, jnp.float32) if initial is None else initial.astype(jnp.float32)
    if not causal and log_decay is None:
        out, state = _everything(q, k, v, state, scale)
    else:
        g = None if log_decay is None else log_decay.astype(jnp.float32)
        g = jnp.broadcast_to(g, (batch, n, heads)) if g is not None and g.ndim == 1 else g
        run = functools.partial(_recurrence, scale=scale, chunk=chunk, implementation=implementation)
        if causal:
            out, state = run(q, k, v, g, state, diagonal=True, dtype=v.dtype)
        else:
            out, _ = run(q, k, v, g, state, diagonal=True, dtype=jnp.float32)
            # From the other side the decay between i < j is met at i + 1 .. j, and the diagonal is counted.
            q, k, v, g = (jnp.flip(x, 1) for x in (q, k, v, jnp.roll(g, -1, axis=1)))
            back, _ = run(q, k, v, g, state, diagonal=False, dtype=jnp.float32)
            out = (out + jnp.flip(back, 1)).astype(v.dtype)
    return (out, state) if return_state else out


def _check(q, k, v, log_decay, initial, chunk):
    if q.ndim != 4 or q.shape != k.shape or v.ndim != 4 or v.shape[:3] != q.shape[:3] or not q.shape[1]:
        raise ValueError(
            f"{NAME}: q, k, v: expected [B, N, H, K] twice and [B, N, H, V], N > 0, "
            f"found {q.shape}, {k.shape}, {v.shape}"
        )
    decays = [q.shape[2:3], q.shape[:3], q.shape]
    if log_decay is not None and log_decay.shape not in decays:
        raise ValueError(f"{NAME}: log_decay: expected None or one of {decays}, found {log_decay.shape}")
    state = (q.shape[0], *q.shape[2:], v.shape[-1])
    if initial is not None and initial.shape != state:
        raise ValueError(f"{NAME}: initial: expected {state}, found {initial.shape}")
    if chunk is not None and (chunk < 1 or chunk & (chunk - 1)):
        raise ValueError(f"{NAME}: chunk: expected a power of 2, found {chunk}")


def _everything(q, k, v, state, scale):
    """Every row sees the sum over all rows."""
    precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
    einsum = functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)
    state = state + einsum("bnhk,bnhv->bhkv", k, v)
    # With q first a CPU lacks the product of bfloat16 (jax 0.10).
    out = scale * einsum("bhkv,bnhk->bnhv", state.astype(q.dtype), q)
    return out.astype(v.dtype), state


def _recurrence(q, k, v, log_decay, state, *, scale, diagonal, dtype, chunk, implementation):
    if implementation is None and q.shape[1] < 16:  # Decoding is no work for tiles.
        implementation = "xla"
    options = dict(scale=scale, diagonal=diagonal, dtype=dtype, chunk=chunk)
    return _differentiable(q, k, v, log_decay, state, implementation, tuple(options.items()))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _differentiable(q, k, v, log_decay, state, implementation, options):
    known = {name: functools.partial(f, **dict(options)) for name, f in FORWARD.items()}
    return dispatch.run(NAME, implementation, known, q, k, v, log_decay, state)


def _forward(q, k, v, log_decay, state, implementation, options):
    return _differentiable(q, k, v, log_decay, state, implementation, options), (q, k, v, log_decay, state)


def _backward(implementation, options, saved, grads):
    known = {name: functools.partial(f, **dict(options)) for name, f in BACKWARD.items()}
    return dispatch.run(NAME, implementation, known, *saved, *grads)


_differentiable.defvjp(_forward, _backward)
