"""Every config builds; the full-size ones have the authors' numbers of parameters, without allocating any."""

import math
import pathlib
import re
import runpy

import pytest
from sizes import first

from vargen import config, models, systems
from vargen.mixers import MIXERS

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
FILES = sorted(FOLDER.glob("*.py"))


def sizes(file):
    """The names of a config's sizes, as of `config.load` (of mixers.py its mixers)."""
    return list(next(v for k, v in runpy.run_path(str(file)).items() if k.isupper() and isinstance(v, dict)))


# Of ImageNet alone.
PUBLISHED = "published_drawn", "published_levels", "published_registers", "published_tokenizers"
OTHERS = "clips", "mixers", "registers", "tokenizers", *PUBLISHED
SYSTEMS = {file.stem: sizes(file) for file in FILES if file.stem not in OTHERS}

# The RQ-VAEs': 104.40 M and 100.73 M with one table, to which a size and a sum for each code come.
RQVAE, RQVAE_FFHQ = 104_401_795 + 257 * 16384, 100_731_779 + 257 * 2048
DND_RQVAE = 66_621_315
# Counted on the authors' own modules; where there is none, added up from their layers (names and shapes: tests/goldens
# and tests/interop/published_shapes.py).
FLEXVAE = 71_883_403 + 8912 * 32 - 16384 * 8 + 256 * 24 + 24 + 24 * 256  # LlamaGen's with other codes
COUNTS = {
    "var.py:d16": (310_283_520, 108_948_355),
    "var.py:d20": (600_917_136, 108_948_355),
    "var.py:d24": (1_033_399_360, 108_948_355),
    "var.py:d30": (2_010_020_356, 108_948_355),
    "var.py:d36": (None, 108_948_355),
    "llamagen.py:b": (110_888_448, 71_883_403),
    "llamagen.py:l": (342_910_976, 71_883_403),
    "llamagen.py:xl": (774_699_520, 71_883_403),
    "llamagen.py:xxl": (1_410_972_672, 71_883_403),
    "llamagen.py:3b": (None, 71_883_403),
    "llamagen.py:text256": (None, 71_883_403),
    "llamagen.py:text512": (None, 71_883_403),
    "randar.py:l": (None, 71_883_403),
    "randar.py:xl": (None, 71_883_403),
    "randar.py:xxl": (None, 71_883_403),
    "arpg.py:l": (None, 71_883_403),
    "arpg.py:xl": (None, 71_883_403),
    "arpg.py:xxl": (None, 71_883_403),
    "acdit.py:b": (None, 83_653_863 + 4),
    "acdit.py:l": (None, 83_653_863 + 4),
    "acdit.py:xl": (None, 83_653_863 + 4),
    "acdit.py:h": (None, 83_653_863 + 4),
    "xar.py:b": (None, 66_456_019 + 16),
    "xar.py:l": (None, 66_456_019 + 16),
    "xar.py:h": (None, 66_456_019 + 16),
    **{
        f"rqtransformer.py:{size}": (None, RQVAE)
        for size in ("480m", "821m", "1.4b", "3.8b", "church", "cat", "bedroom")
    },
    "rqtransformer.py:ffhq": (None, RQVAE_FFHQ),
    # A size and a sum for each code beside what the file's size tells.
    **{f"dnd.py:{size}": (None, DND_RQVAE + 513 * 16384) for size in ("xxl", "xxxl", "arxiv")},
    "dnd.py:text": (None, DND_RQVAE + 513 * 4096),
    "jpeglm.py:7b": (None, 126),  # two codes of each merge
    "flexvar.py:d16": (None, FLEXVAE),
    "flexvar.py:d20": (None, FLEXVAE),
    "flexvar.py:d24": (None, FLEXVAE),
    **{
        f"hmar.py:{size}{end}": (None, 108_948_355)
        for size in ("d16", "d20", "d24", "d30", "d24_512")
        for end in ("", "_masked")
    },
    # The published number is 649 M.
    "hart.py:d20": (649_377_088 - 21 * 1280, 108_948_355),
    "hart.py:d24": (None, 108_948_355),
    "hart.py:d30": (None, 108_948_355),
    "flowar.py:s": (None, 66_456_019 + 16),
    "flowar.py:l": (None, 66_456_019 + 16),
    "flowar.py:h": (None, 66_456_019 + 16),
    **{f"himar.py:{size}": (None, 66_456_019 + 16) for size in "blh"},
    "mar.py:b": (None, 66_456_019 + 16),  # and our scale per channel
    "mar.py:l": (None, 66_456_019 + 16),
    "mar.py:h": (None, 66_456_019 + 16),
    "maskgit.py:imagenet256": (172_457_193, 54_515_587),
    "maskgit.py:imagenet512": (None, 54_515_587),
    **{f"maskgil.py:{size}": (None, 71_883_403) for size in ("b", "l", "xl", "xxl")},
    # Their tables of positions have 1022 + 1024 + 99 rows to spare, that of codes one.
    "rar.py:b": (260_923_648 - 2146 * 768, 54_515_587),
    "rar.py:l": (461_668_352 - 2146 * 1024, 54_515_587),
    "rar.py:xl": (955_425_024 - 2146 * 1280, 54_515_587),
    "rar.py:xxl": (1_498_520_704 - 2146 * 1408, 54_515_587),
    # Their registers have two tables that are added up, and the rows before the patches have places of their own.
    "titok.py:l32": (None, 641_054_735 - 34 * 1024),
    "titok.py:b64": (None, 204_814_095 - 66 * 768),
    "titok.py:s128": (None, 83_674_639 - 130 * 512),
}


