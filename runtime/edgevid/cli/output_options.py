"""The options of ``run`` that say where predictions and frames go, and the sinks that they ask for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edgevid.bundle import Bundle
from edgevid.cli.terminal import adding, completing_paths
from edgevid.errors import UsageError
from edgevid.events import Event
from edgevid.sinks import (
    EVENT_SUFFIXES,
    PREDICTION_SUFFIXES,
    STDOUT,
    VIDEO_SUFFIXES,
    Sink,
    check_suffix,
    open_output,
    open_predictions,
    open_video,
    open_window,
)
from edgevid.sinks.background import BackgroundSink
from edgevid.sinks.base import STDOUT_FILE, check_apart, check_output
from edgevid.sinks.command import Command, parse_command
from edgevid.sinks.label_events import LabelEvents
from edgevid.sinks.parts import UNSPLIT, Split
from edgevid.sinks.retention import KEEP_ALL, Keep, parse_keep
from edgevid.sources import Source
from edgevid.units import time_seconds

__all__ = ["OutputOptions", "output_options", "take_outputs"]


def _segment(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    seconds = None if text is None else time_seconds(text)
    if text is not None and seconds is None:
        raise UsageError(f"--segment {text}: expected a time such as 10m or 90s")
    return seconds


def _keep(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> Keep:
    return parse_keep(texts)


output_options = adding(
    click.option("--save", metavar="OUT.mp4", shell_complete=completing_paths(), help="Write annotated video (H.264)."),
    click.option(
        "--predictions",
        metavar="OUT.jsonl|OUT.csv",
        shell_complete=completing_paths(),
        help="Write predictions; - for JSON lines on stdout.",
    ),
    click.option(
        "--events",
        metavar="EVENTS.jsonl",
        shell_complete=completing_paths(),
        help="Write a line when a label begins and one when it ends; - for stdout.",
    ),
    click.option(
        "--on-event",
        metavar="COMMAND",
        help="Run a program at each of them, with the event as JSON on its stdin: one at a time, 10 s each at most, "
        "and of a live source at most 100 waiting.",
    ),
    click.option(
        "--segment",
        metavar="TIME",
        callback=_segment,
        help="Write --save and --predictions in parts of this length, 10m say: "
        "out.mp4 as out-000001-20261126T054012Z.mp4.",
    ),
    click.option(
        "--keep",
        metavar="TIME|SIZE",
        callback=_keep,
        multiple=True,
        help="Delete parts closed longer ago than 24h, say, or an output's oldest beyond 10GB; give it twice for both.",
    ),
    click.option("--show", is_flag=True, help="Show annotated frames in a window; q ends."),
    click.option("--force", is_flag=True, help="Replace output files that exist."),
)


@dataclass(frozen=True)
class OutputOptions:
    """The options above, as given."""

    save: str | None
    predictions: str | None
    events: str | None
    on_event: str | None
    segment: float | None
    keep: Keep
    show: bool
    force: bool

    @property
    def files(self) -> list[tuple[str, Path]]:
        """The files to write, each with its option."""
        named = (("--save", self.save), ("--predictions", self.predictions), ("--events", self.events))
        files = [(option, Path(name)) for option, name in named if name and name != STDOUT]
        return [*files, STDOUT_FILE] if self.on_stdout else files

    @property
    def on_stdout(self) -> bool:
        """Whether one of them is stdout, which then is for nothing else."""
        return STDOUT in (self.predictions, self.events)

    def check_names(self) -> None:
        """Refuse what cannot be written, before a source is waited for.

        Raises:
            UsageError: a name or a combination cannot be meant.
            SinkError: a folder is absent, or a file exists and --force is not given.
        """
        for name, suffixes, split in (
            (self.save, VIDEO_SUFFIXES, self.segment is not None),
            (self.predictions, PREDICTION_SUFFIXES, self.segment is not None),
            (self.events, EVENT_SUFFIXES, False),
        ):
            if name and name != STDOUT:
                check_suffix(name, suffixes)
                check_output(Path(name), self.force or split)
        if self.predictions == self.events == STDOUT:
            raise UsageError("--predictions - and --events -: both would go to stdout; name a file for one of them")
        self.split()
        if self.on_event is not None:
            parse_command(self.on_event)

    def check(self, source: Source, bundle: Bundle, health: Path | None) -> None:
        """Refuse to write over what is read, or one output over another, whatever --force says.

        Raises:
            UsageError: that would happen.
        """
        outputs = [*self.files, *([("--health", health)] if health else [])]
        check_apart(outputs, {"the source itself": source.files, "a file of the bundle": bundle.path.iterdir()})

    def undrawable(self, labels: Iterable[str]) -> str | None:
        """Return which labels cannot be drawn, and what to do about it; None if all can, or none is to be."""
        if not (self.save or self.show):
            return None
        from edgevid.draw import undrawable  # and a font with it

        return undrawable(labels)

    def split(self, leave: Sequence[Path] = ()) -> Split:
        """Return in which parts outputs are written.

        Raises:
            UsageError: it cannot be meant.
        """
        if self.segment is None:
            if self.keep != KEEP_ALL:
                raise UsageError("--keep: it deletes parts of outputs; give --segment 10m, say, as well")
            return UNSPLIT
        if not (self.save or self.predictions) or self.predictions == STDOUT:
            raise UsageError("--segment: it is for files; name some with --save and --predictions, and not -")
        return Split(self.segment, self.keep, leave)

    def sinks(self, source: Source, stop: threading.Event, tell: Callable[[Event], None]) -> Iterator[Sink]:
        """Open the outputs, one after the other; ``tell`` gets what happens to them, a window sets ``stop``.

        Raises:
            UsageError: a name or a combination cannot be meant.
            SinkError: one of them cannot be opened.
        """
        live, split, force = source.live, self.split(source.files), self.force

        def output(name: str, open_part: Callable[[Path, bool], Sink], split: Split = split) -> Sink:
            return open_output(name, open_part, tell, live=live, split=split, force=force)

        def lines(name: str, split: Split = split) -> Sink:
            if name == STDOUT:
                return BackgroundSink(open_predictions(STDOUT)) if live else open_predictions(STDOUT)
            return output(name, lambda path, replace: open_predictions(path, force=replace, live=live), split)

        if self.save:
            yield output(self.save, lambda path, replace: open_video(path, source, force=replace))
        if self.predictions:
            yield lines(self.predictions)
        if self.events or self.on_event:
            file = lines(self.events, UNSPLIT) if self.events else None
            command = Command(self.on_event, tell, stop, live) if self.on_event else None
            yield LabelEvents(file, command, live)
        if self.show:
            yield open_window(f"edgevid: {source.name}", stop)


def take_outputs(options: dict[str, Any]) -> OutputOptions:
    """Take the values of the options out of all that a command was given."""
    return OutputOptions(**{name: options.pop(name) for name in OutputOptions.__annotations__})
