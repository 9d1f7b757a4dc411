"""Speed against labels kept, as an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from edgevid_bench.recommend import kept_labels
from edgevid_bench.report import Row

__all__ = ["pareto_chart", "pareto_front"]

WIDTH, HEIGHT = 560, 340
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 14, 44
CLOSE = 15  # names nearer than this would cover each other


@dataclass(frozen=True)
class _Plane:
    """Where frames per second and labels kept lie in the picture."""

    fastest: float
    lowest: float

    def x(self, fps: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * fps / self.fastest

    def y(self, kept: float) -> float:
        highest = 1 + 0.08 * (1 - self.lowest)
        return TOP + (HEIGHT - TOP - BOTTOM) * (highest - kept) / (highest - self.lowest)

    def place(self, row: Row) -> tuple[float, float]:
        return self.x(row.end_to_end_fps or 0.0), self.y(kept_labels(row) or 0.0)


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other beats in both speed and labels kept, to a thousandth, the fastest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (-(row.end_to_end_fps or 0.0), -_kept(row))):
        if not front or _kept(row) > _kept(front[-1]):
            front.append(row)
    return front


def _kept(row: Row) -> float:
    return round(kept_labels(row) or 0.0, 3)


def pareto_chart(rows: Sequence[Row], max_drop: float) -> str:
    """Return the chart; empty where fewer than two rows have both figures."""
    points = [row for row in rows if row.status == "ok" and row.end_to_end_fps and kept_labels(row) is not None]
    if len(points) < 2:
        return ""
    lost = max(0.01, 2 * max_drop, *(1 - (kept_labels(row) or 0.0) for row in points))
    plane = _Plane(1.06 * max(row.end_to_end_fps or 0.0 for row in points), max(0.0, 1 - 1.15 * lost))
    front = pareto_front([row for row in points if row.valid])
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(plane.place, front))
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Labels kept over frames per second">',
            *_frame(plane, max_drop),
            f'<polyline points="{corners}" style="fill:none;stroke:var(--soft);stroke-dasharray:3 3"/>',
            *(_point(row, plane) for row in reversed(points)),
            *_names(front, plane),
            "</svg>",
        ]
    )


def _frame(plane: _Plane, max_drop: float) -> Iterator[str]:
    """Yield the grid, its figures, and the shade over what loses too much."""
    top, bottom, gate = TOP, plane.y(plane.lowest), plane.y(1 - max_drop)
    left, right = plane.x(0), plane.x(plane.fastest)
    yield (
        f'<rect x="{left:.1f}" y="{gate:.1f}" width="{right - left:.1f}" height="{bottom - gate:.1f}" '
        'style="fill:var(--bad);opacity:.08"/>'
    )
    for fps in _ticks(0, plane.fastest):
        x = plane.x(fps)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom:.1f}"/>'
        yield f'<text class="axis" x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{fps:g}</text>'
    for kept in _ticks(plane.lowest, 1.0):
        y = plane.y(kept)
        yield f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="axis" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{100 * kept:g} %</text>'
    yield f'<text class="axis" x="{right:.1f}" y="{HEIGHT - 8}" text-anchor="end">frames per second, end to end</text>'
    yield f'<text class="axis" x="{left:.1f}" y="{HEIGHT - 8}">labels kept, in %</text>'


def _point(row: Row, plane: _Plane) -> str:
    x, y = plane.place(row)
    low, high = row.end_to_end_ci95 or (row.end_to_end_fps or 0.0,) * 2
    left, right = plane.x(low), plane.x(min(high, plane.fastest))
    ink = f"var(--{escape(row.backend)})"
    told = f"{row.name}: {row.end_to_end_fps:.0f} frames per second, {kept_labels(row):.1%} of the labels"
    style = f"stroke:{ink};stroke-width:3;opacity:.4"
    return (
        f"<g><title>{escape(told)}</title>"
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}" style="{style}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" style="fill:{ink if row.valid else "none"};stroke:{ink}"/></g>'
    )


def _names(front: Sequence[Row], plane: _Plane) -> Iterator[str]:
    """Yield the names of the rows on the front, below each other where they are close."""
    used = -math.inf
    for row in sorted(front, key=lambda row: plane.place(row)[1]):
        x, y = plane.place(row)
        anchor, shift = ("end", -8) if x > WIDTH / 2 else ("start", 8)
        used = max(y + 16, used + CLOSE)
        text = f"{row.backend} {row.variant}"
        yield f'<text x="{x + shift:.1f}" y="{used:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers between two."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [
        round(number * step, 10) for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]
