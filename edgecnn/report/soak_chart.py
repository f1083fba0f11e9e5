"""The curve of a soak as an SVG file of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecnn.soak import Soak

_WIDTH, _LEFT, _RIGHT = 860, 64, 20
_TOP, _PANEL, _GAP, _BOTTOM = 104, 190, 44, 48
# The latency's axis spans this share of its median at least, or noise would look like a change.
_LEAST_SPAN = 0.2
_LEAST_SPAN_C = 10.0
# Longer than this, the time is in minutes.
_MINUTES_FROM_S = 180.0

_STYLE = """
:root { --card: #ffffff; --ink: #1d1c1a; --soft: #625d56; --line: #e2ded7; --mark: #2f62b5;
  --mark-soft: #c9d8f0; --heat: #a9271c; --throttled: #fbe5e2; }
@media (prefers-color-scheme: dark) {
  :root { --card: #1e1d1c; --ink: #eceae6; --soft: #a8a299; --line: #373431; --mark: #86aef2;
    --mark-soft: #2b3d5d; --heat: #ff8f84; --throttled: #3a1b18; } }
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--soft); }
.title { font-size: 16px; font-weight: 600; fill: var(--ink); }
.told { fill: var(--ink); }
.card { fill: var(--card); }
.grid { stroke: var(--line); }
.band { fill: var(--mark-soft); }
.latency { fill: none; stroke: var(--mark); stroke-width: 2; stroke-linejoin: round; }
.heat { fill: none; stroke: var(--heat); stroke-width: 2; stroke-linejoin: round; }
.throttled { fill: var(--throttled); }
"""

Pairs = list[tuple[float, float]]


def soak_chart(soak: Soak) -> str:
    """Latency over time, median and middle four fifths; below it the temperature, where it was told.

    Stretches in which the processor was throttled are shaded.
    """
    m, points = soak.measurement, soak.points
    in_minutes = soak.seconds >= _MINUTES_FROM_S
    unit_s = 60.0 if in_minutes else 1.0
    times = [point.at_s / unit_s for point in points]
    end = soak.seconds / unit_s
    heat = [(at, p.temperature_c) for at, p in zip(times, points, strict=True) if p.temperature_c is not None]
    panels = 2 if heat else 1
    height = _TOP + panels * _PANEL + (panels - 1) * _GAP + _BOTTOM
    right = _WIDTH - _RIGHT

    def x(time: float) -> float:
        return _LEFT + (right - _LEFT) * time / end

    half_s = soak.seconds / len(points) / 2
    shaded: list[tuple[float, float]] = []
    for point in points:
        if point.throttled:
            begin, close = x((point.at_s - half_s) / unit_s), x((point.at_s + half_s) / unit_s)
            if shaded and begin - shaded[-1][1] < 1:  # one stretch with the one before
                begin = shaded.pop()[0]
            shaded.append((max(begin, _LEFT), min(close, right)))

    def panel(top: float, low: float, high: float, name: str) -> tuple[str, Callable[[float], float]]:
        bottom = top + _PANEL

        def y(value: float) -> float:
            return bottom - _PANEL * (value - low) / (high - low)

        svg = "".join(
            f'<rect class="throttled" x="{a:.1f}" y="{top}" width="{b - a:.1f}" height="{_PANEL}"/>'
            for a, b in shaded
        )
        for tick in _ticks(low, high):
            svg += (
                f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
                f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
            )
        return svg + f'<text class="told" x="{_LEFT}" y="{top - 10}">{name}</text>', y

    lowest, highest = min(p.p10_ms for p in points), max(p.p90_ms for p in points)
    low, high = _widened(lowest, highest, _LEAST_SPAN * soak.last_ms)
    svg, y = panel(_TOP, low, high, "latency, ms: median and middle four fifths")
    upper = [(x(at), y(p.p90_ms)) for at, p in zip(times, points, strict=True)]
    lower = [(x(at), y(p.p10_ms)) for at, p in zip(times, points, strict=True)]
    svg += f'<path class="band" d="{_path(upper + lower[::-1])} Z"/>'
    median = [(x(at), y(p.p50_ms)) for at, p in zip(times, points, strict=True)]
    svg += f'<path class="latency" d="{_path(median)}"/>'
    if heat:
        low, high = _widened(min(c for _, c in heat), max(c for _, c in heat), _LEAST_SPAN_C)
        part, y = panel(_TOP + _PANEL + _GAP, low, high, "temperature, °C")
        svg += f'{part}<path class="heat" d="{_path([(x(at), y(c)) for at, c in heat])}"/>'
    foot = height - _BOTTOM + 18
    for tick in _ticks(0, end, 9):
        svg += f'<text x="{x(tick):.1f}" y="{foot}" text-anchor="middle">{tick:g}</text>'
    unit = "minutes" if in_minutes else "seconds"
    svg += f'<text x="{right}" y="{foot + 20}" text-anchor="end">{unit}</text>'
    if shaded:
        svg += f'<text x="{_LEFT}" y="{foot + 20}">shaded: the processor was throttled</text>'
    title = escape(f"{m.variant} {m.precision}, {m.runtime} on {m.device}")
    told = escape(soak.sentence)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img" aria-label="{title}: {told}"><style>{_STYLE}</style>'
        f'<rect class="card" width="{_WIDTH}" height="{height}"/>'
        f'<text class="title" x="{_LEFT}" y="28">{title}</text>'
        f'<text class="told" x="{_LEFT}" y="50">{told}</text>{svg}</svg>\n'
    )


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    """A range around the values, of a least width, and not below 0."""
    missing = max(0.0, least - (high - low)) / 2 + 0.05 * max(least, high - low)
    return max(0.0, low - missing), high + missing


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values in the range, 1, 2 or 5 times a power of ten apart, and not many more than ``most``."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    # Rounded, since 3 * 0.1 is not 0.3.
    return [
        round(step * place, 9)
        for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M " + " L ".join(f"{x:.1f} {y:.1f}" for x, y in places)
