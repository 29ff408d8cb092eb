"""Tests run on the CPU, with caches of compiled programs and classifiers inside the repository."""

import gc
import importlib.metadata
import os
import pathlib

CACHE = pathlib.Path(__file__).parent.parent / ".cache"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
# Tests run many operations by themselves, the same in many modules: each is compiled once for all of them.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("XDG_CACHE_HOME", str(CACHE))  # where the commands keep classifiers
# Tiny programs run for less time than LLVM would spend on making them fast.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Nor do fusions pay for being emitted through MLIR: a third of the compilation. XLA aborts at flags that it lacks.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("TQDM_DISABLE", "1")
gc.set_threshold(50_000)  # tracing makes many objects that stay

PROGRAMS = 2.5 * 2**30  # bytes of a worker, above which it forgets what it compiled

import jax  # noqa: E402  (after the settings above)
import psutil  # noqa: E402
import pytest  # noqa: E402

pytest_plugins = ["accelerators", "trained"]


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Compiled programs would let a worker grow to many gigabytes."""
    yield
    if psutil.Process().memory_info().rss > PROGRAMS:
        jax.clear_caches()
