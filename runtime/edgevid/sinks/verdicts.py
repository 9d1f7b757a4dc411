"""Verdicts of whole clips as text, JSON Lines or CSV, a line a clip; and what an interrupted run left of them."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from edgevid.errors import SinkError, UsageError
from edgevid.sinks import check_suffix
from edgevid.sinks.base import check_output
from edgevid.sinks.whole import WholeFile

__all__ = ["COLUMNS", "Record", "VerdictFile", "json_line", "printable"]

# Of a clip that could not be classified there are only clip, error, and what it is known by again: its size, when it
# was modified, and the settings, which are the model and the options that matter.
COLUMNS = (
    *("clip", "label", "score", "share", "frames", "broken", "seconds", "pooling", "pooled", "labels", "top"),
    *("error", "bytes", "modified", "settings"),
)
KNOWN_BY = {"clip", "bytes", "modified", "settings"}
LISTS = ("pooled", "labels", "top")  # JSON in a column of CSV
Record: TypeAlias = dict[str, Any]


class VerdictFile:
    """A file of verdicts, ``.jsonl`` or ``.csv``, that gets a line a clip, at once and as a whole.

    It is created with the first of them. To resume, what it holds is read, but for a last line that was cut short.

    Args:
        path: the file.
        force: replace it if it exists.
        resume: go on with it if it exists.

    Raises:
        UsageError: the suffix is another one, or there is something else than verdicts in it to resume.
        SinkError: it exists, and neither ``force`` nor ``resume`` is true; or it cannot be read; or its folder is
            absent.
    """

    def __init__(self, path: Path, *, force: bool = False, resume: bool = False) -> None:
        self.path = path
        self._format = FORMATS[check_suffix(path, FORMATS)]
        check_output(path, force or resume)
        self._force = force
        self._file: WholeFile | None = None
        self._size: int | None = None  # of what is kept
        self._resumes = resume and path.exists()
        self.found = list(_verdicts(path, self._format)) if self._resumes else []

    def keep(self, records: Sequence[Record]) -> None:
        """Have a file that is resumed hold those of the verdicts found that are still good, and no others.

        It is written anew and renamed into place, so that a kill leaves either.

        Raises:
            SinkError: it cannot be written.
        """
        if not self._resumes:
            return
        data = b"".join(self._format.encode(record, number == 0) for number, record in enumerate(records))
        target = self.path.resolve()
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            scratch.write_bytes(data)
            shutil.copymode(target, scratch)
            scratch.replace(target)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise self._failed(error) from error
        self._size = len(data)

    def append(self, record: Record) -> None:
        """Write a verdict as one line.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self._file = self._file or WholeFile(self.path, force=self._force, go_on_at=self._size)
            self._file.append(self._format.encode(record, self._file.size == 0))
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Close the file; safe to call twice.

        Raises:
            SinkError: a network drive says only now that it has no room.
        """
        try:
            if self._file:
                self._file.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(
            f"{self.path}: verdicts cannot be written ({error.strerror}); make room or choose another place, and go on "
            "with --resume"
        )


def json_line(record: Record, first: bool = False) -> bytes:
    """Return a verdict as one line of JSON, without what it does not have."""
    return msgspec.json.encode({name: value for name, value in record.items() if value is not None}) + b"\n"


def printable(name: str) -> str:
    """Return a file's name as JSON can have it: bytes that are no UTF-8 as backslash and number."""
    return name.encode("utf-8", "backslashreplace").decode()


def _csv_line(record: Record, first: bool) -> bytes:
    """Return a verdict as one line of CSV (RFC 4180), before the first the names of the columns."""
    row = {
        name: msgspec.json.encode(value).decode() if name in LISTS and isinstance(value, dict | list) else value
        for name, value in record.items()
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if first:
        writer.writeheader()
    writer.writerow(row)
    return text.getvalue().encode()


def _json_records(text: str) -> Iterator[Any]:
    for line in text.split("\n")[:-1]:
        yield msgspec.json.decode(line)


def _csv_records(text: str) -> Iterator[Any]:
    for row in csv.DictReader(io.StringIO(text, newline="")):
        yield {name: value for name, value in row.items() if value}


@dataclass(frozen=True)
class Format:
    """How verdicts are written and read, and how every file of them begins."""

    encode: Callable[[Record, bool], bytes]
    decode: Callable[[str], Iterator[Any]]
    beginning: bytes


FORMATS: Mapping[str, Format] = {
    ".jsonl": Format(json_line, _json_records, b'{"clip":"'),
    ".csv": Format(_csv_line, _csv_records, ",".join(COLUMNS).encode()),
}


def _verdicts(path: Path, form: Format) -> Iterator[Record]:
    """Yield the verdicts of a file, without a last line that has no end."""
    number = 0
    try:
        data = path.read_bytes()
        if not data.startswith(form.beginning[: len(data)]):
            raise ValueError("another beginning")
        for record in form.decode(data[: data.rfind(b"\n") + 1].decode()):
            if not (isinstance(record, dict) and set(record) >= KNOWN_BY):
                raise ValueError("another shape")
            number += 1
            yield {**record, "bytes": int(record["bytes"])}
    except OSError as error:
        raise SinkError(f"{path}: it cannot be read ({error.strerror}); name another file") from error
    except (ValueError, TypeError, csv.Error) as error:  # msgspec's are ValueErrors
        raise UsageError(
            f"--resume {path}: verdict {number + 1} in it is none of 'edgevid classify'; name another file, or replace "
            "this one with --force"
        ) from error
