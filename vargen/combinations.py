"""Which parts combine: each combination is built abstractly at a tiny size, and the parts' own checks decide."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vargen import axes, config, models
from vargen.config import part
from vargen.errors import UserError
from vargen.stage import Stage
from vargen.tokenizers.tokenizer import Tokenizer

AXES = ("order", "feed", "head", "mixer")
SIDE = 8  # pixels

# The sizes at which parts are tried: pictures of 8x8 pixels, 2x2 slots or levels of 1x1 and 2x2. Where a part has
# forms for different company, they are tried in turn.
Options = Mapping[str, Any]
PATCHES = dict(name="patch", patch=4, width=8, blocks=1, token_width=8, channel_width=8)
LEVELS = dict(levels=(1, 2), encoder=PATCHES)
TOKENIZERS: dict[str, Options] = dict(
    vq=dict(encoder=PATCHES, vocab=16, channels=4),
    kl=dict(encoder=PATCHES, channels=4),
    rq=dict(encoder=PATCHES, vocab=16, channels=4, depth=2),
    binary=dict(encoder=PATCHES, channels=4),
    multiscale_vq=dict(LEVELS, vocab=16, channels=4),
    pyramid_vq=dict(LEVELS, vocab=16, channels=4, level_weight=0.0),
    pyramid_kl=dict(LEVELS, channels=4),
    hybrid_multiscale=dict(LEVELS, vocab=16, channels=4, beside=True),
)
ORDERS: dict[str, Options] = dict(
    cells=dict(count=(2, 1)),
    chunks=dict(size=2),
    random_sets=dict(steps=3),
    confidence=dict(steps=3),
    random_to_raster=dict(start=0.25, end=0.75),
    level_sets=dict(steps=(1, 2)),
    some_levels=dict(groups=((1, 1, 1), (1, 2, 2))),
)
# Orders level by level are tried over several levels alone: over one they have nothing to order.
BY_LEVEL = ("levels", "masked_levels", "level_sets", "some_levels", "thinned_levels")
FEEDS: dict[str, tuple[Options, ...]] = dict(
    shift=({}, dict(target_positions=True)),
    staged=({}, dict(target_positions=True)),
    branched=({}, dict(masked=True)),
    mask=(dict(buffer=1, encoder_decoder=False), dict(buffer=2)),
    noisy=(dict(clean=False), {}),
    pivots=(dict(buffer=1),),
)
DRAWN = dict(depth=1, width=8, sample_steps=2)
NOISE = dict(DRAWN, train_steps=10)
DIT = dict(NOISE, heads=2)
HEADS: dict[str, Options] = dict(
    depth=dict(layers=1),
    diffusion=NOISE,
    v_diffusion=NOISE,
    dit=DIT,
    bernoulli_diffusion=dict(sample_steps=2, train_steps=10),
    epsilon=dict(sample_steps=2),
    velocity=dict(sample_steps=2),
    flow=dict(DRAWN, heads=2),
    hybrid=dict(heads=dict(codes=dict(name="categorical"), numbers=dict(NOISE, name="diffusion"))),
    rounds=dict(heads=dict(pivots=dict(NOISE, name="diffusion"), picture=dict(DIT, name="dit"))),
    segments=dict(heads=dict(text=dict(name="categorical"), picture=dict(NOISE, name="v_diffusion"))),
)
MIXERS: dict[str, Options] = dict(
    chain=dict(mixers=(dict(name="ssm_2d", state=2), dict(name="gla", heads=2))),
    conv_s5=dict(state=4, blocks=1),
    mamba=dict(state=2),
    mamba_2d=dict(state=2),
    s5=dict(state=4, blocks=1),
    ssd=dict(heads=2, state_size=4),
    ssm_2d=dict(state=2),
    vssd=dict(heads=2, state_size=4),
)
# A class, and blocks that it modulates; or words that are drawn too.
CONDITIONS = (("label", {}, "adaln"), ("text", dict(vocabulary=("a", "b", "c"), tokens=4), "none"))


def find(order: str, feed: str, head: str, mixer: str) -> tuple[ConfigDict, str]:
    """The first tiny config of a combination that builds, and ""; or one that doesn't, and the line that refuses it.

    Of several it is one whose order and feed agree, if there is one, and whose line names the most of the four parts,
    then of all its parts, and blames no tokenizer.
    """
    tried = list(zip(_forms(order, feed), _rows(order, feed), strict=True))
    best: tuple = (-1,)
    for form, (c, line) in [row for row in tried if not row[1][1]] or tried:
        try:
            if not line:
                c = _config(order, feed, head, mixer, *form)
                models.build_generator(c, tokenizer(c.tokenizer.name))
                return c, ""
        except UserError as error:
            line = str(error)
        rank = len(named(line, c) & {*AXES}), len(named(line, c)), "tokenizer" not in line
        if rank > best:
            best, found = rank, (c, line)
    return found


def named(line: str, c: ConfigDict) -> set[str]:
    """The axes whose parts in a config a line names."""
    return {axis for axis in config.AXES if re.search(rf"(\b{axis}|\bfound|,) {c[axis].name}\b", line)}


def builds(order: str, feed: str, head: str, mixer: str) -> bool:
    """Whether a combination does: the same as of `find`, with no more than each two parts' checks."""
    return any(
        head in heads and mixer in mixers and (head, mixer) not in apart
        for heads, mixers, apart in _fitting(order, feed)
    )


