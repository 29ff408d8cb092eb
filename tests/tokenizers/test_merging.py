"""Registers in levels over patches that are merged from stage to stage (ResTok), piece by piece; the whole is held to
its authors' network by their golden (tests/interop/test_parity.py)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import tiny
from test_teachers import TINY

from vargen.config import part
from vargen.errors import UserError
from vargen.tokenizers import merging, semantic, teachers
from vargen.tokenizers.transformer import Sizes, Transformer

TOKENS = (1, 1, 2, 4)
LEVEL = np.repeat(np.arange(4), TOKENS)


def encoder(decoder=None, **options):
    own = dict(tokens=TOKENS, patch=4, width=16, layers=3, heads=2, sees="levels", nested="levels")
    own |= dict(begins="residuals", stages=3, apart=True, places="rotary", dropped="latent", norm_in=True)
    return part("registers", decoder=decoder or part("direct", layers=1), **own | options)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1.0)


def moved(t):
    """Parameters none of which is zero."""
    params = jax.jit(t.init)(jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 200))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)


@pytest.fixture(scope="module")
def plain():
    t = tiny("kl", encoder=encoder())
    return t, moved(t)


@pytest.mark.slow
def test_one_stage_is_the_plain_stack():
    """Bit for bit: without a merge the blocks are those that nothing merges in."""
    sizes, times = Sizes(16, 2, 2, rotary=True), tuple(int(x) for x in LEVEL + 1)
    x = jax.random.normal(jax.random.key(0), (2, 16 + 8, 16))
    stages = merging.Stages(sizes, (4, 4), times, 1, True, jnp.float32)
    coords = [(i, j) for i in range(4) for j in range(4)] + [(16 + i, 16 + i) for i in range(8)]
    plain = Transformer(sizes, (0,) * 16 + times, False, jnp.float32, coords=tuple(coords))
    params = nn.meta.unbox(plain.init(jax.random.key(1), x)["params"])
    own = dict(params, merged=jnp.zeros((0, 16)))
    found = jax.jit(stages.apply)({"params": own}, x)
    np.testing.assert_array_equal(found, jax.jit(plain.apply)({"params": params}, x))


@pytest.mark.parametrize("residuals", [False, True])
def test_what_is_merged(residuals):
    """Of patches 1, 2, 4, 8 and registers 16, 32."""
    x = jnp.array([1.0, 2, 4, 8, 16, 32])[None, :, None]
    finer = [0, 1, 0, 4] if residuals else [1, 2, 4, 8]
    np.testing.assert_array_equal(merging.merged(x, 4, residuals)[0, :, 0], [1, 4, *finer, 16, 32])


def test_what_registers_begin_as():
    """In float64, cell by cell; residuals of the means of every level leave what is nowhere said."""
    patches = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    rest = {True: patches.copy(), False: patches.copy()}
    levels, found = (1, 2, 6), {True: [], False: []}
    for rows, columns in ((1, 1), (1, 2), (2, 3)):
        for residuals in (True, False):
            for i in range(rows):
                for j in range(columns):
                    down, across = 4 // rows, 6 // columns
                    cell = rest[residuals][:, i * down : (i + 1) * down, j * across : (j + 1) * across]
                    mean = cell.mean((1, 2))
                    found[residuals].append(mean)
                    if residuals:
                        cell -= mean[:, None, None]
    for residuals, expected in found.items():
        own = merging.means(jnp.float32(patches), levels, residuals)
        np.testing.assert_allclose(own, np.stack(expected, axis=1), atol=1e-6)
    assert [merging.cells(n) for n in (1, 2, 4, 8, 9, 32, 7)] == [
        (1, 1),
        (1, 2),
        (2, 2),
        (2, 4),
        (3, 3),
        (4, 8),
        (1, 7),
    ]


@pytest.mark.slow
def test_who_sees_whom(images, plain):
    """A level's row changes its latents and those of later levels; the merged patches' row those of all, of the same
    times; products are each level's own."""
    t, params = plain
    latents = jax.jit(t.codec.encode)

    def changed(*path):
        other = jax.tree.map(jnp.copy, params)
        tree = other["encoder"]
        for key in path[:-2]:
            tree = tree[key]
        name, row = path[-2:]
        tree[name] = tree[name].at[row].add(jax.random.normal(jax.random.key(2), tree[name][row].shape))
        change = np.abs(np.asarray(latents(other, images) - latents(params, images)))
        return change.max(axis=(0, 1, 3)) > 1e-5

    for level in range(4):
        np.testing.assert_array_equal(changed("levels", level), LEVEL >= level)
    assert changed("blocks", "merged", 0).all() and changed("blocks", "merged", 1).all()
    assert changed("finest", 0).all()
    np.testing.assert_array_equal(changed("latents_out", "level2", "kernel", 3), LEVEL == 2)


def test_any_prefix_of_levels_is_a_picture(plain):
    """The first levels decode as all do of which the others aren't known: these are the learned latent."""
    t, params = plain
    latents = jax.random.normal(jax.random.key(3), (3, 1, 8, t.channels))
    decode, dropped = jax.jit(t.codec.decode), params["decoder"]["registers"]["dropped"]
    pictures = []
    for count in (1, 2, 4, 8):
        known = jnp.broadcast_to(jnp.arange(8) < count, (3, 1, 8))
        pictures.append(decode(params, latents, known))
        filled = jnp.where(known[..., None], latents, dropped)
        np.testing.assert_allclose(decode(params, filled, known | True), pictures[-1], atol=1e-5)
    assert min(np.abs(a - b).max() for a, b in zip(pictures, pictures[1:], strict=False)) > 1e-3
    found = jax.jit(t.first(4).codec.decode)(params, latents[:, :, :4])
    np.testing.assert_allclose(found, pictures[2], atol=1e-5)


