"""The ranking as one picture: a line for each system, with some of what it draws and where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from vargen.clips import as_pictures
from vargen.report import pictures
from vargen.report.metrics import METRICS

if TYPE_CHECKING:
    from vargen.report.comparison import Comparison

SHOWN = 8  # pictures of a system
PAPER, INK, SOFT, RULE, ACCENT = (
    (251, 250, 247),
    (28, 28, 32),
    (106, 106, 114),
    (230, 227, 220),
    (180, 69, 31),
)
ROW, SIDE, AXIS, EDGE = 56, 44, 300, 24  # pixels


def draw(c: Comparison) -> Image.Image:
    """A picture of `Comparison.ranks`: rank, name, pictures of different classes, mean and spread on one axis."""
    names = list(c.ranks)
    found = {name: c.spreads(name)[c.ranked] for name in names}
    spread_of = "mean and spread" if c.seeds > 1 else "one seed"
    lead = f"{c.title}; {METRICS[c.ranked].label}, {spread_of}: less is better"
    fonts = [pictures.font(lead + "±" + "".join(map(c.called, names)), size) for size in (20, 15)]
    text = max(fonts[0].getlength(c.called(name)) for name in names)
    strip = SHOWN * (SIDE + 4) if c.pictures else 0
    left = EDGE + 44 + int(text) + 20 + strip + 16
    top = EDGE + 34
    sheet = Image.new("RGB", (left + AXIS + 120 + EDGE, top + ROW * len(names) + EDGE), PAPER)
    d = ImageDraw.Draw(sheet)
    high = max(s.high for s in found.values()) or 1.0
    d.text((EDGE, EDGE), lead, SOFT, fonts[1])
    for i, name in enumerate(names):
        y, spread = top + i * ROW + ROW // 2, found[name]
        d.line((EDGE, y - ROW // 2, sheet.width - EDGE, y - ROW // 2), RULE)
        d.text((EDGE + 28, y), str(c.ranks[name]), ACCENT, fonts[0], anchor="rm")
        d.text((EDGE + 44, y), c.called(name), INK, fonts[0], anchor="lm")
        for k, image in enumerate(_some(*c.pictures[name]) if name in c.pictures else ()):
            cell = (
                pictures.to_pil(as_pictures(image[None])[0])
                .convert("RGB")
                .resize((SIDE, SIDE), Image.Resampling.NEAREST)
            )
            sheet.paste(cell, (EDGE + 44 + int(text) + 20 + k * (SIDE + 4), y - SIDE // 2))
        a, m, b = (left + AXIS * max(v, 0.0) / high for v in (spread.low, spread.mean, spread.high))
        d.line((left, y, left + AXIS, y), RULE)
        d.line((a, y, b, y), ACCENT, 3)
        d.ellipse((m - 5, y - 5, m + 5, y + 5), ACCENT)
        shown = METRICS[c.ranked].show(spread.mean)
        if spread.deviation is not None:
            shown += f" ± {METRICS[c.ranked].show(spread.deviation)}"
        d.text((left + AXIS + 16, y), shown, INK, fonts[1], anchor="lm")
    return sheet


def _some(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The first picture of each of some classes, then the second, until there are enough."""
    place = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    return images[np.lexsort((labels, place))[:SHOWN]]
