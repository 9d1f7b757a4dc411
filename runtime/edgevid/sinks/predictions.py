"""Predictions as text: JSON Lines or CSV, one whole line a frame."""

from __future__ import annotations

import csv
import io
import os
import sys
import threading
from abc import abstractmethod
from pathlib import Path
from typing import Any

import msgspec

from edgevid.errors import SinkError
from edgevid.events import Event
from edgevid.sinks.base import Sink, check_output
from edgevid.sinks.whole import WholeFile
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

STDOUT_NAME = "stdout"


class TextSink(Sink):
    """A text file, or stdout, that gets one line a frame, at once: a line is in it as a whole, or not at all.

    The file is created with the first frame, so that a run that fails before it replaces nothing. After a failure it
    can be written to again: it goes on after the last whole line.

    Args:
        path: the file to create; None for stdout.
        force: replace the file if it exists.
        live: frames come from a live source: lines reach the disk twice a second.

    Raises:
        SinkError: the file exists and ``force`` is false, or its folder is absent.
    """

    needs_picture = False
    goes_on = True

    def __init__(self, path: Path | None, force: bool = False, live: bool = False) -> None:
        self.name = path.name if path else STDOUT_NAME
        self._path = path
        self._force, self._live = force, live
        self._file: WholeFile | None = None
        self._size: int | None = None  # of the file when it was last whole, once there is one
        self._closed = False
        self._one_at_a_time = threading.Lock()  # events come from any thread
        if path is not None:
            check_output(path, force)
        elif sys.stdout is None:
            raise SinkError("stdout: it is closed, and predictions cannot be written to it; name a file")

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Write the prediction as one line."""
        self._append(prediction.to_dict())

    def close(self) -> None:
        """Close the file, and leave none that is empty; stdout stays open."""
        self._closed = True
        with self._one_at_a_time:
            try:
                self._let_go()
                if self._path and self._size == 0:
                    self._path.unlink(missing_ok=True)
            except OSError as error:
                raise self._failed(error) from error

    def _append(self, record: dict[str, Any]) -> None:
        if self._closed:
            raise SinkError(f"{self._path or self.name}: predictions cannot be written any more; it is closed")
        with self._one_at_a_time:
            try:
                if self._path:
                    self._append_to_file(self._path, record)
                else:
                    _write_to_stdout(self._lines(record, first=False).encode())
            except BrokenPipeError:  # the reader of stdout has seen enough: no failure of ours
                raise
            except OSError as error:
                raise self._failed(error) from error

    def _append_to_file(self, path: Path, record: dict[str, Any]) -> None:
        try:
            self._file = self._file or WholeFile(path, force=self._force, go_on_at=self._size, sync=self._live)
            self._size = self._file.size
            self._file.append(self._lines(record, first=self._size == 0).encode())
            self._size, self.wrote = self._file.size, str(path)
        except OSError:
            self._let_go()  # a network drive that went away has forgotten the open file when it is back
            raise

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()

    @abstractmethod
    def _lines(self, record: dict[str, Any], first: bool) -> str:
        """Return one record as a line, and before the first what has to stand there."""

    def _failed(self, error: OSError) -> SinkError:
        name = self._path or self.name
        return SinkError(f"{name}: predictions cannot be written ({error.strerror}); choose another place")


class JsonLinesSink(TextSink):
    """One JSON object a line; events stand among the predictions, each on a line of its own."""

    def write_event(self, event: Event) -> None:
        """Write the event as one line."""
        self._append(event.to_dict())

    def _lines(self, record: dict[str, Any], first: bool) -> str:
        return msgspec.json.encode(record).decode() + "\n"


class CsvSink(TextSink):
    """Comma-separated values with a header (RFC 4180); ``top``, if asked for, is a column of JSON.

    Its columns are those of predictions: there is no place for events.
    """

    def _lines(self, record: dict[str, Any], first: bool) -> str:
        for name in ("top", "labels"):
            if name in record:
                record[name] = msgspec.json.encode(record[name]).decode()
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(record), lineterminator="\n")
        if first:
            writer.writeheader()
        writer.writerow(record)
        return text.getvalue()


def _write_to_stdout(lines: bytes) -> None:
    """Write past Python's buffer: a thread that never comes back from writing would lock it for the whole process."""
    sys.stdout.flush()
    rest = memoryview(lines)
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]
