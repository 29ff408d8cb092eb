"""Tokenizers of registers: who sees whom, any prefix, and decoders that draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny

from vargen import inputs
from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import across, merging, semantic, teachers
from vargen.tokenizers.guidance import Guidance
from vargen.tokenizers.reading import Told

STEM = part("conv", width=8, multipliers=(1, 1), blocks=1, groups=4)
SLOW = pytest.mark.slow


def registers(decoder=None, tokens=8, **options):
    own = dict(patch=4, width=16, layers=2, heads=2) | options
    return part("registers", tokens=tokens, decoder=decoder or part("direct"), **own)


def flow(**options):
    return part("flow", steps=4, **options)


DRAWN = part("diffusion", steps=4, train_steps=8, absent="latents")


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1.0)


@pytest.mark.parametrize(
    "sees,tokens,changed",
    [
        pytest.param("causal", 8, 5, marks=SLOW),  # as squares abreast
        pytest.param("levels", (1, 2, 4), 3, marks=SLOW),
        ("levels", (1, 2, 4), 4),
        ("all", 8, 5),
    ],
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder",
    [
        *(pytest.param(x, marks=SLOW) for x in (part("direct"), flow())),
        flow(groups=4),
        pytest.param(DRAWN, marks=SLOW),
    ],
)
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


@pytest.mark.parametrize(
    "groups,n",
    [*(pytest.param(*x, marks=SLOW) for x in ((1, 8), (4, 8))), (4, 5), pytest.param(4, 2, marks=SLOW)],
)
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


@pytest.mark.parametrize("momentum,threshold,parallel", [(-0.5, 2.5, 0.0), (0.3, 0.0, 0.4)])
def test_projected_guidance(momentum, threshold, parallel):
    """arXiv 2410.02416, algorithm 1, in float64 and one picture at a time, over three steps."""
    guide = Guidance(3.0, True, momentum, threshold, parallel)
    rng, before, sums = np.random.default_rng(0), jnp.zeros((2, 4, 4, 3)), np.zeros((2, 48))
    for step in range(3):
        told, free = (rng.normal(size=(2, 4, 4, 3)).astype(np.float32) for _ in range(2))
        free[1] = told[1] + 0.01 * step * free[1]  # shorter than the threshold, in the first step nothing
        found, before = guide(told, free, before)
        for i in range(2):
            c, u = (np.float64(x[i]).ravel() for x in (told, free))
            sums[i] = c - u + momentum * sums[i]
            d, length = sums[i], np.linalg.norm(sums[i])
            d = d * threshold / length if threshold and length > threshold else d
            along = (d @ c) / (c @ c) * c
            expected = c + 2.0 * (d - along + parallel * along)
            np.testing.assert_allclose(found[i].ravel(), expected, atol=1e-5)


def test_plain_guidance_is_the_published_one():
    """Without a projection a weight of 0 is what isn't told, 1 what is, and what came before counts for nothing."""
    told, free = (jax.random.normal(jax.random.key(i), (2, 4, 4, 1)) for i in range(2))
    for weight, expected in ((0.0, free), (1.0, told), (3.0, 3 * told - 2 * free)):
        found, before = Guidance(weight)(told, free, 7 + free)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_array_equal(before, 7 + free)


def moved(t, seed=0, by=0.1):
    """Parameters none of which is zero."""
    params = jax.jit(t.init)(jax.random.key(seed))
    ends = {end: params[end] for end in ("encoder", "decoder")}
    keys = iter(jax.random.split(jax.random.key(seed + 1), 200))
    return dict(params, **jax.tree.map(lambda x: x + by * jax.random.normal(next(keys), x.shape), ends))


@pytest.mark.slow  # FlexTok has it: tests/interop/test_parity.py
def test_rows_modulated_apart(images):
    """Where both maps are the same it is the network with one; either changes the picture, but for what registers do
    when nothing looks at them any more."""
    plain, apart = (tiny("fsq", encoder=registers(flow(apart=a, forget_rate=0.1))) for a in (False, True))
    params = moved(plain)
    modulation = params["decoder"]["blocks"]["layers"]["block"]["modulation"]
    both = jax.tree.map(lambda x: jnp.concatenate([x, x], axis=-1), modulation)

    def with_modulation(found):
        block = dict(params["decoder"]["blocks"]["layers"]["block"], modulation=found)
        return dict(params, decoder=dict(params["decoder"], blocks=dict(layers=dict(block=block))))

    like = jax.eval_shape(apart.init, jax.random.key(0))["decoder"]
    assert jax.tree.map(jnp.shape, like) == jax.tree.map(jnp.shape, with_modulation(both)["decoder"])
    latents = jax.random.normal(jax.random.key(3), (3, 1, 8, 3))

    def run(t):
        return jax.jit(
            lambda params: t.codec.decoder.apply({"params": params["decoder"]}, latents, images, 0.5)
        )

    decode = run(apart)
    found = decode(with_modulation(both))
    np.testing.assert_allclose(found, run(plain)(params), atol=1e-5)
    # After the last block's attention registers are looked at no more: its MLP is nothing to patches.
    for block, kind, same in ((0, 1, False), (1, 1, True), (1, 0, False)):
        changed = jax.tree.map(functools.partial(with_other_mlp, block=block, kind=kind), both)
        other = decode(with_modulation(changed))
        assert (np.abs(other - found).max() < 1e-5) == same, (block, kind)