def linear(i, o):
    return i * o + o


def var_count(depth, slots=680, levels=10, shared=False, classes=1000):
    """Parameters of VAR's module (models/var.py), added up by hand from its layers."""
    c = 64 * depth
    block = var_block_count(depth) + (6 * c if shared else linear(c, 6 * c))
    tables = (classes + 1 + 1 + slots + levels) * c
    around = linear(32, c) + linear(c, 2 * c) + linear(c, 4096) + (linear(c, 6 * c) if shared else 0)
    return depth * block + tables + around


def var_block_count(depth):
    """One of its blocks, without what modulates it."""
    c = 64 * depth
    return 3 * c * c + 2 * c + linear(c, c) + depth + linear(c, 4 * c) + linear(4 * c, c)


def hmar_count(depth, slots=680, masked=True):
    """Parameters of HMAR: VAR's, and after the second stage eight blocks, a norm, a head and a mask more."""
    c = 64 * depth
    more = 8 * (var_block_count(depth) + linear(c, 6 * c)) + linear(c, 2 * c) + linear(c, 4096) + c
    return var_count(depth, slots) + more * masked


def llamagen_count(layers, width, classes=1000, tokens=0, channels=0):
    """Parameters of LlamaGen's module (autoregressive/models/gpt.py), with the buffer that stands for no caption."""
    hidden = math.ceil(int(8 * width / 3) / 256) * 256
    condition = tokens * channels + (channels + width) * width if tokens else (classes + 1) * width
    return layers * (4 * width**2 + 3 * width * hidden + 2 * width) + width + condition + 2 * 16384 * width


def arpg_count(layers, width, vocab=16384, classes=1000):
    """Parameters of ARPG's module (models/arpg.py), without its table's spare row."""
    hidden = math.ceil(int(8 * width / 3) / 256) * 256
    each = 3 * width * hidden + 2 * width
    return layers * (6 * width**2 + 2 * each) + 2 * width**2 + 2 * width + (2 * vocab + classes + 2) * width


def maskgit_count(layers, width, slots, vocab=1024, classes=1000):
    """Parameters of MaskGIT's module (nets/maskgit_transformer.py), added up by hand from its layers."""
    words, norm = vocab + classes + 1, 2 * width
    block = 4 * linear(width, width) + norm + linear(width, 4 * width) + linear(4 * width, width) + norm
    return (words + slots + 1) * width + norm + layers * block + linear(width, width) + norm + words


def titok_count(layers, width, slots, vocab=4096, classes=1000):
    """Parameters of TiTok's BERT (modeling/maskgit.py), added up by hand, without the two kinds of its rows."""
    block = 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 4 * width
    return (vocab + classes + 2 + slots + 1 + 2) * width + layers * block + linear(width, vocab)


def uvit_count(layers, width, slots, vocab=4096, classes=1000):
    """Parameters of TiTok's U-ViT (modeling/maskgit.py), likewise."""
    block = (
        3 * width**2 + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 4 * width
    )
    tables = (vocab + classes + 2 + slots + 1) * width
    return tables + layers * block + layers // 2 * linear(2 * width, width) + 2 * width + linear(width, vocab)


