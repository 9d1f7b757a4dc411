"""Verdicts for reading: a table on a terminal, and where none is, columns with tabs between them, line by line."""

from __future__ import annotations

import sys

import click
from rich.table import Table

from edgevid.cli.terminal import Terminal, printable
from edgevid.sinks.verdicts import Record

__all__ = ["VerdictTable"]

COLUMNS = ("clip", "label", "score", "share", "frames", "seconds")


class VerdictTable:
    """Shows verdicts: on a terminal at the end, below the progress, else each at once, for who reads it."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._table = Table(box=None, pad_edge=False) if sys.stdout.isatty() else None
        self._empty = True

    def add(self, record: Record) -> None:
        """Add a verdict, or what kept a clip from having one."""
        if self._empty:
            self._empty = False
            self._begin()
        cells = tuple(map(printable, _cells(record)))
        if self._table:
            self._table.add_row(*cells)
        else:
            click.echo("\t".join(cells))

    def close(self) -> None:
        """Show what has not been shown yet."""
        if self._table and not self._empty:
            self._terminal.result(self._table)

    def _begin(self) -> None:
        if self._table is None:
            click.echo("\t".join(COLUMNS))
            return
        for number, name in enumerate(COLUMNS):
            self._table.add_column(name, justify="left" if number < 2 else "right", overflow="fold")


def _cells(record: Record) -> tuple[str, ...]:
    if error := record.get("error"):
        reason = str(error).removeprefix(f"{record['clip']}: ")
        return record["clip"], f"error: {reason}", "", "", "", ""
    numbers = (f"{float(record[name]):{form}}" for name, form in (("score", ".3f"), ("share", ".3f")))
    return record["clip"], record["label"], *numbers, str(record["frames"]), f"{float(record['seconds']):.2f}"
