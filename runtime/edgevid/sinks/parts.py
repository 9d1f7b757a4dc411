"""A recording in parts: a new file each so many minutes of video, and after each failure that ended one."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgevid.errors import SinkError
from edgevid.events import Event
from edgevid.sinks.base import Sink
from edgevid.sinks.retention import KEEP_ALL, Keep, Parts
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

__all__ = ["UNSPLIT", "PartsSink", "Split"]


@dataclass(frozen=True, slots=True)
class Split:
    """How outputs are written in parts.

    Attributes:
        segment_s: seconds of the source's time in a part, counted from the first frame.
        keep: how much of each output is kept.
        leave: files that are never deleted, whatever their names: those of the source.
    """

    segment_s: float = math.inf
    keep: Keep = KEEP_ALL
    leave: Iterable[Path] = ()


UNSPLIT = Split()


class PartsSink(Sink):
    """Writes to one sink after another, each of a file of its own.

    Without segments the first file has the name that was asked for, and only what follows a failure is a part with a
    number. A part of which nothing could be written leaves no file.

    Args:
        path: the output; its parts stand beside it.
        open_part: opens the sink of a file; the second argument is whether to replace it.
        split: when a part ends, and which are deleted.
        force: replace ``path`` if it exists; parts replace nothing.
        aside: complete a segment on a thread while the next is written, since a disk may take seconds for that.

    Raises:
        SinkError: ``path`` is to be written and exists, or its folder is absent.
    """

    def __init__(
        self,
        path: Path,
        open_part: Callable[[Path, bool], Sink],
        split: Split = UNSPLIT,
        force: bool = False,
        aside: bool = False,
    ) -> None:
        segments = not math.isinf(split.segment_s)
        first = open_part(path, force or segments)  # creates nothing yet, and says what kind of sink they all are
        self.name, self.needs_picture, self.goes_on = first.name, first.needs_picture, first.goes_on
        self._path, self._open_part, self._force = path, open_part, force
        self._whole_first = not segments
        self._segment_s = split.segment_s
        self._parts = Parts(path, split.keep, split.leave)
        self._part: Sink | None = None
        self._aside = aside
        self._ending: Ending | None = None
        self._writing = path
        self._first_time: float | None = None
        self._segment = 0
        self._count, self._last = 0, ""
        self._closed = False

    @property
    def unsaved(self) -> int:  # type: ignore[override]  # the part that is open counts
        """How many of the last frames are not written yet."""
        return self._part.unsaved if self._part else 0

    @property
    def wrote(self) -> str:  # type: ignore[override]
        """What files it left."""
        return self._last if self._count < 2 else f"{self._path}, {self._count} parts, the last {self._last}"

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Write to the part that is open, or to a new one."""
        if self._ending and not self._ending.is_alive():
            self._ended()
        self.make_room()
        self._move_on(frame.time)
        self._attempt(lambda part: part.write(frame, prediction))

    def write_event(self, event: Event) -> None:
        """Write the event to the part that is open, or to a new one."""
        self._attempt(lambda part: part.write_event(event))

    def make_room(self) -> None:
        """Delete the parts that are beyond what is kept."""
        self._parts.prune(self._writing if self._part else None)

    def close(self) -> None:
        """Complete the last part."""
        self._closed = True
        self._end_part()

    def _attempt(self, action: Callable[[Sink], None]) -> None:
        part = self._part = self._part or self._opened()
        try:
            action(part)
        except SinkError:
            if not self.goes_on:
                with suppress(SinkError):  # the first error says why
                    self._end_part()
            raise

    def _move_on(self, time: float) -> None:
        self._first_time = time if self._first_time is None else self._first_time
        segment = math.floor((time - self._first_time) / self._segment_s)
        if segment != self._segment:
            self._segment = segment
            self._end_part(self._aside)

    def _opened(self) -> Sink:
        if self._closed:
            raise SinkError(f"{self._path}: nothing can be written any more; it is closed")
        try:
            self._path.parent.stat()  # a network drive that went away has no folder
            self._writing = self._path if self._whole_first else self._parts.next_path()
            return self._open_part(self._writing, self._force and self._whole_first)
        except OSError as error:
            raise SinkError(f"{self._path}: it cannot be written ({error.strerror}); choose another place") from error

    def _end_part(self, aside: bool = False) -> None:
        """Complete the part that is open, after the one before it."""
        part, self._part = self._part, None
        try:
            self._ended()
        finally:
            if part:
                self._parts.take(self._writing)
                self._ending = Ending(part, self._writing)
                self._ending.start()
                if not aside:
                    self._ended()

    def _ended(self) -> None:
        """Wait until the part before is complete, and take note of it; raises what went wrong."""
        ending, self._ending = self._ending, None
        if ending is None:
            return
        ending.join()
        self.missing += ending.part.unsaved
        if ending.part.wrote:
            self._count, self._last = self._count + 1, ending.part.wrote
            self._parts.add(ending.path)
            self._whole_first = False
        if ending.failure:
            raise ending.failure


class Ending(threading.Thread):
    """Completes a part.

    Attributes:
        failure: what went wrong.
    """

    def __init__(self, part: Sink, path: Path) -> None:
        super().__init__(name="edgevid-ending", daemon=True)
        self.part, self.path = part, path
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Complete it."""
        try:
            self.part.close()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self.failure = error