def with_other_mlp(x, block, kind):
    """Modulations [L, ..., 2 * 6 * 16] whose gate, scale and shift of the MLP of one kind of rows are others."""
    found = np.array(x).reshape(*x.shape[:-1], 2, 6, 16)
    found[block, ..., kind, 1::2, :] += 0.3
    return found.reshape(x.shape)


@pytest.mark.slow  # FlexTok has it: tests/interop/test_parity.py
def test_what_stands_for_dropped_registers(images):
    """The learned row with the place of each, or the same for all: then places of unknown ones are nothing."""
    for dropped, same in (("placed", False), ("alike", True)):
        t = tiny("fsq", encoder=registers(nested="uniform", dropped=dropped))
        params = moved(t)
        latents = t.codec.encode(params, images)
        told = params["decoder"]["registers"]
        other = dict(told, places=told["places"].at[5].add(jax.random.normal(jax.random.key(9), (16,))))
        changed = dict(params, decoder=dict(params["decoder"], registers=other))
        known = jnp.broadcast_to(jnp.arange(8) < 5, (3, 1, 8))
        decode = jax.jit(t.codec.decode)
        found = [decode(p, latents, known) for p in (params, changed)]
        assert (np.abs(found[0] - found[1]).max() < 1e-5) == same
        np.testing.assert_allclose(t.codec.decode(params, latents[:, :, :5]), found[0], atol=1e-5)
        rows = Told(t.codec.decoder.ends).apply({"params": told}, latents, known)
        expected = np.broadcast_to(told["dropped"], (3, 3, 16)) + (0 if same else told["places"][5:])
        np.testing.assert_allclose(rows[:, 5:], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [part("direct"), pytest.param(flow(time="row"), marks=SLOW)])
def test_places_by_axes(decoder, images):
    """The same network as of a table of the sums, at both ends."""
    summed, table = (tiny("fsq", encoder=registers(decoder, places=p)) for p in ("axes", "table"))
    params = moved(summed)
    like = table.init(jax.random.key(0))

    def taken(found, tree):
        if "places_down" in found:
            down, across = (np.asarray(found[f"places_{x}"]) for x in ("down", "across"))
            rows = np.stack([down[i] + across[j] for i in range(4) for j in range(4)])
            return {k: rows if k == "places" else found[k] for k in tree}
        return {k: taken(found[k], v) if isinstance(v, dict) else found[k] for k, v in tree.items()}

    other = taken(params, like)
    latents = summed.codec.encode(params, images)
    np.testing.assert_allclose(table.codec.encode(other, images), latents, atol=1e-6)
    np.testing.assert_allclose(
        table.codec.decode(other, latents), summed.codec.decode(params, latents), atol=1e-5
    )


