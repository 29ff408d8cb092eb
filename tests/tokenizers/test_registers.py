"""Tokenizers of registers: who sees whom, any prefix, and decoders that draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny

from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import semantic, teachers


def registers(decoder=None, tokens=8, **options):
    own = dict(patch=4, width=16, layers=2, heads=2) | options
    return part("registers", tokens=tokens, decoder=decoder or part("direct"), **own)


def flow(**options):
    return part("flow", steps=4, **options)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1.0)


@pytest.mark.parametrize(
    "sees,tokens,changed",
    [("causal", 8, 5), ("levels", (1, 2, 4), 3), ("levels", (1, 2, 4), 4), ("all", 8, 5)],
)
def test_who_sees_whom(sees, tokens, changed, images):
    """Another register changes what registers beside or after it say, and those before and patches nothing."""
    t = tiny("kl", encoder=registers(tokens=tokens, sees=sees))
    params = t.init(jax.random.key(0))
    other = jax.tree.map(jnp.copy, params)
    table = other["encoder"]["registers"]
    other["encoder"]["registers"] = table.at[changed].add(jax.random.normal(jax.random.key(2), (16,)))
    moments = jax.jit(t.moments)
    moved = np.abs(np.asarray(moments(params, images) - moments(other, images))).max(axis=(0, 2)) > 1e-5
    levels = np.repeat(np.arange(len(np.atleast_1d(tokens))), tokens)
    expected = dict(
        causal=np.arange(len(moved)) >= changed, levels=levels >= levels[changed % len(levels)], all=True
    )
    np.testing.assert_array_equal(moved, expected[sees])


@pytest.mark.parametrize("decoder", [part("direct"), flow(), flow(groups=4)])
def test_a_prefix_is_a_picture(decoder, images):
    """The first registers decode as all do of which the others aren't known; with all of them it is the picture."""
    t = tiny("fsq", encoder=registers(decoder, sees="causal", nested="uniform"))
    params = t.init(jax.random.key(0))
    params["decoder"] = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params["decoder"]
    )
    codes = t.encode(params, images)
    first = t.first(3)
    np.testing.assert_array_equal(first.encode(params, images), codes[:, :3])
    known = jnp.broadcast_to(jnp.arange(8) < 3, codes.shape)

    def decode(known):
        return t.decode_latents(params, t.latents(params["quantizer"], codes, known), known)

    found = first.decode(params, codes[:, :3])
    np.testing.assert_allclose(found, decode(known), atol=1e-5)
    np.testing.assert_allclose(t.decode(params, codes), decode(jnp.ones_like(known)), atol=1e-5)
    assert np.abs(found - t.decode(params, codes)).max() > 1e-3
    with pytest.raises(UserError, match="sampling.tokens: expected 1 to 8, found 9"):
        t.first(9)
    with pytest.raises(
        UserError, match="sampling.tokens: needs a tokenizer whose first tokens are a picture"
    ):
        tiny("vq").first(3)


@pytest.mark.parametrize(
    "nested,expected", [("uniform", range(1, 8)), ("powers", (1, 2, 4, 7)), ("levels", (1, 3, 7))]
)
def test_how_many_are_kept(nested, expected):
    """The first few, each number as likely as another: of 4000, within five deviations."""
    codec = tiny("fsq", encoder=registers(tokens=(1, 2, 4), nested=nested)).codec
    kept = np.asarray(codec.kept(jax.random.key(0), 4000))[:, 0]
    counts = kept.sum(axis=1)
    np.testing.assert_array_equal(kept, np.arange(7) < counts[:, None])
    numbers, times = np.unique(counts, return_counts=True)
    assert tuple(numbers) == tuple(expected)
    share = 1 / len(expected)
    assert np.abs(times / 4000 - share).max() < 5 * np.sqrt(share * (1 - share) / 4000)