def rqtransformer_count(layers, width, head, classes, vocab=16384, slots=64, depth=4, channels=256):
    """Parameters of RQ-Transformer's module (models/rqtransformer), added up by hand from its layers."""
    block = 4 * linear(width, width) + linear(width, 4 * width) + linear(4 * width, width) + 4 * width
    tables = (classes + 1 + slots + depth) * width + 2 * linear(channels, width)
    return (layers + head) * block + tables + 2 * width + linear(width, vocab)


def dnd_count(layers, width, depth, vocab=16384, rows=1001):
    """Parameters of DnD-Transformer, as LlamaGen's with a norm and a map for each of its codes."""
    hidden = math.ceil(int(8 * width / 3) / 256) * 256
    block = 4 * width**2 + 3 * width * hidden + 2 * width
    return layers * block + (vocab + rows) * width + depth * (vocab + 1) * width


def jpeglm_count(layers, width, vocab=320, hidden=11008):
    """Parameters of Llama 2 (the authors' 7B over 320 codes), and a row more: one label, and none."""
    block = 4 * width**2 + 3 * width * hidden + 2 * width
    return layers * block + width + 2 * vocab * width + 2 * width


def flexvar_count(depth, vocab=8912, classes=1000):
    """Parameters of FlexVAR's module (models/flexvar.py): VAR's, but one table of 32 x 32 places and other codes."""
    others = (1024 - 680 - 10) * 64 * depth + (vocab - 4096) * (64 * depth + 1)
    return var_count(depth, classes=classes) + others


def flowar_count(layers, width, depth, flow, classes=1000, slots=341):
    """Parameters of FlowAR's module, added up by hand from its layers; the flow network's blocks of two kinds."""
    cross = depth > 2
    hidden = 8 * width // 3
    block = linear(width, 3 * width) + linear(width, width) + linear(width, 6 * width)
    block += 2 * linear(width, hidden) + linear(hidden, width)
    around = (classes + 1 + 3 * slots) * width + linear(16, width) + 3 * width + linear(width, width)
    hidden = 8 * flow // 3
    each = 3 * flow * flow + linear(flow, flow) + 2 * linear(flow, hidden) + linear(hidden, flow)
    each += linear(flow, 6 * flow)
    if cross:
        each += flow * flow + 2 * width * flow + linear(flow, flow) + flow + width
    head = linear(256, flow) + linear(flow, flow) + linear(width, flow) + linear(16, flow)
    head += depth * each + linear(flow, 2 * flow) + linear(flow, 16)
    return layers * block + around + head


def hart_count(depth, mlp, levels=10, classes=1000):
    """Parameters of HART's module (models/transformer), added up by hand from its layers for classes; its block and the
    norm before its head of no scale."""
    c = 64 * depth
    block = 3 * c * c + 2 * c + linear(c, c) + 3 * mlp * c + linear(c, 6 * c)
    around = linear(32, c) + (classes + 1 + 1 + levels) * c + linear(c, 2 * c) + linear(c, 4096) + c
    return depth * block + around + denoiser_count(6, 1024, c, 32)


def denoiser_count(depth, width, hidden, channels):
    """Parameters of MAR's denoiser."""
    residual = 2 * width + 2 * linear(width, width) + linear(width, 3 * width)
    around = linear(256, width) + linear(width, width) + linear(hidden, width) + linear(channels, width)
    return around + depth * residual + linear(width, 2 * width) + linear(width, 2 * channels)


def mar_count(layers, width, depth, denoiser, slots=256, buffer=64, channels=16, classes=1000):
    """Parameters of MAR's module, added up by hand from its layers."""
    block = 4 * width + linear(width, 3 * width) + linear(width, width) + 8 * width * width + 5 * width
    stack = layers * block + 2 * width
    embeddings = (classes + 1) * width + 2 * (slots + buffer) * width + slots * width + width
    around = linear(channels, width) + 2 * width + linear(width, width)
    return 2 * stack + embeddings + around + denoiser_count(depth, denoiser, width, channels)


