"""Where predictions go: tables of file types, and the doors through which sinks are opened."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path

from edgevid.errors import UsageError
from edgevid.sinks.base import Sink
from edgevid.sources.base import Source

__all__ = ["PREDICTION_SUFFIXES", "VIDEO_SUFFIXES", "Sink", "open_predictions", "open_video", "open_window"]

STDOUT = "-"
# suffix: class in edgevid.sinks.predictions
PREDICTION_SUFFIXES = {".jsonl": "JsonLinesSink", ".csv": "CsvSink"}
VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")


def open_predictions(name: str, *, force: bool = False) -> Sink:
    """Open a file for predictions, ``.jsonl`` or ``.csv``; ``-`` writes JSON lines to stdout.

    Raises:
        UsageError: the suffix is another one.
        SinkError: the file exists and ``force`` is false, or it cannot be created.
    """
    suffix = ".jsonl" if name == STDOUT else Path(name).suffix.lower()
    if suffix not in PREDICTION_SUFFIXES:
        raise UsageError(f"predictions file {name!r}: expected a name ending in {' or '.join(PREDICTION_SUFFIXES)}")
    module = import_module("edgevid.sinks.predictions")
    sink: Sink = getattr(module, PREDICTION_SUFFIXES[suffix])(None if name == STDOUT else Path(name), force)
    return sink


def open_video(name: str | Path, source: Source, *, force: bool = False) -> Sink:
    """Open a file for annotated video (H.264) with the timestamps and the frame rate of ``source``.

    Raises:
        UsageError: the suffix is no video container known here.
        SinkError: the file exists and ``force`` is false, or it cannot be created.
    """
    path = Path(name)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UsageError(f"video file {str(name)!r}: expected a name ending in {', '.join(VIDEO_SUFFIXES)}")
    module = import_module("edgevid.sinks.video")
    sink: Sink = module.VideoSink(path, source.rate, source.time_base, force)
    return sink


def open_window(title: str, stop: threading.Event) -> Sink:
    """Open a window on the desktop that shows the annotated frames; quitting there sets ``stop``.

    Raises:
        SinkError: the installed OpenCV has no windows.
    """
    sink: Sink = import_module("edgevid.sinks.window").WindowSink(title, stop)
    return sink
