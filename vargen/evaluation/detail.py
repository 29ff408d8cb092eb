"""What a tokenizer keeps of detail, on pictures that are drawn here: words, thin lines and textures.

A substitute for VTBench's tasks of detail and text (arXiv 2505.13439) that needs no download, no OCR and no pictures
larger than the tokenizer's own. Where the benchmark reads text by a network, letters and words are read here by matched
correlation: each is taken for the candidate whose drawing it resembles most. All is drawn by Pillow's own font, from a
fixed seed, and 1 is what no change gives in every measure but the PSNR.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from vargen.data.transforms import to_channels
from vargen.evaluation import metrics
from vargen.report.pictures import to_uint8

PICTURES = 24  # of each kind, and of words of each size
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = (
    "BEAR BOAT BOOK CAKE CART COAT COLD CORN DARK DOOR FISH FROG GATE GOAT GOLD HAND HARE HOOK KITE LAKE LAMB LEAF "
    "MILK MOON NEST PARK POST RAIN RING ROAD ROCK ROSE SALT SAND SHIP SNOW STAR TREE WIND WOLF"
).split()
SMALLEST = 8  # pixels of a font; each size is twice the one before, to a quarter of the picture
# Paper and ink.
COLOURS = np.array(
    [
        [[255, 255, 255], [0, 0, 0]],
        [[20, 30, 90], [250, 250, 240]],
        [[255, 245, 200], [180, 20, 30]],
        [[230, 230, 230], [10, 90, 40]],
    ]
)
PERIODS = (2, 3, 4, 6, 8)  # pixels, of textures
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows and columns
MOST = 32  # words of a picture
LINES = 4  # in a picture
SEEN = 0.5  # of the ink: less is no line


@dataclasses.dataclass(frozen=True)
class Word:
    """A word in a picture: which of `words`, in which picture, and where its letters' cells begin."""

    number: int
    picture: int
    top: int
    left: int
    font: int


