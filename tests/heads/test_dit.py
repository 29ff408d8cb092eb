"""What the losses of the DiT head and of both rounds are means over; their networks: tests/interop/test_himar.py."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from parameters import normal
from systems import labels_for, make


def test_the_loss_of_a_level_is_a_mean_over_all_its_slots():
    """Not over those that are asked for alone; every example has one time, at which all its slots are noisy."""
    _, generator, params, _ = make("mar_dit")
    head, variables = generator.head, generator.of_head(params)
    hidden, target = normal(0, 3, 16, 16), normal(1, 3, 16, 4)
    weight = jnp.asarray(np.random.default_rng(0).random((3, 16)) < 0.4, jnp.float32)

    def drawn(module):
        key_t, key_noise = jax.random.split(module.make_rng("head"))
        return jax.random.randint(key_t, (3,), 0, 10), jax.random.normal(key_noise, target.shape)

    @jax.jit
    def run(variables):
        rngs = {"head": jax.random.key(5)}
        t, noise = head.apply(variables, rngs=rngs, method=drawn)
        args = (hidden, target, None, weight)
        eps = lambda m, x: m.network(x, t, hidden, head.places)  # noqa: E731
        f = [math.cos((i / 10 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(11)]
        bar = jnp.asarray(np.cumprod([1 - min(1 - b / a, 0.999) for a, b in zip(f, f[1:], strict=False)]))
        bar = bar[t][:, None, None]
        x = jnp.sqrt(bar) * target + jnp.sqrt(1 - bar) * noise
        expected = jnp.sum(weight[..., None] * (head.apply(variables, x, method=eps) - noise) ** 2)
        return head.apply(variables, *args, method="loss", rngs=rngs), expected

    (loss, metrics), total = run(variables)
    np.testing.assert_allclose(loss, total / weight.size / 4, rtol=1e-5)
    np.testing.assert_allclose(metrics["mse"], total / weight.sum() / 4, rtol=1e-5)


def test_rounds_are_weighted():
    _, generator, params, tokenizer_params = make("himar")
    content = normal(0, 2, 20, 4)
    args = (tokenizer_params["quantizer"], content, labels_for(generator, 2), jax.random.key(1))
    loss, metrics = jax.jit(lambda p: generator.loss(p, *args, train=False))(params)
    np.testing.assert_allclose(loss, 0.4 * metrics["pivots_loss"] + 0.6 * metrics["picture_loss"], rtol=1e-6)
    both = metrics["pivots_mse"] + metrics["pivots_bound"]
    np.testing.assert_allclose(metrics["pivots_loss"], both, rtol=1e-6)
