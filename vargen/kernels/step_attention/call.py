"""The public calls: step-masked attention, and the union of several."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from vargen.kernels import dispatch
from vargen.kernels.step_attention import cudnn, few, gpu, placing, reference, tpu, xla
from vargen.kernels.step_attention.spans import arrange, spans

NAME = "step_attention"
PAIRS = "step_attention_of_{}_pairs"  # the scope it runs under: pairs of a query and a key that it sees, of an example
# So few queries (a step of decoding) are no work for blocks: the dense form reads the keys once as well, and a GPU has
# a kernel of its own for them.
FEW = 16
FORWARD_FEW = {"xla": reference.attend, "gpu": few.attend}
BACKWARD_FEW = {"xla": reference.backward}
CACHED_FEW = {"xla": reference.attend_cached, "gpu": few.attend_cached}
CACHED = {"xla": reference.attend_cached, "gpu": placing.attend_cached}
PLACED = {"xla": reference.placed, "gpu": placing.placed}
FORWARD = {
    "xla": xla.attend,
    **dispatch.kernels(tpu.attend, gpu.attend),
    "reference": reference.attend,
}
BACKWARD = {
    "xla": xla.backward,
    **dispatch.kernels(tpu.backward, gpu.backward),
    "reference": reference.backward,
}


def step_attention(
    q,
    k,
    v,
    q_step,
    k_step,
    *,
    strict: bool = False,
    window: int | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    words=None,
    return_lse: bool = False,
    steps_are_sorted: bool = False,
    implementation: str | None = None,
):
    """Attention in which query i sees key j iff `k_step[j] <= q_step[i]`.

    Causal, block-causal, prefix, random-order, windowed and bidirectional attention are all step vectors.
    Rows are brought into the order of their steps, so that a query sees one contiguous range of keys; blocks
    that nobody sees are skipped, and memory is O(N): the backward pass computes the weights again from the
    log-sum-exp. Where steps are NumPy arrays they are known before tracing, and only visible blocks are
    walked; traced steps skip blocks when the program runs.

    Args:
      q: [B, N, H, D], float32 or bfloat16.
      k, v: [B, M, G, D], H a multiple of G (grouped-query heads).
      q_step, k_step: int [N], [M], or per example [B, N], [B, M].
      strict: a query sees earlier steps only (`<`).
      window: a query sees no key more than this many steps before it.
      scale: factor on the logits, 1/sqrt(D) by default.
      dropout: rate with which a weight is zeroed after the softmax; the others grow by 1 / (1 - dropout). Every
        implementation drops the same ones.
      words: int32 [B, H, N], of `draw_words`, where weights are dropped: a random one for each query, the
        queries and the keys numbered as sorted by step.
      return_lse: also return the log-sum-exp of the scaled logits that a query sees, for `merge`: of all, dropped or
        not.
      steps_are_sorted: promises that both step vectors are non-decreasing, which saves traced ones a sort.
      implementation: None chooses when the program is lowered: the Pallas kernels on TPU ("tpu") and on CUDA
        ("gpu"), "xla" elsewhere; for at most 16 queries "reference" (dense), on CUDA `few` without dropout. By name
        also "tpu_interpret" and "gpu_interpret" (the kernels' values on any platform, slowly), and "cudnn" (CUDA,
        bfloat16 or float16, static steps that come to full, padded or causal attention, no log-sum-exp or dropout).

    Returns:
      [B, N, H, D] in v's dtype (logits, softmax and sums in float32); zeros for a query that sees nothing.
      With `return_lse` also float32 [B, N, H], -inf for such a query. Differentiable (reverse mode) in q, k
      and v, through both results.

    Raises:
      ValueError: shapes that don't fit, or an implementation that can't run this (or, at lowering, here).
    """
    (batch, n, heads, dim), (m, groups) = q.shape, k.shape[1:3]
    if heads % groups or k.shape != v.shape or k.shape[0] != batch or k.shape[3] != dim:
        raise ValueError(f"{NAME}: q {q.shape} does not fit k {k.shape} and v {v.shape}")
    for name, step, wanted in (("q_step", q_step, n), ("k_step", k_step, m)):
        if step.shape not in ((wanted,), (batch, wanted)):
            raise ValueError(
                f"{NAME}: {name}: expected shape {(wanted,)} or {(batch, wanted)}, found {step.shape}"
            )
    if (words is not None) != (dropout > 0) or (dropout and words.shape != (batch, heads, n)):
        found = None if words is None else words.shape
        expected = f"shape {(batch, heads, n)}" if dropout else "none"
        raise ValueError(f"{NAME}: words: expected {expected} for dropout {dropout}, found {found}")
    dispatch.check(NAME, implementation, {**FORWARD, "cudnn": None})
    scale = dim**-0.5 if scale is None else scale
    s = spans(q_step, k_step, strict=strict, window=window, sorted_already=steps_are_sorted)
    q, k, v = arrange(q, s.q_order), arrange(k, s.k_order), arrange(v, s.k_order)
    if implementation == "cudnn":
        if return_lse:
            raise ValueError(f"{NAME}: implementation 'cudnn' returns no log-sum-exp")
        if dropout:
            raise ValueError(f"{NAME}: implementation 'cudnn' drops no weights")
        return arrange(cudnn.attend(q, k, v, s.low, s.high, scale=scale), s.q_order, back=True)
    fixed = _Fixed(s.low, s.high) if s.static else None
    low, high = (None, None) if s.static else (s.low, s.high)
    seen = int(np.mean(np.sum(np.maximum(s.high - s.low, 0), axis=-1))) if s.static else n * m
    with jax.named_scope(PAIRS.format(seen)):
        out, lse = _attend(q, k, v, low, high, words, fixed, scale, dropout, implementation)
    out = arrange(out, s.q_order, back=True)
    return (out, arrange(lse.swapaxes(1, 2), s.q_order, back=True)) if return_lse else out


def cached_attention(
    q, k, v, cache_k, cache_v, start, q_step, k_step, *, window=None, scale=None, norms=None
):
    """`step_attention` of a step of decoding, whose keys and values are put into caches first: in place where the
    caches may be overwritten (a loop's). On CUDA one kernel does both for at most 16 queries, else two. Not
    differentiable.

    Args:
      q: [B, N, H, D].
      k, v: [B, N, G, D]: the new rows.
      cache_k, cache_v: [B, M, G, D].
      start: int [], traced: where the new rows go; `start + N` is at most M.
      q_step, k_step: int [N], [M], or per example [B, N], [B, M], both non-decreasing.
      window, scale: as of `step_attention`.
      norms: None, or of queries and of new keys, two `Norming`, which nothing modulates.

    Returns:
      [B, N, H, D] in v's dtype, and the caches.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    s = spans(q_step, k_step, strict=False, window=window, sorted_already=True)
    table = CACHED_FEW if q.shape[1] <= FEW else CACHED
    run = {name: functools.partial(f, scale=scale) for name, f in table.items()}
    arrays = q, k, v, cache_k, cache_v, jnp.asarray(start)
    if s.static:  # as arguments they would be traced
        run = {name: functools.partial(_between, f, s) for name, f in run.items()}
        out, _, *caches = dispatch.run(NAME, None, run, *arrays, norms)
    else:
        out, _, *caches = dispatch.run(NAME, None, run, *arrays, s.low, s.high, norms)
    return out, *caches


def placed(q, k, v, cache_k, cache_v, start, norms=None):
    """New keys and values put into caches, before attention of more queries than `cached_attention` is for: in place
    where the caches may be overwritten, on CUDA in one launch. Not differentiable.

    Args:
      q: [B, N, H, D].
      k, v: [B, N, G, D]: the new rows.
      cache_k, cache_v: [B, M, G, D].
      start: int [], also traced: where the new rows go; `start + N` is at most M.
      norms: None, or of queries and of new keys, two `Norming`, which nothing modulates.

    Returns:
      The queries, with their norm, and the caches.
    """
    return dispatch.run(NAME, None, PLACED, q, k, v, cache_k, cache_v, jnp.asarray(start), norms)


def _between(function, s, *args):
    """A function of arrays, spans and norms, of which the spans stay known."""
    *arrays, norms = args
    return function(*arrays, s.low, s.high, norms)


class _Fixed:
    """Spans known before tracing, comparable so that `jax.custom_vjp` can take them as static."""

    def __init__(self, low: np.ndarray, high: np.ndarray):
        self.low, self.high = low, high
        self._key = (low.tobytes(), high.tobytes())

    def __eq__(self, other):
        return isinstance(other, _Fixed) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8, 9))
