"""A live recording that goes on after a failure: a full disk stops it, not the run."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgevid.errors import SinkError
from edgevid.events import Event
from edgevid.sinks.base import Sink
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

__all__ = ["RetryingSink"]

RETRY_EVERY_S = 1.0
# What may pass, even if nothing could be written yet; any other failure then is the user's to see at once.
PASSING = {
    errno.EDQUOT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOSPC,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
# A recording that is resumed for the last free bytes stops again at once: how much must be free, of the disk at most,
# for video and for predictions.
ROOM_SHARE = 0.05
ROOM_FOR_VIDEO, ROOM_FOR_LINES = 64e6, 1e6
KEPT_LINES = 100_000


class RetryingSink(Sink):
    """Tries again about once a second after its sink has failed, and tells when that stops and resumes.

    Predictions wait in memory meanwhile, up to 100,000 of them; pictures are too big for that, and are left out.

    Args:
        sink: this one's from now on, and closed with it.
        path: where it writes.
        tell: told the events ``stopped`` and ``resumed``; the latter says how many frames are missing.
    """

    def __init__(self, sink: Sink, path: Path, tell: Callable[[Event], None]) -> None:
        self.name, self.needs_picture = sink.name, sink.needs_picture
        self._sink = sink
        self._path = path
        self._tell = tell
        self._kept = 0 if sink.needs_picture else KEPT_LINES
        self._room = ROOM_FOR_VIDEO if sink.needs_picture else ROOM_FOR_LINES
        self._waiting: deque[Callable[[], None]] = deque()
        self._lost = 0
        self._written = False  # whether anything ever was
        self._why: SinkError | None = None  # it has stopped
        self._missing_before = 0
        self._retry_at = self._time = 0.0

    @property
    def missing(self) -> int:  # type: ignore[override]  # the inner sink counts its own
        """How many frames could not be written."""
        return self._lost + self._sink.missing

    @property
    def wrote(self) -> str:  # type: ignore[override]
        """What files it left."""
        return self._sink.wrote

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Write the frame, or let it wait or leave it out while nothing can be written."""
        self._take(partial(self._sink.write, frame, prediction), frame.time)

    def write_event(self, event: Event) -> None:
        """Write the event, or let it wait."""
        if not self.needs_picture:
            self._take(partial(self._sink.write_event, event), event.time)

    def close(self) -> None:
        """Try once more to write what waits, into the last free bytes too, and close the sink."""
        with self._sink:
            if self._waiting:
                self._write_waiting()
        if self._waiting:
            raise SinkError(f"{self._path}: the last {len(self._waiting)} lines are not in it: {self._why}")

    def _take(self, action: Callable[[], None], time_s: float) -> None:
        self._time = time_s
        self._waiting.append(action)
        if self._why is None or self._may_try():
            self._write_waiting()
        while self._why and len(self._waiting) > self._kept:
            self._waiting.pop()
            self._lost += 1

    def _write_waiting(self) -> None:
        unsaved, missing = self._sink.unsaved, self.missing
        try:
            while self._waiting:
                self._waiting[0]()
                self._waiting.popleft()
        except SinkError as error:
            self._stop(error, missing)
        else:
            # A frame that was encoded is not written yet: once one is, fewer wait.
            if self._sink.unsaved <= unsaved:
                self._written = True
                self._resume()

    def _stop(self, error: SinkError, missing: int) -> None:
        cause = error.__cause__
        if not isinstance(cause, OSError) or not (self._written or cause.errno in PASSING):
            raise error
        self._retry_at = time.monotonic() + RETRY_EVERY_S
        if self._why is None:
            self._missing_before = missing
            text = f"{self.name}: recording stopped ({cause.strerror})"
            self._tell(Event("stopped", self._time, text, {"output": self.name}))
        self._why = error

    def _resume(self) -> None:
        if self._why is None:
            return
        self._why = None
        missing = self.missing - self._missing_before
        text = f"{self.name}: recording resumed, {missing} frames are missing in it"
        self._tell(Event("resumed", self._time, text, {"output": self.name, "missing": missing}))

    def _may_try(self) -> bool:
        """Return whether it is time to try again, and a resumed recording would last."""
        if time.monotonic() < self._retry_at:
            return False
        self._sink.make_room()
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize > min(ROOM_SHARE * disk.f_blocks * disk.f_frsize, self._room)
