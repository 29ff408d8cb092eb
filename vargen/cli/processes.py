"""A run of several processes, once JAX knows them: which one speaks and writes, and who waits for it."""

from __future__ import annotations


def is_first() -> bool:
    """Whether this is process 0, also where there is no other."""
    import jax

    return jax.process_index() == 0


def say(text: str) -> None:
    """Prints a line, once where there are several processes."""
    if is_first():
        print(text, flush=True)


def wait_for_first(name: str) -> None:
    """Until process 0 has come here too, where there are several."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
