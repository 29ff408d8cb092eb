"""A prior that is trained with the tokenizer, against LARP's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import FOLDER, tiny

from vargen.errors import UserError
from vargen.schema import Losses
from vargen.tokenizers import prior
from vargen.tokenizers.transformer import Sizes


def losses(**own):
    settings = Losses()
    for name, value in (dict(prior=0.06, prior_width=24, prior_layers=2, prior_heads=3) | own).items():
        setattr(settings, name, value)
    return settings


def network(weights: dict) -> dict:
    """The authors' arrays under our names."""
    w = {k.removeprefix("sd/prior_model."): jnp.asarray(x) for k, x in weights.items()}

    def dense(name):
        return dict(kernel=w[f"{name}.weight"].T, bias=w[f"{name}.bias"])

    def norm(name):
        return dict(scale=w[f"{name}.weight"], bias=w[f"{name}.bias"])

    def block(i):
        b = f"blocks.{i}"
        mixer = {
            ours: dense(f"{b}.attn.{theirs}")
            for ours, theirs in dict(query="query", key="key", value="value", out="proj").items()
        }
        mlp = dict(zip(("up", "down"), (dense(f"{b}.mlp.0"), dense(f"{b}.mlp.2")), strict=True))
        return dict(
            block=dict(mixer=mixer, feed_forward=mlp, norm_1=norm(f"{b}.ln1"), norm_2=norm(f"{b}.ln2"))
        )

    layers = jax.tree.map(lambda *x: jnp.stack(x), *(block(i) for i in range(2)))
    return dict(
        vectors=dict(rows_in=dense("input_proj"), places=w["pos_emb"][0, :9]),
        blocks=dict(layers=layers),
        norm_out=norm("ln_f"),
        out=dense("head"),
    )


def test_as_the_authors():
    """Logits of both rounds, their loss, and what the second round reads; 1e-4, as their norms have a larger eps."""
    golden = dict(np.load(FOLDER / "larp_tokenizer.npz"))
    params = network({k: x for k, x in golden.items() if k.startswith("sd/prior_model")})
    table = golden["sd/bottleneck.regularizer.embedding.weight"]
    table = jnp.asarray(table / np.linalg.norm(table, axis=-1, keepdims=True))
    codes = jnp.asarray(golden["out/st/indices"])
    p = prior.Prior(tiny("vq", channels=8), Sizes(24, 2, 3), 0.7, 0.5, 0.3)
    own = jnp.asarray(golden["in/ss_u"] < 0.5 * 600 / (0.3 * 4000))
    drawn = table[golden["in/samp_prior"].reshape(2, 9)]
    second = jnp.concatenate([table[codes[:, :1]], jnp.where(own, drawn, table[codes[:, 1:]])], axis=1)
    np.testing.assert_allclose(second, golden["out/st/next_ar_input"], atol=1e-6)
    total = 0.0
    for x, expected in zip((table[codes], second), golden["out/st/logits_rounds"], strict=True):
        logits = p.logits(params, x, table)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        log_p = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)
        total -= np.take_along_axis(log_p, np.asarray(codes)[:, 1:, None], axis=-1).mean() / 2
    np.testing.assert_allclose(total, golden["out/st/loss_latent_ce"], rtol=1e-4)
    found = p.rounds(params, table[codes], codes, table, jnp.zeros_like(own), jax.random.key(0))
    np.testing.assert_allclose(*found)  # without any of its own both rounds are the first


@pytest.mark.slow
def test_teaches_the_encoder():
    """The gradient reaches the latents, none the table; what comes later changes nothing before."""
    t = tiny("vq")
    p = prior.build(t, losses())
    params, network = t.init(jax.random.key(0)), jax.jit(p.init_boxed)(jax.random.key(1))
    network = jax.tree.map(lambda x: x.value, network, is_leaf=lambda x: hasattr(x, "value"))
    latents = t.latents(params["quantizer"], jax.random.randint(jax.random.key(2), (2, 16), 0, 32))

    def loss(params, latents):
        return p(network, params, latents, jax.random.key(3), jnp.float32(0))

    by_params, by_latents = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, latents)
    assert np.any(by_latents) and np.isfinite(by_latents).all()
    assert not any(np.any(x) for x in jax.tree.leaves(by_params))
    assert not np.any(by_latents.reshape(2, 16, -1)[:, -1])  # nothing follows the last
    table = jnp.eye(8)
    x = jax.nn.one_hot(jax.random.randint(jax.random.key(4), (1, 6), 0, 8), 8)
    small = prior.Prior(tiny("vq", channels=8), Sizes(16, 1, 2), 0.7, 0.5, 0.3)
    own = small.network.init(jax.random.key(0), x[:, :-1])["params"]
    own = jax.tree.map(lambda x: x.value, own, is_leaf=lambda x: hasattr(x, "value"))
    run = jax.jit(lambda x: small.logits(own, x, table))
    np.testing.assert_allclose(run(x)[:, :2], run(x.at[:, 2:].set(0.3))[:, :2], atol=1e-6)


def test_heads():
    with pytest.raises(UserError, match="losses.prior_heads: expected a divisor of the width 24, found 5"):
        prior.build(tiny("vq"), losses(prior_heads=5))


@pytest.mark.parametrize("name", ["kl", "rq", "multiscale_vq"])
def test_refused(name):
    with pytest.raises(
        UserError, match="losses.prior: needs a tokenizer of one code a slot and one level, found"
    ):
        prior.build(tiny(name), losses())
