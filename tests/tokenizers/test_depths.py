"""An encoder that is read at two depths: which loss reaches which block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from test_semantic import settings

from vargen.config import part
from vargen.errors import UserError
from vargen.training.tasks import TokenizerTask

DEPTHS = part("depths", patch=4, width=16, layers=3, shallow=1, heads=2, decoder_layers=1)


@pytest.mark.slow
def test_what_each_loss_reaches():
    """Reconstruction reaches the first block and the pixels' table; the semantic loss all blocks, and of the latents
    the first half alone."""
    t = tiny("product_vq", encoder=DEPTHS, beta=0.0, codebook_weight=0.0)
    params = jax.jit(t.init)(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (4, 16, 16, 1), minval=-1)
    task = TokenizerTask(t, settings(semantic_channels=2, semantic_hidden=0))
    teacher = jax.jit(task.semantic.teacher.init)(jax.random.key(2))
    projection = jax.tree.map(
        lambda x: x.value, task.semantic.init_boxed(jax.random.key(3)), is_leaf=lambda x: hasattr(x, "names")
    )

    @jax.jit
    def gradients(params):
        def plain(params):
            return t.loss(params, t.init_stats(), images, jax.random.key(0), jnp.int32(0), dict(l2=1.0))[0]

        def drawn(params):
            latents = t.bottleneck(params, t.init_stats(), images, jax.random.key(0))[0]
            return task.semantic(projection, teacher, params, latents, None, images, jax.random.key(0))

        return jax.grad(plain)(params), jax.grad(drawn)(params)

    def reached(gradient):
        return {name for name, tree in gradient.items() if any(np.any(g) for g in jax.tree.leaves(tree))}

    plain, drawn = gradients(params)
    shared = {"patch_in", "places", "block0"}
    assert reached(plain["encoder"]) == shared | {"shallow_norm", "shallow_out"}
    assert reached(drawn["encoder"]) == shared | {"block1", "block2", "deep_norm", "deep_out"}
    assert reached(plain["decoder"]) == set(params["decoder"]) and not reached(drawn["decoder"])


def test_pictures_are_made_of_the_second_code():
    t = tiny("product_vq", encoder=DEPTHS)
    params = jax.jit(t.init)(jax.random.key(0))
    codes = jax.random.randint(jax.random.key(1), (2, 16, 2), 0, 16)
    decode = jax.jit(t.decode)
    whole = decode(params, codes)
    np.testing.assert_array_equal(decode(params, codes.at[..., 0].set(0)), whole)
    assert np.any(decode(params, codes.at[..., 1].set(0)) != whole)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(patch=5), "encoder.patch: expected a divisor of the image's 16x16 pixels, found 5"),
        (dict(heads=3), "encoder.heads: expected a divisor of the width 16, found 3"),
        (dict(shallow=3), "encoder.shallow: expected less than layers, 3, found 3"),
    ],
)
def test_refused(options, message):
    with pytest.raises(UserError, match=f"tokenizer.{message}"):
        tiny("product_vq", encoder=part(**{**DEPTHS, **options}))


def test_refused_channels():
    with pytest.raises(UserError, match="depths needs .* even number of channels, found 3"):
        tiny("vq", channels=3, encoder=DEPTHS)
    with pytest.raises(UserError, match="depths needs .* found 4 of means and variances"):
        tiny("kl", encoder=DEPTHS)