def himar_count(layers, width, pivots, picture, classes=1000):
    """Parameters of Hi-MAR's arrays, added up by hand from their shapes; `layers` of each stack."""
    (depth, w), (blocks, v) = pivots, picture
    block = 4 * width + linear(width, 3 * width) + linear(width, width) + 8 * width * width + 5 * width
    stack = layers * (block + 2 * 2 * 4 * width) + 2 * width + 2 * width + linear(width, 4 * width)
    tables = (classes + 1 + 640 + 2 * 768 + 320) * width + 64 * 16
    around = 2 * linear(16, width) + 2 * linear(width, width) + 2 * width
    residual = 2 * w + 2 * linear(w, w) + linear(w, 3 * w)
    slot = linear(256, w) + linear(w, w) + linear(width, w) + linear(16, w) + depth * residual
    slot += linear(w, 2 * w) + linear(w, 32)
    dit = linear(v, 3 * v) + linear(v, v) + linear(v, 4 * v) + linear(4 * v, v) + linear(v, 6 * v)
    level = linear(256, v) + linear(v, v) + linear(width, v) + linear(16, v) + blocks * dit
    level += linear(v, 2 * v) + linear(v, 16)
    return 2 * stack + tables + around + slot + level


def acdit_count(layers, width, channels=4, classes=1000):
    """Parameters of ACDiT's module, added up by hand from its layers."""
    block = (
        linear(width, 3 * width) + linear(width, width) + linear(width, 4 * width) + linear(4 * width, width)
    )
    block += linear(width, 6 * width) + 2 * width + 2 * 64
    around = channels * width + time_count(width, classes)
    return layers * block + around + width + linear(width, 2 * width) + linear(width, channels)


def xar_count(layers, width, hidden, slots=256, channels=16, classes=1000):
    """Parameters of xAR's module, added up by hand from its layers; `layers` of both stacks."""
    block = linear(width, 3 * width) + linear(width, width) + 2 * linear(width, hidden)
    block += linear(hidden, width) + linear(width, 6 * width)
    around = linear(channels, width) + 3 * width + 2 * slots * width + linear(width, width)
    return layers * block + around + time_count(width, classes) + linear(width, channels)


def time_count(width, classes):
    return linear(256, width) + linear(width, width) + (classes + 1) * width


def test_no_published_size_is_left_out():
    """Each is counted here; Orthus's in a test of its own."""
    small = ("digits", "pictures", "shapes")
    published = {f"{s}.py:{size}" for s in SYSTEMS for size in SYSTEMS[s] if not size.startswith(small)}
    assert published == COUNTS.keys() | {"orthus.py:7b"}


COUNTED: dict[tuple, int] = {}  # sizes of a system share their tokenizer


def tokenizer_count(c, tokenizer):
    key = (c.tokenizer.to_json(), c.data.image_size, c.data.channels)
    if key not in COUNTED:
        COUNTED[key] = models.parameter_count(tokenizer)
    return COUNTED[key]


def holds_as_said(system, size, count):
    """Whether the config's docstring, where it says the count of a size, says this one, as it rounds it."""
    said = str(systems.read(system).counts.get(size, count))
    assert round(count, len(said.rstrip("0")) - len(said)) == int(said), (system, size)


