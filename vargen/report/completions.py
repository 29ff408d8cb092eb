"""One self-contained page of pictures of which a part was drawn anew: each before, what is kept of it, and after."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vargen import paths
from vargen.report import page


def write(
    where: paths.PathLike,
    title: str,
    lead: str,
    rows: Sequence[tuple[str, np.ndarray]],
    facts: Mapping[str, Any],
) -> None:
    """Writes the page.

    Args:
      where: the file.
      title: the headline.
      lead: a sentence of what stays.
      rows: of each picture what stands above it, and uint8 [2 + N, H, W, C]: before, kept, N completions.
      facts: how they were made.
    """
    parts = [
        f'<header><p class="kicker">vargen</p><h1>{html.escape(title)}</h1></header>',
        page.section("Drawn anew", lead, _rows(rows)),
        page.section("How it was made", "", page.listed(facts)),
    ]
    paths.write_text(where, page.whole(title, parts))


def _rows(rows: Sequence[tuple[str, np.ndarray]]) -> str:
    columns = max(len(images) for _, images in rows)
    lines = []
    for name, images in rows:
        words = ["before", "kept", *["after"] * (len(images) - 2)]
        cells = "".join(page.picture(x, f"{name}, {w}") for w, x in zip(words, images, strict=True))
        captions = "".join(f"<span>{word}</span>" for word in words)
        label = f'<span class="name">{html.escape(name)}</span>'
        lines.append(f'<div>{label}<div class="steps">{cells}{captions}</div></div>')
    return f'<div class="growth" style="--columns:{columns}">{"".join(lines)}</div>'
