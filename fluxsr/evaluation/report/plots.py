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

    def ends(self) -> tuple[float, float]:
        """Return the smaller and the larger end."""
        return min(self.first, self.last), max(self.first, self.last)


def axis(label: str, values: Sequence[float], lower_is_better: bool = False) -> Axis:
    """Return an axis around values, with the better end at the right or top."""
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    ends = (low - margin, high + margin)
    return Axis(label, *(reversed(ends) if lower_is_better else ends))


def scatter(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> str:
    """Return a scatter plot; labels are put where they hide nothing, as far as that goes."""
    places = [(point, *_pixel(x_axis.place(point.x), y_axis.place(point.y))) for point in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for _, x, y in places]
    parts = []
    for point, x, y in sorted(places, key=lambda place: place[0].color is None):
        text_x, text_y, box = _free_place(x, y, 6.4 * len(point.label), taken)
        taken.append(box)
        if point.color is None:
            look, text_look = 'r="4" class="published"', 'class="theirs"'
        else:
            look, text_look = f'r="6" style="fill:var(--c{point.color % COLORS})"', 'style="font-weight:600"'
        tip = f"{point.label}: {x_axis.label} {point.x:.4g}, {y_axis.label} {point.y:.4g}"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(tip)}</title></circle>')
        parts.append(f'<text x="{text_x:.1f}" y="{text_y:.1f}" {text_look}>{escape(point.label)}</text>')
    return _svg(x_axis, y_axis, "".join(parts), f"{y_axis.label} against {x_axis.label}")


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x_label: str,
    y_label: str,
    colors: Mapping[str, int] | None = None,
    marks: Mapping[float, str] | None = None,
) -> str:
    """Return a plot of lines; ``marks`` are dashed vertical lines with a label each, which may be empty."""
    xs = [x for curve in curves.values() for x, y in curve if math.isfinite(y)]
    ys = [y for curve in curves.values() for _, y in curve if math.isfinite(y)]
    if not ys:
        return ""
    x_axis = Axis(x_label, min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)
    y_axis = axis(y_label, ys)
    parts = []
    for x, label in (marks or {}).items():
        left, _ = _pixel(x_axis.place(x), 0)
        parts.append(f'<line class="mark" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{left + 4:.1f}" y="{TOP + 12}">{escape(label)}</text>' if label else "")
    for number, (name, curve) in enumerate(curves.items()):
        pixels = (_pixel(x_axis.place(x), y_axis.place(y)) for x, y in curve if math.isfinite(y))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
        color = (colors or {}).get(name, number) % COLORS
        parts.append(
            f'<polyline style="stroke:var(--c{color})" points="{points}"><title>{escape(name)}</title></polyline>'
        )
    return _svg(x_axis, y_axis, "".join(parts), f"{y_label} against {x_label}")


def legend(names: Mapping[str, int]) -> str:
    """Return the names of the colors."""
    items = (
        f'<span><i style="background:var(--c{color % COLORS})"></i>{escape(name)}</span>'
        for name, color in names.items()
    )
    return f'<div class="legend">{"".join(items)}</div>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers from ``low`` to ``high``."""
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _svg(x_axis: Axis, y_axis: Axis, content: str, title: str) -> str:
    frame = []
    bottom = HEIGHT - BOTTOM
    for value in ticks(*x_axis.ends()):
        x, _ = _pixel(x_axis.place(value), 0)
        frame.append(f'<line class="mesh" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        frame.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>')
    for value in ticks(*y_axis.ends()):
        _, y = _pixel(0, y_axis.place(value))
        frame.append(f'<line class="mesh" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        frame.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle, center = (TOP + bottom) / 2, (LEFT + WIDTH - RIGHT) / 2
    frame.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>')
    frame.append(f'<text x="{center}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_axis.label)}</text>')
    frame.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_axis.label)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(frame)}{content}</svg>'
    )


def _pixel(x: float, y: float) -> tuple[float, float]:
    return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)


Box = tuple[float, float, float, float]


def _free_place(x: float, y: float, width: float, taken: Sequence[Box]) -> tuple[float, float, Box]:
    """Return where a label's text begins, and its box: beside, above or below the point, where the fewest things are."""
    best = None
    for left, base in ((x + 9, y + 4), (x - 9 - width, y + 4), (x - width / 2, y - 10), (x - width / 2, y + 19)):
        left = min(max(left, LEFT + 2), WIDTH - RIGHT - width)
        box = (left, base - 11, left + width, base + 3)
        hidden = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
        if best is None or hidden < best[0]:
            best = (hidden, left, base, box)
    assert best is not None
    return best[1], best[2], best[3]
