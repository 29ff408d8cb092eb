"""Which implementation of a kernel runs: chosen when a program is lowered, for the platform it is lowered for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

# What a kernel's results are called by (`checkpoint_name`), for what decides what is kept for a backward pass.
KEPT = "kernel"
# Name of an implementation -> the platform that runs it; those not listed run anywhere.
PLATFORM = {"tpu": "tpu", "gpu": "cuda", "cudnn": "cuda"}


def kernels(tpu: Callable, gpu: Callable) -> dict[str, Callable]:
    """The entries of a table for Pallas kernels: as they run, and in interpret mode."""
    interpreted = {"tpu_interpret": tpu, "gpu_interpret": gpu}
    return dict(tpu=tpu, gpu=gpu) | {
        name: functools.partial(f, interpret=True) for name, f in interpreted.items()
    }


def check(kernel: str, implementation: str | None, known: Mapping[str, Callable]) -> None:
    """Raises ValueError for an implementation that doesn't exist."""
    if implementation is not None and implementation not in known:
        raise ValueError(
            f"{kernel}: implementation: expected None (chosen by platform) or one of "
            f"{', '.join(known)}, found {implementation!r}"
        )


def run(kernel: str, implementation: str | None, known: Mapping[str, Callable], *args):
    """Calls one of `known` on arrays.

    With None that is "tpu" or "gpu" where the program is lowered for one and the kernel has it, else "xla":
    decided at lowering (`jax.lax.platform_dependent`), so that compiling for another platform than this
    machine's picks that platform's. With a GPU older than compute capability 8.0 it is "xla". Differentiate
    around it (`jax.custom_vjp`), not through it: the branches' residuals would be kept side by side.

    Args:
      kernel: the kernel's name, for messages.
      implementation: a name in `known`, or None.
      known: functions of the same arrays by name; "xla" must be among them, "tpu" and "gpu" may.
      *args: arrays, the first by itself, others also in trees.

    Raises:
      ValueError: an unknown name; or, at lowering, a named one that the platform can't run.
    """
    check(kernel, implementation, known)
    if implementation is None:
        names = ("tpu",) if _old_gpu() else ("tpu", "gpu")
        branches = {PLATFORM[name]: known[name] for name in names if name in known}
        return jax.lax.platform_dependent(*args, **branches, default=known["xla"])
    if implementation in PLATFORM:
        args = (_only_on(args[0], kernel, implementation), *args[1:])
    return known[implementation](*args)


@functools.cache
def _old_gpu() -> bool:
    """Whether a GPU of this machine is too old for Pallas (compute capability below 8.0, such as a T4)."""
    found = (getattr(device, "compute_capability", None) for device in jax.local_devices())
    return any(c is not None and float(c) < 8.0 for c in found)


# An identity that only the platform of `implementation` lowers: elsewhere its lowering says why not.
_guard = Primitive("runs_only_on")
_guard.def_abstract_eval(lambda x, **_: x)
batching.defvectorized(_guard)


def _only_on(x, kernel: str, implementation: str):
    return jax.jit(lambda x: _guard.bind(x, kernel=kernel, implementation=implementation))(x)


def _lower(ctx, x, *, kernel, implementation):
    found, wanted = ctx.module_context.platforms, PLATFORM[implementation]
    if tuple(found) != (wanted,):
        raise ValueError(
            f"{kernel}: implementation {implementation!r} needs a program lowered for {wanted}, found "
            f"{', '.join(found)}; expected 'xla', or None to choose by platform"
        )
    return [x]


mlir.register_lowering(_guard, _lower)
