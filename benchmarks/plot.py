"""A bar chart as SVG: a group of bars for each contestant, on a logarithmic scale. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_COLOURS: Final = ("#33658a", "#f6ae2d", "#c8553d")
_LEFT, _RIGHT, _TOP, _BOTTOM = 290, 60, 70, 40
_WIDTH, _BAR, _GAP = 900, 12, 12


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw.

    Args:
        title: The heading.
        unit: What the axis counts.
        series: The name of each bar of a group.
        groups: By the name of a group, the value of each of its bars; None for one that is missing.
    """

    title: str
    unit: str
    series: Sequence[str]
    groups: Mapping[str, Sequence[float | None]]


def as_svg(chart: Chart) -> str:
    """Return *chart* as an SVG document; it has at least one value."""
    group_height = _BAR * len(chart.series) + _GAP
    height = _TOP + group_height * len(chart.groups) + _BOTTOM
    values = [value for group in chart.groups.values() for value in group if value]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    scale = _Scale(low, max(high, low + 1))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="16" font-weight="bold">{escape(chart.title)}</text>',
        *_legend(chart.series),
        *_axis(scale, chart.unit, height),
    ]
    for number, (name, group) in enumerate(chart.groups.items()):
        top = _TOP + number * group_height
        middle = top + _BAR * len(chart.series) / 2 + 4
        parts.append(f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        parts += _bars(group, top, scale)
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Scale:
    """Powers of ten from *low* to *high* over the width of the chart."""

    low: int
    high: int

    def x(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _legend(series: Sequence[str]) -> list[str]:
    parts = []
    for number, name in enumerate(series):
        x = _LEFT + number * 160
        parts.append(f'<rect x="{x}" y="38" width="12" height="12" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 18}" y="48">{escape(name)}</text>')
    return parts


def _axis(scale: _Scale, unit: str, height: int) -> list[str]:
    parts = []
    for power in range(scale.low, scale.high + 1):
        x, label = scale.x(10.0**power), f"{10.0**power:g}"
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{height - _BOTTOM}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - _BOTTOM + 16}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{_WIDTH - 8}" y="{height - 8}" text-anchor="end">{escape(unit)}</text>')
    return parts


def _bars(group: Sequence[float | None], top: float, scale: _Scale) -> list[str]:
    parts = []
    for number, value in enumerate(group):
        if not value:
            continue
        y, end = top + number * _BAR, scale.x(value)
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR - 2}" fill="{colour}"/>')
        parts.append(f'<text x="{end + 4:.1f}" y="{y + _BAR - 2}" font-size="10">{value:.3g}</text>')
    return parts
