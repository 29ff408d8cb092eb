"""Sizes that the importer reads off the published arrays, for every published size, against the configs."""

import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
import pytest
from sizes import first

from vargen import config, models
from vargen.errors import UserError
from vargen.interop import mapping, names, systems
from vargen.interop.checkpoint import differences
from vargen.interop.rar import SPARE, SPARE_STEPS

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
PUBLISHED = [
    *(("var", size) for size in ("d16", "d20", "d24", "d30", "d36")),
    *(("llamagen", size) for size in ("b", "l", "xl", "xxl", "3b", "text256", "text512")),
    *(("mar", size) for size in "blh"),
    *(("rar", size) for size in ("b", "l", "xl", "xxl")),
    *((system, size) for system in ("randar", "arpg") for size in ("l", "xl", "xxl")),
    *(("acdit", size) for size in ("b", "l", "xl", "h")),
    *(("xar", size) for size in "blh"),
    *(("maskgit", size) for size in ("imagenet256", "imagenet512")),
    *(("dnd", size) for size in ("xxl", "xxxl", "text", "arxiv")),
    *(("rqtransformer", size) for size in ("480m", "821m", "1.4b", "3.8b", "cat", "church", "ffhq")),
    *(("flexvar", size) for size in ("d16", "d20", "d24")),
    *(("flowar", size) for size in "slh"),
    *(("hmar", f"{size}_masked") for size in ("d16", "d20", "d24", "d30", "d24_512")),
    *(("himar", size) for size in "blh"),
    *(("titok", size) for size in ("l32", "b64", "s128")),
]


class Shapes(Mapping):
    """Arrays of zeros that take no memory."""

    def __init__(self, shapes):
        self.shapes = shapes

    def __getitem__(self, name):
        return np.broadcast_to(np.float32(0), self.shapes[name])

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)

    def shape(self, name):
        return self.shapes[name]


def published(module, part):
    """What the authors' file of a model of these sizes holds."""
    like = jax.eval_shape(part.init, jax.random.key(0))
    shapes = mapping.source_shapes(module.table(part), dict(mapping.flatten(like)))
    return Shapes({name: s for name, s in shapes.items() if name != "lvl_1L"})


@functools.cache
def tokenizer_arrays(system, size=None):
    size = size or next(size for name, size in PUBLISHED if name == system)
    c = config.load(f"{CONFIGS / system}.py:{size}")
    return published(systems.system(system).tokenizer, models.build_tokenizer(c))


@pytest.mark.parametrize("system, size", first(PUBLISHED, lambda case: case[0]))
def test_published_sizes(system, size):
    expected = config.load(f"{CONFIGS / system}.py:{size}")
    tokenizer, generator = systems.build(expected)
    s = systems.system(system)
    arrays = published(s.generator, generator)
    side = expected.data.image_size
    own = tokenizer_arrays(system, size if size in ("ffhq", "text", "arxiv", "b64", "s128") else None)
    found = systems.infer(s, own, arrays, image_size=side)
    # And exported it is what the authors' program computes.
    assert not differences(tokenizer, s.like("tokenizer", expected, tokenizer, own))
    assert not differences(generator, s.like("generator", expected, generator, arrays))
    if system == "rar":  # what was published has left random orders behind
        assert (found.order.start, found.order.end) == (0, 0)
        expected.order = found.order
    for field in (
        "name",
        "tokenizer",
        "conditioning",
        "order",
        "feed",
        "mixer",
        "head",
        "model",
        "sampling",
        "presets",
    ):
        want = expected[field]
        assert found[field] == want, f"{field}: {found[field]} is not {want}"
    assert (found.data.image_size, found.data.num_classes) == (side, expected.data.num_classes)
    if system == "rar":
        # Theirs has places for more rows than 256 slots and the condition, and a code that stands for no code.
        width = generator.width
        spare = (SPARE - 2) + SPARE + (SPARE_STEPS - 1) + 1
        extra = sum(np.prod(x) for x in arrays.shapes.values()) - models.parameter_count(generator)
        assert extra == spare * width


