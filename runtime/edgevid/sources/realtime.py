"""A file as a camera would show it: at its own speed, and what nobody takes in time is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from edgevid.sources.base import Frame, Source

__all__ = ["RealtimeSource"]


class RealtimeSource(Source):
    """Hands over each frame of a source when its time has come, counted from the first."""

    live = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self._closed = threading.Event()
        self._waits = False
        self.name, self.files, self.frame_count = source.name, source.files, source.frame_count
        self.rate, self.time_base = source.rate, source.time_base

    @property
    def heard(self) -> float:  # type: ignore[override]  # of the inner source; while a frame waits for its time, now
        """When anything came from it, on the monotonic clock."""
        return time.monotonic() if self._waits else self._source.heard

    @property
    def broken(self) -> int:  # type: ignore[override]  # the inner source counts
        """How many frames could not be decoded so far."""
        return self._source.broken

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, each at its time."""
        began: float | None = None
        self._source.pick, self._source.first_index = self.pick, self.first_index
        self._source.tell = self.tell
        for frame in self._source:
            if frame.time >= self.pick.end:
                return
            if not self.pick.wants(frame.index, frame.time):
                continue
            now = time.monotonic()
            began = now - frame.time if began is None else began
            self._waits = True
            if self._closed.wait(max(0.0, began + frame.time - now)):
                return
            self._waits = False
            yield replace(frame, arrived=time.monotonic())
            if self._closed.is_set():  # the file is closed: nothing more can be read from it
                return

    def seek(self, seconds: float) -> None:
        """Begin shortly before a time."""
        self._source.seek(seconds)

    def interrupt(self) -> None:
        """End soon; may be called on any thread."""
        self._closed.set()
        self._source.interrupt()

    def close(self) -> None:
        """Close the source; whoever waits for a frame waits no longer."""
        self.interrupt()
        self._source.close()
