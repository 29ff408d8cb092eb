"""Dynamic quantisation: sequences against loops over lists, grains and losses against their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import digits, tiny

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError

NAME = "dynamic_vq"


def written(t, codes, is_fine):
    """One picture's sequence as a list: codes [h, w], is_fine [h/2, w/2]."""
    coarse, fine, region = [], [], 0
    for i in range(is_fine.shape[0]):
        for j in range(is_fine.shape[1]):
            if is_fine[i, j]:
                for k, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
                    place = t.codes + t.regions + 4 * region + k
                    fine += [place, codes[2 * i + y, 2 * j + x]]
            else:
                coarse += [t.codes + region, codes[2 * i, 2 * j]]
            region += 1
    return (coarse + fine + [t.stop] * t.grid.size)[: t.grid.size]


def test_pairs():
    """A place and its code a slot are the same sequence, written and read."""
    t, by_turns = tiny(NAME, pairs=True), tiny(NAME)
    rng = np.random.default_rng(1)
    codes = jnp.asarray(rng.integers(0, t.codes, (5, 4, 4)), jnp.int32)
    is_fine = jnp.asarray(rng.random((5, 2, 2)) < 0.5)
    content, expected = t.write(codes, is_fine), by_turns.write(codes, is_fine)
    assert content.shape == (5, t.grid.size, *t.slot.shape) == (5, 17, 2) and t.slot.stop == by_turns.stop
    np.testing.assert_array_equal(content.reshape(5, -1)[:, :-1], expected)
    assert (
        np.all(content[:, -1] == t.stop) and np.all(t.slot.stopped(content)) and np.all(t.valid({}, content))
    )
    for found, wanted in zip(t.read(content), by_turns.read(expected), strict=True):
        np.testing.assert_array_equal(found, wanted)
    known = jnp.arange(17) < jnp.array([[0], [1], [3], [7], [17]])
    first = jnp.repeat(known, 2, axis=1)[:, :-1]
    np.testing.assert_array_equal(t.read(content, known)[0], by_turns.read(expected, first)[0])
    # A slot ends by its place; what stands beside a stop code, or behind it, is padding.
    count = np.asarray(t.slot.exists(content).sum(axis=1)) - 1
    np.testing.assert_array_equal(count, np.sum(np.where(is_fine, 4, 1), axis=(1, 2)))
    broken = content.at[np.arange(5), np.minimum(count + 1, 16)].set(3)
    np.testing.assert_array_equal(t.slot.padded(broken)[count < 16], content[count < 16])
    assert not np.any(t.valid({}, content.at[:, 0, 0].set(0)))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_sequences(share):
    """As written by hand, and read again; every such sequence is one of a picture."""
    t = tiny(NAME, image_size=(16, 24))
    rng = np.random.default_rng(0)
    codes, is_fine = rng.integers(0, t.codes, (5, 4, 6)), rng.random((5, 2, 3)) < share
    content = t.write(jnp.asarray(codes, jnp.int32), jnp.asarray(is_fine))
    np.testing.assert_array_equal(content, [written(t, c, f) for c, f in zip(codes, is_fine, strict=True)])
    assert content.dtype == jnp.int32 and content.shape == (5, t.grid.size) == (5, 49)
    cells = np.repeat(np.repeat(is_fine, 2, 1), 2, 2)
    first = np.repeat(np.repeat(codes[:, ::2, ::2], 2, 1), 2, 2)
    found, fine = t.read(content)
    np.testing.assert_array_equal(found, np.where(cells, codes, first))
    np.testing.assert_array_equal(fine, cells)
    assert np.all(t.valid({}, content)) and np.all(t.slot.stopped(content))


def test_what_a_generator_may_write():
    """Pairs that are none, or behind a stop code, are passed over; the fine one of two counts; none of it is valid."""
    t = tiny(NAME)
    k, r, stop = t.codes, t.regions, t.stop
    coarse = [x for region in range(r) for x in (k + region, 7)]

    def read(*sequence):
        content = np.full((1, t.grid.size), stop)
        content[0, : len(sequence)] = sequence
        content = jnp.asarray(content, jnp.int32)
        return np.asarray(t.read(content)[0][0]), bool(t.valid({}, content)[0])

    whole, valid = read(*coarse)
    assert valid and np.all(whole == 7)
    found, valid = read(*coarse, k + r + 4 * 1 + 2, 9)  # the third latent of the second region
    assert not valid and found[1, 2] == 9 and np.sum(found == 7) == 15
    assert np.all(read(3, 3, *coarse)[0] == 7) and not read(3, 3, *coarse)[1]
    assert np.all(read(*coarse, k + r, k + r)[0] == 7)
    found, valid = read(*coarse[:2], stop, stop, *coarse[2:])
    assert not valid and np.sum(found == 7) == 4 and np.sum(found == -1) == 12
    assert np.all(read(*coarse[2:], *coarse[:2])[0] == 7) and not read(*coarse[2:], *coarse[:2])[1]
    latents = t.latents(dict(codebook=jnp.ones((k, t.channels))), jnp.full((1, t.grid.size), stop))
    np.testing.assert_array_equal(latents, 0)
    vectors = t.vectors(dict(codebook=jnp.ones((k, t.channels))), jnp.array([0, k - 1, k, stop]))
    np.testing.assert_array_equal(vectors[:, 0], [1, 1, 0, 0])


def setup(**options):
    t = tiny(NAME, **options)
    params = t.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (8, 16, 16, 1), minval=-1)
    return t, params, images


