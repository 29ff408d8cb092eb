"""Residual quantisation: codes and the step of its tables against float64 NumPy, and what a generator learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers.residual import Book, followed, gathered, spread

M, K, C, Q, GAMMA = 30, 7, 3, 3, 0.9


def by_definition(vectors, tables, shared, fresh):
    """Codes, partial sums and the tables after a step: depth by depth, vector by vector, row by row."""
    tables = [[np.float64(x).copy() for x in table] for table in tables]
    codes, sums, rest, total = [], [], np.float64(vectors), np.zeros((M, C))
    for d in range(Q):
        table, size, moved = tables[0 if shared else d]
        chosen = np.array([np.argmin([np.sum((r - e) ** 2) for e in table]) for r in rest])
        found = table[chosen]
        for k in range(K):
            mine = rest[chosen == k]
            size[k] = GAMMA * size[k] + (1 - GAMMA) * len(mine)
            moved[k] = GAMMA * moved[k] + (1 - GAMMA) * mine.sum(axis=0)
            if fresh is not None and size[k] < 1:
                moved[k], size[k] = fresh[d][k], 1.0
        table[:] = moved / (size.sum() * (size + 1e-5) / (size.sum() + K * 1e-5))[:, None]
        total, rest = total + found, rest - found
        codes.append(chosen)
        sums.append(total)
    return np.stack(codes, axis=1), np.stack(sums), tables


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_codes_and_the_tables_of_a_step(shared, restart):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(M, C)).astype(np.float32)
    count = 1 if shared else Q
    tables = [
        [
            x.astype(np.float32)
            for x in (rng.normal(size=(K, C)), rng.uniform(0, 4, K), rng.normal(size=(K, C)))
        ]
        for _ in range(count)
    ]
    fresh = rng.normal(size=(Q, K, C)).astype(np.float32)

    @jax.jit
    def run(vectors, tables):
        books = [Book(*tables[0 if shared else d]) for d in range(Q)]
        return followed(vectors, books, [GAMMA] * Q, lambda d, rest: fresh[d] if restart else None, shared)

    found, after = run(vectors, tables)
    codes, sums, expected = by_definition(vectors, tables, shared, fresh if restart else None)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.sums, sums, atol=1e-5)
    for d in range(Q):
        for ours, theirs in zip(after[d], expected[0 if shared else d], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    moved = [not np.allclose(x[1], y[1] * GAMMA) for x, y in zip(expected, tables, strict=True)]
    assert all(moved) and len(np.unique(codes)) > 3


def test_a_training_step_hands_its_tables_on():
    """What `revive` writes is what the step made; a second micro-batch goes on from it; no gradient reaches it."""
    t = tiny("rq")
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1))

    @jax.jit
    def run(key):
        params, stats = t.init(key), t.init_stats()
        loss = lambda p: t.loss(p, stats, images, key, jnp.int32(1), dict(l2=1.0))  # noqa: E731
        gradient, (first, metrics, _) = jax.grad(loss, has_aux=True)(params)
        kept = t.revive(params, first, images, key, 1, 9)[0]
        from_params = t.bottleneck(kept, t.init_stats(), images, key)
        from_stats = t.bottleneck(params, first, images, key)
        return params, gradient["quantizer"], kept, metrics, from_params, from_stats

    params, gradient, kept, metrics, from_params, from_stats = run(jax.random.key(0))
    assert not any(np.any(g) for g in jax.tree.leaves(gradient))
    assert np.all(kept["quantizer"]["size"] >= 1)  # every row was hit, or starts anew
    assert not np.allclose(kept["quantizer"]["codebook"], params["quantizer"]["codebook"])
    np.testing.assert_allclose(from_params[0], from_stats[0], atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        from_params[2]["quantizer"],
        from_stats[2]["quantizer"],
    )
    assert {"codebook_use_level_1", "codebook_use_level_2", "commitment"} <= set(metrics)


@pytest.mark.slow
def test_what_a_generator_learns_is_drawn_by_its_probabilities():
    t = tiny("rq", temperature=0.5, vocab=4, channels=2)
    quantizer = {"codebook": jax.random.normal(jax.random.key(0), (1, 4, 2))}
    vectors = jnp.broadcast_to(jnp.array([0.3, -0.2]), (1, 4000, 2))
    codes, soft = jax.jit(t.drawn)(quantizer, vectors, jax.random.key(1))
    table = np.float64(quantizer["codebook"][0])
    expected = np.zeros((4, 4))
    for first in range(4):
        p = np.exp(-np.sum((np.float64(vectors[0, 0]) - table) ** 2, axis=1) / 0.5)
        q = np.exp(-np.sum((np.float64(vectors[0, 0]) - table[first] - table) ** 2, axis=1) / 0.5)
        expected[first] = p[first] / p.sum() * q / q.sum()
        there = np.flatnonzero(codes[0, :, 0] == first)
        if not len(there):  # too unlikely to be drawn
            assert p[first] / p.sum() < 1e-3
            continue
        one = there[0]
        np.testing.assert_allclose(soft[0, one, 0], p / p.sum(), rtol=1e-5)
        np.testing.assert_allclose(soft[0, one, 1], q / q.sum(), rtol=1e-5)
    found = np.zeros((4, 4))
    np.add.at(found, (codes[0, :, 0], codes[0, :, 1]), 1 / 4000)
    np.testing.assert_allclose(found, expected, atol=0.035)  # over 4 deviations
    assert t.stored(jax.jit(t.init)(jax.random.key(0)), jnp.zeros((1, 16, 16, 1))).shape == (1, 16, 2)


def test_cells_of_latents():
    x = np.arange(2 * 4 * 6 * 2).reshape(2, 4, 6, 2)
    cells = gathered(jnp.asarray(x), (2, 3))
    assert cells.shape == (2, 2, 2, 12)
    np.testing.assert_array_equal(cells[1, 1, 0], x[1, 2:4, 0:3].reshape(-1))
    np.testing.assert_array_equal(spread(cells, (2, 3)), x)
    t = tiny("rq", cell=(2, 1), shared=False)
    assert t.grid.levels == ((2, 4),) and t.channels == 8

    @jax.jit
    def run(key):
        params = t.init(key)
        images = jax.random.uniform(key, (2, 16, 16, 1))
        codes = t.encode(params, images)
        return (
            codes,
            t.latents(params["quantizer"], codes),
            t.bottleneck(params, t.init_stats(), images, key)[0],
        )

    codes, latents, straight = run(jax.random.key(0))
    assert codes.shape == (2, 8, 2) and latents.shape == (2, 4, 4, 4)
    # A table of its own moves after its one look-up: training and encoding agree.
    np.testing.assert_allclose(straight, latents, atol=1e-5)
    with pytest.raises(
        UserError, match="cell: expected divisors of the latent grid 4x4, found 3x1; for instance 1, 2 or 4$"
    ):
        tiny("rq", cell=(3, 1))


def test_attention_at_chosen_levels():
    """FFHQ's has it at the second lowest level of six."""

    def levels(**options):
        encoder = part("conv", width=8, groups=4, multipliers=(1, 1, 2), blocks=1, **options)
        t = tokenizers.build(part("rq", encoder=encoder, vocab=8, channels=4), 16, 1)
        shapes = jax.eval_shape(t.init, jax.random.key(0))
        return [[int(n[5]) for n in shapes[end] if "attention" in n] for end in ("encoder", "decoder")]

    assert levels(encoder_attention=(1,), decoder_attention=False) == [[1], []]
    assert levels() == [[2], [2, 2]]
    with pytest.raises(UserError, match="expected attention at levels from 0 to 2, found 3"):
        levels(encoder_attention=(0, 3))


