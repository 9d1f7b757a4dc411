"""Writes a report to a file, in the format that the file's suffix names."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from edgevid.errors import UsageError
from edgevid.sinks.base import check_output
from edgevid_bench.output.cells import COLUMNS, TEXT_COLUMNS, cells, told_columns
from edgevid_bench.output.lines import accelerators, long_run, nothing, use_line, why_not
from edgevid_bench.output.method import method_lines
from edgevid_bench.report import Report

__all__ = ["WRITERS", "check_report", "csv_text", "markdown_table", "write_report", "write_text"]


def _json(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def _html(report: Report) -> str:
    from edgevid_bench.output.page import page  # the template engine comes with it

    return page(report)


def _markdown(report: Report) -> str:
    """Return the report for a pull request: the choice, the table, the machine, and how to do it again."""
    machine, best = report.machine, report.recommendation
    choice = f"**{best.sentence}**\n\n`{use_line(report)}`" if best else f"**Nothing to recommend**: {nothing(report)}"
    told = told_columns(report.rows)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    incomplete = "" if report.method.complete else " **Interrupted: not complete.**"
    parts = (f"cores: {machine.cores}", *accelerators(report), f"{machine.memory_gb:g} GB", machine.system)
    return "\n".join(
        [
            f"### {report.bundle.name} on {machine.board or machine.cpu}",
            "",
            choice,
            "",
            *markdown_table(told, [cells(row, told) for row in report.rows], TEXT_COLUMNS),
            "",
            *(f"- {line.strip()}" for line in (*long_run(report), *why_not(report))),
            f"- {machine.cpu}, {', '.join(parts)}, Python {machine.python}",
            f"- {versions}",
            f"- {report.source.name}, `{report.method.command}`, {report.method.date}.{incomplete}",
            "",
            "<details><summary>Method</summary>",
            "",
            *(f"{line}\n" for line in method_lines(report)),
            "</details>",
            "",
        ]
    )


def _csv(report: Report) -> str:
    """Return the rows for a spreadsheet, their columns as in the page's table, then why a row does not count."""
    rows = [[*COLUMNS, "status", "reason"]]
    for row in report.rows:
        values = ["" if value in ("–", row.status) else value for value in cells(row, tuple(COLUMNS))]
        status = "disturbed" if row.disturbed else row.status
        rows.append([*values, status, row.reason or ", ".join(row.disturbed)])
    return csv_text(rows)


WRITERS: dict[str, Callable[[Report], str]] = {".json": _json, ".html": _html, ".md": _markdown, ".csv": _csv}


def check_report(path: Path, force: bool) -> None:
    """Check that a report can be written there, without writing it.

    Raises:
        UsageError: no format has that suffix.
        SinkError: the folder is absent, or the file exists and ``force`` is false.
    """
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"--output {path}: expected a file name that ends in {', '.join(WRITERS)}")
    check_output(path, force)


def write_report(report: Report, path: Path) -> None:
    """Write a report, whole or not at all, in the format that the suffix names.

    Raises:
        OSError: it cannot be written.
    """
    write_text(WRITERS[path.suffix.lower()](report), path)


def write_text(text: str, path: Path) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.partial")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[str]) -> list[str]:
    """Return the lines of a table, numbers to the right."""
    rule = ["---" if column in text_columns else "---:" for column in columns]
    return [f"| {' | '.join(line)} |" for line in (columns, rule, *rows)]
