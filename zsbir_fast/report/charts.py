"""Line charts as inline SVG; colours come from the page's style, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from zsbir_fast.report.content import Curve

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 40


def line_chart(curve: Curve) -> Markup:
    """Draw a curve.

    Args:
        curve: at least one series with at least one point.

    Returns:
        An ``<svg>`` element; series ``i`` has the style class ``s<i>``.

    Raises:
        ValueError: no series has a finite point.
    """
    series = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in curve.series.items()
    }
    points = [p for line in series.values() for p in line]
    if not points:
        raise ValueError(f"line_chart: curve must have a finite point, got none in {curve.title!r}")
    x_ticks = _ticks(min(p[0] for p in points), max(p[0] for p in points))
    y_ticks = _ticks(min(p[1] for p in points), max(p[1] for p in points))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(curve.title)}">'
    ]
    for y in y_ticks:
        py = _place_y(y, y_ticks)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{py}" y2="{py}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{py + 4}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        px = _place_x(x, x_ticks)
        parts.append(f'<text x="{px}" y="{_HEIGHT - 22}" text-anchor="middle">{x:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    label = escape(curve.x_label)
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{label}</text>')
    for index, line in enumerate(series.values()):
        path = " ".join(f"{_place_x(x, x_ticks)},{_place_y(y, y_ticks)}" for x, y in line)
        parts.append(f'<polyline class="line s{index}" points="{path}"/>')
    parts.append("</svg>")
    return Markup("".join(parts))


def _place_x(x: float, ticks: Sequence[float]) -> float:
    share = (x - ticks[0]) / (ticks[-1] - ticks[0])
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _place_y(y: float, ticks: Sequence[float]) -> float:
    share = (y - ticks[0]) / (ticks[-1] - ticks[0])
    return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that enclose [low, high]."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
