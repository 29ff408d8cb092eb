"""Every config builds; the full-size ones have the authors' numbers of parameters, without allocating any."""

import pathlib
import re

import pytest

from vargen import config, models

FOLDER = pathlib.Path(__file__).parent.parent / "configs"

# Counted on the authors' own modules; MAR's by their names and shapes (tests/interop/test_mar.py uses every one).
COUNTS = {
    "var.py:d16": (310_283_520, 108_948_355),
    "var.py:d20": (600_917_136, 108_948_355),
    "var.py:d24": (1_033_399_360, 108_948_355),
    "var.py:d30": (2_010_020_356, 108_948_355),
    "llamagen.py:b": (110_888_448, 71_883_403),
    "llamagen.py:l": (342_910_976, 71_883_403),
    "llamagen.py:xl": (774_699_520, 71_883_403),
    "llamagen.py:xxl": (1_410_972_672, 71_883_403),
    "mar.py:b": (None, 66_456_019 + 16),  # and our scale per channel
    "mar.py:l": (None, 66_456_019 + 16),
    "mar.py:h": (None, 66_456_019 + 16),
    # Their tables of positions have 1022 + 1024 + 99 rows to spare, that of codes one.
    "rar.py:b": (260_923_648 - 2146 * 768, 54_515_587),
    "rar.py:l": (461_668_352 - 2146 * 1024, 54_515_587),
    "rar.py:xl": (955_425_024 - 2146 * 1280, 54_515_587),
    "rar.py:xxl": (1_498_520_704 - 2146 * 1408, 54_515_587),
}


def mar_count(layers, width, depth, denoiser, slots=256, buffer=64, channels=16, classes=1000):
    """Parameters of the authors' module, added up by hand from its layers."""

    def linear(i, o):
        return i * o + o

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
    if expected is None:
        expected = mar_count(generator.layers[0], c.model.width, c.head.depth, c.head.width)
    assert models.parameter_count(generator) == expected
    assert models.parameter_count(tokenizer) == of_tokenizer
    assert tokenizer.grid.size == (680 if name.startswith("var") else 256)


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
    assert config.load(file).data.source == "digits"


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
