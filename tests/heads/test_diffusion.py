"""The diffusion head's two ways through the reverse process."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vargen.heads import Diffusion, denoiser


def test_modulations_made_before_the_loop(monkeypatch):
    """Few rows have all steps' modulations made at once; the result is that of many rows' way."""
    head = Diffusion(channels=4, depth=2, width=16, sample_steps=5, train_steps=50)
    params = nn.meta.unbox(jax.jit(lambda k: head.init(k, jnp.zeros((1, 1, 8))))(jax.random.key(0)))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    x, noise = jax.random.normal(jax.random.key(1), (3, 4)), jax.random.normal(jax.random.key(2), (5, 3, 4))
    hidden = jax.random.normal(jax.random.key(3), (6, 8))
    found = []
    for few in (0, 6):
        monkeypatch.setattr(denoiser, "FEW", few)
        denoise = jax.jit(lambda p, guidance: head.apply(p, x, hidden, noise, guidance, method="denoise"))
        found.append(denoise(params, 2.0))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5 * np.abs(found[0]).max())
