"""The kernels as mixers call them: under a mesh, every device runs them on its own examples and heads.

A compiler that splits programs over devices can't look into a kernel; without a mesh these are the plain calls.
"""

from __future__ import annotations

from vargen import kernels, sharding, static
from vargen.kernels import merge as merge

ROWS = ("batch", None, "heads", None)


def step_attention(q, k, v, q_step, k_step, **options):
    """`kernels.step_attention`, split by examples, and by heads where the key heads can be."""
    # Query heads must not be split from their key heads.
    heads = "heads" if sharding.splits("heads", k.shape[2]) else None
    rows = ("batch", None, heads, None)
    steps = [s for s in (q_step, k_step) if not static.known(s)]

    def run(q, k, v, *steps):
        traced = iter(steps)
        pair = [s if static.known(s) else next(traced) for s in (q_step, k_step)]
        return kernels.step_attention(q, k, v, *pair, **options)

    names = [rows] * 3 + [_of_steps(s) for s in steps]
    out = (rows, rows[:3]) if options.get("return_lse") else rows
    return sharding.per_shard(run, (q, k, v, *steps), names, out)


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
