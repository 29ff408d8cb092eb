"""What benchmarks.kernels times: ours, and what it is measured against, each as one kind of entry.

An entry is built from a case (arrays and settings); a builder raises where its library or device isn't there.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels.linear_attention import linear_attention
from vargen.kernels.linear_scan import linear_scan
from vargen.kernels.linear_scan.reference import linear_scan_reference
from vargen.kernels.step_attention import step_attention

DIRECTIONS = ("forward", "forward_backward")
# The longest rows of which the sequential reference is differentiated (it keeps every state), and the bytes that the
# quadratic form's pairs may take on a CPU: beyond, they only take long.
LONGEST, PAIRS = 1024, 2**27


class Absent(Exception):
    """Why a rival doesn't take part."""


@dataclasses.dataclass
class Case:
    """One shape of one kernel.

    Attributes:
      arrays: what is differentiated.
      grad: the cotangent of the output.
      gpu: whether the device is a CUDA GPU.
      steps: of attention, int [N] or [B, N]; `visible` pairs of them per example and head.
      decay: of linear attention, as in its shapes; `fixed` log-decays [H] where it is "constant".
    """

    arrays: tuple
    grad: Any
    gpu: bool
    steps: Any = None
    visible: int = 0
    decay: str | None = None
    fixed: Any = None

    @property
    def mask(self):
        """bool [1 or B, 1, N, N]."""
        steps = np.atleast_2d(self.steps)
        return jnp.asarray(steps[:, None, :, None] >= steps[:, None, None, :])

    @property
    def is_causal(self) -> bool:
        """Whether the mask is the plain triangle."""
        return self.steps.ndim == 1 and bool(np.all(np.diff(self.steps) == 1))


@dataclasses.dataclass
class Entry:
    """A compiled way to compute a case.

    Attributes:
      programs: by direction a function that starts one call and returns its arrays, the output first.
      wait: waits for such arrays and returns them.
      temporaries: by direction, bytes that the compiler allots beside arguments and results.
      work: useful work as a multiple of the case's, where the mask is another.
      same: whether the gradients are in the same arguments as ours.
      note: why a direction is missing.
    """

    programs: dict[str, Callable[[], Any]]
    wait: Callable[[Any], Any]
    temporaries: dict[str, int] = dataclasses.field(default_factory=dict)
    work: float = 1.0
    same: bool = True
    note: str = ""


def to_numpy(x) -> np.ndarray:
    """Float32 on the host, of an array of JAX or PyTorch."""
    if isinstance(x, jax.Array):
        return np.asarray(x.astype(jnp.float32))
    return x.detach().float().cpu().numpy()


def in_jax(function, case: Case, constants: Sequence = (), work: float = 1.0, backward: bool = True) -> Entry:
    """function(*arrays, *constants) -> output, compiled in both directions."""

    def forward(arrays, constants, grad):
        return (function(*arrays, *constants),)

    def both(arrays, constants, grad):
        out, pull = jax.vjp(lambda *a: function(*a, *constants), *arrays)
        return out, *pull(grad)

    args = (tuple(case.arrays), tuple(constants), case.grad)
    entry = Entry({}, jax.block_until_ready, work=work)
    for name, f in zip(DIRECTIONS, (forward, both) if backward else (forward,)):
        program = jax.jit(f).lower(*args).compile()
        entry.programs[name] = lambda program=program: program(*args)
        entry.temporaries[name] = program.memory_analysis().temp_size_in_bytes
    return entry


def in_torch(function, case: Case, constants=(), work: float = 1.0, by_head: bool = False) -> Entry:
    """As `in_jax`; `by_head`: arrays lie as [B, H, N, D], as PyTorch's attention wants them."""
    torch = needs("torch")
    if case.gpu and not torch.cuda.is_available():
        raise Absent("this PyTorch sees no GPU")

    def move(x):
        y = torch.from_numpy(np.array(x if x.dtype == bool else to_numpy(x)))
        y = y.to("cuda" if case.gpu else "cpu", torch.bfloat16 if x.dtype == jnp.bfloat16 else y.dtype)
        return y.transpose(1, 2).contiguous() if by_head and y.ndim == 4 and x.dtype != bool else y

    arrays = [move(x).requires_grad_() for x in case.arrays]
    constants, grad = [move(x) for x in constants], move(case.grad)
    back = (lambda x: x.transpose(1, 2)) if by_head else (lambda x: x)

    def forward():
        with torch.no_grad():
            return (back(function(*arrays, *constants)),)

    def both():
        out = function(*arrays, *constants)
        return tuple(back(x) for x in (out, *torch.autograd.grad(out, arrays, grad)))

    def wait(results):
        if case.gpu:
            torch.cuda.synchronize()
        return results

    return Entry(dict(zip(DIRECTIONS, (forward, both))), wait, work=work)