@dataclasses.dataclass(frozen=True)
class Detail:
    """Pictures of detail, and what they show.

    Attributes:
      images: uint8 [M, H, W, C]; first those of words, then of lines, then of textures.
      covered: float64 [M, H, W], how much of the ink each pixel has, 0 to 1.
      colours: float64 [M, 2, C], paper and ink of each.
      words: what the candidates are, of as many letters as fit.
      written: the words in the pictures.
      kinds: how many pictures are of words, lines and textures.
    """

    images: np.ndarray
    covered: np.ndarray
    colours: np.ndarray
    words: tuple[str, ...]
    written: tuple[Word, ...]
    kinds: tuple[int, int, int]

    def shown(self, each: int) -> np.ndarray:
        """int [3 each]: pictures of each kind, at even distances."""
        firsts = np.cumsum((0, *self.kinds))
        return np.concatenate(
            [first + np.arange(each) * count // each for first, count in zip(firsts, self.kinds)]
        )


def draw(size: tuple[int, int], channels: int) -> Detail:
    """Pictures of (H, W) pixels; the same ones each time."""
    rng = np.random.default_rng(0)
    fonts = _fonts(min(size))
    letters = min(len(WORDS[0]), size[1] // _cell(fonts[0])[1])
    words = tuple(dict.fromkeys(word[:letters] for word in WORDS))
    pages, written = [], []
    for font in fonts:
        for _ in range(PICTURES):
            page, some = _page(rng, size, words, font, len(pages))
            pages.append(page)
            written += some
    lines = [_lines(rng, size) for _ in range(PICTURES)]
    textures = [_texture(i, size) for i in range(len(PERIODS) * len(DIRECTIONS))]
    covered = np.stack([*pages, *lines, *textures])
    colours = COLOURS[np.arange(len(covered)) % len(COLOURS)]
    pixels = colours[:, 0, None, None] + covered[..., None] * (colours[:, 1] - colours[:, 0])[:, None, None]
    images = np.stack([to_channels(x, channels) for x in np.rint(pixels).astype(np.uint8)])
    colours = np.stack([to_channels(x[None].astype(np.uint8), channels)[0] for x in colours])
    kinds = len(pages), len(lines), len(textures)
    return Detail(images, covered, colours.astype(np.float64), words, tuple(written), kinds)


def measure(detail: Detail, reconstructions: np.ndarray) -> dict[str, float]:
    """What reconstructions kept.

    Args:
      detail: of `draw`.
      reconstructions: of its images, uint8 or float in [-1, 1], [M, H, W, C].

    Returns:
      `detail_characters`, `detail_words`: the share that is read right, of letters among 26 and of words among all.
      `detail_lines`: the share of lines' pixels that have more than half of the ink; `detail_contrast`: how much more
      ink they have than the others, as drawn 1. `detail_texture`: the share of the textures' spectral energy that is
      kept in phase (of any frequency but 0). `detail_psnr_db`, `detail_ssim` of all pictures.
    """
    decoded = to_uint8(reconstructions)
    paper, ink = detail.colours[:, 0, None, None], detail.colours[:, 1, None, None]
    # How much of the way from the paper's colour to the ink's each pixel is.
    found = np.sum((decoded - paper) * (ink - paper), axis=-1) / np.sum(np.square(ink - paper), axis=-1)
    right = [_read(detail, found[word.picture], word) for word in detail.written]
    firsts = np.cumsum(detail.kinds)
    lines = slice(firsts[0], firsts[1])
    on = detail.covered[lines] > SEEN
    drawn, kept = detail.covered[firsts[1] :], found[firsts[1] :]
    centred = drawn - drawn.mean(axis=(1, 2), keepdims=True)
    # By Parseval a sum over pixels is that over frequencies; a mean of 0 leaves out frequency 0.
    gain = np.sum(kept * centred, axis=(1, 2)) / np.sum(np.square(centred), axis=(1, 2))
    images = [x.astype(np.float64) / 127.5 - 1 for x in (detail.images, decoded)]
    return dict(
        detail_characters=float(np.mean([letter for letters, _ in right for letter in letters])),
        detail_words=float(np.mean([word for _, word in right])),
        detail_lines=float(np.mean(found[lines][on] > SEEN)),
        detail_contrast=float(np.mean(found[lines][on]) - np.mean(found[lines][~on])),
        detail_texture=float(np.mean(np.square(np.clip(gain, 0, 1)))),
        detail_psnr_db=float(np.mean(metrics.psnr(*images))),
        detail_ssim=float(np.mean(metrics.ssim(*images))),
    )


def _fonts(side: int) -> list[int]:
    """Sizes of fonts, small to large."""
    found = [SMALLEST]
    while found[-1] * 2 <= side // 4:
        found.append(found[-1] * 2)
    return found


def _cell(font: int) -> tuple[int, int]:
    """Height and width of what a letter has for itself."""
    return font + font // 4, font - font // 8


@functools.cache
def _letter(letter: str, font: int) -> np.ndarray:
    """A letter in the middle of its cell: float64 [h, w], how much ink each pixel has."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = _cell(font)
    picture = Image.new("L", (width, height))
    place = width / 2, height / 2
    ImageDraw.Draw(picture).text(place, letter, 255, ImageFont.load_default(size=font), anchor="mm")
    return np.asarray(picture) / 255


@functools.cache
def _word(word: str, font: int) -> np.ndarray:
    return np.concatenate([_letter(letter, font) for letter in word], axis=1)


def _page(
    rng: np.random.Generator, size: tuple[int, int], words: Sequence[str], font: int, picture: int
) -> tuple[np.ndarray, list[Word]]:
    """As many words as fit, or `MOST`, drawn by lot: what is covered [H, W], and where each of them is."""
    page, written = np.zeros(size), []
    height, width = _word(words[0], font).shape
    rows, columns = max(size[0] // height, 1), max(size[1] // width, 1)
    for place in rng.permutation(rows * columns)[:MOST]:
        top, left = place // columns * height, place % columns * width
        word = Word(int(rng.integers(len(words))), picture, int(top), int(left), font)
        drawn = _word(words[word.number], font)
        page[top : top + height, left : left + width] = drawn[: size[0], : size[1]]
        written.append(word)
    return page, written


def _lines(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Lines of one pixel from edge to edge: what is covered [H, W]."""
    from PIL import Image, ImageDraw

    height, width = size
    picture = Image.new("1", (width, height))
    for i in range(LINES):
        along = rng.uniform(0, 1, 2)
        if i % 2:
            ends = [(0, along[0] * (height - 1)), (width - 1, along[1] * (height - 1))]
        else:
            ends = [(along[0] * (width - 1), 0), (along[1] * (width - 1), height - 1)]
        ImageDraw.Draw(picture).line([(round(x), round(y)) for x, y in ends], fill=1)
    return np.asarray(picture).astype(np.float64)


def _texture(number: int, size: tuple[int, int]) -> np.ndarray:
    """Stripes of one of `PERIODS` in one of `DIRECTIONS`: what is covered [H, W]."""
    period, (down, right) = PERIODS[number % len(PERIODS)], DIRECTIONS[number // len(PERIODS)]
    rows, columns = np.indices(size)
    return ((rows * down + columns * right) % period < period / 2).astype(np.float64)


def _read(detail: Detail, found: np.ndarray, word: Word) -> tuple[list[bool], bool]:
    """Of a word in a picture's ink [H, W], which letters are read right, and whether it is."""
    text = detail.words[word.number]
    height, width = _cell(word.font)
    there = found[word.top :, word.left :][:height, : width * len(text)]
    letters = [
        _most_alike(there[:, i * width : (i + 1) * width], tuple(LETTERS), word.font) == LETTERS.index(letter)
        for i, letter in enumerate(text)
    ]
    return letters, _most_alike(there, detail.words, word.font) == word.number


def _most_alike(found: np.ndarray, candidates: tuple[str, ...], font: int) -> int:
    """Which candidate correlates most with what was found [h, w]; -1 where that is all of one colour."""
    centred = found - found.mean()
    if not np.any(np.abs(centred) > 1e-9):
        return -1
    return int(np.argmax(_units(candidates, font, found.shape) @ centred.ravel()))


@functools.lru_cache(64)
def _units(texts: tuple[str, ...], font: int, shape: tuple[int, int]) -> np.ndarray:
    """Texts as they are drawn, of mean 0 and norm 1: float64 [texts, h w]."""
    drawn = np.stack([_word(text, font)[: shape[0], : shape[1]].ravel() for text in texts])
    drawn = drawn - drawn.mean(axis=1, keepdims=True)
    return drawn / np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-9)
