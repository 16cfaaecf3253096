"""Draws plots as inline SVG, colored by the page's style sheet: points with labels, and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 520, 360
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 16, 44
COLORS = 8  # --c0 to --c7 in the style sheet


class Point(NamedTuple):
    """A point of a scatter plot; ``color`` is a number of the palette, ``None`` for a published one."""

    label: str
    x: float
    y: float
    color: int | None


class Axis(NamedTuple):
    """From what to what an axis goes; ``first`` is at the left or bottom, and may be the larger."""

    label: str
    first: float
    last: float

    def place(self, value: float) -> float:
        """Return where a value lies, 0 to 1."""
        return (value - self.first) / (self.last - self.first)

    def x(self, value: float) -> float:
        """Return the pixel of a value on a horizontal axis."""
        return LEFT + self.place(value) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixel of a value on a vertical axis."""
        return HEIGHT - BOTTOM - self.place(value) * (HEIGHT - TOP - BOTTOM)


def axis(label: str, values: Sequence[float], lower_is_better: bool = False) -> Axis:
    """Return an axis around values, with the better end at the right or top."""
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    ends = (low - margin, high + margin)
    return Axis(label, *(reversed(ends) if lower_is_better else ends))


def ticks(first: float, last: float) -> list[float]:
    """Return about five round numbers between two, whichever is larger."""
    low, high = sorted((first, last))
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def scatter(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    """Return a scatter plot; labels are put where they hide nothing, as far as that goes."""
    places = [(point, x_axis.x(point.x), y_axis.y(point.y)) for point in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for _, x, y in places]
    parts = []
    for point, x, y in sorted(places, key=lambda place: place[0].color is None):
        left, base = _free_place(x, y, 6.4 * len(point.label), taken)
        if point.color is None:
            look, text_look = 'r="4" class="published"', 'class="theirs"'
        else:
            look, text_look = f'r="6" style="fill:var(--c{point.color % COLORS})"', 'style="font-weight:600"'
        tip = f"{point.label}: {x_axis.label} {point.x:.4g}, {y_axis.label} {point.y:.4g}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(tip)}</title></circle>')
        parts.append(f'<text x="{left:.1f}" y="{base:.1f}" {text_look}>{escape(point.label)}</text>')
    return _svg(x_axis, y_axis, "".join(parts))


def _free_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Return where a label begins, beside, above or below its point, where the fewest things are; it is taken then."""

    def box(place: tuple[float, float]) -> tuple[float, float, float, float]:
        return place[0], place[1] - 11, place[0] + width, place[1] + 3

    def hidden(place: tuple[float, float]) -> int:
        left, top, right, bottom = box(place)
        return sum(left < b[2] and b[0] < right and top < b[3] and b[1] < bottom for b in taken)

    places = [(x + 9, y + 4), (x - 9 - width, y + 4), (x - width / 2, y - 10), (x - width / 2, y + 19)]
    best = min([(min(max(left, LEFT + 2), WIDTH - RIGHT - width), base) for left, base in places], key=hidden)
    taken.append(box(best))
    return best


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    colors: Mapping[str, int] | None = None,
    marks: Mapping[float, str] | None = None,
) -> str:
    """Return a plot of lines; ``marks`` are dashed vertical lines with a label each, which may be empty."""
    finite = {name: [(x, y) for x, y in curve if math.isfinite(y)] for name, curve in curves.items()}
    xs, ys = ([point[place] for curve in finite.values() for point in curve] for place in (0, 1))
    if not ys:
        return ""
    x_axis, y_axis = Axis(x_label, min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1), axis(y_label, ys)
    parts = []
    for x, label in (marks or {}).items():
        left = x_axis.x(x)
        parts.append(f'<line class="mark" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{left + 4:.1f}" y="{TOP + 12}">{escape(label)}</text>')
    for number, (name, curve) in enumerate(finite.items()):
        points = " ".join(f"{x_axis.x(x):.1f},{y_axis.y(y):.1f}" for x, y in curve)
        look = f'style="stroke:var(--c{(colors or {}).get(name, number) % COLORS})"'
        parts.append(f'<polyline {look} points="{points}"><title>{escape(name)}</title></polyline>')
    return _svg(x_axis, y_axis, "".join(parts))


def legend(names: Mapping[str, int]) -> str:
    """Return the names of the colors."""
    items = (
        f'<span><i style="background:var(--c{color % COLORS})"></i>{escape(name)}</span>'
        for name, color in names.items()
    )
    return f'<div class="legend">{"".join(items)}</div>'


def _svg(x_axis: Axis, y_axis: Axis, content: str) -> str:
    frame, bottom, right = [], HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in ticks(x_axis.first, x_axis.last):
        x = x_axis.x(value)
        frame.append(f'<line class="mesh" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        frame.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in ticks(y_axis.first, y_axis.last):
        y = y_axis.y(value)
        frame.append(f'<line class="mesh" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        frame.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    center, middle = (LEFT + right) / 2, (TOP + bottom) / 2
    x_label, y_label = escape(x_axis.label), escape(y_axis.label)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{y_label} against {x_label}">{"".join(frame)}'
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>'
        f'<text x="{center}" y="{HEIGHT - 8}" text-anchor="middle">{x_label}</text>'
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{y_label}</text>{content}</svg>'
    )
