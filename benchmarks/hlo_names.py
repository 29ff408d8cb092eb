"""Which parts of a model the launches and bytes of a compiled program come from, by the names that operations bear."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks import hlo

# The first that an operation's name (the scopes in which it was traced) has: where of a generator it comes from.
PRODUCT = r"(few_rows|product_of|\.flat|dot_general)"
PARTS = {
    "modulations": r"modulat(e|ions)\b",
    "attention": r"step_attention|attention_moving",
    "projections": rf"/mixer.*{PRODUCT}",
    "queries, keys and the cache": r"/mixer",
    "feed-forward": rf"/feed_forward.*{PRODUCT}",
    "norms and residuals": r"Block|FinalNorm",
    "denoiser": r"enoiser",
    "head": r"Categorical|Diffusion|\.sample/",
    "feed": r"step_inputs|absorb|enter|outputs",
}


def by_part(program: hlo.Program) -> dict[str, dict[str, float]]:
    """Launches and megabytes of each of `PARTS`, and of the rest; the largest first."""
    found: dict[str, list[float]] = {}
    for name, times, counts in _launches(program, program.entry, 1.0):
        part = next((part for part, pattern in PARTS.items() if re.search(pattern, name)), "rest")
        sums = found.setdefault(part, [0.0, 0.0])
        sums[0] += times * counts.launches
        sums[1] += times * counts.bytes / 1e6
    largest = sorted(found.items(), key=lambda item: -item[1][1])
    return {part: dict(launches=launches, mbytes=mbytes) for part, (launches, mbytes) in largest}


def _launches(program: hlo.Program, name: str, times: float) -> Iterator[tuple[str, float, hlo.Counts]]:
    for i, counts, inner, more in program.walk(name):
        if counts is None:
            yield from _launches(program, inner, times * more)
        else:
            label = re.search(r'op_name="([^"]*)"', i.attributes)
            yield label[1] if label else "", times, counts
