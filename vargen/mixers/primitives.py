"""The kernels as mixers call them: under a mesh, every device runs them on its own examples and heads.

A compiler that splits programs over devices can't look into a kernel; without a mesh these are the plain calls.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp

from vargen import kernels, sharding, static
from vargen.kernels import merge as merge
from vargen.kernels.dropout import draw_words

ROWS = ("batch", None, "heads", None)


def step_attention(q, k, v, q_step, k_step, *, dropout: float = 0.0, key=None, **options):
    """`kernels.step_attention`, split by examples, and by heads where the key heads can be; `key` is dropout's."""
    rows = _rows(k)
    out = (rows, rows[:3]) if options.get("return_lse") else rows
    arrays, names = (q, k, v), [rows] * 3
    if key is not None:
        # Drawn for all at once: a device drops what one alone would.
        arrays += (draw_words(key, (q.shape[0], q.shape[2], q.shape[1])),)
        names.append((rows[0], rows[2], None))

    def run(q, k, v, *rest):
        drop = dict(dropout=dropout, words=rest[0]) if key is not None else {}
        return kernels.step_attention(q, k, v, *rest[-2:], **drop, **options)

    return _with_steps(run, arrays, names, (q_step, k_step), out)


def cached_attention(q, k, v, cache, start, q_step, k_step, **options):
    """`kernels.cached_attention`, split likewise: [B, N, H, D], and the cache with the new keys and values."""
    rows = _rows(k)
    run = functools.partial(kernels.cached_attention, **options)
    arrays, names = (q, k, v, cache["key"], cache["value"], start), [rows] * 5 + [()]
    out, key, value = _with_steps(run, arrays, names, (q_step, k_step), (rows,) * 3)
    return out, dict(key=key, value=value)


def placed(q, k, v, cache, start, norms=None):
    """`kernels.placed`, split likewise: queries, and the cache; with norms on one device alone."""
    run, arrays = functools.partial(kernels.placed, norms=norms), (q, k, v, cache["key"], cache["value"])
    names = [*[_rows(k)] * 5, ()]
    q, key, value = sharding.per_shard(run, (*arrays, jnp.asarray(start)), names, (names[0],) * 3)
    return q, dict(key=key, value=value)


def _rows(k):
    # Query heads must not be split from their key heads.
    return ("batch", None, "heads" if sharding.splits("heads", k.shape[2]) else None, None)


def _with_steps(function, arrays, names, steps, out):
    """A function of arrays and then of steps, of which those that are known before tracing stay as they are."""
    traced = [s for s in steps if not static.known(s)]

    def run(*args):
        rest = iter(args[len(arrays) :])
        return function(*args[: len(arrays)], *(s if static.known(s) else next(rest) for s in steps))

    return sharding.per_shard(run, (*arrays, *traced), [*names, *map(_of_steps, traced)], out)


def linear_attention(q, k, v, log_decay=None, *, initial=None, return_state: bool = False, **options):
    """`kernels.linear_attention`, split by examples and heads."""
    decays = {None: None, 1: ("heads",), 3: ROWS[:3], 4: ROWS}
    decay = decays[None if log_decay is None else log_decay.ndim]
    given = {
        name: (x, names)
        for name, x, names in (
            ("log_decay", log_decay, decay),
            ("initial", initial, ("batch", "heads", None, None)),
        )
        if x is not None
    }

    def run(q, k, v, *more):
        more = dict(zip(given, more, strict=True))
        return kernels.linear_attention(q, k, v, return_state=return_state, **more, **options)

    arrays = (q, k, v, *(x for x, _ in given.values()))
    out = (ROWS, ("batch", "heads", None, None)) if return_state else ROWS
    return sharding.per_shard(run, arrays, [ROWS] * 3 + [names for _, names in given.values()], out)


def linear_scan(a, b, *, axis: int = 1, initial=None, **options):
    """`kernels.linear_scan` over [B, ...], split by examples; `axis` is not the first."""
    # Coefficients that examples share stay whole.
    first = "batch" if a.ndim == b.ndim and a.shape[0] == b.shape[0] else None
    names = [(first, *[None] * (a.ndim - 1))[: a.ndim], ("batch",) + (None,) * (b.ndim - 1)]
    arrays = (a, b) if initial is None else (a, b, initial)
    names += [] if initial is None else [("batch",) + (None,) * (initial.ndim - 1)]

    def run(a, b, *initial):
        return kernels.linear_scan(a, b, axis=axis, initial=initial[0] if initial else None, **options)

    return sharding.per_shard(run, arrays, names, names[1])


def _of_steps(steps):
    return ("batch", None) if steps.ndim == 2 else (None,)
