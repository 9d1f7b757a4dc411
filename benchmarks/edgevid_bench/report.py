"""The report: what was measured, on what machine, how, and the choice it points to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from rich.table import Table

__all__ = ["InferMs", "Recommendation", "Report", "Row", "faithful_rows", "recommend", "row_table"]


class InferMs(msgspec.Struct, frozen=True):
    """Latency of one bare inference in milliseconds; ``ci95`` is the 95 % interval of the median."""

    p50: float
    p90: float
    p99: float
    ci95: tuple[float, float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One backend × device × variant × thread count.

    ``device`` is the proven one; ``hardware`` is its name, ``emulated`` whether it is software, ``precision`` what the
    variant computes in there. ``operators`` says how many of its operators run where, ``on_device`` how many there.
    ``infer_ms`` is of one inference, which takes ``batch`` frames. ``end_to_end_fps`` is of a whole run over the clip,
    with ``workers`` inferences of ``threads`` threads at once.
    ``roofline_fps`` is what the CPU time of the bare stages allows, ``efficiency`` the share of it that was reached.
    ``stage_cpu_ms`` is CPU time a frame of each stage alone; ``infer`` there is with one thread. The agreements
    are those with the Keras model on the frames held out at conversion.
    """

    backend: str
    device: str
    variant: str
    threads: int
    batch: int = 1
    workers: int = 1
    status: Literal["ok", "unavailable", "failed"]
    reason: str = ""
    hardware: str = ""
    precision: str = ""
    emulated: bool = False
    operators: dict[str, int] = {}
    on_device: int | None = None
    load_ms: float | None = None
    first_inference_ms: float | None = None
    infer_ms: InferMs | None = None
    infer_fps: float | None = None
    end_to_end_fps: float | None = None
    stage_cpu_ms: dict[str, float] | None = None
    roofline_fps: float | None = None
    efficiency: float | None = None
    peak_rss_mb: float | None = None
    file_bytes: int
    top1_agreement: float | None = None
    smoothed_agreement: float | None = None


class Recommendation(msgspec.Struct, frozen=True):
    """The row to run, and why."""

    backend: str
    device: str
    variant: str
    threads: int
    batch: int
    end_to_end_fps: float
    smoothed_agreement: float | None
    sentence: str


class Report(msgspec.Struct, frozen=True):
    """Everything that ``edgevid bench --output`` writes."""

    machine: dict[str, str | int | float | dict[str, str]]
    bundle: dict[str, str]
    source: dict[str, str | int | float]
    method: dict[str, str | int | float]
    rows: tuple[Row, ...]
    recommendation: Recommendation | None


def recommend(rows: Sequence[Row], max_drop: float) -> Recommendation | None:
    """Return the fastest row, end to end, that loses at most ``max_drop`` of the Keras model's smoothed labels.

    Where no row keeps within it, or agreement was never measured, there is nothing to recommend.
    """
    measured = [row for row in rows if row.status == "ok" and row.end_to_end_fps is not None]
    faithful = faithful_rows(rows, max_drop)
    if not faithful:
        return None
    best = max(faithful, key=_speed)
    sentence = (
        f"{best.backend} · {best.device} · {best.variant} · {best.threads} thread(s): "
        f"{_speed(best):.0f} frames per second end to end, "
        f"{best.smoothed_agreement:.1%} of Keras' smoothed labels"
    )
    faster = max(measured, key=_speed)
    if _speed(faster) > _speed(best):
        sentence += (
            f"; {faster.backend} · {faster.variant} does {_speed(faster):.0f}, but keeps only "
            f"{faster.smoothed_agreement or 0.0:.1%}"
        )
    return Recommendation(
        backend=best.backend,
        device=best.device,
        variant=best.variant,
        threads=best.threads,
        batch=best.batch,
        end_to_end_fps=_speed(best),
        smoothed_agreement=best.smoothed_agreement,
        sentence=sentence,
    )


def faithful_rows(rows: Sequence[Row], max_drop: float) -> list[Row]:
    """Return the rows that ran on real devices, and lose at most ``max_drop`` of the Keras model's smoothed labels."""
    return [
        row
        for row in rows
        if row.status == "ok"
        and not row.emulated
        and row.end_to_end_fps is not None
        and (row.smoothed_agreement or 0.0) >= 1 - max_drop
    ]


def _speed(row: Row) -> float:
    return row.end_to_end_fps or 0.0


def row_table(rows: Sequence[Row]) -> Table:
    """Return the rows for reading, the fastest first."""
    table = Table(box=None, pad_edge=False)
    for column in ("backend", "device", "variant"):
        table.add_column(column, no_wrap=True)
    for column in (
        "threads",
        "infer p50 ms",
        "p90",
        "p99",
        "infer fps",
        "at once",
        "end-to-end fps",
        "roofline fps",
        "efficiency",
        "peak MB",
        "agreement",
    ):
        table.add_column(column, justify="right")
    for row in sorted(rows, key=_speed, reverse=True):
        if row.infer_ms is None:
            table.add_row(row.backend, row.device, row.variant, str(row.threads), row.status)
            continue
        agreement = "–" if row.smoothed_agreement is None else f"{row.smoothed_agreement:.3f}"
        table.add_row(
            row.backend,
            f"{row.device} (emulated)" if row.emulated else row.device,
            row.variant,
            str(row.threads),
            *(f"{value:.2f}" for value in (row.infer_ms.p50, row.infer_ms.p90, row.infer_ms.p99)),
            f"{row.infer_fps:.0f}",
            str(row.workers),
            f"{row.end_to_end_fps:.0f}",
            "–" if row.roofline_fps is None else f"{row.roofline_fps:.0f}",
            "–" if row.efficiency is None else f"{row.efficiency:.2f}",
            f"{row.peak_rss_mb:.0f}",
            agreement,
        )
    return table
