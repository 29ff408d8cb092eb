"""What every tokenizer must show: one that is registered without a row in `common.PARTS` fails here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import ALL, FROZEN, PARTS, SLOW, TRAINED, tiny
from systems import some_slow

from vargen.tokenizers import TOKENIZERS
from vargen.tokenizers.tokenizer import Leveled


def test_no_tokenizer_is_left_out():
    assert PARTS.keys() == TOKENIZERS.keys()


@pytest.mark.parametrize("name", some_slow(ALL, SLOW))
def test_pictures_and_slots(name):
    """Shapes, kinds and ranges; an example doesn't depend on its neighbours; what isn't known doesn't count."""
    t = tiny(name)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1)

    @jax.jit
    def run(params, images):
        content = t.encode(params, images)
        latents = t.latents(params["quantizer"], content)
        return content, latents, t.decode_latents(params, latents), t.decode(params, content)

    content, latents, found, decoded = run(params, images)
    assert content.shape == (3, t.grid.size, *t.slot.shape) and content.dtype == t.slot.dtype
    assert t.vocab == (t.slot.vocab or t.slot.coded)
    if t.slot.vocab:
        assert content.min() >= 0 and content.max() < t.vocab
    assert latents.shape[0] == 3 and latents.shape[-1] == t.channels and latents.dtype == jnp.float32
    assert decoded.shape == images.shape and decoded.dtype == jnp.float32 and np.isfinite(decoded).all()
    np.testing.assert_allclose(found, decoded, atol=1e-6)
    turned = run(params, images[::-1])
    np.testing.assert_array_equal(turned[0][::-1], content)
    np.testing.assert_allclose(turned[3][::-1], decoded, atol=1e-5)
    # Slots that aren't known may hold anything.
    known = jnp.arange(t.grid.size)[None] < jnp.array([[0], [1], [t.grid.size]])
    other = jnp.where(known.reshape(*known.shape, *[1] * (content.ndim - 2)), content, content * 0 + 1)
    partly = jax.jit(lambda p, c: t.latents(p["quantizer"], c, known))
    np.testing.assert_allclose(partly(params, content), partly(params, other), atol=1e-6)
    np.testing.assert_allclose(partly(params, content)[2], latents[2], atol=1e-6)


@pytest.mark.parametrize("name", some_slow(TRAINED, SLOW))
def test_loss(name):
    """Finite, with finite gradients that reach the encoder and the decoder; statistics keep their shapes."""
    t = tiny(name)
    params, stats = jax.jit(t.init)(jax.random.key(0)), t.init_stats()
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1), minval=-1)

    @jax.jit
    def run(params, stats):
        def loss(params):
            return t.loss(params, stats, images, jax.random.key(2), jnp.int32(3), dict(l2=1.0))

        (value, (after, metrics, reconstruction)), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        revived = t.revive(params, after, images, jax.random.key(3), jnp.int32(5), 10)
        return value, after, metrics, reconstruction, gradient, revived

    value, after, metrics, reconstruction, gradient, revived = run(params, stats)
    shape = (4, 8, 8, 4) if name == "within" else images.shape  # of latents
    assert value.shape == () and np.isfinite(value) and reconstruction.shape == shape
    assert all(np.shape(x) == () and np.isfinite(x) for x in metrics.values())
    shapes = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), tree)  # noqa: E731
    assert shapes(after) == shapes(stats) and shapes(revived) == shapes((params, stats))
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(g).all(), jax.tree_util.keystr(path)
    for side in ("encoder", "decoder"):
        reached = any(np.any(g) for g in jax.tree.leaves(gradient[side]))
        assert reached == (side == "decoder" or name not in FROZEN)


@pytest.mark.parametrize("name", some_slow([name for name in ALL if isinstance(tiny(name), Leveled)], SLOW))
def test_levels_build_the_picture(name):
    """Level after level gives what all of them at once give; the rows of a level are as many as its slots."""
    t = tiny(name)

    @jax.jit
    def run(params, images):
        content = t.encode(params, images)
        state, resampled = t.start(len(images)), []
        for level, (start, size) in enumerate(zip(t.grid.level_starts, t.grid.level_sizes, strict=True)):
            resampled.append(t.resample(state, level))
            state = t.absorb(params["quantizer"], state, content[:, start : start + size], level)
        last = t.resample(state, len(t.grid.levels) - 1)
        return resampled, last, t.latents(params["quantizer"], content).reshape(last.shape)

    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1)
    resampled, last, latents = run(t.init(jax.random.key(0)), images)
    assert [x.shape for x in resampled] == [(2, size, t.channels) for size in t.grid.level_sizes]
    # The image so far may be in other units than what the decoder takes.
    np.testing.assert_allclose(last * (np.std(latents) / np.std(last)), latents, atol=1e-5)
