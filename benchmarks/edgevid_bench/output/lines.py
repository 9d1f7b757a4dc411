"""The report for reading on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from edgevid_bench.figures import number
from edgevid_bench.output.cells import NAMING, TEXT_COLUMNS, cells
from edgevid_bench.report import Report, Row

__all__ = ["accelerators", "long_run", "nothing", "report_lines", "use_line", "why_not"]

SHORT = ("at once", "end-to-end fps", "± fps", "efficiency", "label p50 ms", "p99", "peak MB", "labels kept")
NOTE = (
    "rank: rows whose 95 % intervals overlap are not told apart; at once: inferences side by side in an end-to-end "
    "run; efficiency: end to end ÷ what the CPU time of the bare stages allows; label: from a decoded frame to its "
    "label, one at a time; labels kept: smoothed ones, of the Keras model's at conversion or of the fp32 variant's on "
    "this clip, whichever share is smaller"
)


def report_lines(report: Report) -> list[str | Table]:
    """Return the report for reading."""
    machine, method = report.machine, report.method
    about = ", ".join(
        [machine.board or machine.cpu, f"cores: {machine.cores}", *accelerators(report), report.source.name]
    )
    incomplete = "" if method.complete else ", interrupted"
    return [
        f"{about}, {method.seconds:.0f} s, rounds: from {method.min_rounds}{incomplete}",
        _table(report.rows),
        NOTE,
        *why_not(report),
        *long_run(report),
        *_recommended(report),
    ]


def accelerators(report: Report) -> list[str]:
    """Return what rows ran on beside the CPU, by the names that drivers give, such as ``gpu: NVIDIA Orin``."""
    named = (
        f"{row.device}: {row.hardware}{' (emulated on the CPU)' if row.emulated else ''}"
        for row in report.rows
        if row.hardware
    )
    return list(dict.fromkeys(named))


def why_not(report: Report) -> list[str]:
    """Return why rows are not there or not valid, each reason once."""
    reasons: dict[str, list[str]] = {}
    for row in report.rows:
        if row.status != "ok":
            reasons.setdefault(row.reason, []).append(row.name)
        elif row.disturbed:
            reasons.setdefault(f"not valid, {', '.join(row.disturbed)}", []).append(row.name)
    for what, reason in report.absent.items():
        reasons.setdefault(reason, []).append(what)
    return [f"{', '.join(dict.fromkeys(rows))}: {reason}" for reason, rows in reasons.items()]


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = [*NAMING, *SHORT]
    for column in columns:
        text = column in TEXT_COLUMNS
        table.add_column(column, no_wrap=text, justify="left" if text else "right")
    for row in rows:
        table.add_row(*cells(row, columns))
    return table


def long_run(report: Report) -> list[str]:
    """Return the long run minute by minute; nothing where there was none."""
    if report.sustained is None:
        return []
    lines = [f"{report.sustained.row} for long, at the end × {report.sustained.kept:.2f} of its speed at first:"]
    for minute in report.sustained.minutes:
        heat = minute.conditions.temperature_c
        warm = "" if heat is None else f", {heat:.0f} °C"
        disturbed = f" ({', '.join(minute.disturbances)})" if minute.disturbances else ""
        speed = number(minute.end_to_end_fps)
        lines.append(f"  to {minute.until_s:.0f} s: {speed} frames per second{warm}{disturbed}")
    return [*lines, f"  it ended: {report.sustained.error}"] if report.sustained.error else lines


def _recommended(report: Report) -> list[str]:
    best = report.recommendation
    if best is None:
        return [f"nothing to recommend: {nothing(report)}"]
    return [f"recommended: {best.sentence}", f"use it: {use_line(report)}"]


def nothing(report: Report) -> str:
    """Return why there is no recommendation."""
    ran = [row for row in report.rows if row.status == "ok"]
    if ran and all(row.disturbed for row in ran):
        return "every row was disturbed; stop what runs beside, or accept it with --allow-disturbed"
    return "no row is known to keep the Keras model's labels within --max-drop"


def use_line(report: Report) -> str:
    """Return the command that runs what is recommended; empty where nothing is."""
    best = report.recommendation
    if best is None:
        return ""
    batch = f" --batch {best.batch}" if best.batch > 1 else ""
    return (
        f"edgevid run {report.bundle.path} --backend {best.backend} --device {best.device} --variant {best.variant} "
        f"--threads {best.threads}{batch} --source CLIP"
    )
