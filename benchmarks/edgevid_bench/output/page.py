"""The report as one HTML page that needs nothing else: no network, no scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import jinja2
from markupsafe import Markup

from edgevid_bench.figures import number
from edgevid_bench.intervals import Latency
from edgevid_bench.options import ALL_STAGES, STAGES
from edgevid_bench.output.cells import TEXT_COLUMNS, cells, told_columns
from edgevid_bench.output.charts import pareto_chart
from edgevid_bench.output.lines import accelerators, nothing, use_line, why_not
from edgevid_bench.output.method import method_lines
from edgevid_bench.report import Conditions, Report, Row

__all__ = ["page", "render"]

MOST_BARS = 16
Item = TypeVar("Item")


def page(report: Report) -> str:
    """Return the page."""
    ran = [row for row in report.rows if row.status == "ok"]
    chart = pareto_chart(report.rows, report.method.max_drop)
    stages = ALL_STAGES if report.method.video else STAGES
    best, columns = report.recommendation, told_columns(report.rows)
    return render(
        "report.html.j2",
        report=report,
        computer=report.machine.board or report.machine.cpu,
        headline=best.sentence.split("; ") if best else [],
        use=use_line(report),
        nothing=nothing(report),
        pareto=Markup(chart),  # noqa: S704 - our own drawing, whose texts are escaped
        backends=list(dict.fromkeys(row.backend for row in ran)),
        latency=_latency_bars(ran),
        stages=_stage_bars(ran, stages, report.machine.cores),
        stage_names=stages,
        sustained=_minute_bars(report),
        columns=[{"head": head, "text": head in TEXT_COLUMNS} for head in columns],
        rows=[_table_row(row, columns, report) for row in report.rows],
        why_not=why_not(report),
        machine=_machine(report),
        method=method_lines(report),
    )


def render(template: str, **values: Any) -> str:
    """Return a page made of a template beside the style sheet that all pages share."""
    folder = files("edgevid_bench.output") / "pages"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: f"{100 * share:g} %"
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own
    return environment.get_template(template).render(style=style, **values)


def _first_of_each(ordered: Sequence[Item], row_of: Callable[[Item], Row]) -> list[Item]:
    """Return the first of each backend, device and variant, whatever the number of threads; not too many."""
    first: dict[tuple[str, str, str], Item] = {}
    for item in ordered:
        row = row_of(item)
        first.setdefault((row.backend, row.device, row.variant), item)
    return list(first.values())[:MOST_BARS]


def _latency_bars(rows: Sequence[Row]) -> list[dict[str, Any]]:
    soonest = sorted(((row, row.label_ms) for row in rows if row.label_ms), key=lambda pair: pair[1].p50)
    timed = _first_of_each(soonest, lambda pair: pair[0])
    longest = max((latency.p99 or latency.quantiles[-1] for _, latency in timed), default=1.0) * 1.01
    return [
        {
            "name": row.name,
            "color": row.backend,
            "quantiles": [100 * quantile / longest for quantile in latency.quantiles],
            "p50": 100 * latency.p50 / longest,
            "p99": None if latency.p99 is None else 100 * latency.p99 / longest,
            "value": " / ".join("–" if value is None else f"{value:.1f}" for value in _percentiles(latency)) + " ms",
        }
        for row, latency in timed
    ]


def _percentiles(latency: Latency) -> tuple[float | None, ...]:
    return latency.p50, latency.p90, latency.p99


def _stage_bars(rows: Sequence[Row], stages: Sequence[str], cores: int) -> list[dict[str, Any]]:
    chosen = _first_of_each([row for row in rows if row.efficiency and row.stage_cpu_ms], lambda row: row)
    taken = {row.key: 1e3 * cores / (row.end_to_end_fps or 1.0) for row in chosen}
    longest = max(taken.values(), default=1.0) * 1.02
    return [_stage_bar(row, stages, taken[row.key], longest) for row in chosen]


def _stage_bar(row: Row, stages: Sequence[str], taken_ms: float, longest_ms: float) -> dict[str, Any]:
    parts, left = [], 0.0
    for stage in stages:
        cost = (row.stage_cpu_ms or {}).get(stage, 0.0)
        parts.append({"stage": stage, "left": 100 * left / longest_ms, "width": 100 * cost / longest_ms})
        left += cost
    value = f"{taken_ms:.1f} ms · {row.efficiency:.0%}"
    return {"name": row.name, "parts": parts, "mark": 100 * taken_ms / longest_ms, "value": value}


def _minute_bars(report: Report) -> list[dict[str, Any]]:
    minutes = report.sustained.minutes if report.sustained else ()
    fastest = max((minute.end_to_end_fps for minute in minutes), default=1.0)
    return [
        {
            "name": f"to {minute.until_s:.0f} s",
            "width": 100 * minute.end_to_end_fps / fastest,
            "value": ", ".join(
                [f"{number(minute.end_to_end_fps)} fps", *_state(minute.conditions), *minute.disturbances]
            ),
        }
        for minute in minutes
    ]


def _table_row(row: Row, columns: Sequence[str], report: Report) -> dict[str, Any]:
    best = report.recommendation
    chosen = best is not None and best.key == row.key
    values = zip(columns, cells(row, columns), strict=True)
    return {
        "kind": "best" if chosen else "" if row.valid else "off",
        "cells": [{"value": value, "text": head in TEXT_COLUMNS} for head, value in values],
    }


def _machine(report: Report) -> list[tuple[str, str]]:
    machine, beside = report.machine, accelerators(report)
    told = "not told by this machine"
    after = machine.after or machine.before
    return [
        ("processor", f"{machine.cpu}, cores used: {machine.cores}, {machine.architecture}"),
        *([("board", machine.board)] if machine.board else []),
        *([("accelerator", ", ".join(beside))] if beside else []),
        ("memory", f"{machine.memory_gb:g} GB"),
        ("system", f"{machine.system}, Python {machine.python}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("before", ", ".join(_state(machine.before)) or told),
        ("after", ", ".join(_state(after)) or told),
        ("calibration work", f"{machine.calibration_ms:.2f} ms at best" if machine.calibration_ms else "not measured"),
    ]


def _state(state: Conditions) -> list[str]:
    found = [
        state.load is not None and f"load {state.load:g}",
        state.governor and f"governor {state.governor}",
        state.clock_mhz and f"{state.clock_mhz:.0f} MHz",
        state.temperature_c is not None and f"{state.temperature_c:.0f} °C",
        *state.throttled,
        state.on_battery and "on battery",
    ]
    return [text for text in found if text]
