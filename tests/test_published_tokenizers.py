"""The authors' tokenizers build, without allocating any, and have the authors' numbers of parameters.

Counts are those of the authors' modules (their layers alone, no losses), but where a line says otherwise.
"""

import functools
import math

import jax
import pytest
from systems import some_slow

from vargen import config, models
from vargen.tokenizers import discriminators

GRIDS = {
    "llamagen_vq8": 70_109_835,
    "fsq": 54_515_587
    - 1024 * 256
    - (256 - 4) * (512 + 1 + 9 * 512),  # MaskGIT's VQGAN, of 4 channels and no table
    "bsq18": 174_816_210,
    "bsq36": 174_843_876,
    "ibq": 110_982_019,
    "ibq_262144": 173_896_579,
    "open_magvit2": 115_127_829,
    "hart": 108_948_355,  # VAR's, whose layers it has
}
# Of GigaTok's modules. Encoder's and decoder's (width, layers).
GIGATOK = {
    "gigatok_ss": (136_073_227, (512, 6), (512, 6)),
    "gigatok_sb": (232_399_627, (512, 6), (768, 12)),
    "gigatok_bl": (621_637_131, (768, 12), (1024, 24)),
    "gigatok_xlxxl": (2_893_970_443, (1280, 36), (1536, 48)),
}
# FlexTok: a block of the encoder, one of the decoder with both modulations, by their module; digits on the hub, in G.
FLEXTOK = {
    "flextok_d12_d12": (12, 12, 7_077_888, 14_164_992, "0.3"),
    "flextok_d18_d18": (18, 18, 15_925_248, 31_864_320, "0.9"),
    "flextok_d18_d28": (18, 28, 15_925_248, 77_088_256, "3"),
}
# The decoder's width and layers, and how many parameters DiT's README gives such a one.
SEMANTICIST = {
    "semanticist_b": (768, 12, 130e6),
    "semanticist_l": (1024, 24, 458e6),
    "semanticist_xl": (1152, 28, 675e6),
}
VITOK = {"vitok_sb": (43, 86), "vitok_bb": (86, 86)}  # the paper's, in M
# Of which a smaller one is built always.
LARGER = (
    "gigatok_sb gigatok_bl gigatok_xlxxl flextok_d18_d18 flextok_d18_d28 semanticist_l semanticist_xl".split()
)
LARGER += "bsq36 ibq_262144 vitok_bb dar_xl".split()
NAMES = {
    "published_tokenizers": {*GRIDS, *VITOK},
    "published_levels": {"restok"},
    "published_registers": {*GIGATOK, *FLEXTOK, *SEMANTICIST, "imagefolder"},
    "published_drawn": {"dar", "dar_xl"},
}


def linear(i, o):
    return i * o + o


@functools.cache
def built(file, name):
    c = config.load(f"{file}:{name}")
    tokenizer = models.build_tokenizer(c)
    return c, tokenizer, jax.eval_shape(tokenizer.init, jax.random.key(0))


def count(tree):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))


def params(name):
    return built(next(file for file, names in NAMES.items() if name in names), name)[2]


def test_no_row_is_left_out():
    for file, names in NAMES.items():
        assert {*config.variants(file)} == names


@pytest.mark.parametrize(
    "file,name",
    [
        pytest.param(f, n, marks=[pytest.mark.slow] * (n in LARGER))
        for f, names in NAMES.items()
        for n in sorted(names)
    ],
)
def test_builds(file, name):
    """The whole config is one, its generator and what judges the pictures are built, too."""
    c, tokenizer, _ = built(file, name)
    assert config.from_json(config.to_json(c)) == c
    models.build_generator(c, tokenizer)
    losses = c.tokenizer_training.losses
    assert losses.adversarial_start < c.tokenizer_training.steps
    if losses.adversarial:
        discriminators.build(losses.discriminator)


@pytest.mark.parametrize("name", some_slow(GRIDS, LARGER))
def test_grids(name):
    assert count(params(name)) == GRIDS[name]


@pytest.mark.parametrize("name", some_slow(VITOK, LARGER))
def test_vitok(name):
    found = params(name)
    assert tuple(round(count(found[end]) / 1e6) for end in ("encoder", "decoder")) == VITOK[name]


@pytest.mark.parametrize("name", some_slow(GIGATOK, LARGER))
def test_gigatok(name):
    """Theirs have two products from rows to codes, and what maps features to the teacher's."""
    theirs, (e, _), (d, _) = GIGATOK[name]
    ours = count(params(name)) + linear(e, 256) + linear(256, 8) - linear(e, 8)
    assert ours + linear(d, 4 * d) + linear(4 * d, 4 * d) + linear(4 * d, 768) == theirs


