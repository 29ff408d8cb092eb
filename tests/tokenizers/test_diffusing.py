"""Decoders of registers that draw by diffusion."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from common import SMALL, digits, tiny

from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import semantic, teachers


def registers(tokens=8, nested="uniform", **decoder):
    drawn = part("diffusion", **dict(train_steps=40, steps=5) | decoder)
    return part("registers", tokens=tokens, sees="causal", nested=nested, decoder=drawn, **SMALL)


def noisy(t):
    """Parameters none of which is as it starts."""

    def moved(key):
        noise = functools.partial(jax.random.normal, jax.random.fold_in(key, 1))
        return jax.tree.map(lambda x: x + 0.1 * noise(x.shape), t.init(key))

    return jax.jit(moved)(jax.random.key(0))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1.0)


BETAS = np.linspace(1e-4, 0.02, 40) * (1000 / 40)
BARS = np.cumprod(1 - BETAS)


def variances(betas):
    """The least of each step, whose first is the second's, and the most; float64."""
    bars = np.cumprod(1 - betas)
    least = betas * (1 - np.append(1, bars[:-1])) / (1 - bars)
    return np.append(least[1], least[1:]), betas


def means(x, t, eps, betas):
    """Of the step before, from the content that the noise implies; float64."""
    bar, before = np.cumprod(1 - betas)[t], np.append(1, np.cumprod(1 - betas))[t]
    content = (x - np.sqrt(1 - bar) * eps) / np.sqrt(bar)
    own = betas[t] * np.sqrt(before) * content + (1 - before) * np.sqrt(1 - betas[t]) * x
    return own / (1 - bar)


def normal(x):
    """Its distribution function, in the form that the authors have."""
    return 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("schedule", [pytest.param("linear", marks=pytest.mark.slow), "cosine"])
