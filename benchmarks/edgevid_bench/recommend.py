"""The choice that a report points to: the fastest row that keeps the Keras model's labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from edgevid_bench.figures import half_width, number
from edgevid_bench.intervals import overlap, ranks
from edgevid_bench.report import Recommendation, Row

Key = TypeVar("Key")
PRECISE = 0.01  # half an interval, as a share of the rate: what is known so well needs no more rounds
__all__ = ["faithful", "kept_labels", "ranked", "recommend", "undecided"]


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with their ranks, the fastest first and those that were not measured last."""
    valid = [row for row in rows if row.valid and row.end_to_end_ci95]
    places = ranks([row.end_to_end_ci95 for row in valid if row.end_to_end_ci95])
    placed = [msgspec.structs.replace(row, rank=rank) for row, rank in zip(valid, places, strict=True)]
    others = [row for row in rows if not (row.valid and row.end_to_end_ci95)]
    return (*sorted(placed, key=_speed, reverse=True), *sorted(others, key=_speed, reverse=True))


def kept_labels(row: Row) -> float | None:
    """Return the share of smoothed labels that a row keeps: the smaller of what conversion and this bench measured.

    None where conversion measured nothing on real frames.
    """
    if row.smoothed_agreement is None:
        return None
    here = row.clip_smoothed_agreement
    return row.smoothed_agreement if here is None else min(row.smoothed_agreement, here)


def faithful(row: Row, max_drop: float) -> bool:
    """Return whether a row ran undisturbed on a real device and loses at most ``max_drop`` of the smoothed labels."""
    return (
        row.valid and not row.emulated and row.end_to_end_fps is not None and (kept_labels(row) or 0.0) >= 1 - max_drop
    )


def undecided(rows: Mapping[Key, Row], max_drop: float) -> set[Key]:
    """Return the rows of which the fastest faithful one is not known yet, by intervals of twice their width.

    With the intervals as they are, what looks faster by chance at one of many looks would be believed.
    """
    good = {key: row for key, row in rows.items() if faithful(row, max_drop)}
    best = max(good.values(), key=_speed, default=None)
    if best is None or (best.end_to_end_ci95 and _width(best) <= 2 * PRECISE * _speed(best)):
        return set()
    rivals = {key for key, row in good.items() if _speed(row) + _width(row) >= _speed(best) - _width(best)}
    return rivals if len(rivals) > 1 else set()


def recommend(rows: Sequence[Row], max_drop: float) -> Recommendation | None:
    """Return the fastest row, end to end, that loses at most ``max_drop`` of the Keras model's smoothed labels.

    Where no row keeps within it, or agreement was never measured, there is nothing to recommend.
    """
    best = max((row for row in rows if faithful(row, max_drop)), key=_speed, default=None)
    if best is None:
        return None
    return Recommendation(
        backend=best.backend,
        device=best.device,
        variant=best.variant,
        threads=best.threads,
        batch=best.batch,
        end_to_end_fps=_speed(best),
        smoothed_agreement=best.smoothed_agreement,
        sentence=_sentence(best, rows, max_drop),
    )


def _sentence(best: Row, rows: Sequence[Row], max_drop: float) -> str:
    half = half_width(best)
    spread, once = ("", " (measured once)") if half is None else (f" ± {number(half)}", "")
    told = (
        f"{best.name}: {number(best.end_to_end_fps)}{spread} frames per second end to end{once}, "
        f"{kept_labels(best) or 0.0:.1%} of Keras' smoothed labels"
    )
    faster = [row for row in rows if row.valid and not row.emulated and _speed(row) > _speed(best)]
    clearly = [row for row in faster if not overlap(row.end_to_end_ci95, best.end_to_end_ci95)]
    if clearly:
        first = max(clearly, key=_speed)
        kept = kept_labels(first)
        why = "its labels were never compared" if kept is None else f"it keeps only {kept:.1%}"
        told += f"; {first.name} does {number(first.end_to_end_fps)}, but {why}"
    else:
        told += f"; nothing faster keeps within {max_drop:.0%}"
    equals = [
        row
        for row in rows
        if row is not best and faithful(row, max_drop) and overlap(row.end_to_end_ci95, best.end_to_end_ci95)
    ]
    if equals:
        more = f" and {len(equals) - 2} more" if len(equals) > 2 else ""
        told += f"; not told apart from it: {', '.join(row.name for row in equals[:2])}{more}"
    return told


def _width(row: Row) -> float:
    low, high = row.end_to_end_ci95 or (0.0, math.inf)
    return high - low


def _speed(row: Row) -> float:
    return row.end_to_end_fps or 0.0
