"""Line charts as SVG text, to stand inside a page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

Series = tuple[Sequence[float], Sequence[float]]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 260, 52, 12, 14, 34


def chart(title: str, series: Mapping[str, Series]) -> str:
    """An SVG line chart in a figure: one smoothed line over its faint raw values for each series.

    The vertical axis is logarithmic where the values are positive and span more than a factor of eight.
    Values that are not finite are left out.
    """
    finite = {name: _finite(*xy) for name, xy in series.items()}
    finite = {name: xy for name, xy in finite.items() if len(xy[0])}
    if not finite:
        return ""
    every_x = np.concatenate([x for x, _ in finite.values()])
    every_y = np.concatenate([y for _, y in finite.values()])
    low, high = float(every_y.min()), float(every_y.max())
    logarithmic = low > 0 and high / low > 8
    ticks_y = _log_ticks(low, high) if logarithmic else _ticks(low, high)
    low, high = min(low, ticks_y[0]), max(high, ticks_y[-1])
    last = float(every_x.max()) or 1.0

    def place_x(x):
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * np.asarray(x) / last

    def place_y(y):
        y, a, b = (np.log(y), math.log(low), math.log(high)) if logarithmic else (np.asarray(y), low, high)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (y - a) / ((b - a) or 1.0)

    parts = []
    for tick in ticks_y:
        y = float(place_y(tick))
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _ticks(0, last)[1:]:
        if tick <= last * 1.001:
            x = float(place_x(tick))
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{tick:,.0f}</text>')
    legend = []
    for i, (name, (x, y)) in enumerate(finite.items()):
        parts.append(f'<polyline class="raw s{i}" points="{_points(place_x(x), place_y(y))}"/>')
        parts.append(f'<polyline class="line s{i}" points="{_points(place_x(x), place_y(_smooth(y)))}"/>')
        legend.append(f'<span class="s{i}">{html.escape(name)}: {float(_smooth(y)[-1]):.4g}</span>')
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b>{"".join(legend)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _finite(x: Sequence[float], y: Sequence[float], most: int = 300) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    keep = np.flatnonzero(np.isfinite(y))
    keep = (
        keep[np.unique(np.linspace(0, len(keep) - 1, min(len(keep), most)).round().astype(int))]
        if len(keep)
        else keep
    )
    return x[keep], y[keep]


def _smooth(y: np.ndarray) -> np.ndarray:
    """A centred running mean over a twentieth of the curve, shorter at its ends."""
    half = len(y) // 40
    total = np.concatenate([[0.0], np.cumsum(y)])
    i = np.arange(len(y))
    reach = np.minimum(np.minimum(i, len(y) - 1 - i), half)
    return (total[i + reach + 1] - total[i - reach]) / (2 * reach + 1)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from just below `low` to just above `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(m * power for m in (1, 2, 5, 10) if m * power * wanted >= span * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten around [low, high]; powers alone where those would be many."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        every = [m * 10.0**p for p in powers for m in multiples]
        inside = [t for t in every if low < t < high]
        below, above = max(t for t in every if t <= low), min(t for t in [*every, math.inf] if t >= high)
        if len(inside) <= 5:
            break
    return [below, *inside, *([above] if math.isfinite(above) else [])]
