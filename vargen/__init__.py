"""Visual autoregressive generation in JAX: one grammar, every system a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vargen.loading import load
    from vargen.model import Model

__version__ = "0.1.0"
__all__ = ["Model", "load"]


def __getattr__(name: str):
    # Lazy: `import vargen` and `vargen --help` should not pay for jax.
    if name == "Model":
        from vargen.model import Model

        return Model
    if name == "load":
        from vargen.loading import load

        return load
    raise AttributeError(f"module 'vargen' has no attribute {name!r}")
