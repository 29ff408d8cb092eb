"""Tables that start by k-means: Lloyd's algorithm in float64, and what it is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from systems import some_slow

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers.kmeans import lloyd, start


def error(vectors, codes):
    """float64: the mean squared distance to the nearest code; which that is."""
    far = np.sum(np.square(np.float64(vectors)[:, None] - np.float64(codes)), axis=-1)
    return far.min(1).mean(), far.argmin(1)


def clusters(seed=0, count=300, channels=3):
    """Vectors around 12 places."""
    rng = np.random.default_rng(seed)
    places = 4 * rng.normal(size=(12, channels))
    return (places[rng.integers(0, 12, count)] + 0.3 * rng.normal(size=(count, channels))).astype(np.float32)


@pytest.mark.parametrize("angle", [False, True])
def test_lloyd_in_float64(angle):
    vectors, rng = clusters(), np.random.default_rng(1)
    weights, codes = rng.random(300).astype(np.float32), 4 * rng.normal(size=(14, 3)).astype(np.float32)
    codes[0] = 99.0  # the nearest to none, by distance
    found = jax.jit(lloyd, static_argnums=(3, 4))(codes, vectors, weights, 5, angle)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True) if angle else x  # noqa: E731
    expected = np.float64(codes)
    for _ in range(5):
        _, nearest = error(unit(vectors), unit(expected))
        for k in set(nearest):
            own = nearest == k
            expected[k] = np.average(vectors[own], axis=0, weights=weights[own])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert angle or (found[0] == 99).all()


def test_it_represents_better_than_a_draw():
    """Lloyd never makes the error larger; with one level of a few vectors that count as much as another's many."""
    vectors = clusters()
    table = jnp.full((12, 3), 7.0)
    errors = [error(vectors, start(table, [vectors], jax.random.key(0), n))[0] for n in (0, 1, 2, 5, 20)]
    assert np.all(np.diff(errors) <= 1e-6) and errors[-1] < 0.7 * errors[0], errors
    few = start(jnp.zeros((2, 1)), [jnp.ones((2, 1)), 3 * jnp.ones((50, 1))], jax.random.key(0), 0)
    assert sorted(map(float, few[:, 0])) == [1, 3]  # one of each level
    middle = lloyd(jnp.zeros((1, 1)), jnp.array([[1.0], [3.0], [3.0]]), jnp.array([1.0, 0.5, 0.5]), 1)
    np.testing.assert_allclose(middle, 2.0)
    kept = start(jnp.full((5, 3), 7.0), [vectors[:2]], jax.random.key(0), 3)
    assert (kept[2:] == 7).all() and (kept[:2] != 7).all()


OPTIONS = dict(
    vq=dict(normalise=False),
    multiscale_vq={},
    pyramid_vq={},
    product_vq=dict(normalise=False),
    vq_ema={},
    rq=dict(shared=False),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", some_slow(OPTIONS, OPTIONS.keys() - {"vq"}))
def test_the_first_update_makes_the_table(name):
    """In place of what the update made; it represents the pictures better than a table drawn from them; later ones
    leave it."""
    t = tiny(
        name, vocab=8, kmeans=8, **({} if name in ("vq_ema", "rq") else dict(revive_every=0)), **OPTIONS[name]
    )
    drawn = tiny(name, vocab=8, kmeans=1, **OPTIONS[name])
    params, stats = jax.jit(t.init)(jax.random.key(0)), t.init_stats()
    images = jax.random.uniform(jax.random.key(1), (16, 16, 16, 1), minval=-1)
    if name in ("vq_ema", "rq"):
        stats = dict(stats, quantizer=params["quantizer"])

    @jax.jit
    def run(params, step):
        first, after = t.revive(params, stats, images, jax.random.key(2), step, 10)
        return first, after, t.bottleneck(first, after, images, jax.random.key(3))[3]["commitment"]

    before = t.bottleneck(params, stats, images, jax.random.key(3))[3]["commitment"]
    share = (
        0.95 if name == "multiscale_vq" else 0.7
    )  # whose residuals were of the levels before by the old table
    first, after, error = run(params, 1)
    assert jax.tree.structure(after) == jax.tree.structure(stats)
    assert np.isfinite(first["quantizer"]["codebook"]).all() and error < share * before, (error, before)
    less = drawn.revive(params, stats, images, jax.random.key(2), 1, 10)[0]["quantizer"]["codebook"]
    assert np.any(np.abs(less - first["quantizer"]["codebook"]) > 1e-3)  # it went on
    same, _, _ = run(params, 2)
    np.testing.assert_array_equal(same["quantizer"]["codebook"], params["quantizer"]["codebook"])
    if name == "rq":
        book = first["quantizer"]
        np.testing.assert_allclose(book["sums"], book["size"][..., None] * book["codebook"], rtol=1e-5)
        np.testing.assert_array_equal(book["size"].sum(1), 256)
        np.testing.assert_array_equal(after["quantizer"]["codebook"], book["codebook"])


def test_one_table_of_several_depths_is_refused():
    with pytest.raises(
        UserError, match="tokenizer.kmeans: needs a table for each depth, shared=False, or depth=1"
    ):
        tokenizers.build(part("rq", kmeans=3, encoder=part("patch", patch=4)), 16, 1)
