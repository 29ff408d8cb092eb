"""What glibc does with memory that is freed; nothing where there is none."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # malloc.h
COMPILED = "/jax/core/compile/backend_compile_duration"
SECONDS = 0.02  # what compiles faster leaves little behind


def keep_freed() -> None:
    """What a step frees is kept for the next one, instead of being given back to the system.

    XLA on the CPU allocates a step's temporaries anew each time; mapped afresh, every page of them costs a fault.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = _libc().mallopt
        for parameter, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (ARENA_MAX, 1)):
            mallopt(parameter, value)


@functools.cache
def give_back_after_compiling() -> None:
    """From now on what compiling a program, or reading it from the cache, has freed goes back to the system before the
    program runs.

    LLVM frees hundreds of megabytes in pieces between others that stay, of which glibc gives back nothing by itself.
    """
    import jax

    def listener(event: str, seconds: float, **_) -> None:
        if event == COMPILED and seconds > SECONDS:
            with contextlib.suppress(OSError, AttributeError):
                _libc().malloc_trim(0)

    jax.monitoring.register_event_duration_secs_listener(listener)


def _libc() -> Any:
    import ctypes

    return ctypes.CDLL("libc.so.6")