@pytest.mark.slow  # FlexTok has it: tests/interop/test_parity.py
def test_norms_without_parameters(images):
    """None is left, and it is the network whose norms scale by 1 and shift by 0."""
    options = dict(norm_in=True, qk_norm="layer")
    plain, own = (tiny("fsq", encoder=registers(affine=a, **options)) for a in (False, True))
    params, like = moved(plain), own.init(jax.random.key(0))
    names = {"/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert not [n for n in names if "norm" in n]

    def filled(found, tree):
        return {
            k: filled(found.get(k, {}), v) if isinstance(v, dict) else found.get(k, v)
            for k, v in tree.items()
        }

    other = filled(params, like)
    latents = plain.codec.encode(params, images)
    np.testing.assert_allclose(own.codec.encode(other, images), latents, atol=1e-6)
    np.testing.assert_allclose(
        own.codec.decode(other, latents), plain.codec.decode(params, latents), atol=1e-6
    )


@pytest.mark.slow  # DAR has it: tests/interop/test_parity.py
def test_how_time_is_told(images):
    """Cosines, then sines, of the time at angles from its scale down to that over the period."""
    t = tiny("fsq", encoder=registers(flow(time="row", frequencies=6, period=8.0, time_scale=50.0)))
    params = moved(t)
    latents = t.codec.encode(params, images)
    _, kept = t.codec.decoder.apply(
        {"params": params["decoder"]},
        latents,
        images,
        jnp.array([0.0, 0.3, 1.0]),
        capture_intermediates=lambda module, method: module.name == "time_1",
        mutable=["intermediates"],
    )
    angles = np.array([0.0, 0.3, 1.0])[:, None] * 50.0 * 8.0 ** (-np.arange(3) / 3)
    dense = jax.tree.map(np.float64, params["decoder"]["time_1"])
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(kept["intermediates"]["time_1"]["__call__"][0], expected, atol=1e-4)


@pytest.mark.slow  # TiTok has it: tests/interop/test_parity.py
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


@pytest.mark.slow
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
        (
            registers(flow(apart=True, time="row")),
            "decoder.apart: needs time adaln, by which rows are modulated, found row",
        ),
        (registers(square=True), "square: needs a square number of registers, .*, found tokens 8"),
        (registers(square=True, tokens=9, nested="uniform"), "square: .*, found nested uniform"),
        (
            registers(part("gan")),
            "encoder.decoder.name: expected one of diffusion, direct, flow, found 'gan'",
        ),
    ],
)
def test_refused(encoder, message):
    with pytest.raises(UserError, match=message):
        tiny("fsq", encoder=encoder)


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "encoder, message",
    [
        (registers(abreast=2), "encoder.abreast: needs registers on a square, square=True, found 2"),
        (registers(placed=True), "encoder.placed: needs registers on a square, square=True, found True"),
        (
            registers(tokens=4, square=True, abreast=3),
            "encoder.abreast: expected a divisor of 4 channels, found 3",
        ),
        (
            part("across", tokens=6, stem=STEM),
            "encoder.tokens: expected a power of two whose cells divide 8x8",
        ),
        (
            part("across", tokens=256, stem=STEM),
            "encoder.tokens: expected a power of two whose cells divide 8x8",
        ),
        (
            part("across", tokens=8, stem=STEM, shown_after=4),
            "shown_after: expected fewer than 4 blocks, found 4",
        ),
        (
            part("conv", projection=0, hidden=8),
            "encoder.hidden: needs projections, such as projection=1, found 8",
        ),
    ],
)
def test_what_does_not_fit(encoder, message):
    with pytest.raises(UserError, match=message):
        tiny("kl", channels=4, encoder=encoder)


@pytest.mark.slow
def test_squares_abreast(images):
    """A place's channels are those of its registers, one square after another; only theirs see a register's change."""
    own = registers(tokens=4, square=True, abreast=2, placed=True, sees="causal", anchor=True)
    t = tiny("kl", channels=4, encoder=own)
    params = t.init(jax.random.key(0))
    moved = jax.tree.map(jnp.copy, params)
    table = moved["encoder"]["registers"]
    moved["encoder"]["registers"] = table.at[6].add(jax.random.normal(jax.random.key(2), (16,)))
    change = t.codec.encode(moved, images) - t.codec.encode(params, images)
    # [B, k, k, moments of each square's channels]: the second square's third register, and the one after it.
    found = np.abs(np.asarray(change)).max(0).reshape(4, 2, 2, 2).max((1, 3)) > 1e-6
    np.testing.assert_array_equal(found, [[False, False], [False, False], [False, True], [False, True]])


def test_averages():
    """Of registers of GigaTok's: all, all again, halves side by side, quarters row by row."""
    patches = jnp.arange(16.0).reshape(1, 4, 4, 1)
    found = merging.means(patches, across.levels(8), False)[0, :, 0]
    np.testing.assert_allclose(found, [7.5, 7.5, 6.5, 8.5, 2.5, 4.5, 10.5, 12.5])


@pytest.mark.parametrize(
    "name, lie", [("registers", False), ("merging", False), ("squares", True), ("vq", True)]
)
def test_which_lie_in_the_picture(name, lie):
    """Of registers in a row no part of the picture can stay, although its width divides among them."""
    left = np.zeros((16, 16), bool)
    left[:, :8] = True
    if lie:
        assert inputs.kept(left, tiny(name))[1].any()
        return
    with pytest.raises(
        UserError, match=r"kept: expected a tokenizer whose slots are patches of the image, found"
    ):
        inputs.kept(left, tiny(name))
