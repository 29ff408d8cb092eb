"""Parameters and arrays for tests, drawn by NumPy: XLA takes a tenth of a second to compile each draw."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

# Every draw is the middle of its distribution, so that XLA makes constants of what `init` would draw.
_SAME = define_prng_impl(
    key_shape=(1,),
    seed=lambda seed: jnp.zeros((1,), jnp.uint32),
    split=lambda key, shape: jnp.broadcast_to(key, (*shape, 1)),
    random_bits=lambda key, width, shape: jnp.full(shape, 2 ** (width - 1), f"uint{width}"),
    fold_in=lambda key, data: key,
    name="same",
    tag="same",
)


def noisy(init, seed=0, scale=0.2):
    """What `init`, of a key, gives, each number disturbed by normal noise of a deviation: none of them near zero."""
    rng = np.random.default_rng(seed)
    constants = jax.jit(init)(jax.random.key(0, impl=_SAME))

    def disturbed(x):
        return jnp.asarray(x + scale * rng.normal(size=x.shape).astype(x.dtype))

    return jax.tree.map(disturbed, jax.device_get(constants))


def plain(init, seed=0, scale=0.1):
    """Parameters of `init`'s shapes, for which nothing is compiled: scales of norms near 1, all else near 0."""
    rng = np.random.default_rng(seed)

    def drawn(path, like):
        around = 1.0 if path[-1].key == "scale" else 0.0
        return (around + scale * rng.normal(size=like.shape)).astype(like.dtype)

    return jax.tree_util.tree_map_with_path(drawn, jax.eval_shape(init, jax.random.key(0)))


def normal(seed, *shape):
    """float32 [*shape]: standard normal noise."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
