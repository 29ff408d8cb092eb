"""How codes are used, level by level, and revival: against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny

from vargen.tokenizers import usage

SIZES, VOCAB = (1, 4, 9), 16


def draw(images: int, seed: int = 0) -> np.ndarray:
    """Codes int [images, 14]: one code at level 1, codes under 5 at level 2, all at level 3."""
    rng = np.random.default_rng(seed)
    levels = [
        rng.integers(low, high, (images, n)) for n, (low, high) in zip(SIZES, [(3, 4), (0, 5), (0, 16)])
    ]
    return np.concatenate(levels, axis=1)


def perplexity(codes: np.ndarray) -> float:
    _, counts = np.unique(codes, return_counts=True)
    return float(np.exp(-sum(n / codes.size * np.log(n / codes.size) for n in counts)))


@pytest.mark.parametrize("images", [2, 50])
def test_statistics_of_a_set(images):
    codes = draw(images)
    found = usage.statistics(usage.count(codes, SIZES, VOCAB))
    parts = {"": codes, "_level_1": codes[:, :1], "_level_2": codes[:, 1:5], "_level_3": codes[:, 5:]}
    assert set(found) == {f"codebook_{what}{name}" for what in ("use", "perplexity") for name in parts}
    for name, part in parts.items():
        could = min(VOCAB, part.size)  # two images have but two codes at level 1
        assert found[f"codebook_use{name}"] == len(set(part.ravel().tolist())) / could
        assert found[f"codebook_perplexity{name}"] == pytest.approx(perplexity(part))
    halves = usage.count(codes[:1], SIZES, VOCAB) + usage.count(codes[1:], SIZES, VOCAB)
    assert usage.statistics(halves) == found


def test_several_codes_a_slot_count_by_depth():
    codes = np.stack([draw(20), draw(20)[::-1] // 2], axis=-1)
    found = usage.statistics(usage.count(codes[:, 5:], (SIZES[2],), VOCAB))
    for name, part in {"": codes[:, 5:], "_level_1": codes[:, 5:, 0], "_level_2": codes[:, 5:, 1]}.items():
        assert found[f"codebook_use{name}"] == len(set(part.ravel().tolist())) / min(VOCAB, part.size)
        assert found[f"codebook_perplexity{name}"] == pytest.approx(perplexity(part))
    two = usage.count(codes, SIZES, VOCAB)  # level by level, and each depth by depth
    np.testing.assert_array_equal(two[3], np.bincount(codes[:, 1:5, 1].ravel(), minlength=VOCAB))


def test_codes_that_cannot_be():
    with pytest.raises(ValueError, match="from 0 to 3, found 0 to 4"):
        usage.count(np.array([[0, 4]]), (2,), 4)
    with pytest.raises(ValueError, match="found none"):
        usage.statistics(usage.count(np.zeros((0, 2), int), (2,), 4))


def test_moving_averages():
    """By hand, on two levels of one and three slots; then against the exact statistics of the same codes."""
    stats = usage.init(2, 4)
    for codes in ([0, 0, 1, 2], [0, 0, 0, 0]):
        level_2 = usage.hits(jnp.array(codes), 4)
        stats = usage.update(stats, jnp.stack([usage.hits(jnp.array([3]), 4), level_2]))
    share = [[0, 0, 0, 1], [0.75, 0.125, 0.125, 0]]  # a mean of two at first
    np.testing.assert_allclose(stats["share"], share)
    found = usage.summary(stats, (1, 3), 0.6)  # codes below 0.6 / 4 aren't counted
    assert found["codebook_use"] == 0.5
    assert [found[f"codebook_use_level_{i}"] for i in (1, 2)] == [0.25, 0.25]

    codes = draw(40)
    hits = [usage.hits(jnp.asarray(part), VOCAB) for part in (codes[:, :1], codes[:, 1:5], codes[:, 5:])]
    stats = usage.update(usage.init(3, VOCAB), jnp.stack(hits))
    found = jax.jit(lambda stats: usage.summary(stats, SIZES, 1e-3))(stats)
    exact = usage.statistics(usage.count(codes, SIZES, VOCAB))
    assert set(found) == set(exact)
    for name, value in exact.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_revival_moves_dead_codes_onto_vectors():
    codebook = jnp.array([[0.0, 0.0], [9.0, 9.0], [8.0, 8.0]])
    stats = dict(share=jnp.array([[1.0, 0.0, 0.0]]), updates=jnp.array(5))
    vectors = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    moved, after = usage.revive(codebook, stats, [vectors], jax.random.key(0), 0.1)
    np.testing.assert_array_equal(moved[0], codebook[0])
    assert {tuple(map(float, v)) for v in moved[1:]} == {(1.0, 0.0), (0.0, 1.0)}
    share = np.asarray(after["share"][0])
    assert share[0] == 1 and (0.1 / 3 <= share[1:]).all() and (share[1:] <= 1 / 3).all()


def test_a_code_lives_as_long_as_one_level_needs_it():
    """Judged over all slots, code 1 would be dead: 0.2 of one slot in 101, below 0.1 / 4."""
    share = jnp.array([[0.8, 0.2, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]])
    assert (1 * share[0, 1] + 100 * share[1, 1]) / 101 < 0.1 / 4
    codebook = jnp.arange(8.0).reshape(4, 2)
    vectors = [jnp.full((3, 2), 20.0), jnp.full((300, 2), 30.0)]
    moved, _ = usage.revive(
        codebook, dict(share=share, updates=jnp.array(5)), vectors, jax.random.key(0), 0.1
    )
    np.testing.assert_array_equal(moved[:3], codebook[:3])
    assert moved[3, 0] in (20, 30)


@pytest.mark.parametrize("vocab", [6, 40])
def test_each_level_gives_as_many_vectors(vocab):
    """Vectors are (level, place); a formula in words: take one of each level that has some left, until K are taken."""
    sizes = (2, 5, 30)
    vectors = [jnp.stack([jnp.full(n, float(i)), jnp.arange(float(n))], axis=1) for i, n in enumerate(sizes)]
    moved, _ = usage.revive(jnp.full((vocab, 2), -1.0), usage.init(3, vocab), vectors, jax.random.key(1), 0.1)
    taken = [tuple(map(int, v)) for v in np.asarray(moved) if v[0] >= 0]
    left, expected = list(sizes), []
    while len(expected) < min(vocab, sum(sizes)):
        for level in range(3):
            if left[level] and len(expected) < vocab:
                left[level] -= 1
                expected.append(level)
    assert [level for level, _ in taken] == expected
    assert len(set(taken)) == len(taken)  # without replacement
    assert all(place < sizes[level] for level, place in taken)
    assert [place for level, place in taken if level == 2] != sorted(p for level, p in taken if level == 2)


def test_more_dead_codes_than_vectors():
    codebook, vectors = jnp.zeros((8, 2)), jnp.ones((3, 2))
    moved, _ = usage.revive(codebook, usage.init(1, 8), [vectors], jax.random.key(0), 0.1)
    assert int(jnp.sum(moved[:, 0])) == 3


@pytest.mark.parametrize(
    "steps, until, rounds", [(13, 1.0, [4, 8, 12]), (16, 0.5, [4, 8]), (160, 0.05, [4, 8]), (13, 0.0, [])]
)
def test_rounds_of_revival(steps, until, rounds):
    assert [i for i in range(1, steps + 1) if usage.due(i, steps, 4, until)] == rounds


def test_centre_loss_is_the_square_of_the_latents_mean():
    t = tiny("multiscale_vq", centre_weight=0.0)
    weighted = tiny("multiscale_vq", centre_weight=3.0)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1))

    @jax.jit
    def run(params):
        latents = t.codec.encode(params, images)
        return latents, *(x.bottleneck(params, t.init_stats(), images, None) for x in (t, weighted))

    latents, (_, plain, _, metrics), (_, loss, _, _) = run(params)
    centre = np.mean(np.asarray(latents, np.float64).mean(axis=(0, 1, 2)) ** 2)
    assert centre > 0.01 and metrics["centre"] == pytest.approx(centre, rel=1e-4)
    assert loss - plain == pytest.approx(3 * centre, rel=1e-3)


def test_warning_names_the_levels():
    metrics = dict(codebook_use=1.0, codebook_perplexity=9.0)
    for level, use in enumerate((0.016, 0.5, 0.49), 1):
        metrics |= {f"codebook_use_level_{level}": use, f"codebook_perplexity_level_{level}": 2.0}
    assert "level 1 (1.6 %), level 3 (49.0 %);" in usage.warning(metrics)
    assert usage.warning(metrics | dict(codebook_use_level_1=0.9, codebook_use_level_3=0.5)) == ""
    assert usage.warning({}) == "" and usage.by_level({}) == {}
    assert usage.line(metrics).startswith(
        "codebook use 100.0 % (level 1 1.6 %, level 2 50.0 %, level 3 49.0 %)"
    )
