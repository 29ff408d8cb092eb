"""Tokenizers of clips: tubelets against loops, every quantiser over frames, training, what doesn't fit.

LARP's own numbers: tests/interop/test_parity.py.
"""

import itertools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import PARTS, tiny

from vargen import config, data, models, sharding, tokenizers
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import patches, transformer
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import TokenizerTask

FILE = pathlib.Path(__file__).parents[2] / "configs" / "clips.py"
VIT = part("vit", patch=4, patch_frames=2, width=24, layers=1, heads=2)
REGISTERS = part("registers", tokens=6, patch=4, patch_frames=2, width=24, layers=1, heads=2, places="axes")
SHAPE = (4, 8, 12, 1)  # of a clip


def clip(name, encoder):
    """A tiny tokenizer of `common.PARTS` over clips."""
    return tokenizers.build({**PARTS[name], "encoder": encoder}, SHAPE[:3], SHAPE[3])


@pytest.mark.parametrize("size, sides", [((4, 6, 8), (2, 3, 4)), ((6, 8), (3, 4))])
def test_tubelets(size, sides):
    """Patch by patch, frame by frame, row by row, pixel by pixel; and back."""
    images = np.random.default_rng(0).normal(size=(2, *size, 3))
    expected = []
    for image in images:
        starts = itertools.product(*(range(0, n, s) for n, s in zip(size, sides, strict=True)))
        cut = [image[tuple(slice(a, a + s) for a, s in zip(at, sides, strict=True))] for at in starts]
        expected.append([x.reshape(-1) for x in cut])
    found = patches.apart(images, sides)
    np.testing.assert_array_equal(found, expected)
    grid = tuple(n // s for n, s in zip(size, sides, strict=True))
    np.testing.assert_array_equal(patches.together(jnp.asarray(found), grid, sides), np.float32(images))


def test_places_along_axes():
    """Of a tubelet the sum of a row for its frame, its row and its column."""
    tables = {}

    class Module:
        """What `places` asks for its tables."""

        def param(self, name, init, shape):
            return tables.setdefault(name, np.random.default_rng(len(tables)).normal(size=shape))

    found = transformer.places(Module(), 12, 5, (2, 2, 3))
    frames, down, across = (tables[f"places_{name}"] for name in ("frames", "down", "across"))
    expected = [frames[t] + down[i] + across[j] for t in range(2) for i in range(2) for j in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", tokenizers.CLIPS)
def test_every_quantiser_over_frames(name):
    """Shapes of all that training and decoding ask for; a slot for each tubelet, frame by frame."""
    t = clip(name, VIT)
    assert (t.grid.frames, t.grid.levels, t.grid.size) == (2, ((2, 3),), 12)
    assert t.downsample is None and t.image_size == (4, 8, 12)
    clips = jax.ShapeDtypeStruct((3, *SHAPE), jnp.float32)

    def run(clips):
        params, stats = t.init(jax.random.key(0)), t.init_stats()
        content = t.encode(params, clips)
        settings = dict(l1=1.0, l2=1.0, ms_ssim=0.1)
        loss = t.loss(params, stats, clips, jax.random.key(1), jnp.int32(0), settings)
        return content, t.latents(params["quantizer"], content), t.decode(params, content), loss

    content, latents, decoded, (loss, (_, _, reconstruction)) = jax.eval_shape(run, clips)
    assert content.shape == (3, 12, *t.slot.shape) and latents.shape == (3, 2, 2, 3, t.channels)
    assert decoded.shape == reconstruction.shape == clips.shape and loss.shape == ()


@pytest.mark.parametrize(
    "encoder", [pytest.param(VIT, marks=pytest.mark.slow), REGISTERS], ids=lambda encoder: encoder.name
)
def test_there_and_back(encoder):
    """An example doesn't depend on its neighbours, and its frames are told apart."""
    t = clip("vq", encoder)
    params = jax.jit(t.init)(jax.random.key(0))
    clips = jax.random.uniform(jax.random.key(1), (3, *SHAPE), minval=-1)

    @jax.jit
    def run(params, clips):
        content = t.encode(params, clips)
        return t.codec.encode(params, clips), content, t.decode(params, content)

    features, content, decoded = run(params, clips)
    turned = run(params, clips[::-1])
    np.testing.assert_allclose(turned[2][::-1], decoded, atol=1e-5)
    np.testing.assert_array_equal(turned[1][::-1], content)
    assert decoded.shape == clips.shape and np.isfinite(decoded).all()
    backwards = run(params, clips[:, [2, 3, 0, 1]])[0]  # tubelets in the other order
    backwards = backwards[:, ::-1] if encoder.name == "vit" else backwards
    assert np.abs(backwards - features).max() > 1e-3
    with pytest.raises(UserError, match=r"images: expected \[B, 4, 8, 12, 1\], found \[3, 8, 12, 1\]"):
        t.encode(params, clips[:, 0])


def test_clips_given_to_a_tokenizer_of_pictures():
    t, clips = tiny("vq"), jax.ShapeDtypeStruct((3, *SHAPE), jnp.float32)
    with pytest.raises(UserError, match=r"images: expected \[B, 16, 16, 1\], found \[3, 4, 8, 12, 1\]"):
        jax.eval_shape(lambda clips: t.encode(t.init(jax.random.key(0)), clips), clips)


@pytest.mark.slow
def test_a_hundred_steps():
    """Of the config's LARP, smaller: on clips that it hasn't seen the squared error falls to half of what it is at
    first."""
    c = config.load(FILE)
    c.tokenizer.encoder.update(dict(width=24, heads=2, layers=1))
    s = c.tokenizer_training
    s.update(dict(steps=100, batch_size=16, warmup_steps=10))
    s.losses.prior = 0.0
    tokenizer, mesh = models.build_tokenizer(c), sharding.make_mesh()
    task = TokenizerTask(tokenizer, s)
    now = state.create(task, optimizer.build(s, ["model"]), mesh, jax.random.key(0))
    held_out = data.to_float(data.load(c.data, "test").gather(np.arange(64))["image"])
    through = jax.jit(lambda params: tokenizer.decode(params, tokenizer.encode(params, held_out)))

    def error():
        return float(np.mean((np.asarray(through(now.params["model"])) - held_out) ** 2))

    before, step = error(), make_step(task, s, mesh)
    for _, batch in zip(range(100), data.batches(data.load(c.data), batch_size=16)):
        now, _ = step(now, {}, sharding.put_batch(dict(image=batch["image"]), mesh), jax.random.key(1))
    assert error() < 0.5 * before


def test_judges_see_frames():
    """A discriminator and LPIPS get each frame as a picture, a prior the codes of whole clips."""
    c, seen = config.load(FILE), []
    c.tokenizer_training.losses.update(
        dict(adversarial=0.1, perceptual=1.0, discriminator=part("patch", layers=1))
    )
    tokenizer = models.build_tokenizer(c)

    def distance(weights, x, y):
        seen.append((x.shape, y.shape))
        return dict(perceptual=jnp.zeros(len(x)))

    task = TokenizerTask(tokenizer, c.tokenizer_training, distance)
    clips = jax.ShapeDtypeStruct((3, 4, 16, 16, 1), jnp.float32)

    def run(clips):
        params, stats, key = (
            nn.meta.unbox(task.init_boxed(jax.random.key(0))),
            task.init_stats(),
            jax.random.key(1),
        )
        args, batch = (params, stats, dict(perceptual={})), dict(image=clips)
        loss, (stats, metrics, aux) = task.loss(*args, batch, key, jnp.int32(5))
        judged, _ = task.discriminator_loss(*args, aux, batch, key, jnp.int32(5))
        return loss, judged, metrics

    loss, judged, metrics = jax.eval_shape(run, clips)
    assert loss.shape == judged.shape == () and {"adversarial", "perceptual", "prior"} <= {*metrics}
    assert seen == [((12, 16, 16, 1),) * 2]
    assert task.adversary.image_shape == (16, 16, 1)


@pytest.mark.parametrize(
    "tokenizer, size, message",
    [
        (
            part("vq", encoder=part("vit", patch=4, patch_frames=3)),
            (8, 16, 16),
            "tokenizer.encoder.patch_frames: expected a divisor of the clip's 8 frames, found 3; for instance 1, 2",
        ),
        (
            part("vq", encoder=part("registers", patch=4, patch_frames=2)),
            (16, 16),
            "tokenizer.encoder.patch_frames: expected 1 for pictures, found 2",
        ),
        (PARTS["vq"], (8, 16, 16), "tokenizer.encoder: expected registers or vit for clips, found patch"),
        (
            PARTS["multiscale_vq"],
            (8, 16, 16),
            "tokenizer: expected one of vq, .* for clips, found multiscale_vq",
        ),
        (
            part("vq", encoder=part("vit", patch=4, width=48, heads=4, window=2)),
            (8, 16, 16),
            "tokenizer.encoder.window: expected 0 for clips, found 2",
        ),
        (
            part("vq", encoder=part("vit", patch=4, width=32, heads=4)),
            (8, 16, 16),
            "tokenizer.encoder.heads: expected heads of a multiple of 6 channels for positions rope",
        ),
        (
            part("vq", encoder=part("registers", patch=4, decoder=part("flow"))),
            (8, 16, 16),
            "tokenizer.encoder.decoder: expected direct for clips, found flow",
        ),
        (
            part("vq", encoder=part("registers", patch=4, stem=part("conv"))),
            (8, 16, 16),
            "tokenizer.encoder.stem: expected none for clips, found conv",
        ),
        (
            part("vq", encoder=part("registers", patch=4, decoder=part("direct", smoothed=True))),
            (8, 16, 16),
            "tokenizer.encoder.decoder.smoothed: expected False for clips, found True",
        ),
        (
            part("vq", encoder=part("registers", tokens=4, patch=4, square=True, placed=True)),
            (8, 16, 16),
            "tokenizer.encoder.placed: expected False for clips, found True",
        ),
    ],
)
def test_what_does_not_fit(tokenizer, size, message):
    with pytest.raises(UserError, match=f"config field {message}"):
        tokenizers.build(tokenizer, size, 1)


def test_no_teacher_of_clips():
    c = config.load(FILE)
    c.tokenizer_training.losses.semantic = 0.5
    with pytest.raises(UserError, match="losses.semantic: expected 0 for clips, found 0.5"):
        TokenizerTask(models.build_tokenizer(c), c.tokenizer_training)