def test_a_table_that_follows_its_vectors():
    """The VQ-VAE's: one code a slot, the nearest; the step of its table is RQ's."""
    t = tiny("vq_ema")
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1))

    @jax.jit
    def run(key):
        params = t.init(key)
        quantizer, codes = params["quantizer"], t.encode(params, images)
        straight, _, stats, _ = t.bottleneck(params, t.init_stats(), images, key)
        half = t.latents(quantizer, codes, jnp.arange(16)[None] < 8)
        found = codes, t.latents(quantizer, codes), half, straight
        return t.vectors_of(params, images), *found, quantizer, stats["quantizer"]

    vectors, codes, latents, half, straight, before, after = run(jax.random.key(0))
    table = np.float64(before["codebook"][0])
    expected = np.sum(np.square(np.float64(vectors)[..., None, :] - table), -1).argmin(-1)
    assert t.slot.shape == () and codes.shape == (4, 16)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(latents.reshape(4, 16, -1), table[expected], atol=1e-6)
    np.testing.assert_allclose(straight, latents, atol=1e-6)
    assert np.all(half[:, 2:] == 0)
    np.testing.assert_allclose(half[:, :2], latents[:, :2])
    size = t.decay * before["size"][0] + (1 - t.decay) * np.bincount(expected.reshape(-1), minlength=32)
    np.testing.assert_allclose(after["size"][0], np.where(size < 1, 1.0, size), rtol=1e-5)