@pytest.mark.parametrize("name", first(list(COUNTS), lambda name: name.partition(".")[0]))
def test_full_size(name):
    c = config.load(FOLDER / name)
    c.data.num_classes = c.data.num_classes or 1
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    expected, of_tokenizer = COUNTS[name]
    layers, width = generator.stages[0].layers, c.model.width
    added = {
        "var": lambda: var_count(layers, tokenizer.grid.size, shared=c.model.adaptive == "shared"),
        "llamagen": lambda: llamagen_count(layers, width, **CAPTIONS if "text" in name else {}),
        "mar": lambda: mar_count(layers, width, c.head.depth, c.head.width),
        "himar": lambda: himar_count(
            layers, width, *((head.depth, head.width) for head in (c.head.heads.pivots, c.head.heads.picture))
        ),
        "rar": lambda: expected,
        "randar": lambda: llamagen_count(layers, width) + width,
        "arpg": lambda: arpg_count(layers, width),
        "acdit": lambda: acdit_count(layers, width),
        "xar": lambda: xar_count(2 * layers, width, c.model.mlp_width),
        "maskgit": lambda: maskgit_count(layers, width, tokenizer.grid.size),
        # A mask among the codes, and the norms of queries and keys of each head.
        "maskgil": lambda: llamagen_count(layers, width) + width + layers * 4 * width // c.mixer.heads,
        "dnd": lambda: dnd_count(
            sum(c.model.layers),
            width,
            len(c.model.layers),
            tokenizer.vocab,
            c.data.num_classes + (c.conditioning.get("dropout", 0.1) is not None),
        ),
        "rqtransformer": lambda: rqtransformer_count(
            layers, width, c.head.layers, c.data.num_classes, tokenizer.vocab
        ),
        "jpeglm": lambda: jpeglm_count(layers, width),
        "flexvar": lambda: flexvar_count(layers),
        "hmar": lambda: hmar_count(sum(c.model.layers[:2]), tokenizer.grid.size, "masked" in name),
        "hart": lambda: hart_count(layers, c.model.mlp_width),
        "flowar": lambda: flowar_count(2 * layers, width, c.head.depth, c.head.width),
        "titok": lambda: (uvit_count if c.model.get("skips") else titok_count)(
            layers, width, tokenizer.grid.size
        ),
    }[name.partition(".")[0]]()
    assert models.parameter_count(generator) == added
    assert expected in (None, added)
    holds_as_said(*name.split(".py:"), added)
    assert tokenizer_count(c, tokenizer) == of_tokenizer
    assert tokenizer.grid.size == SLOTS.get(name, SLOTS.get(name.partition(".")[0], 256))


SLOTS = {
    "var": 680,
    "acdit": 1024,
    "rqtransformer": 64,
    "var.py:d36": 2240,
    "llamagen.py:text512": 1024,
    "maskgit.py:imagenet512": 1024,
    "dnd.py:text": 576,
    "jpeglm.py:7b": 12288,
    "flexvar": 1496,
    "hmar": 680,
    "hart": 680,
    "hmar.py:d24_512": 2240,
    "hmar.py:d24_512_masked": 2240,
    "flowar": 341,
    "himar": 320,
    "titok.py:l32": 32,
    "titok.py:b64": 64,
    "titok.py:s128": 128,
}


def test_orthus():
    """Its module (modeling_chameleon.py and the head), added up by hand, but for what the config says differs."""
    c = config.load(FOLDER / "orthus.py:7b")
    generator = models.build_generator(c, models.build_tokenizer(c))
    assert (generator.sequence.sizes, generator.sequence.slot.segments[1].slot.shape) == (
        (1026, 1024),
        (256,),
    )
    d, hidden, w = 4096, 11008, 1536
    patches = linear(256, w) + linear(w, w) + linear(d, w) + linear(256, w)
    patches += 3 * (2 * w + 2 * linear(w, w) + linear(w, 3 * w)) + linear(w, 2 * w) + linear(w, 256)
    assert patches == 49_980_160
    layer = 4 * d * d + 3 * d * hidden + 2 * d
    theirs = 2 * 65536 * d + 32 * (layer + 4 * d) + d + 8192 * 256 + patches
    ours = theirs - 8192 * d + d  # a row that begins the sequence is a word of theirs
    assert models.parameter_count(generator) == ours
    holds_as_said("orthus", "7b", ours)
    assert 0.995 < ours / theirs < 1


CAPTIONS = dict(tokens=120, channels=2048)


