"""The diffusion head's two ways through the reverse process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from parameters import noisy, normal

from vargen.heads import Diffusion, Dit, VDiffusion, denoiser
from vargen.slots import Slot


def test_modulations_made_before_the_loop(monkeypatch):
    """Few rows have all steps' modulations made at once; the result is that of many rows' way."""
    head = Diffusion(channels=4, depth=2, width=16, sample_steps=5, train_steps=50)
    params = noisy(lambda key: nn.meta.unbox(head.init(key, jnp.zeros((1, 1, 8)))), scale=0.3)
    x, noise, hidden = normal(1, 3, 4), normal(2, 5, 3, 4), normal(3, 6, 8)
    found = []
    for few in (0, 6):
        monkeypatch.setattr(denoiser, "FEW", few)
        denoise = jax.jit(lambda p, guidance: head.apply(p, x, hidden, noise, guidance, method="denoise"))
        found.append(denoise(params, 2.0))
    found = jax.device_get(found)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-5 * np.abs(found[0]).max())


@pytest.mark.parametrize("kind, own", [(Diffusion, {}), (VDiffusion, {}), (Dit, dict(tokenizer=None))])
def test_more_steps_than_in_training(kind, own):
    head = kind(channels=4, train_steps=10, sample_steps=11, **own)
    with pytest.raises(ValueError, match="head.sample_steps: expected 1 to 10, found 11"):
        head.check(Slot((4,)))