def test_how_many_are_kept():
    """All but at a rate, then each number as likely as it is large, from the least on: of 4000, five deviations."""
    codec = tiny("fsq", encoder=encoder(nested_least=2, nested_rate=0.3)).codec
    counts = np.asarray(codec.kept(jax.random.key(0), 4000))[:, 0].sum(axis=1)
    shares = {2: 0.3 * 2 / 6, 4: 0.3 * 4 / 6, 8: 0.7}
    numbers, times = np.unique(counts, return_counts=True)
    assert [*numbers] == [*shares]
    for n, share in zip(times, shares.values(), strict=True):
        assert abs(n / 4000 - share) < 5 * np.sqrt(share * (1 - share) / 4000)


@pytest.mark.slow
def test_what_a_teacher_draws(images):
    """Rows of patches that another mask row asks for, and the coarsest patches of the encoder: the loss is of both."""
    t = tiny("fsq", encoder=encoder(part("direct", layers=1, taught=True)))
    params = moved(t)
    teacher = teachers.build(part(**{**TINY["siglip"], "side": 16, "places": 4}), "teacher")
    loss = semantic.Semantic(t, teacher, "cosine", "taught", 0, 0.1, 0, 0.25, "encoder/merged")
    latents = jax.random.normal(jax.random.key(3), (3, 1, 8, t.channels))
    given = params, latents, None, images, jax.random.key(0)

    @jax.jit
    def features(params):
        own = loss.features(params, *given[1:]), loss.features(params, *given[1:], at="encoder/merged")
        return *own, t.codec.decode(params, latents)

    taught, merged, picture = features(params)
    assert taught.shape == (3, 4, 4, 16) and merged.shape == (3, 4, 1, 16)
    row = params["decoder"]["taught"] + jax.random.normal(jax.random.key(4), (1, 16))
    changed = features(dict(params, decoder=dict(params["decoder"], taught=row)))
    assert np.abs(changed[0] - taught).max() > 1e-2
    np.testing.assert_array_equal(changed[2], picture)
    key = jax.random.key(1)
    projection = nn.meta.unbox(loss.init_boxed(key))
    frozen = jax.jit(teacher.init)(jax.random.key(2))
    said, expected = jax.jit(teacher)(frozen, images), 0.0
    for own, to, target in (
        (taught, projection, said.grid),
        (merged, projection["whole"], said.pooled),
    ):
        own = np.float64(own) @ np.float64(to["out"]["kernel"]) + np.float64(to["out"]["bias"])
        own = own if target.ndim == 4 else own.mean((1, 2))
        target = np.float64(target)
        cosines = (own * target).sum(-1) / np.linalg.norm(own, axis=-1) / np.linalg.norm(target, axis=-1)
        expected += np.maximum(0.75 - cosines, 0).mean()
    found = jax.jit(lambda params: loss(projection, frozen, params, *given[1:]))(params)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    plain = tiny("fsq", encoder=encoder())
    asked = semantic.Semantic(plain, teacher, "cosine", "taught", 0, 0.1, 0)
    with pytest.raises(UserError, match="semantic_at: taught needs the decoder direct with taught=True"):
        asked.features(*given)
    lost = semantic.Semantic(t, teacher, "cosine", "taught", 0, 0.1, 0, 0.0, "encoder/merge")
    with pytest.raises(
        UserError, match="semantic_whole_at: expected latents or a module of the encoder, .*merged"
    ):
        lost.features(*given, at="encoder/merge")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(stages=4), "encoder.stages: expected at most the 3 blocks, .*, found 4 and 4"),
        (dict(patch=8), "encoder.stages: expected at most .*2.*stages - 1., found 3 and 2"),
        (dict(tokens=(1, 3)), "encoder.begins: residuals of 3 registers are of 1x3 cells, .*, found 4x4"),
        (dict(sees="all"), "encoder.stages: 3 needs sees causal or levels"),
        (dict(anchor=True), "encoder.stages: 3 needs anchor=False"),
        (dict(stages=1, anchor=True), "encoder.places: rotary needs anchor=False"),
        (
            dict(decoder=part("flow"), apart=False, dropped="placed"),
            "encoder.places: rotary needs the decoder direct, found another",
        ),
        (
            dict(decoder=part("flow"), apart=False, places="table"),
            "encoder.dropped: latent needs the decoder direct, found another",
        ),
        (dict(decoder=part("flow")), "encoder.apart: True needs the decoder direct, found another"),
        (
            dict(heads=8),
            "encoder.heads: expected heads of a multiple of 4 channels for places rotary, found 2",
        ),
        (dict(stem=part("pooled", standard=True)), "encoder.standard: needs images of 3 channels, found 1"),
    ],
)
def test_refused(options, message):
    with pytest.raises(UserError, match=message):
        tiny("fsq", encoder=encoder(**options))
