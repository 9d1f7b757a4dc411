"""``edgevid compare``: which machines meet a need, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.table import Table

from edgevid.cli.terminal import Terminal, common_options, printable
from edgevid.errors import UsageError
from edgevid.sinks.base import check_apart, check_output
from edgevid_bench.cli import check_packages
from edgevid_bench.compare import COLUMNS, Standing, compare, remarks, verdict
from edgevid_bench.output.writers import csv_text, markdown_table, write_text
from edgevid_bench.report import read_report

EPILOG = """
\b
Examples:
  edgevid compare pi5.json n100.json
  edgevid compare pi5.json n100.json orin.json --need-fps 30 --price pi5=80 --price n100=160
  edgevid compare *.json --need-fps 30 --output choice.html
\b
A report comes from  edgevid bench --output pi5.json  on that machine: of the same model, on the same clip.
"""
TEXT_COLUMNS = ("machine", "what it is", "enough", "with")
ON_PAPER = ("label p50 ms", "p99", "peak MB", "watts")  # left out on a terminal


@click.command("compare", epilog=EPILOG)
@click.argument("reports", metavar="REPORT.json...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--need-fps", type=click.FloatRange(0), default=0.0, help="Frames per second that are needed.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    help="Smoothed agreement that may be lost.  [default: what each report was made with]",
)
@click.option("--price", "prices", metavar="NAME=PRICE", multiple=True, help="What a machine costs; for each once.")
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), multiple=True, help="Write a .html, .md or .csv."
)
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@common_options
@click.pass_obj
def compare_command(
    terminal: Terminal,
    /,
    reports: tuple[Path, ...],
    need_fps: float,
    max_drop: float | None,
    prices: tuple[str, ...],
    output: tuple[Path, ...],
    force: bool,
) -> int:
    """Say which of several machines are fast enough, with which configuration, and with how much head-room."""
    check_packages()
    for path in output:
        if path.suffix.lower() not in WRITERS:
            raise UsageError(f"--output {path}: expected a file name that ends in {', '.join(WRITERS)}")
        check_output(path, force)
    check_apart([("--output", path) for path in output], {"one of the reports": reports})
    named = {path.stem: path for path in reports}
    if len(named) < len(reports):
        raise UsageError("two reports have one file name, and machines are called by it; rename one of the files")
    read = {name: read_report(path) for name, path in named.items()}
    standings = compare(read, need_fps, max_drop, _prices(prices))
    terminal.result(_table(standings), f"{verdict(standings)}.", *remarks(standings))
    for path in output:
        write_text(WRITERS[path.suffix.lower()](standings), path)
        terminal.result(f"wrote {path}")
    return 0


def _table(standings: Sequence[Standing]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = [column for column in _told_columns(standings) if column not in ON_PAPER]
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column in TEXT_COLUMNS else "right")
    for standing in standings:
        table.add_row(*(printable(COLUMNS[column](standing)) for column in columns))
    return table


def _told_columns(standings: Sequence[Standing]) -> list[str]:
    """Return the columns in which a machine has something."""
    return [
        column for column, cell in COLUMNS.items() if any(cell(standing) not in ("–", "") for standing in standings)
    ]


def _rows(standings: Sequence[Standing], columns: Sequence[str]) -> list[list[str]]:
    return [[COLUMNS[column](standing) for column in columns] for standing in standings]


def _markdown(standings: Sequence[Standing]) -> str:
    columns = _told_columns(standings)
    table = markdown_table(columns, _rows(standings, columns), TEXT_COLUMNS)
    return "\n".join([f"**{verdict(standings)}.**", "", *table, "", *(f"- {line}" for line in remarks(standings)), ""])


def _csv(standings: Sequence[Standing]) -> str:
    rows = _rows(standings, list(COLUMNS))
    return csv_text([list(COLUMNS), *([("" if cell == "–" else cell) for cell in row] for row in rows)])


def _html(standings: Sequence[Standing]) -> str:
    from edgevid_bench.output.page import render  # the template engine comes with it

    columns = _told_columns(standings)
    fastest = max((standing.row.end_to_end_fps or 0.0 for standing in standings if standing.row), default=1.0)
    return render(
        "compare.html.j2",
        standings=standings,
        verdict=verdict(standings),
        remarks=remarks(standings),
        fastest=max(fastest, standings[0].need_fps),
        columns=[{"head": column, "text": column in TEXT_COLUMNS} for column in columns],
        rows=_rows(standings, columns),
    )


WRITERS: dict[str, Callable[[Sequence[Standing]], str]] = {".html": _html, ".md": _markdown, ".csv": _csv}


def _prices(texts: Sequence[str]) -> dict[str, float]:
    prices: dict[str, float] = {}
    for text in texts:
        name, _, price = text.partition("=")
        if re.fullmatch(r"\d+(\.\d+)?", price) is None or not float(price) or name in prices:
            raise UsageError(f"--price {text!r}: expected a machine and what it costs, once each, such as pi5=80")
        prices[name] = float(price)
    return prices
