"""Predictions as text: JSON Lines or CSV, one whole line a frame."""

from __future__ import annotations

import csv
import sys
from abc import abstractmethod
from pathlib import Path
from typing import Any, TextIO

import msgspec

from edgevid.errors import SinkError
from edgevid.sinks.base import Sink, check_output
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame


class TextSink(Sink):
    """A text file, or stdout, that gets one line a frame and is flushed at each.

    The file is created with the first frame, so that a run that fails before it replaces nothing.

    Args:
        path: the file to create; None for stdout.
        force: replace the file if it exists.

    Raises:
        SinkError: the file exists and ``force`` is false, or its folder is absent.
    """

    def __init__(self, path: Path | None, force: bool = False) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._closed = False
        if path is not None:
            check_output(path, force)

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Write the prediction as one line."""
        if self._closed:
            raise SinkError(f"{self._path or 'stdout'}: predictions cannot be written any more; it is closed")
        try:
            self._file = self._file or self._opened()
            self._write_record(self._file, prediction.to_dict())
            self._file.flush()
        except BrokenPipeError:  # the reader of stdout has seen enough: no failure of ours
            raise
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file; stdout stays open."""
        self._closed = True
        file, self._file = self._file, None
        if file is not None and self._path is not None:
            try:
                file.close()
            except OSError as error:
                raise self._failed(error) from error

    def _opened(self) -> TextIO:
        return self._path.open("w", encoding="utf-8", newline="") if self._path else sys.stdout

    @abstractmethod
    def _write_record(self, file: TextIO, record: dict[str, Any]) -> None:
        """Write one record as one line."""

    def _failed(self, error: OSError) -> SinkError:
        name = self._path or "stdout"
        return SinkError(f"{name}: predictions cannot be written ({error.strerror}); choose another place")


class JsonLinesSink(TextSink):
    """One JSON object a line."""

    def _write_record(self, file: TextIO, record: dict[str, Any]) -> None:
        file.write(msgspec.json.encode(record).decode() + "\n")


class CsvSink(TextSink):
    """Comma-separated values with a header (RFC 4180); ``top``, if asked for, is a column of JSON."""

    _header_written = False

    def _write_record(self, file: TextIO, record: dict[str, Any]) -> None:
        if "top" in record:
            record["top"] = msgspec.json.encode(record["top"]).decode()
        writer = csv.DictWriter(file, fieldnames=list(record), lineterminator="\n")
        if not self._header_written:
            writer.writeheader()
            self._header_written = True
        writer.writerow(record)