def test_restok():
    """Counted on the authors' module, which scales what branches give channel by channel and has maps to its teacher's
    features; its README says 662 M. Ours has no more beside them than these, which are losses' here."""
    found, width, layers = params("restok"), 1024, 24
    theirs = dict(encoder=302_685_248, decoder=302_690_568, pixels=23_775_104 + 30_478_339, codes=8192 * 8)
    assert sum(theirs.values()) + 2 * width * 1024 == 661_791_947
    scales = 2 * 2 * layers * width
    assert count(found) + scales == sum(theirs.values())
    stem = count(found["encoder"]["stem"]), count(found["decoder"]["pixels"])
    assert stem == (23_775_104, 30_478_339)
    assert count(found["encoder"]) + scales // 2 - stem[0] == theirs["encoder"]


@pytest.mark.parametrize("name", some_slow(FLEXTOK, LARGER))
def test_flextok(name):
    """Added up from the authors' layers; the VAE is SDXL's with 16 channels, and our scale for each."""
    encoder, decoder, block, modulated, shown = FLEXTOK[name]
    found = params(name)
    assert count(found["outer"]) == 83_653_863 + 24 * (9 * 512 + 1) + 984 + 252 + 9 * 12 * 512 + 16
    assert f"{count(found) / 1e9:.{0 if shown == '3' else 1}f}" == shown
    d, e = 64 * decoder, 64 * encoder
    theirs = encoder * block + decoder * modulated
    theirs += linear(256, d) + linear(d, d) + linear(d, 2 * d)  # time, the last norm's
    theirs += (16 + 16 + 256) * (d + e) + 2 * d  # places, registers; what stands for those that aren't told
    theirs += linear(64, d) + linear(d, 64) + linear(64, e) + linear(6, d) + linear(e, 6)
    assert count(found) - count(found["outer"]) == theirs


@pytest.mark.parametrize("name", some_slow(SEMANTICIST, LARGER))
def test_semanticist(name):
    """The decoder is a DiT, but for what tells it of registers in the place of labels; the encoder ViT-B. Added up from
    the authors' layers, whose tables of places and of registers are added here."""
    found = params(name)
    w, layers, known = SEMANTICIST[name]

    def blocks(width):
        return 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width)

    dit = layers * (blocks(w) + linear(w, 6 * w)) + linear(256, w) + linear(w, w) + linear(4 * 16, w)
    dit += linear(w, 2 * w) + linear(w, 4 * 2 * 16)
    assert dit + 1001 * w == pytest.approx(known, rel=5e-3)
    assert count(found["decoder"]) == dit + linear(16, w) + 256 * 16
    vit = 12 * (blocks(768) + 4 * 768) + 2 * 768 + linear(3 * 16 * 16, 768)
    assert count(found["encoder"]) == vit + (1 + 256 + 256) * 768 + linear(768, 16)
    assert count(found["outer"]) == 66_456_019 + 16  # MAR's


def test_dar():
    """Added up from the authors' layers, whose tables of queries have 768 rows more that nothing reads; with these and
    what maps features to the teacher's the 300 M of their README."""
    d, found = 768, params("dar")
    attention = 4 * linear(d, d) + 4 * 64
    mlp = linear(d, 4 * d) + linear(4 * d, d)
    block = attention + mlp + 4 * d + 2 * d
    looking = 2 * attention + mlp + linear(d, 6 * d) + 4 * linear(d, d)
    encoder = 8 * block + linear(3 * 16 * 16, d) + linear(8, d) + 256 * 8 + d * 8
    net = 12 * looking + linear(d, d) + linear(3 * 8 * 8, d) + linear(d, 3 * 8 * 8)
    decoder = 8 * block + 8 * d + 256 * d + net
    assert count(found["encoder"]) == encoder and count(found["decoder"]) == decoder
    assert count(found) == encoder + decoder + 16384 * 8
    features = linear(d, 2048) + linear(2048, 2048) + linear(2048, d)
    assert count(found) + 768 * (8 + d) + features == pytest.approx(300e6, rel=0.03)


@pytest.mark.parametrize("name, expected", [("dar", 342_910_976), ("dar_xl", 774_699_520)])
def test_dar_generators(name, expected):
    """LlamaGen's L and XL."""
    c, tokenizer, _ = built("published_drawn", name)
    assert models.parameter_count(models.build_generator(c, tokenizer)) == expected


def test_imagefolder():
    """Added up from the authors' layers: two of DINOv2's ViT-B with tables for registers, and the quantisers."""
    w = 768
    vit = (
        12 * (linear(w, 4 * w) + linear(4 * w, w) + 4 * linear(w, w) + 4 * w + 2 * w) + 2 * w + (1 + 257) * w
    )
    theirs = 2 * vit + 2 * linear(w, w) + 242 * w + (3 + 2 + 1) * w + linear(w, 32) + linear(64, w)
    theirs += 2 * (4096 * 32 + 4 * linear(9 * 32, 32))
    assert count(params("imagefolder")) == pytest.approx(theirs, rel=5e-3)
