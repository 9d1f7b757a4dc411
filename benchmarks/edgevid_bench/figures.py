"""Figures for reading."""

from __future__ import annotations

import math

from edgevid_bench.report import Row

__all__ = ["half_width", "number"]


def number(value: float | None, digits: int = 0, scale: float = 1.0) -> str:
    """Return a figure with so many digits after the point, more where less than two would be left; a dash for None."""
    if value is None:
        return "–"
    scaled = value * scale
    if 0 < abs(scaled) < 10:
        digits = max(digits, min(3, 1 - math.floor(math.log10(abs(scaled)))))
    return f"{scaled:.{digits}f}"


def half_width(row: Row) -> float | None:
    """Return half the 95 % interval of a row's frames per second."""
    return None if row.end_to_end_ci95 is None else (row.end_to_end_ci95[1] - row.end_to_end_ci95[0]) / 2
