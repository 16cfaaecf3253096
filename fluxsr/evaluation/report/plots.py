"""Draws plots as inline SVG, colored by the page's style sheet: points with labels, and lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 520, 360
LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 14, 16, HEIGHT - 44  # of the frame
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

    def x(self, value: float) -> float:
        """Return the pixel of a value on a horizontal axis."""
        return LEFT + (value - self.first) / (self.last - self.first) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        """Return the pixel of a value on a vertical axis."""
        return BOTTOM + (value - self.first) / (self.last - self.first) * (TOP - BOTTOM)

    def ticks(self) -> list[float]:
        """Return about five round numbers on it."""
        low, high = sorted((self.first, self.last))
        rough = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def axis(label: str, values: Sequence[float], lower_is_better: bool = False) -> Axis:
    """Return an axis around values, with the better end at the right or top."""
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    ends = (low - margin, high + margin)
    return Axis(label, *(reversed(ends) if lower_is_better else ends))


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
        parts.append(_text(left, base, point.label, text_look))
    return _svg(x_axis, y_axis, parts)


def _free_place(
    x: float, y: float, width: float, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Return where a label begins, beside, above or below its point, where the fewest things are; it is taken then."""
    found = []
    for left, base in (x + 9, y + 4), (x - 9 - width, y + 4), (x - width / 2, y - 10), (x - width / 2, y + 19):
        begin = min(max(left, LEFT + 2), RIGHT - width)
        box = (begin, base - 11, begin + width, base + 3)
        hidden = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
        found.append((hidden, begin, base, box))
    _, begin, base, box = min(found, key=lambda place: place[0])
    taken.append(box)
    return begin, base


def line(curve: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """Return a plot of a curve, of which what is no number is left out; empty if all is."""
    finite = [(x, y) for x, y in curve if math.isfinite(y)]
    if not finite:
        return ""
    first, last = finite[0][0], finite[-1][0]
    x_axis, y_axis = Axis(x_label, first, max(last, first + 1)), axis(y_label, [y for _, y in finite])
    points = " ".join(f"{x_axis.x(x):.1f},{y_axis.y(y):.1f}" for x, y in finite)
    return _svg(x_axis, y_axis, [f'<polyline style="stroke:var(--c0)" points="{points}"/>'])


def _svg(x_axis: Axis, y_axis: Axis, content: Sequence[str]) -> str:
    frame, middle = [], (TOP + BOTTOM) / 2
    for value in x_axis.ticks():
        frame.append(_mesh(x_axis.x(value), TOP, x_axis.x(value), BOTTOM))
        frame.append(_text(x_axis.x(value), BOTTOM + 16, f"{value:g}", 'class="tick" text-anchor="middle"'))
    for value in y_axis.ticks():
        frame.append(_mesh(LEFT, y_axis.y(value), RIGHT, y_axis.y(value)))
        frame.append(_text(LEFT - 6, y_axis.y(value) + 4, f"{value:g}", 'class="tick" text-anchor="end"'))
    frame.append(f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>')
    frame.append(_text((LEFT + RIGHT) / 2, HEIGHT - 8, x_axis.label, 'text-anchor="middle"'))
    frame.append(_text(14, middle, y_axis.label, f'text-anchor="middle" transform="rotate(-90 14 {middle})"'))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_axis.label)} against {escape(x_axis.label)}">'
        f"{''.join([*frame, *content])}</svg>"
    )


def _mesh(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="mesh" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