def test_sizes_as_published():
    """In the authors' READMEs: 2.3B, a digit cut off, and 3.1B."""
    assert math.floor(var_count(36, 2240, shared=True) / 1e8) == 23
    assert round(llamagen_count(24, 3200) / 1e8) == 31
    counted = {(12, 768): 1303, (24, 1024): 4579, (28, 1152): 6749, (32, 1280): 9510}
    assert {sizes: round(acdit_count(*sizes) / 1e5) for sizes in counted} == counted
    counted = {(16, 768, 2048): 1726, (32, 1024, 2730): 6084, (40, 1280, 3413): 11860}
    assert {sizes: round(xar_count(*sizes) / 1e5) for sizes in counted} == counted
    assert round(jpeglm_count(32, 4096) / 1e6) == 6479
    published = {(12, 1024): 3198, (18, 1280): 7190, (24, 1536): 13024}  # ARPG's README
    assert {sizes: round(arpg_count(*sizes) / 1e5) for sizes in published} == published
    assert (
        round((maskgit_count(24, 768, 256) + 54_515_587) / 1e6) == 227
    )  # MaskGIT's table 1, with its tokenizer
    published = {(48, 1536, 2): 5745, (48, 2048, 2): 10277}  # their files', in MB of float32
    assert {sizes: round(4 * dnd_count(*sizes) / 1e6) for sizes in published} == published
    published = {  # kakaobrain's README, in millions
        (24, 1024, 4, 1, 2048): 355,
        (24, 1024, 4, 1, 16384): 370,
        (26, 1280, 4, 1, 16384): 612,
        (12, 1536, 4, 1000, 16384): 481,
        (24, 1536, 4, 1000, 16384): 821,
        (42, 1536, 6, 1000, 16384): 1388,
        (42, 2560, 6, 1000, 16384): 3822,
    }
    assert {sizes: round(rqtransformer_count(*sizes) / 1e6) for sizes in published} == published
    # HMAR's files, of float32, are 1.87, 3.38, 5.54 and 10.2 GB.
    assert [round(hmar_count(d) / 1e5) for d in (16, 20, 24, 30)] == [4677, 8455, 13843, 25563]
    # By the authors' layers: 315.56 M, 607.51 M and 1041.31 M; FlowAR's by the sizes of its files.
    assert [round(flexvar_count(d) / 1e4) for d in (16, 20, 24)] == [31556, 60751, 104131]
    found = [flowar_count(*s) for s in ((12, 768, 2, 1024), (16, 1024, 12, 1024), (30, 1536, 12, 1536))]
    assert [round(x / 1e5) for x in found] == [1717, 5869, 19133]
    sizes = (
        (12, 768, (6, 1024), (6, 512)),
        (16, 1024, (8, 1280), (8, 512)),
        (20, 1280, (12, 1536), (12, 768)),
    )
    assert [math.floor(himar_count(*s) / 1e6) for s in sizes] == [244, 529, 1090]  # the paper's table


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_docstrings_give_a_command_for_a_size(file):
    """Every command of a docstring names a size that there is."""
    text = file.read_text().split('"""')[1]
    named = re.findall(rf"(?:configs/{file.stem}\.py|--config {file.stem}):([\w-]+)", text)
    assert named
    for size in named:
        config.load(f"{file}:{size}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_without_a_size_the_smallest(file):
    assert config.load(file).data.source in (
        ("tfds",) if file.stem in PUBLISHED else ("digits", "moving_digits", "shapes")
    )


def test_sizes_of_every_system():
    """As the README says: for the digits and for pictures, but for Orthus, which draws captioned shapes."""
    for system, found in SYSTEMS.items():
        assert {"shapes"} <= {*found} if system == "orthus" else {"digits", *PICTURES} <= {*found}, system


PICTURES = ("pictures32", "pictures64")


@pytest.mark.parametrize(
    "system, size", [(s, x) for s in SYSTEMS for x in SYSTEMS[s] if x.startswith(PICTURES)]
)
def test_sizes_for_pictures(system, size):
    """They build, and start from the user's own folder at their size."""
    c = config.load(f"{system}:{size}")
    assert (c.data.source, c.data.channels, c.data.num_classes) == ("folder", 3, 0)
    assert c.data.image_size == int(size.removesuffix("_masked")[-2:])
    assert c.data.flip and c.data.crop == "random" and "digits" not in c.name.lower()
    c.data.num_classes = 3
    generator = models.build_generator(c, models.build_tokenizer(c))
    assert 1e6 < models.parameter_count(generator) < 15e6


def test_mixers_on_the_digits_are_all():
    """But for ConvS5, which is recurrent over frames, and a picture is one."""
    assert {*sizes(FOLDER / "mixers.py")} == MIXERS.keys() - {"conv_s5"}


@pytest.mark.parametrize("mixer", sizes(FOLDER / "mixers.py"))
def test_mixers_on_the_digits(mixer):
    """Each builds, with 0.6 to 1.5 million parameters, and is read as it was written."""
    c = config.load(FOLDER / f"mixers.py:{mixer}")
    assert c.mixer.name == mixer and config.from_json(config.to_json(c)) == c
    c.data.num_classes = 10
    generator = models.build_generator(c, models.build_tokenizer(c))
    assert 0.6e6 < models.parameter_count(generator) < 1.5e6
