"""Line charts as SVG text, to stand inside a page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

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


def marks(
    title: str, across: str, series: Mapping[str, Sequence[tuple[float, float, float]]], up: str = ""
) -> str:
    """An SVG chart of named points (x, y, spread of y), each with a bar from y - spread to y + spread.

    Points of one name are joined by a line. Both axes are logarithmic where their values are positive; `across` and
    `up` say what they are of. Values that are not finite are left out.
    """
    kept = {name: [p for p in points if all(map(math.isfinite, p))] for name, points in series.items()}
    kept = {name: sorted(points) for name, points in kept.items() if points}
    if not kept:
        return ""
    every = [p for points in kept.values() for p in points]
    width, height, left, right, top, bottom = 460, 300, 52, 70, 14, 44
    low_x, high_x = min(p[0] for p in every), max(p[0] for p in every)
    place_x, ticks_x = _axis(low_x, high_x, left, width - right)
    low_y = min(max(y - s, 0.0) if y > 0 else y - s for _, y, s in every)
    place_y, ticks_y = _axis(low_y, max(y + s for _, y, s in every), height - bottom, top)
    parts = []
    for tick in ticks_y:
        y = place_y(tick)
        parts.append(f'<line class="rule" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks_x:
        x = place_x(tick)
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick:.3g}</text>')
    middle = (left + width - right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{html.escape(across)}</text>')
    for i, (name, points) in enumerate(kept.items()):
        color = f"--line:hsl({(18 + 360 * i / len(kept)) % 360:.0f} 62% 45%)"
        at = [(place_x(x), place_y(y)) for x, y, _ in points]
        drawn = []
        if len(at) > 1:
            drawn.append(f'<polyline class="line" points="{_points(*zip(*at))}"/>')
        for (x, y), (_, value, spread) in zip(at, points, strict=True):
            if spread > 0:
                ends = place_y(max(value - spread, low_y)), place_y(value + spread)
                drawn.append(f'<polyline class="line" points="{_points((x, x), ends)}"/>')
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>')
        x, y = at[-1]
        drawn.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}">{html.escape(name)}</text>')
        parts.append(f'<g style="{color}">{"".join(drawn)}</g>')
    note = f"<span>{html.escape(up)}</span>" if up else ""
    return (
        f'<figure class="chart marks"><figcaption><b>{html.escape(title)}</b>{note}</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _axis(low: float, high: float, start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """Where values from `low` to `high` lie between two places, and round numbers to write there."""
    logarithmic = low > 0
    ticks = _log_ticks(low, high) if logarithmic else _ticks(low, high)
    if logarithmic and len(ticks) > 1 and ticks[-1] / ticks[0] <= 10 and high / low < 2:
        ticks = _ticks(low, high)  # too near each other for 1, 2 and 5
        logarithmic = ticks[0] > 0
    a, b = ticks[0], max(ticks[-1], high)
    if logarithmic:
        return lambda v: start + (end - start) * (math.log(v / a) / (math.log(b / a) or 1.0)), ticks
    return lambda v: start + (end - start) * (v - a) / ((b - a) or 1.0), ticks


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