@functools.cache
def every() -> tuple[tuple[str, str, str, str], ...]:
    """All combinations that build, in the order of `axes.PARTS`."""
    return tuple(c for c in itertools.product(*(axes.PARTS[axis] for axis in AXES)) if builds(*c))


def fitting(axis: str, name: str) -> dict[str, list[str]]:
    """By each other axis of `AXES` the parts that stand beside one of `axis` in a combination that builds."""
    own = AXES.index(axis)
    parts = [[name] if a == axis else [*axes.PARTS[a]] for a in AXES]
    found = [c for c in itertools.product(*parts) if builds(*c)]
    beside = {a: {c[i] for c in found} for i, a in enumerate(AXES) if i != own}
    return {a: [part for part in axes.PARTS[a] if part in names] for a, names in beside.items()}


def covering(combinations: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Some of the combinations, among which is every pair and every triple of parts that is in any of them.

    Greedy: first those with four triples that none before has, then with three, and so on; alike ones by a hash.
    """
    waiting = sorted(combinations, key=lambda c: (zlib.crc32(" ".join(c).encode()), c))
    met: set[tuple] = set()
    found: list[tuple[str, ...]] = []
    for least in range(len(AXES), 0, -1):
        later = []
        for c in waiting:
            triples = {(i, *c[:i], *c[i + 1 :]) for i in range(len(c))}
            if len(triples - met) >= least:
                met |= triples
                found.append(c)
            else:
                later.append(c)
        waiting = later
    return found


class _Fitting(NamedTuple):
    """What goes with the rows of an order and a feed.

    Attributes:
      heads, mixers: each beside all else as it is usual.
      apart: pairs of a head, which has blocks of its own, and a mixer that these can't have.
    """

    heads: frozenset[str]
    mixers: frozenset[str]
    apart: frozenset[tuple[str, str]]


@functools.cache
def _fitting(order: str, feed: str) -> list[_Fitting]:
    """Of each form of an order and a feed whose rows can be had."""
    found: dict[_Fitting, None] = {}  # many forms are alike
    for form, (_, line) in zip(_forms(order, feed), _rows(order, feed), strict=True):
        with contextlib.suppress(UserError):  # of blocks that can't be had with any head or mixer
            if not line:
                found[_of_form(order, feed, form)] = None
    return [*found]


def _of_form(order: str, feed: str, form) -> _Fitting:
    c = _config(order, feed, "categorical", "attention", *form)
    of = tokenizer(c.tokenizer.name)
    rows = models.build_rows(c, of)
    bare = models.join(c, of, rows, None)
    heads = {}
    for name in axes.PARTS["head"]:
        c.head = _head(name)
        with contextlib.suppress(UserError):
            head = models.build_head(c, of, rows)
            models.check_shared(c, dataclasses.replace(bare, head=head))
            heads[name] = head
    layouts = bare.layouts() if heads else ()
    mixers, apart = set(), set()
    for mixer in axes.PARTS["mixer"] if heads else ():
        c.mixer = _mixer(mixer)
        with contextlib.suppress(UserError):
            models.check_mixers(c, models.join(c, of, rows, None), layouts)
            mixers.add(mixer)
    own = [name for name, head in heads.items() if any(isinstance(x, Stage) for x in vars(head).values())]
    for name, mixer in itertools.product(own, mixers):
        c.head, c.mixer = _head(name), _mixer(mixer)
        try:
            models.build_head(c, of, rows)
        except UserError:
            apart.add((name, mixer))
    return _Fitting(frozenset(heads), frozenset(mixers), frozenset(apart))


@functools.cache
def _rows(order: str, feed: str) -> list[tuple[ConfigDict, str]]:
    """Of each form a config with some head and mixer, and the line that refuses it whatever these are, or ""."""
    found = []
    for form in _forms(order, feed):
        c, line = _config(order, feed, "categorical", "attention", *form), ""
        try:
            models.build_rows(c, tokenizer(c.tokenizer.name))
        except UserError as error:
            line = str(error)
        found.append((c, line))
    return found


def _forms(order: str, feed: str) -> list[tuple[str, Options, tuple[str, Options, str]]]:
    """What a combination is tried with: tokenizer, options of the feed, condition."""
    names = [name for name in TOKENIZERS if order not in BY_LEVEL or "levels" in TOKENIZERS[name]]
    return list(itertools.product(names, FEEDS.get(feed, ({},)), CONDITIONS))


def _config(
    order: str, feed: str, head: str, mixer: str, tokenizer: str, options: Options, condition
) -> ConfigDict:
    conditioning, words, adaptive = condition
    c = config.config()
    c.name, c.compute_dtype, c.data.image_size = f"{order} {feed} {head} {mixer}", "float32", SIDE
    c.tokenizer = part(tokenizer, **TOKENIZERS[tokenizer])
    c.order = part(order, **ORDERS.get(order, {}))
    c.feed = part(feed, **options)
    c.head, c.mixer = _head(head), _mixer(mixer)
    c.conditioning = part(conditioning, **words)
    c.model = dict(layers=6, width=16, mlp_width=16, adaptive=adaptive)
    return c


def _head(name: str) -> ConfigDict:
    return part(name, **HEADS.get(name, {}))


def _mixer(name: str) -> ConfigDict:
    heads = dict(heads=2) if "heads" in axes.options("mixer", name) else {}
    return part(name, **MIXERS.get(name, heads))


@functools.cache
def tokenizer(name: str) -> Tokenizer:
    """One of `TOKENIZERS`."""
    c = config.config()
    c.data.image_size, c.tokenizer = SIDE, part(name, **TOKENIZERS[name])
    return models.build_tokenizer(c)