LEVELS = (1, 3, 16)  # of FlexVAR's tokenizer, in the place of the authors'
# What is changed in a trained model's config, and in what the authors' program differs then.
CHANGES = [
    ("flowar", dict(head=dict(times="even", guidance_until=0.5, sample_steps=9)), []),
    ("flowar", dict(head=dict(heads=2)), ["head.heads 2 instead of 0"]),
    ("xar", dict(head=dict(solver="euler", last=0.1), model=dict(dropout=0.0)), []),
    ("xar", dict(order=dict(count=(4, 4))), ["another ordering.order.slots", "another ordering.order.steps"]),
    ("maskgit", dict(feed=dict(counts="slots"), order=dict(noise=2.0, steps=3)), []),
    ("mar", dict(head=dict(repeat=1, clip=1.0), order=dict(steps=3)), []),
    ("mar", dict(head=dict(schedule="linear")), ["head.schedule linear instead of cosine"]),
    (
        "llamagen",
        dict(order=dict(name="frames"), feed=dict(target_positions=True)),
        ["another ordering.order.steps", "feed.target_positions True instead of False"],
    ),
    ("flexvar", dict(tokenizer=dict(levels=LEVELS), order=dict(name="some_levels", groups=((1, 1, 1), (1, 2, 3)))), []),
    ("flexvar", dict(tokenizer=dict(levels=LEVELS, level_weight=0.5), order=dict(name="levels")), []),
]  # fmt: skip


@pytest.mark.parametrize("system, changes, expected", CHANGES)
def test_other_models_than_the_authors(system, changes, expected):
    """How training and sampling went is nothing to the authors' program; what is computed is."""
    size = next(size for name, size in PUBLISHED if name == system)
    c = config.load(f"{CONFIGS / system}.py:{size}")
    for axis, options in changes.items():
        if "name" in options:
            c[axis] = options
        else:
            c[axis].update(options)
    tokenizer, generator = systems.build(c)
    s = systems.system(system)
    theirs = s.like("generator", c, generator, published(s.generator, generator))
    assert differences(generator, theirs) == expected
    if "tokenizer" in changes:
        theirs = s.like("tokenizer", c, tokenizer, published(s.tokenizer, tokenizer))
        assert not differences(tokenizer, theirs)


def test_hints_and_contradictions():
    s = systems.system("llamagen")
    c = config.load(f"{CONFIGS}/llamagen.py:b")
    arrays = published(s.generator, systems.build(c)[1])
    found = systems.infer(s, tokenizer_arrays("llamagen"), arrays, image_size=384)
    assert found.data.image_size == 384 and found.presets.paper.resize == 256
    assert systems.infer(s, tokenizer_arrays("llamagen"), arrays, heads=6).mixer.heads == 6
    assert systems.infer(s, tokenizer_arrays("llamagen"), arrays).data.image_size == 256
    large = config.load(f"{CONFIGS}/llamagen.py:xl")  # published at 384 pixels alone
    found = systems.infer(s, tokenizer_arrays("llamagen"), published(s.generator, systems.build(large)[1]))
    assert found.data.image_size == 384 and found.presets.paper.resize == 256
    with pytest.raises(UserError, match="heads that divides the width 768, found 7"):
        systems.infer(s, tokenizer_arrays("llamagen"), arrays, heads=7)
    with pytest.raises(UserError, match=r"LlamaGen: expected the array norm\.weight, found .* others"):
        systems.infer(s, tokenizer_arrays("llamagen"), tokenizer_arrays("llamagen"))
    with pytest.raises(UserError, match=r"VAR: expected the array"):
        systems.infer(systems.system("var"), tokenizer_arrays("var"), arrays)
    rar = systems.system("rar")
    c = config.load(f"{CONFIGS}/rar.py:b")
    with pytest.raises(UserError, match="image size: expected 256 as the generator's arrays tell, found 512"):
        systems.infer(
            rar, tokenizer_arrays("rar"), published(rar.generator, systems.build(c)[1]), image_size=512
        )
    with pytest.raises(
        UserError,
        match=f"system: expected one of {', '.join(names.SYSTEMS)}, found 'sd'",
    ):
        systems.system("sd")


def test_captions_and_eight_pixels_a_slot():
    """LlamaGen's text-conditional XL at 512 pixels, and its tokenizer VQ-8."""
    s = systems.system("llamagen")
    c = config.load(f"{CONFIGS}/llamagen.py:xl")
    c.conditioning = config.part("caption", tokens=120, channels=2048, dropout=0.1)
    c.tokenizer.encoder.multipliers, c.data.image_size = (1, 2, 2, 4), 512
    tokenizer, generator = systems.build(c)
    arrays = published(s.generator, generator)
    assert arrays.shapes["cls_embedding.uncond_embedding"] == (120, 2048)
    found = systems.infer(s, published(s.tokenizer, tokenizer), arrays, image_size=512)
    assert found.conditioning == c.conditioning and found.tokenizer == c.tokenizer
    assert (found.sampling.guidance, found.sampling.top_k) == (7.5, 1000)
    assert systems.build(found)[1].tokenizer.grid.size == 64 * 64
    assert systems.infer(s, tokenizer_arrays("llamagen"), arrays).data.image_size == 256
