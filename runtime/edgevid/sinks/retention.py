"""What is kept of a recording in parts: their names, and which are deleted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from math import inf
from pathlib import Path

from edgevid.errors import UsageError
from edgevid.units import size_bytes, time_seconds

__all__ = ["KEEP_ALL", "Keep", "Parts", "parse_keep"]

EARLIEST = datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp()  # before that no clock was right that saw this program
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of one output is kept.

    Attributes:
        seconds: for how long a part is kept after it was closed.
        size: how many bytes all its parts may take, the one being written included.
    """

    seconds: float = inf
    size: float = inf


KEEP_ALL = Keep()


def parse_keep(texts: Sequence[str]) -> Keep:
    """Return what ``--keep`` says, a time or a size or one of each.

    Raises:
        UsageError: one is neither, or two are of a kind.
    """
    times = [seconds for text in texts if (seconds := time_seconds(text)) is not None]
    sizes = [size for text in texts if (size := size_bytes(text)) is not None]
    if len(times) + len(sizes) < len(texts) or len(times) > 1 or len(sizes) > 1:
        raise UsageError(f"--keep {' '.join(texts)}: expected a time such as 24h, a size such as 10GB, or one of each")
    return Keep(min(times, default=inf), min(sizes, default=inf))


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is closed; when, in seconds of the monotonic clock."""

    path: Path
    size: int
    closed: float


class Parts:
    """The closed parts of one output, oldest first: ``out-000001-20261126T054012Z.mp4`` of ``out.mp4``.

    Numbers say which is older. The time of day in the name is there for people, and may be wrong.

    Args:
        path: the output that they are parts of.
        keep: how much is kept.
        leave: files that are never deleted, whatever their names.
    """

    def __init__(self, path: Path, keep: Keep, leave: Iterable[Path] = ()) -> None:
        self._path = path
        self._keep = keep
        self._name = re.compile(rf"{re.escape(path.stem)}-(\d{{6,}})-\d{{8}}T\d{{6}}Z{re.escape(path.suffix)}")
        self._last = 0
        self._look_next = -inf
        self._closed: list[Part] = []
        left = {file.resolve() for file in leave}
        for number, part in sorted(self._found()):
            self._last = number
            if part.resolve() not in left:
                self._add(part, _age(part))

    def next_path(self) -> Path:
        """Return the name of a new part: numbers go on after the highest that is there or was."""
        number = self._last + 1
        clock = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        return self._path.with_name(f"{self._path.stem}-{number:06d}-{clock}{self._path.suffix}")

    def take(self, part: Path) -> None:
        """Take note that a part has its number."""
        if match := self._name.fullmatch(part.name):
            self._last = max(self._last, int(match[1]))

    def add(self, part: Path) -> None:
        """Take note of a part that was closed just now."""
        self.take(part)
        if self._name.fullmatch(part.name):
            self._add(part, age=0.0)

    def prune(self, writing: Path | None) -> None:
        """Delete the oldest closed parts that are beyond what is kept; looks once a second.

        Args:
            writing: the part that is open; it counts, and stays.
        """
        now = time.monotonic()
        if now < self._look_next or self._keep == KEEP_ALL:
            return
        self._look_next = now + LOOK_EVERY_S
        total = sum(part.size for part in self._closed) + _size(writing)
        for part in list(self._closed):
            if total <= self._keep.size and now - part.closed <= self._keep.seconds:
                return
            if _deleted(part.path):  # else, as the drive is away say, it is tried again
                self._closed.remove(part)
                total -= part.size

    def _add(self, part: Path, age: float) -> None:
        if self._keep != KEEP_ALL:
            self._closed.append(Part(part, _size(part), time.monotonic() - age))

    def _found(self) -> list[tuple[int, Path]]:
        matches = ((self._name.fullmatch(file.name), file) for file in self._path.parent.iterdir())
        return [(int(match[1]), file) for match, file in matches if match and file.is_file()]


def _age(part: Path) -> float:
    """Return how long ago a part was closed that was there at the start, in seconds, as far as the wall clock knows.

    A board without a clock of its own begins each time in the past, 1970 say: what it has written then is as of now.
    """
    changed = part.stat().st_mtime
    return max(0.0, time.time() - changed) if changed > EARLIEST else 0.0


def _deleted(path: Path) -> bool:
    try:
        path.unlink(missing_ok=path.parent.is_dir())
    except OSError:
        return False
    return True


def _size(path: Path | None) -> int:
    with suppress(OSError):
        return path.stat().st_size if path else 0
    return 0