def test_loss(schedule, images):
    """The estimate's error by its weight is the noise's; the bound is the divergence of both Gaussians in bits, at the
    first time how unlikely an image in 255 levels is."""
    t = tiny("kl", encoder=registers(schedule=schedule))
    params = noisy(t)
    at, noise = np.array([0, 7, 39]), jax.random.normal(jax.random.key(3), images.shape)

    @jax.jit
    def run(params):
        latents = t.codec.encode(params, images)[..., :4]
        features, weights = t.codec.noised(params, latents, None, images, jnp.asarray(at), noise)
        out = t.codec.decoder.apply({"params": params["decoder"]}, features, method="out")
        estimate, bound = t.codec.last(params, features), t.codec.bound(params, features, images)
        return features["noisy"], weights, out, estimate, bound, t.codec.beside(params, features, images)

    noised, weights, out, estimate, bound, beside = jax.device_get(run(params))
    noise, estimate, out = (np.asarray(x, np.float64) for x in (noise, estimate, out))
    eps, place = out[..., :1], out[..., 1:]
    found = weights * np.mean((estimate - images) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found, np.mean((eps - noise) ** 2, axis=(1, 2, 3)), rtol=1e-3)
    betas = BETAS
    if schedule == "cosine":
        bar = np.cos((np.arange(41) / 40 + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    bars = np.cumprod(1 - betas)
    for i, s in enumerate(at):
        x = np.sqrt(bars[s]) * np.asarray(images[i], np.float64) + np.sqrt(1 - bars[s]) * noise[i]
        np.testing.assert_allclose(noised[i], x, atol=1e-5)
        least, most = (v[s] for v in variances(betas))
        logarithm = (place[i] + 1) / 2 * np.log(most) + (1 - place[i]) / 2 * np.log(least)
        far = (means(x, s, noise[i], betas) - means(x, s, eps[i], betas)) ** 2
        kl = 0.5 * (logarithm - np.log(least) - 1 + (least + far) / np.exp(logarithm))
        if s == 0:
            away = np.asarray(images[i], np.float64) - means(x, s, eps[i], betas)
            ends = [normal((away + half) / np.exp(0.5 * logarithm)) for half in (1 / 255, -1 / 255)]
            kl = -np.log(np.maximum(ends[0] - ends[1], 1e-12))
        np.testing.assert_allclose(bound[i], kl.mean() / np.log(2), rtol=1e-3)
    assert beside["bound"] == pytest.approx(bound.mean(), rel=1e-5)
    assert tiny("kl", encoder=registers(variance="fixed")).codec.beside({}, {}, images) == {}


@pytest.mark.parametrize("variance", ["learned", pytest.param("fixed", marks=pytest.mark.slow)])
def test_decoding(variance, images):
    """The reverse process in five steps of forty, guided, written out; the last adds no noise."""
    t = tiny("kl", encoder=registers(variance=variance, absent="latents", guidance=2.0, forget_rate=0.1))
    params = noisy(t)
    latents = jax.jit(t.codec.encode)(params, images)[:, :, :3, :4]
    run = jax.jit(
        lambda x, s, without: t.codec.decoder.apply(
            {"params": params["decoder"]}, latents, x, s, None, without
        )
    )
    times = [0, 10, 20, 29, 39]  # 39 / 4 = 9.75 apart, rounded
    betas = 1 - BARS[times] / np.append(1, BARS[times][:-1])

    def noise(i):
        return np.asarray(
            jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (16, 16, 1)), np.float64
        )

    x = np.broadcast_to(noise(5), images.shape)
    for i, s in enumerate(range(4, -1, -1)):
        given, free = (np.asarray(run(x, times[s], jnp.full(3, w)), np.float64) for w in (False, True))
        eps = free[..., :1] + 2.0 * (given[..., :1] - free[..., :1])
        least, most = (v[s] for v in variances(betas))
        place = given[..., 1:] if variance == "learned" else 1.0
        deviation = np.exp(0.5 * ((place + 1) / 2 * np.log(most) + (1 - place) / 2 * np.log(least)))
        x = means(x, s, eps, betas) + (deviation * noise(i) if s else 0.0)
    np.testing.assert_allclose(jax.jit(t.codec.decode)(params, latents), x, atol=1e-3 * np.abs(x).max())


@pytest.mark.slow
def test_latents_that_stand_for_absent_ones(images):
    """Registers that aren't known are the learned latents of their places, as if those were given; all of them where
    an example's registers are left out."""
    t = tiny("kl", encoder=registers(absent="latents", forget_rate=0.1))
    params = noisy(t)
    variables = {"params": params["decoder"]}
    latents = jax.jit(t.codec.encode)(params, images)[..., :4]
    null = jnp.broadcast_to(params["decoder"]["registers"]["null"], latents.shape)
    known = jnp.arange(8) < jnp.array([2, 5, 8])[:, None, None]
    run = jax.jit(lambda *given: t.codec.decoder.apply(variables, given[0], images, 7, *given[1:]))
    both = jnp.where(known[..., None], latents, null)
    np.testing.assert_allclose(run(latents, known), run(both), atol=1e-5)
    first = both.at[2, :, 5:].set(null[2, :, 5:])
    np.testing.assert_allclose(run(latents[:, :, :5], known[..., :5]), run(first), atol=1e-5)
    np.testing.assert_allclose(run(latents, known, jnp.ones(3, bool)), run(null), atol=1e-5)
    assert np.abs(run(latents) - run(null)).max() > 1e-3


@pytest.mark.slow
def test_places_as_waves(images):
    """Nothing is learned of them; patches of one content differ by their places alone."""
    t = tiny("kl", encoder=registers(places="waves"))
    params = noisy(t)
    assert params["decoder"]["patches"].keys() == {"rows_in"}
    rows = t.codec.decoder.apply(
        {"params": params["decoder"]},
        t.codec.encode(params, images)[..., :4],
        jnp.zeros_like(images),
        3,
        capture_intermediates=lambda module, _: module.name == "patches",
        mutable=["intermediates"],
    )[1]["intermediates"]["patches"]["__call__"][0]
    column, row = np.arange(16) % 4, np.arange(16) // 4
    angles = [np.outer(n, 10000.0 ** (-np.arange(4) / 4)) for n in (column, row)]
    expected = np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)
    bias = np.asarray(params["decoder"]["patches"]["rows_in"]["bias"])
    np.testing.assert_allclose(rows[0] - bias, expected, atol=1e-5)


@pytest.mark.slow
def test_learns_to_draw():
    """The noise's error falls to a tenth of what knowing nothing gives; of four pictures the registers' latents, here
    their names, say which is drawn."""
    decoder = dict(nested="none", time="row", mlp="gelu_tanh", width=32, clip=1.0)
    encoder = part(**dict(registers(tokens=4, **decoder), norm_in=True))
    codec = tiny("kl", exact=True, encoder=encoder).codec
    names = jnp.broadcast_to(2 * jnp.eye(4)[:, None, None], (4, 1, 4, 4))
    images, optimizer = jnp.asarray(digits()[:4]), optax.adam(1e-2)

    @jax.jit
    def train(key):
        params = codec.init_boxed(key, (16, 16), 1)
        params = dict(decoder=nn.meta.unbox(params["decoder"]))

        def update(carry, key):
            params, state = carry
            which = jax.random.randint(key, (32,), 0, 4)

            def loss(params):
                features, weights = codec.draft(params, names[which], None, images[which], key)
                squares = jnp.square(codec.last(params, features) - images[which])
                error = jnp.mean(weights * jnp.mean(squares, axis=(1, 2, 3)))
                bound = codec.beside(params, features, images[which])["bound"]
                return error + bound, (error, bound)

            gradient, found = jax.grad(loss, has_aux=True)(params)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), found

        start = params, optimizer.init(params)
        (params, _), found = jax.lax.scan(update, start, jax.random.split(key, 400))
        return codec.decode(params, names), *found

    drawn, errors, bounds = jax.device_get(train(jax.random.key(0)))
    assert abs(errors[0] - 1) < 0.1 and errors[-50:].mean() < 0.1
    assert bounds[-50:].mean() < 0.8 * bounds[0]
    own, others = (np.mean((drawn - x) ** 2) for x in (images, jnp.roll(images, 1, axis=0)))
    assert own < 0.75 * others