def _attend(q, k, v, low, high, words, fixed, scale, dropout, implementation):
    return _run("forward", (q, k, v), low, high, words, fixed, scale, dropout, implementation)


def _forward(q, k, v, low, high, words, fixed, scale, dropout, implementation):
    found = _attend(q, k, v, low, high, words, fixed, scale, dropout, implementation)
    out, lse = (checkpoint_name(x, dispatch.KEPT) for x in found)
    return (out, lse), (q, k, v, out, lse, low, high, words)


def _backward(fixed, scale, dropout, implementation, saved, grads):
    *arrays, low, high, words = saved
    d_out, d_lse = grads
    # A query that sees nothing has a constant -inf, whatever asks for its gradient.
    d_lse = jnp.where(jnp.isfinite(arrays[4]), d_lse, 0.0)
    found = _run("backward", (*arrays, d_out, d_lse), low, high, words, fixed, scale, dropout, implementation)
    return *found, None, None, None


_attend.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=(0, 5, 6, 7, 8))  # layers that are alike are traced once
def _run(direction, arrays, low, high, words, fixed, scale, dropout, implementation):
    table = {"forward": FORWARD, "backward": BACKWARD}[direction]
    if implementation is None and arrays[0].shape[1] <= FEW:
        table = {"forward": FORWARD_FEW, "backward": BACKWARD_FEW}[direction]
        table = {"xla": table["xla"]} if dropout else table
    options = dict(scale=scale)
    if dropout:
        arrays, options = (words, *arrays), dict(scale=scale, dropout=dropout)
        table = {name: functools.partial(_words_last, f) for name, f in table.items()}
    if fixed is None:
        known = {name: functools.partial(f, **options) for name, f in table.items()}
        return dispatch.run(NAME, implementation, known, *arrays, low, high)
    known = {name: functools.partial(_with, f, fixed, **options) for name, f in table.items()}
    return dispatch.run(NAME, implementation, known, *arrays)


def _with(function, fixed, *arrays, **options):
    return function(*arrays, fixed.low, fixed.high, **options)


def _words_last(function, words, *arrays, **options):
    return function(*arrays, words, **options)