def test_loss_of_a_flow_decoder(images):
    """The estimate's error over t^2 is the velocity's; what it starts from lies between image and noise. Of one that
    gives the image errors count alike."""
    t = tiny("kl", encoder=registers(flow()))
    params = t.init(jax.random.key(0))
    params["decoder"] = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), params["decoder"]
    )
    latents = t.codec.encode(params, images)[..., :4]
    features, weights = t.codec.draft(params, latents, None, images, jax.random.key(5))
    at = np.asarray(features["t"], np.float64)[:, None, None, None]
    noise = (np.asarray(features["noisy"], np.float64) - (1 - at) * images) / at
    given = t.codec.decoder.apply({"params": params["decoder"]}, latents, features["noisy"], features["t"])
    velocity = (np.asarray(features["noisy"], np.float64) - given) / at
    expected = np.mean((np.asarray(velocity, np.float64) - (noise - images)) ** 2, axis=(1, 2, 3))
    estimate = np.asarray(t.codec.last(params, features), np.float64)
    found = np.asarray(weights, np.float64) * np.mean((estimate - images) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    other = tiny("kl", encoder=registers(flow(predicts="image")))
    assert other.codec.draft(params, latents, None, images, jax.random.key(5))[1] is None


@pytest.mark.parametrize("groups,n", [(1, 8), (4, 8), (4, 5), (4, 2)])
def test_decoding_by_flow(groups, n, images):
    """Euler's method, written out; in groups the first registers take the first part of the way, where it ends."""
    t = tiny("fsq", encoder=registers(part("flow", steps=8, groups=groups, forget_rate=0.1, guidance=2.0)))
    params = t.init(jax.random.key(0))
    params["decoder"] = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params["decoder"]
    )
    codes = t.encode(params, images)
    latents = t.latents(params["quantizer"], codes)[:, :, :n]
    x = np.broadcast_to(jax.random.normal(jax.random.key(0), (16, 16, 1)), images.shape)
    run = jax.jit(
        lambda x, s, known, without: t.codec.decoder.apply(
            {"params": params["decoder"]}, latents, x, s, known, without
        )
    )
    for i in range(8):
        s = 1 - i / 8
        group = min(int((1 - s) * groups) + 1, groups)  # seen: as many groups as parts of the way have begun
        if groups > 1 and i >= (n * groups // 8) * 8 / groups:
            break
        known = jnp.broadcast_to(jnp.arange(n) < group * 8 // groups, (3, 1, n))
        with_registers, without = ((x - run(x, s, known, jnp.full(3, w))) / s for w in (False, True))
        v = without + 2.0 * (with_registers - without)
        estimate = x - s * v
        x = x - v / 8
    found = t.codec.decode(params, latents)
    np.testing.assert_allclose(found, estimate, atol=2e-4)


def test_scrambled_registers(images):
    """All numbers of all registers in a row, read as D rows of K, written out; by products that change nothing."""
    found = []
    for scrambled in (False, True):
        t = tiny("kl", channels=8, encoder=registers(scrambled=scrambled))
        params = t.init(jax.random.key(0))
        params["encoder"]["latents_out"] = dict(kernel=jnp.eye(16), bias=jnp.zeros(16))
        found.append(np.asarray(t.codec.encode(params, images))[:, 0])
    plain, scrambled = found
    for n, d in ((0, 0), (3, 0), (1, 5), (7, 15)):
        np.testing.assert_allclose(scrambled[:, n, d], plain.reshape(3, -1)[:, d * 8 + n], atol=1e-6)


def test_pixels_from_0_to_1(images):
    """The same network of images moved there, whose pixels are moved back."""
    plain, unit = (tiny("fsq", encoder=registers(part("direct"), unit=u)) for u in (False, True))
    params = unit.init(jax.random.key(0))
    z = plain.codec.encode(params, (images + 1) / 2)
    np.testing.assert_allclose(unit.codec.encode(params, images), z, atol=1e-6)
    found = unit.codec.decode(params, z)
    np.testing.assert_allclose(found, 2 * plain.codec.decode(params, z) - 1, atol=1e-6)


def test_epsilon_of_every_norm():
    """It reaches the blocks' norms, those of queries and keys, and those around the blocks."""
    t = tiny("fsq", encoder=registers(eps=1e-3, norm_in=True, qk_norm="layer"))
    ends = t.codec.encoder.ends
    block = ends.sizes.block(False, jnp.float32)
    assert block.eps == block.mixer.eps == ends.sizes.eps == 1e-3


def test_standard_latents(images):
    """Mean 0 and unbiased variance 1 over the numbers of each register."""
    t = tiny("fsq", levels=(5, 5, 5, 5), encoder=registers(standard=True))
    params = t.init(jax.random.key(0))
    latents = np.asarray(t.codec.encode(params, images), np.float64)
    np.testing.assert_allclose(latents.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(latents.std(axis=-1, ddof=1), 1, atol=1e-4)


def test_on_a_square(images):
    """Registers 0, 1, ... lie row by row; the parameters, and what they give, are those of the ones in a row."""
    row, square = (tiny("fsq", encoder=registers(tokens=9, square=square)) for square in (False, True))
    assert (row.grid.levels, square.grid.levels) == (((1, 9),), ((3, 3),))
    params = row.init(jax.random.key(0))
    latents = row.codec.encode(params, images)
    on_it = square.codec.encode(params, images)
    np.testing.assert_array_equal(on_it, latents.reshape(3, 3, 3, -1))
    codes = row.encode(params, images)
    np.testing.assert_array_equal(square.encode(params, images), codes)
    np.testing.assert_array_equal(square.decode(params, codes), row.decode(params, codes))
    levels = tiny("multiscale_vq", levels=(1, 2, 3), encoder=registers(tokens=9, square=True))
    assert levels.encode(levels.init(jax.random.key(0)), images).shape == (3, 14)


@pytest.mark.parametrize(
    "encoder,message",
    [
        (
            registers(patch=5),
            "tokenizer.encoder.patch: expected a divisor of the image's 16x16 pixels, found 5",
        ),
        (registers(heads=3), "tokenizer.encoder.heads: expected a divisor of the width 16, found 3"),
        (
            registers(part("direct", heads=3)),
            "encoder.decoder.heads: expected a divisor of the width 16, found 3",
        ),
        (
            registers(flow(groups=3)),
            "decoder.groups: expected a divisor of 8 registers, found 3; for instance 1, 2 or 4",
        ),
        (registers(flow(guidance=2.0)), "decoder.guidance: expected 1 where forget_rate is 0, found 2"),
        (registers(square=True), "square: needs a square number of registers, .*, found tokens 8"),
        (registers(square=True, tokens=9, nested="uniform"), "square: .*, found nested uniform"),
        (registers(part("gan")), "tokenizer.encoder.decoder.name: expected one of direct, flow, found 'gan'"),
    ],
)
def test_refused(encoder, message):
    with pytest.raises(UserError, match=message):
        tiny("fsq", encoder=encoder)


def test_shown_patches(images):
    """What a semantic loss sees at "shown" are the decoder's rows of patches after so many blocks."""
    decoder = part("direct", layers=3, shown_after=1)
    t = tiny("fsq", encoder=registers(decoder, anchor=True))
    params = t.init(jax.random.key(0))
    teacher = teachers.build(
        part("siglip", side=16, patch=4, places=4, width=8, layers=1, heads=2), "teacher"
    )
    loss = semantic.Semantic(t, teacher, "cosine", "shown", 0, 0.1, 0)
    latents = t.latents(params["quantizer"], t.encode(params, images))
    found = loss.features(params, latents, None, images, jax.random.key(0))
    assert found.shape == (3, 4, 4, 16)
    assert params["decoder"]["first_blocks"]["layers"]["block"]["norm_1"]["scale"].shape == (1, 16)
    changed = jax.tree.map(lambda x: x + 0.1, params["decoder"]["blocks"])
    other = dict(params, decoder=dict(params["decoder"], blocks=changed))
    np.testing.assert_array_equal(loss.features(other, latents, None, images, jax.random.key(0)), found)
    assert np.abs(t.decode_latents(other, latents) - t.decode_latents(params, latents)).max() > 1e-3
    with pytest.raises(UserError, match="shown_after: expected fewer than 3 blocks, found 3"):
        tiny("fsq", encoder=registers(part("direct", layers=3, shown_after=3)))
