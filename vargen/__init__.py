"""Visual autoregressive generation in JAX: one grammar, every system a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vargen.model import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "load"]


def __getattr__(name: str):
    # Lazy: `import vargen` and `vargen --help` should not pay for jax.
    if name in __all__:
        from vargen import model

        return getattr(model, name)
    raise AttributeError(f"module 'vargen' has no attribute {name!r}")
