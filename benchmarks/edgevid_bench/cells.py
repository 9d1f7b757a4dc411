"""The table of rows, cell by cell, for every format that has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgevid_bench.intervals import Latency
from edgevid_bench.recommend import kept_labels
from edgevid_bench.report import Row

__all__ = ["COLUMNS", "TEXT_COLUMNS", "cells", "half_width", "number", "told_columns"]


def number(value: float | None, digits: int = 0, scale: float = 1.0) -> str:
    """Return a figure for reading; a dash where there is none."""
    return "–" if value is None else f"{value * scale:.{digits}f}"


def _percentile(latency: Latency | None, name: str) -> str:
    return "–" if latency is None else number(getattr(latency, name), 2)


def half_width(row: Row) -> float | None:
    """Return half the 95 % interval of a row's frames per second."""
    return None if row.end_to_end_ci95 is None else (row.end_to_end_ci95[1] - row.end_to_end_ci95[0]) / 2


# head: the cell of a row that ran. Those up to "threads" name it.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "rank": lambda row: str(row.rank or "–"),
    "backend": lambda row: row.backend,
    "device": lambda row: f"{row.device} (emulated)" if row.emulated else row.device,
    "variant": lambda row: row.variant,
    "threads": lambda row: str(row.threads),
    "at once": lambda row: str(row.workers),
    "end-to-end fps": lambda row: number(row.end_to_end_fps),
    "± fps": lambda row: number(half_width(row)),
    "roofline fps": lambda row: number(row.roofline_fps),
    "efficiency": lambda row: number(row.efficiency, 2),
    "infer p50 ms": lambda row: _percentile(row.infer_ms, "p50"),
    "infer fps": lambda row: number(row.infer_fps),
    "label p50 ms": lambda row: _percentile(row.label_ms, "p50"),
    "p90": lambda row: _percentile(row.label_ms, "p90"),
    "p99": lambda row: _percentile(row.label_ms, "p99"),
    "labels kept": lambda row: number(kept_labels(row), 3),
    "top-1": lambda row: number(row.top1_agreement, 3),
    "accuracy": lambda row: number(row.accuracy, 3),
    "mJ a frame": lambda row: number(row.energy_mj, 1),
    "watts": lambda row: number(row.watts, 1),
    "load ms": lambda row: number(row.load_ms),
    "first ms": lambda row: number(row.first_inference_ms, 1),
    "peak MB": lambda row: number(row.peak_rss_mb),
    "file MB": lambda row: number(row.file_bytes, 1, 1e-6),
    "rounds": lambda row: str(row.rounds),
}
TEXT_COLUMNS = ("backend", "device", "variant")
NAMING = ("rank", *TEXT_COLUMNS, "threads")


def told_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns in which a row has something."""
    ran = [row for row in rows if row.status == "ok"]
    return [column for column, cell in COLUMNS.items() if column in NAMING or any(cell(row) != "–" for row in ran)]


def cells(row: Row, columns: Sequence[str]) -> list[str]:
    """Return the cells of a row; of one that did not run its names, and then why."""
    if row.status != "ok":
        named = [COLUMNS[column](row) for column in columns if column in NAMING]
        return [*named, row.status, *[""] * (len(columns) - len(named) - 1)]
    return [COLUMNS[column](row) for column in columns]