def within(reads="pixels", draws=(8, 8, 4), **decoder):
    inner = part("kl", channels=4, exact=True, scale=1.0, encoder=registers(draws=draws, patch=2, **decoder))
    return tiny("within", inner=inner, reads=reads)


@pytest.mark.slow
def test_pixels_in_latents_out(images):
    """Pixels are encoded, latents drawn, which the outer tokenizer decodes; the loss is that of the outer's latents."""
    t = within()
    params = noisy(t)
    codes = t.encode(params, images)
    np.testing.assert_array_equal(codes, t.inner.encode(params, images))
    drawn = t.inner.decode(params, codes)
    assert drawn.shape == (3, 8, 8, 4)
    expected = t.outer.decode(params["outer"], drawn.reshape(3, 64, 4))
    np.testing.assert_allclose(t.decode(params, codes), expected, atol=1e-5)
    loss = jax.jit(
        lambda t_params: t.loss(t_params, t.init_stats(), images, jax.random.key(2), 0, dict(l2=1.0))
    )
    value, (_, metrics, found) = loss(params)
    latents = t.outer.encode(params["outer"], images).reshape(3, 8, 8, 4)
    np.testing.assert_allclose(metrics["l2"], np.mean((found - latents) ** 2), rtol=1e-4)
    np.testing.assert_allclose(value, metrics["weighted_l2"] + metrics["bound"], rtol=1e-5)
    assert metrics["kl"] == 0


@pytest.mark.slow
def test_patches_of_latents_are_shown(images):
    """To a loss of features: those of noisy latents after so many blocks."""
    t = within(layers=2, shown_after=1)
    params = noisy(t)
    teacher = teachers.build(
        part("siglip", side=16, patch=4, places=4, width=8, layers=1, heads=2), "teacher"
    )
    loss = semantic.Semantic(t, teacher, "cosine", "shown", 0, 0.1, 0)
    latents = t.inner.codec.encode(params, images)
    found = loss.features(params, latents, None, images, jax.random.key(0))
    assert found.shape == (3, 4, 4, 16)
    changed = jax.tree.map(lambda x: x + 0.1, params["decoder"]["blocks"])
    other = dict(params, decoder=dict(params["decoder"], blocks=changed))
    np.testing.assert_array_equal(loss.features(other, latents, None, images, jax.random.key(0)), found)
    moved = dict(params, outer=jax.tree.map(lambda x: x + 0.1, params["outer"]))
    assert np.abs(loss.features(moved, latents, None, images, jax.random.key(0)) - found).max() > 1e-4


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(guidance=2.0), "decoder.guidance: expected 1 where forget_rate is 0, found 2"),
        (dict(train_steps=4), "decoder.steps: expected at most train_steps, 4, found 5"),
        (dict(shown_after=1), "decoder.shown_after: expected fewer than 1 blocks, found 1"),
        (
            dict(width=18, places="waves"),
            "places: expected a width that is a multiple of 4 for waves, found 18",
        ),
        (dict(patch=3), "encoder.decoder.patch: expected a divisor of the image's 16x16 pixels, found 3"),
        (dict(draws=(8, 8)), r"decoder.draws: expected \(height, width, channels\), found \(8, 8\)"),
        (
            dict(draws=(8, 8, 4), patch=2),
            "draws: needs a tokenizer within another that reads pixels, .*, found kl",
        ),
    ],
)
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny("kl", encoder=registers(**options))


def test_draws_that_do_not_fit():
    with pytest.raises(
        UserError, match=r"draws: expected \(8, 8, 4\) where reads is pixels, found \(4, 4, 4\)"
    ):
        within(draws=(4, 4, 4))
    with pytest.raises(UserError, match=r"draws: expected none where reads is latents, found \(8, 8, 4\)"):
        within("latents")
