"""Every config builds; the full-size ones have the authors' numbers of parameters, without allocating any."""

import math
import pathlib
import re

import pytest

from vargen import config, models

FOLDER = pathlib.Path(__file__).parent.parent / "configs"

# Counted on the authors' own modules; where there is none, added up from their layers (MAR's names and shapes are those
# of tests/interop/test_mar.py).
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
    "randar.py:l": (None, 71_883_403),
    "randar.py:xl": (None, 71_883_403),
    "randar.py:xxl": (None, 71_883_403),
    "arpg.py:l": (None, 71_883_403),
    "arpg.py:xl": (None, 71_883_403),
    "arpg.py:xxl": (None, 71_883_403),
    "mar.py:b": (None, 66_456_019 + 16),  # and our scale per channel
    "mar.py:l": (None, 66_456_019 + 16),
    "mar.py:h": (None, 66_456_019 + 16),
    # Their tables of positions have 1022 + 1024 + 99 rows to spare, that of codes one.
    "rar.py:b": (260_923_648 - 2146 * 768, 54_515_587),
    "rar.py:l": (461_668_352 - 2146 * 1024, 54_515_587),
    "rar.py:xl": (955_425_024 - 2146 * 1280, 54_515_587),
    "rar.py:xxl": (1_498_520_704 - 2146 * 1408, 54_515_587),
}


def linear(i, o):
    return i * o + o


def var_count(depth, slots=680, levels=10, shared=False, classes=1000):
    """Parameters of VAR's module (models/var.py), added up by hand from its layers."""
    c = 64 * depth
    block = 3 * c * c + 2 * c + linear(c, c) + depth + linear(c, 4 * c) + linear(4 * c, c)
    block += 6 * c if shared else linear(c, 6 * c)
    tables = (classes + 1 + 1 + slots + levels) * c
    around = linear(32, c) + linear(c, 2 * c) + linear(c, 4096) + (linear(c, 6 * c) if shared else 0)
    return depth * block + tables + around


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


def mar_count(layers, width, depth, denoiser, slots=256, buffer=64, channels=16, classes=1000):
    """Parameters of MAR's module, added up by hand from its layers."""
    block = 4 * width + linear(width, 3 * width) + linear(width, width) + 8 * width * width + 5 * width
    stack = layers * block + 2 * width
    embeddings = (classes + 1) * width + 2 * (slots + buffer) * width + slots * width + width
    around = linear(channels, width) + 2 * width + linear(width, width)
    residual = 2 * denoiser + 2 * linear(denoiser, denoiser) + linear(denoiser, 3 * denoiser)
    head = (
        linear(256, denoiser)
        + linear(denoiser, denoiser)
        + linear(width, denoiser)
        + linear(channels, denoiser)
    )
    head += depth * residual + linear(denoiser, 2 * denoiser) + linear(denoiser, 2 * channels)
    return 2 * stack + embeddings + around + head


@pytest.mark.parametrize("name", COUNTS)
def test_full_size(name):
    c = config.load(FOLDER / name)
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    expected, of_tokenizer = COUNTS[name]
    layers, width = generator.stages[0].layers, c.model.width
    added = {
        "var": lambda: var_count(layers, tokenizer.grid.size, shared=c.model.adaptive == "shared"),
        "llamagen": lambda: llamagen_count(layers, width, **CAPTIONS if "text" in name else {}),
        "mar": lambda: mar_count(layers, width, c.head.depth, c.head.width),
        "rar": lambda: expected,
        "randar": lambda: llamagen_count(layers, width) + width,
        "arpg": lambda: arpg_count(layers, width),
    }[name.partition(".")[0]]()
    assert models.parameter_count(generator) == added
    assert expected in (None, added)
    assert models.parameter_count(tokenizer) == of_tokenizer
    assert tokenizer.grid.size == {"var.py:d36": 2240}.get(name, 680 if name.startswith("var") else 256)


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
    ours = (
        theirs - 8192 * d - 32 * 4 * (d - d // 32) + d
    )  # a row that begins the sequence is a word of theirs
    assert models.parameter_count(generator) == ours
    assert 0.995 < ours / theirs < 1


CAPTIONS = dict(tokens=120, channels=2048)


def test_sizes_as_published():
    """In the authors' READMEs: 2.3B, a digit cut off, and 3.1B."""
    assert math.floor(var_count(36, 2240, shared=True) / 1e8) == 23
    assert round(llamagen_count(24, 3200) / 1e8) == 31
    published = {(12, 1024): 3198, (18, 1280): 7190, (24, 1536): 13024}  # ARPG's README
    assert {sizes: round(arpg_count(*sizes) / 1e5) for sizes in published} == published


FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_docstrings_give_a_command_for_a_size(file):
    """Every command of a docstring names a size that there is."""
    text = file.read_text().split('"""')[1]
    named = re.findall(rf"configs/{file.stem}\.py:(\w+)", text)
    assert named
    for size in named:
        config.load(f"{file}:{size}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_without_a_size_the_smallest(file):
    assert config.load(file).data.source in ("digits", "shapes")


@pytest.mark.parametrize("size", ["pictures32", "pictures64"])
@pytest.mark.parametrize("system", ["var", "llamagen", "mar", "rar"])
def test_sizes_for_pictures(system, size):
    """They build, and start from the user's own folder at their size."""
    c = config.load(f"{system}:{size}")
    assert (c.data.source, c.data.channels, c.data.num_classes) == ("folder", 3, 0)
    assert c.data.image_size == int(size[-2:]) and c.data.flip and c.data.crop == "random"
    assert "digits" not in c.name.lower()
    c.data.num_classes = 3
    generator = models.build_generator(c, models.build_tokenizer(c))
    assert 1e6 < models.parameter_count(generator) < 15e6


@pytest.mark.parametrize(
    "mixer", ["attention", "axial", "linear", "gla", "retention", "lightnet", "ssd", "mamba", "s5"]
)
def test_mixers_on_the_digits(mixer):
    """Each builds, with 0.7 to 1.5 million parameters."""
    c = config.load(FOLDER / f"mixers.py:{mixer}")
    assert c.mixer.name == mixer
    c.data.num_classes = 10
    generator = models.build_generator(c, models.build_tokenizer(c))
    assert 0.7e6 < models.parameter_count(generator) < 1.5e6