def needs(module: str):
    """The module, or why not."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{module.split('.')[0]} can't be imported: {error}") from error


def needs_gpu(case: Case) -> None:
    """Raises Absent elsewhere."""
    if not case.gpu:
        raise Absent("needs a CUDA GPU")


# Step-masked attention.


def _ours(case: Case) -> Entry:
    if case.steps.ndim == 1:
        return in_jax(lambda q, k, v: step_attention(q, k, v, case.steps, case.steps), case)
    return in_jax(lambda q, k, v, s: step_attention(q, k, v, s, s), case, (jnp.asarray(case.steps),))


def _dense(case: Case) -> Entry:
    return in_jax(lambda q, k, v, m: jax.nn.dot_product_attention(q, k, v, mask=m), case, (case.mask,))


def _cudnn(mask: str):
    def build(case: Case) -> Entry:
        needs_gpu(case)
        n = case.steps.shape[-1]
        pairs = {"dense": case.visible, "causal": n * (n + 1) // 2, "full": n * n}[mask]

        def attend(q, k, v, *m):
            options = dict(mask=m[0]) if m else dict(is_causal=mask == "causal")
            return jax.nn.dot_product_attention(q, k, v, implementation="cudnn", **options)

        constants = (case.mask,) if mask == "dense" else ()
        return in_jax(attend, case, constants, work=pairs / case.visible)

    return build


def _tokamax(case: Case) -> Entry:
    tokamax = needs("tokamax")
    return in_jax(lambda q, k, v, m: tokamax.dot_product_attention(q, k, v, mask=m), case, (case.mask,))


def _torch_mask(case: Case) -> Entry:
    sdpa = needs("torch.nn.functional").scaled_dot_product_attention
    return in_torch(lambda q, k, v, m: sdpa(q, k, v, attn_mask=m), case, (case.mask,), by_head=True)


def _torch_no_mask(case: Case) -> Entry:
    """PyTorch's flash attention, where this mask is one that it knows."""
    sdpa = needs("torch.nn.functional").scaled_dot_product_attention
    if not case.is_causal and np.any(case.steps != case.steps.flat[0]):
        raise Absent("the mask is neither causal nor full")
    return in_torch(lambda q, k, v: sdpa(q, k, v, is_causal=case.is_causal), case, by_head=True)


def _flex(case: Case) -> Entry:
    needs_gpu(case)
    torch, flex = needs("torch"), needs("torch.nn.attention.flex_attention")
    steps = torch.from_numpy(np.atleast_2d(case.steps)).cuda()
    examples, n = steps.shape

    def sees(b, h, i, j):
        return steps[b if examples > 1 else 0, i] >= steps[b if examples > 1 else 0, j]

    blocks = flex.create_block_mask(sees, examples if examples > 1 else None, None, n, n, device="cuda")
    torch.compiler.reset()  # or the limit of recompilations is met, and the slow form runs
    attend = torch.compile(flex.flex_attention, dynamic=False)
    return in_torch(lambda q, k, v: attend(q, k, v, block_mask=blocks), case, by_head=True)


ATTENTION = {
    "ours": _ours,
    "dense": _dense,
    "cudnn_dense_mask": _cudnn("dense"),
    "cudnn_causal": _cudnn("causal"),
    "cudnn_full": _cudnn("full"),
    "tokamax": _tokamax,
    "torch_sdpa_mask": _torch_mask,
    "torch_sdpa_no_mask": _torch_no_mask,
    "torch_flex": _flex,
}


# Linear attention.


def _linear(implementation):
    def build(case: Case) -> Entry:
        batch, n, heads, keys = case.arrays[0].shape
        states = 4 * batch * n * heads * keys * case.arrays[2].shape[-1]
        backward = implementation != "reference" or n <= LONGEST

        def attend(q, k, v, g=None):
            return linear_attention(q, k, v, g, implementation=implementation)

        entry = in_jax(attend, case, () if case.fixed is None else (case.fixed,), backward=backward)
        entry.note = "" if backward else f"its gradient would keep {states / 2**30:.3g} GiB of states"
        return entry

    return build