@pytest.mark.slow
def test_grains():
    """The router's logits by their formula; the likelier grain's latents; a training's choices follow the logits with
    Gumbel noise, whose frequencies are the softmax."""
    t, params, images = setup()
    q = jax.tree.map(lambda x: np.asarray(x, np.float64), params["quantizer"])
    moments = np.asarray(t.codec.encode(params, images), np.float64)
    fine, coarse = moments[..., : t.channels], moments[..., t.channels :]
    mean = lambda x: x.reshape(8, 2, 2, 2, 2, -1).mean((2, 4))  # noqa: E731
    coarse = mean(coarse)

    def standard(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    hidden = np.concatenate([standard(coarse), mean(standard(fine))], -1) @ q["gate_in"] + q["gate_bias"]
    logits = (hidden / (1 + np.exp(-hidden))) @ q["gate_out"]
    found = t.features(params, images)
    np.testing.assert_allclose(t.gates(params["quantizer"], *found), logits, atol=1e-4)
    latents, is_fine = t.mixed(params["quantizer"], *found)
    np.testing.assert_array_equal(is_fine, logits[..., 1] > logits[..., 0])
    assert 0 < is_fine.mean() < 1
    cells = np.repeat(np.repeat(is_fine, 2, 1), 2, 2)[..., None] > 0
    expected = np.where(cells, fine, np.repeat(np.repeat(coarse, 2, 1), 2, 2))
    np.testing.assert_allclose(latents, expected, atol=1e-5)
    draws = jax.vmap(lambda key: t.mixed(params["quantizer"], *found, key)[1])
    often = np.asarray(draws(jax.random.split(jax.random.key(5), 4000))).mean(0)
    np.testing.assert_allclose(often, 1 / (1 + np.exp(logits[..., 0] - logits[..., 1])), atol=0.04)


@pytest.mark.slow
def test_losses():
    """A coarse code counts once in the losses; the budget's is the square of what is missing, and moves the router."""
    t, params, images = setup(fine=0.9, budget_weight=3.0, beta=0.5, codebook_weight=2.0)
    key = jax.random.key(2)

    def run(params):
        latents, loss, _, metrics = t.bottleneck(params, t.init_stats(), images, key)
        return loss, (latents, metrics)

    (loss, (through, metrics)), gradient = jax.value_and_grad(run, has_aux=True)(params)
    latents, is_fine = (
        np.asarray(x, np.float64) for x in t.mixed(params["quantizer"], *t.features(params, images), key)
    )
    codebook = np.asarray(params["quantizer"]["codebook"], np.float64)
    error, count = np.zeros(0), 0
    for b, y, x in np.ndindex(8, 4, 4):
        squared = np.sum((latents[b, y, x] - codebook) ** 2, -1)
        np.testing.assert_allclose(through[b, y, x], codebook[squared.argmin()], atol=1e-5)
        # Of a coarse region's four latents, which are one, the first.
        if is_fine[b, y // 2, x // 2] or (y % 2 == 0 and x % 2 == 0):
            error, count = np.append(error, squared.min()), count + 1
    expected = error.sum() / (8 * 16 * t.channels)
    np.testing.assert_allclose([metrics["codebook"], metrics["commitment"]], expected, rtol=1e-4)
    budget = (is_fine.mean() - 0.9) ** 2
    np.testing.assert_allclose(metrics["budget"], budget, rtol=1e-5)
    np.testing.assert_allclose(loss, 2.5 * expected + 3 * budget, rtol=1e-4)
    assert count == 32 + 3 * is_fine.sum() and metrics["fine"] == pytest.approx(is_fine.mean())
    assert np.abs(gradient["quantizer"]["gate_out"]).max() > 1e-3


@pytest.mark.slow
def test_dense_regions_get_more_codes():
    """Trained on the digits with a budget of half: about half of the regions are fine, more of them than elsewhere
    where a picture has more in it, and the decoder has learnt both grains."""
    import optax

    t = tiny(NAME, budget_weight=5.0, channels=8, revive_every=20)
    images, tx = jnp.asarray(digits()), optax.adam(4e-3)

    def step(carry, i):
        params, stats, state = carry
        key = jax.random.fold_in(jax.random.key(1), i)
        batch = images[jax.random.randint(key, (32,), 0, len(images))]
        (_, (stats, metrics, _)), g = jax.value_and_grad(t.loss, has_aux=True)(
            params, stats, batch, key, i, dict(l2=1.0)
        )
        updates, state = tx.update(g, state)
        params, stats = t.revive(optax.apply_updates(params, updates), stats, batch, key, i + 1, 200)
        return (params, stats, state), metrics

    @jax.jit
    def run():
        params = t.init(jax.random.key(0))
        carry, metrics = jax.lax.scan(step, (params, t.init_stats(), tx.init(params)), jnp.arange(200))
        latents, is_fine = t.mixed(carry[0]["quantizer"], *t.features(carry[0], images))
        return metrics, is_fine, t.decode(carry[0], t.encode(carry[0], images))

    metrics, is_fine, decoded = run()
    assert metrics["l2"][-10:].mean() < 0.4 * metrics["l2"][:5].mean()
    assert 0.35 < metrics["fine"][-20:].mean() < 0.65
    assert jnp.mean(jnp.square(decoded - images)) < 0.5 * jnp.var(images)


def test_what_does_not_fit():
    with pytest.raises(UserError, match="tokenizer.encoder: expected latents of even sides, found 2x3"):
        tokenizers.build(part(NAME, codes=8, encoder=part("patch", patch=8)), (16, 24), 1)
    t = tiny(NAME)
    assert t.over(t.grid.levels) is t
    with pytest.raises(UserError, match="expected one row of 33 slots, .* found 8x8"):
        t.over(((8, 8),))
