"""The table of rows, cell by cell, for every format that has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgevid_bench.figures import half_width, number
from edgevid_bench.intervals import Latency
from edgevid_bench.recommend import kept_labels
from edgevid_bench.report import Row

__all__ = ["COLUMNS", "NAMING", "TEXT_COLUMNS", "cells", "told_columns"]


def _percentile(latency: Latency | None, name: str) -> str:
    return "–" if latency is None else number(getattr(latency, name), 2)


SPEED = "end-to-end fps"
# head: the cell of a row that ran. Those up to "threads" name it.
COLUMNS: dict[str, Callable[[Row], str]] = {
    "rank": lambda row: str(row.rank or "–"),
    "backend": lambda row: row.backend,
    "device": lambda row: f"{row.device} (emulated)" if row.emulated else row.device,
    "variant": lambda row: row.variant,
    "computes in": lambda row: row.precision or "–",
    "threads": lambda row: str(row.threads),
    "at once": lambda row: str(row.workers),
    SPEED: lambda row: number(row.end_to_end_fps),
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
TEXT_COLUMNS = ("backend", "device", "variant", "computes in")
NAMING = ("rank", "backend", "device", "variant", "threads")


def told_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns in which a row has something."""
    ran = [row for row in rows if row.status == "ok"]
    always = (*NAMING, SPEED)
    return [column for column, cell in COLUMNS.items() if column in always or any(cell(row) != "–" for row in ran)]


def cells(row: Row, columns: Sequence[str]) -> list[str]:
    """Return the cells of a row; of one that did not run its names, and its status for its speed."""
    if row.status == "ok":
        return [COLUMNS[column](row) for column in columns]
    return [COLUMNS[column](row) if column in NAMING else row.status if column == SPEED else "" for column in columns]
