"""Which implementation of a kernel runs: chosen when a program is lowered, for the platform it is lowered for.

Tracing a kernel takes longer than tracing what it replaces, so that only those are traced which can be chosen: for the
accelerators of this process, and for what `lowered_for` names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

# What a kernel's results are called by (`checkpoint_name`), for what decides what is kept for a backward pass.
KEPT = "kernel"
# Platforms ("tpu", "gpu") that programs are lowered for besides this process's own, as when compiling ahead of time;
# part of the key under which JAX keeps what it traced. `with lowered_for(("tpu",)):`, or `set_global`.
lowered_for = jax.make_user_context(())
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

    With None that is "tpu" or "gpu" where the program is lowered for one and the kernel has it, else "xla": decided at
    lowering (`jax.lax.platform_dependent`) among this process's platforms and those of `lowered_for`. With a GPU older
    than compute capability 8.0 it is "xla". Differentiate around it (`jax.custom_vjp`), not through it: the branches'
    residuals would be kept side by side.

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
        possible = _own() | {*lowered_for.value}
        branches = {
            PLATFORM[name]: known[name] for name in ("tpu", "gpu") if name in known and name in possible
        }
        if branches:
            return jax.lax.platform_dependent(*args, **branches, default=known["xla"])
        return known["xla"](*jax.tree.map(jnp.asarray, args))
    if implementation in PLATFORM:
        args = (_only_on(args[0], kernel, implementation), *args[1:])
    return known[implementation](*args)


@functools.cache
def _own() -> frozenset[str]:
    """The platforms of this process that kernels run on: not a GPU too old for Pallas, such as a T4."""
    return frozenset(
        device.platform
        for device in jax.local_devices()
        if float(getattr(device, "compute_capability", 9)) >= 8.0
    )


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
