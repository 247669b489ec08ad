"""Bar charts and curves as SVG: a few shapes, so that the files are small and their differences can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, ROW, TOP = 720, 250, 70, 30, 64
HEIGHT = 380
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Palette:
    """The colours of a page: text, faint lines, our side, the other sides in order."""

    name: str
    text: str
    faint: str
    ours: str
    others: tuple[str, ...]


LIGHT = Palette(
    "light", "#1f2328", "#d0d7de", "#0a7f5a", ("#8a94a6", "#b35900", "#6f42c1", "#0969da", "#c0392b", "#5d6d31")
)
DARK = Palette(
    "dark", "#e6edf3", "#3d444d", "#3fd0a0", ("#8b98a9", "#e3a35c", "#b392f0", "#6cb6ff", "#f08c80", "#b5c77a")
)


def _is_ours(name: str) -> bool:
    return name.startswith("trio-channels")


def _text(
    x: float, y: float, content: str, colour: str, size: int = 13, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )


def _picture(height: float, title: str, unit: str, parts: Sequence[str], palette: Palette) -> str:
    head = [
        _text(0, 22, title, palette.text, 17, weight=600),
        _text(0, 44, f"{unit}; less is better", palette.text),
    ]
    body = "\n".join([*head, *parts])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="{FONT}" role="img" aria-label="{escape(title, quote=True)}">\n'
        f"{body}\n</svg>\n"
    )


def bars(title: str, unit: str, sides: Sequence[tuple[str, float]], palette: Palette) -> str:
    """One bar for each side, with its value."""
    longest = max(value for _, value in sides)
    parts = []
    for place, (name, value) in enumerate(sides):
        y = TOP + place * ROW
        colour = palette.ours if _is_ours(name) else palette.others[0]
        length = max(2.0, (WIDTH - LEFT - RIGHT) * value / longest)
        weight = 600 if _is_ours(name) else 400
        parts += [
            _text(LEFT - 10, y + 15, name, palette.text, anchor="end", weight=weight),
            f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="20" rx="3" fill="{colour}"/>',
            _text(LEFT + length + 6, y + 15, f"{value:,.0f}" if value >= 20 else f"{value:.1f}", palette.text),
        ]
    return _picture(TOP + len(sides) * ROW + 6, title, unit, parts, palette)


def curves(title: str, unit: str, lines: dict[str, list[tuple[float, float]]], palette: Palette) -> str:
    """One line for each side over the size; both axes are logarithmic."""
    points = [point for line in lines.values() for point in line]
    least_x, most_x = (math.log10(choose(x for x, _ in points)) for choose in (min, max))
    least_y, most_y = (math.log10(choose(y for _, y in points)) for choose in (min, max))
    right, bottom = WIDTH - 255, HEIGHT - 40

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - least_x) / ((most_x - least_x) or 1)
        up = (math.log10(y) - least_y) / ((most_y - least_y) or 1)
        return 50 + along * (right - 50), bottom - up * (bottom - TOP - 10)

    parts = []
    for size in sorted({x for x, _ in points}):
        x, _ = place(size, 10**least_y)
        parts += [
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom + 8}" stroke="{palette.faint}"/>',
            _text(x, bottom + 26, f"{size:,.0f}", palette.text, anchor="middle"),
        ]
    for power in range(math.ceil(least_y), math.floor(most_y) + 1):
        _, y = place(10**least_x, 10**power)
        parts += [
            f'<line x1="50" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="{palette.faint}"/>',
            _text(42, y + 4, f"{10**power:g}", palette.text, anchor="end"),
        ]
    free = TOP
    colours = iter(palette.others * 2)
    for name, line in sorted(lines.items(), key=lambda one: -one[1][-1][1]):
        ours = _is_ours(name)
        colour = palette.ours if ours else next(colours)
        dash = ' stroke-dasharray="6 4"' if name.endswith("group_broadcast") else ""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        _, y = place(*line[-1])
        free = max(free, y + 4)  # so that no name stands on another
        parts += [
            f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="{3 if ours else 2}"{dash}/>',
            _text(right + 8, free, name, colour, weight=600 if ours else 400),
        ]
        free += 16
    return _picture(max(HEIGHT, free + 4), title, unit, parts, palette)
