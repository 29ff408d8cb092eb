"""What compiling frees goes back to the system."""

import types

import jax
import pytest

from vargen import malloc


@pytest.fixture
def trimmed(monkeypatch):
    """How often what is freed was given back, as a list."""
    found = []
    monkeypatch.setattr(malloc, "_libc", lambda: types.SimpleNamespace(malloc_trim=found.append))
    malloc.give_back_after_compiling()
    return found


def test_what_compiling_frees_is_given_back(trimmed, monkeypatch):
    """After each program that took long, before it runs; by one listener however often it is asked for."""
    malloc.give_back_after_compiling()
    jax.monitoring.record_event_duration_secs(malloc.COMPILED, 1.0)
    assert trimmed == [0]
    jax.monitoring.record_event_duration_secs(malloc.COMPILED, 1e-4)
    jax.monitoring.record_event_duration_secs("/jax/another", 1.0)
    assert trimmed == [0]
    monkeypatch.setattr(malloc, "SECONDS", 0.0)
    seen = []
    jax.jit(lambda x: (jax.debug.callback(lambda: seen.append(len(trimmed))), 3 * x)[1])(1.0)
    jax.effects_barrier()
    assert seen and seen[0] >= 2


def test_without_glibc(monkeypatch):
    """Nothing happens."""

    def missing():
        raise OSError("libc.so.6")

    monkeypatch.setattr(malloc, "_libc", missing)
    malloc.give_back_after_compiling()
    malloc.keep_freed()
    jax.monitoring.record_event_duration_secs(malloc.COMPILED, 1.0)
