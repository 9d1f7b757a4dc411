"""Where predictions go: tables of file types, and the doors through which sinks are opened."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from edgevid.errors import UsageError
from edgevid.events import Event
from edgevid.sinks.background import BackgroundSink
from edgevid.sinks.base import Sink
from edgevid.sinks.parts import UNSPLIT, PartsSink, Split
from edgevid.sinks.retrying import RetryingSink
from edgevid.sources.base import Source

__all__ = [
    "EVENT_SUFFIXES",
    "PREDICTION_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Sink",
    "check_suffix",
    "open_output",
    "open_predictions",
    "open_video",
    "open_window",
]

STDOUT = "-"
# suffix: class in edgevid.sinks.predictions
PREDICTION_SUFFIXES = {".jsonl": "JsonLinesSink", ".csv": "CsvSink"}
EVENT_SUFFIXES = (".jsonl",)
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")


def check_suffix(name: str | Path, known: Iterable[str]) -> str:
    """Return the suffix of a file's name, in small letters, if it is one of those known.

    Raises:
        UsageError: it is another one.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in known:
        raise UsageError(f"output file {str(name)!r}: expected a name ending in {' or '.join(known)}")
    return suffix


def open_predictions(name: str | Path, *, force: bool = False, live: bool = False) -> Sink:
    """Open a file for predictions, ``.jsonl`` or ``.csv``; ``-`` writes JSON lines to stdout.

    Raises:
        UsageError: the suffix is another one.
        SinkError: the file exists and ``force`` is false, or it cannot be created.
    """
    path = None if name == STDOUT else Path(name)
    suffix = check_suffix(path, PREDICTION_SUFFIXES) if path else ".jsonl"
    module = import_module("edgevid.sinks.predictions")
    sink: Sink = getattr(module, PREDICTION_SUFFIXES[suffix])(path, force, live)
    return sink


def open_video(name: str | Path, source: Source, *, force: bool = False) -> Sink:
    """Open a file for annotated video (H.264) with the timestamps and the frame rate of ``source``.

    Raises:
        UsageError: the suffix is no video container known here.
        SinkError: the file exists and ``force`` is false, or it cannot be created.
    """
    path = Path(name)
    check_suffix(path, VIDEO_SUFFIXES)
    module = import_module("edgevid.sinks.video")
    sink: Sink = module.VideoSink(path, source.rate, source.time_base, force, source.live, source.duration)
    return sink


def open_output(
    name: str,
    open_part: Callable[[Path, bool], Sink],
    tell: Callable[[Event], None],
    *,
    live: bool,
    split: Split = UNSPLIT,
    force: bool = False,
) -> Sink:
    """Open a file as a run needs it. Of a live source, neither a slow output nor a full disk stops the run.

    Args:
        name: the file.
        open_part: opens the sink of one file; the second argument is whether to replace it.
        tell: told what happens to the output of a live source.
        live: whether the source is live; of a file, a slow output makes the run wait, and a failure ends it.
        split: in which parts it is written, and which are kept.
        force: replace the file if it exists.

    Raises:
        UsageError: the suffix is unknown.
        SinkError: the file exists and ``force`` is false, or its folder is absent.
    """
    path = Path(name)
    if not live and math.isinf(split.segment_s):
        return open_part(path, force)
    parts = PartsSink(path, open_part, split, force, aside=live)
    return BackgroundSink(RetryingSink(parts, path, tell)) if live else parts


def open_window(title: str, stop: threading.Event) -> Sink:
    """Open a window on the desktop that shows the annotated frames; quitting there sets ``stop``.

    Raises:
        SinkError: the installed OpenCV has no windows.
    """
    sink: Sink = import_module("edgevid.sinks.window").WindowSink(title, stop)
    return sink
