"""What the commands write on the terminal: messages and progress on stderr, results on stdout.

What goes to stderr leaves through one door, where passwords are taken out and lines become JSON where that is wanted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from edgevid.events import WARNINGS, Event, utc_now
from edgevid.quiet import pass_on_by, show_all
from edgevid.secrets import redact, redact_all

__all__ = [
    "LOG_FORMATS",
    "Completer",
    "Terminal",
    "adding",
    "common_options",
    "completing",
    "completing_paths",
    "listed",
    "printable",
]

FILE_WIDTH = 160  # of tables, where no terminal sets the width
LOG_FORMATS = ("text", "json")
# What moves the cursor, ends a line, or turns the direction of reading, and what is shown in its place: \t, \x1b.
NOT_SHOWN = (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))
ESCAPES = {code: chr(code).encode("unicode_escape").decode() for code in NOT_SHOWN}
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Command = TypeVar("Command", bound=Callable[..., Any])


def printable(text: str) -> str:
    """Return a text that may come from outside, a label or the name of a file, as what can be on a line and no more."""
    return text.translate(ESCAPES)


def _stderr() -> Console:
    # A descriptor of its own: convert captures descriptor 2 to keep TensorFlow's noise from the user.
    try:
        descriptor = os.dup(2)
    except OSError:  # closed from the start
        descriptor = os.open(os.devnull, os.O_WRONLY)
    file = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
    return Console(file=file, highlight=False, soft_wrap=True, emoji=False)


@dataclass
class Terminal:
    """The user's terminal, and how much the user wants to see there."""

    quiet: bool = False
    debug: bool = False
    log_format: str = LOG_FORMATS[0]
    console: Console = field(default_factory=_stderr)
    stopped_by: BaseException | None = None  # KeyboardInterrupt or Terminated, once a signal has raised it

    def check_stopped(self) -> None:
        """Raise again what a signal raised, where it was lost on its way here."""
        if self.stopped_by is not None:
            raise self.stopped_by

    def log_as(self, name: str) -> None:
        """Write messages, errors, and what engines print, in one of the LOG_FORMATS from now on."""
        self.log_format = name
        pass_on_by()
        if name == "json":
            pass_on_by(lambda descriptor, data: self.message_lines(*data.decode(errors="replace").splitlines()))

    def close(self) -> None:
        """Release the terminal."""
        pass_on_by()
        with suppress(OSError):
            self.console.file.close()

    def error(self, text: str, error: BaseException | None = None) -> None:
        """Write an error as one line, with --debug after the traceback of ``error``."""
        line = printable(" ".join(text.split()))
        trace = "".join(traceback.format_exception(error)) if error and self.debug else ""
        if self.log_format == "json":
            self._log("error", line, {"traceback": trace} if trace else {})
            return
        style = "red" if self.console.is_terminal else None
        with suppress(OSError):  # a log that cannot be written, as the disk is full say, must not end what goes on
            self.console.out(redact("\n".join(map(printable, trace.split("\n")))), end="", highlight=False)
            self.console.print(f"edgevid: {redact(line)}", style=style, markup=False)

    def message(self, text: str) -> None:
        """Write a line of interest, unless --quiet."""
        self._tell("info", text, {})

    def warning(self, text: str) -> None:
        """Write a line that someone should look at, unless --quiet."""
        self._tell("warning", text, {})

    def event(self, event: Event) -> None:
        """Write what happened to a source or an output, unless --quiet."""
        about = {"time": event.clock or utc_now(), "event": event.kind, "source_time": round(event.time, 6)}
        self._tell("warning" if event.kind in WARNINGS else "info", event.text, {**event.data, **about})

    def _tell(self, level: str, text: str, about: dict[str, Any]) -> None:
        if self.quiet:
            return
        if self.log_format == "json":
            self._log(level, text, about)
        else:
            with suppress(OSError):
                self.console.print(printable(redact(text)), markup=False)

    def _log(self, level: str, text: str, about: dict[str, Any]) -> None:
        line = redact_all({"time": utc_now(), "level": level, "message": text, **about})
        with suppress(OSError):
            self.console.out(json.dumps(line, ensure_ascii=False, default=str), highlight=False)

    def message_lines(self, *lines: str) -> None:
        """Write lines of interest, unless --quiet."""
        for line in lines:
            self.message(line)

    def result(self, *lines: str | Table) -> None:
        """Write lines and tables to stdout."""
        width = None if sys.stdout.isatty() else FILE_WIDTH
        console = Console(file=sys.stdout, highlight=False, soft_wrap=True, width=width, emoji=False)
        for line in lines:
            console.print(printable(redact(line)) if isinstance(line, str) else line, markup=False)

    @contextmanager
    def progress(self, unit: str = "") -> Iterator[Progress]:
        """Show progress on stderr while the block runs; nothing with --quiet or where stderr is no terminal."""
        columns = (
            SpinnerColumn(),
            DescriptionColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = self.quiet or self.log_format == "json" or not self.console.is_terminal
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=hidden,
            redirect_stdout=False,  # else it would show, above the bar, what engines print and we keep from the user
            redirect_stderr=False,
        ) as progress:
            yield progress


class DescriptionColumn(ProgressColumn):
    """What a task is called: the name of a clip, or the label that it shows."""

    def render(self, task: Task) -> Text:
        """Return the text."""
        return Text(printable(task.description))


def common_options(command: Command) -> Command:
    """Add --quiet and --debug, which every command has."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:  # given before the command or after it
            setattr(context.ensure_object(Terminal), str(parameter.name), True)
            if parameter.name == "debug":
                show_all(True)

    for name, text in (
        ("--debug", "Show the traceback of an error and what the engines print."),
        ("--quiet", "No messages and no progress: results and errors only."),
    ):
        command = click.option(name, is_flag=True, expose_value=False, is_eager=True, callback=remember, help=text)(
            command
        )
    return command


def adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what adds several options to a command, in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def listed(text: str | None) -> tuple[str, ...]:
    """Return names with commas between them, each once."""
    names = (name.strip() for name in (text or "").split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def completing(names: Iterable[str]) -> Completer:
    """Complete the last of several names with commas between them."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        done, comma, last = incomplete.rpartition(",")
        return [CompletionItem(f"{done}{comma}{name}") for name in names if name.startswith(last)]

    return complete


def completing_paths(names: Iterable[str] = ()) -> Completer:
    """Complete the name of a file or folder, or one of ``names``."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        fitting = [CompletionItem(name) for name in names if incomplete and name.startswith(incomplete)]
        return fitting or [CompletionItem(incomplete, type="file")]

    return complete