def _quadratic(case: Case) -> Entry:
    """All pairs of positions at once, masked."""
    if case.decay == "channel":
        raise Absent("the plain quadratic form overflows with decays per channel")
    batch, n, heads, _ = case.arrays[0].shape
    if n > 4096:
        raise Absent("N > 4096")
    if not case.gpu and (pairs := 4 * batch * heads * n * n) > PAIRS:
        raise Absent(f"its pairs would take {pairs / 2**20:.0f} MiB")

    def attend(q, k, v, g=None):
        n = q.shape[1]
        pairs = jnp.einsum("bnhk,bmhk->bhnm", q, k, preferred_element_type=jnp.float32)
        if g is None:
            total = jnp.zeros((1, 1, n))
        else:
            g = jnp.broadcast_to(g.astype(jnp.float32), q.shape[:3]) if g.ndim == 1 else g
            total = jnp.cumsum(g.swapaxes(1, 2), axis=-1)
        gap = jnp.where(jnp.tri(n, dtype=bool), total[..., None] - total[..., None, :], -jnp.inf)
        pairs = (pairs * jnp.exp(gap)).astype(v.dtype)
        out = jnp.einsum("bhnm,bmhv->bnhv", pairs, v, preferred_element_type=jnp.float32)
        return out.astype(v.dtype)

    return in_jax(attend, case, () if case.fixed is None else (case.fixed,))


# fla's function by decay, in the order (q, k, v[, g]).
FLA = {
    "channel": ("gla", "chunk_gla", {}),
    "head": ("simple_gla", "chunk_simple_gla", {}),
    "constant": ("simple_gla", "chunk_simple_gla", {}),
    None: ("linear_attn", "chunk_linear_attn", dict(normalize=False)),
}


def _fla(case: Case) -> Entry:
    needs_gpu(case)
    module, name, options = FLA[case.decay]
    function = getattr(needs(f"fla.ops.{module}"), name)
    if case.fixed is not None:
        return in_torch(lambda q, k, v, g: function(q, k, v, g_gamma=g, scale=1.0)[0], case, (case.fixed,))
    return in_torch(lambda *arrays: function(*arrays, scale=1.0, **options)[0], case)


def _fla_recurrent(case: Case) -> Entry:
    needs_gpu(case)
    if case.decay != "channel":
        raise Absent("timed with decays per channel alone")
    function = needs("fla.ops.gla").fused_recurrent_gla
    return in_torch(lambda q, k, v, g: function(q, k, v, g, scale=1.0)[0], case)


LINEAR = {
    "ours": _linear(None),
    "sequential": _linear("reference"),
    "quadratic": _quadratic,
    "fla_chunk": _fla,
    "fla_fused_recurrent": _fla_recurrent,
}


# Scans.


def _scan(implementation):
    return lambda case: in_jax(lambda a, b: linear_scan(a, b, implementation=implementation), case)


def _associative(case: Case) -> Entry:
    def scan(a, b):
        combine = lambda x, y: (x[0] * y[0], y[0] * x[1] + y[1])  # noqa: E731
        return jax.lax.associative_scan(combine, (a, b), axis=1)[1]

    return in_jax(scan, case)


def _hgrn(name: str):
    def build(case: Case) -> Entry:
        """h_t = exp(g_t) h_(t-1) + x_t, differentiated in x and g."""
        needs_gpu(case)
        function = getattr(needs("fla.ops.hgrn"), name)
        a, b = case.arrays
        entry = in_torch(lambda x, g: function(x, g)[0], dataclasses.replace(case, arrays=(b, jnp.log(a))))
        entry.same = False
        return entry

    return build


SCAN = {
    "ours": _scan(None),
    "ours_sequential": _scan("sequential"),
    "ours_chunked": _scan("chunked"),
    "ours_associative": _scan("associative"),
    "lax_associative_scan": _associative,
    "lax_scan": lambda case: in_jax(linear_scan_reference, case),
    "fla_chunk_hgrn": _hgrn("chunk_hgrn"),
    "fla_fused_recurrent_hgrn": _hgrn("fused_recurrent_hgrn"),
}
