"""What a function keeps for its backward pass."""

import jax


def keeps_inputs(function, static_argnums: tuple[int, ...] = ()):
    """`function`, of which nothing but the arguments is kept for the backward pass; the rest is computed again.

    For what lies between products: norms, activations, modulations. Of each autodiff keeps several arrays, some in
    float32, which takes a device longer to read than to make anew.
    """
    # Layers lie in scans, whose bodies the compiler can't share with each other.
    return jax.checkpoint(function, prevent_cse=False, static_argnums=static_argnums)
