"""Codes that are the centres of a teacher's features: k-means against NumPy's in float64, and training over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import PARTS, tiny
from test_teachers import TINY, saved

from vargen import tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import teacher_kmeans


@pytest.mark.parametrize("unit", [False, True])
def test_lloyds_algorithm(unit, monkeypatch):
    """Chunk by chunk as at once: from the centres of round n those of round n + 1, in float64."""
    monkeypatch.setattr(teacher_kmeans, "CHUNK", 64)
    rng = np.random.default_rng(0)
    vectors = np.float32(rng.normal(size=(150, 3)) + rng.normal(size=(5, 3)).repeat(30, 0) * 4)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if unit else vectors
    rounds = [np.float64(teacher_kmeans.k_means(vectors, 5, jax.random.key(3), i, unit)) for i in range(6)]
    errors = []
    for before, after in zip(rounds, rounds[1:]):
        far = np.square(vectors[:, None] - before).sum(-1)
        hit = far.argmin(1)
        assert len(np.unique(hit)) == 5
        means = np.stack([vectors[hit == k].mean(0, dtype=np.float64) for k in range(5)])
        means = means / np.linalg.norm(means, axis=1, keepdims=True) if unit else means
        np.testing.assert_allclose(after, means, atol=1e-6)
        errors.append(far.min(1).mean())
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]
    assert all(np.any(np.all(vectors == x, axis=1)) for x in np.float32(rounds[0])) or unit


def test_a_cluster_without_vectors_moves_onto_one():
    """Of two vectors, many times each, three centres: the third is one of both, not nothing."""
    vectors = np.float32([[0, 1], [1, 0]] * 20)
    found = teacher_kmeans.k_means(vectors, 3, jax.random.key(0), 4)
    assert np.isfinite(found).all() and all(np.any(np.all(found == x, axis=1)) for x in vectors[:2])


def test_some_of_many_vectors():
    """All of few; of many as many as asked, from the first batch to the last."""
    batches = [np.full((50, 2), i, np.float32) for i in range(20)]
    assert len(teacher_kmeans.some(iter(batches), 2000)) == 1000
    found = teacher_kmeans.some(iter(batches), 400)
    assert found.shape == (400, 2)
    counts = np.bincount(found[:, 0].astype(int), minlength=20)
    assert counts.min() >= 8 and counts.max() <= 34  # of 20 each, within four deviations


def fitted(tmp_path, **options):
    _, file = saved("siglip", tmp_path)
    teacher = part(**{**TINY["siglip"], "weights": file})
    t = tokenizers.build(
        part(
            "teacher_kmeans",
            encoder=PARTS["vq"].encoder.copy_and_resolve_references(),
            teacher=teacher,
            **options,
        ),
        12,
        1,
    )
    batches = [np.random.default_rng(i).uniform(-1, 1, (8, 12, 12, 1)).astype(np.float32) for i in range(3)]
    return t, batches, t.fit(iter(batches))


@pytest.mark.slow
def test_fit_and_training(tmp_path):
    """The teacher's parameters are the file's; codes are nearest centres; an update moves the decoder alone; without
    the file pictures are still encoded."""
    t, batches, params = fitted(tmp_path, vocab=16)
    images = np.concatenate(batches)
    features = np.float64(t.codec.teacher(t.codec.teacher.load(), images).grid).reshape(len(images), 9, 16)
    centres = np.float64(params["quantizer"]["codebook"])
    codes = np.asarray(jax.jit(t.encode)(params, images))
    np.testing.assert_array_equal(codes, np.square(features[:, :, None] - centres).sum(-1).argmin(-1))
    assert len(np.unique(codes)) == 16
    np.testing.assert_allclose(
        t.latents(params["quantizer"], codes).reshape(len(images), 9, 16), centres[codes], atol=1e-6
    )

    def loss(params):
        return t.loss(params, t.init_stats(), images[:4], jax.random.key(0), jnp.int32(0), dict(l2=1.0))

    (value, (_, metrics, decoded)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(value, np.mean(np.square(decoded - images[:4])), rtol=1e-5)
    assert not any(np.any(g) for g in jax.tree.leaves((gradient["encoder"], gradient["quantizer"])))
    assert all(np.any(g) for g in jax.tree.leaves(gradient["decoder"]))
    assert metrics["commitment"] > 0 and t.fitted and t.trained

    (tmp_path / "teacher.safetensors").unlink()
    np.testing.assert_array_equal(t.encode(params, images), codes)


def test_refused(tmp_path):
    with pytest.raises(
        UserError, match="tokenizer.vocab: expected at most as many as .* pictures, 216, found 300"
    ):
        fitted(tmp_path, vocab=300)
    with pytest.raises(UserError, match=r"tokenizer\.teacher\.weights: expected a file of SigLIP's weights"):
        tiny("teacher_kmeans").fit(iter([]))
    with pytest.raises(
        UserError, match="tokenizer.encoder: expected one of 4x4 latents, .* side 16 has, found 2x2"
    ):
        tiny("teacher_kmeans", encoder=part("patch", patch=8))
