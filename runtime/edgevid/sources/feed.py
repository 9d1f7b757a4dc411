"""The frames of a source that are wanted: of a file all of them in order, of a camera the newest."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace

from edgevid.errors import SourceError
from edgevid.sources.base import Frame, Source
from edgevid.sources.pick import Pick

__all__ = ["Feed"]

POLL_S = 0.1
PATIENCE_S = 1.0


class Feed:
    """Hands over the frames of a source that are wanted.

    From a file in order, each when it is asked for. From a live source, which a thread reads, the newest: a frame that
    was not taken in time is dropped and counted.

    Args:
        source: the feed's from now on, and closed with it.
        pick: which frames are wanted; None for all.
        stop: set from outside (by a signal, say) to end the feed after the current frame.

    Attributes:
        dropped: how many frames of a live source were replaced by a newer one before they were taken.
    """

    def __init__(self, source: Source, pick: Pick | None = None, stop: threading.Event | None = None) -> None:
        self.source = source
        self.dropped = 0
        self._pick = source.pick = replace(pick or Pick())  # our own: it notes what was taken
        self._stop = stop or threading.Event()
        self._newest: Frame | None = None
        self._changed = threading.Condition()
        self._reading = threading.Lock()  # a file, held by whoever reads it
        self._closed = False
        self._ended = False
        self._failure: BaseException | None = None
        # A daemon: a camera driver that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._read, name="edgevid-source", daemon=True)

    @property
    def frame_count(self) -> int | None:
        """How many frames it will hand over, as far as it knows; None if it does not."""
        if self.source.frame_count is None or self.source.live:
            return None
        return self._pick.count(self.source.frame_count, self.source.rate)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends or the stop is set; the source's errors are raised here.

        Raises:
            SourceError: the source failed, or has no frame between start and end.
        """
        return self._as_they_come() if self.source.live else self._in_order()

    def close(self) -> None:
        """Stop reading and close the source; safe to call twice."""
        with self._changed:
            self._closed = True
            self._pick.end = -math.inf  # a source that passes over frames sees that it may end
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=PATIENCE_S)
        # If it is being read all the same, its driver hangs, and closing it as well would hang us; the reader does it.
        if not self._thread.is_alive() and self._reading.acquire(timeout=PATIENCE_S):
            self.source.close()
            self._reading.release()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _in_order(self) -> Iterator[Frame]:
        frames = self._wanted()
        while True:
            with self._reading:
                frame = None if self._closed else next(frames, None)
            if frame is None or self._stop.is_set() or self._closed:
                return
            yield frame

    def _wanted(self) -> Iterator[Frame]:
        pick, given, frame = self._pick, False, None
        if pick.start:
            self.source.seek(pick.start)
        for frame in self.source:
            if self._stop.is_set() or self._closed:
                return
            if frame.time >= pick.end:
                break
            if pick.wants(frame.index, frame.time):
                given = True
                pick.take(frame.time)
                yield frame
        if not given and not self._closed and (pick.start or pick.end < math.inf):
            last = "" if frame is None else f", the last seen is at {frame.time:.2f} s"
            until = "" if math.isinf(pick.end) else f" and before {pick.end:g} s"
            raise SourceError(
                f"{self.source.name}: no frame from {pick.start:g} s on{until}{last}; give another --start or --end"
            )

    def _as_they_come(self) -> Iterator[Frame]:
        self._thread.start()
        while True:
            with self._changed:
                while self._newest is None and not self._ended and not self._stop.is_set():
                    self._changed.wait(POLL_S)
                if self._stop.is_set():
                    return
                frame, self._newest = self._newest, None
            if frame is None:
                break
            yield frame
        if self._failure:
            raise self._failure

    def _read(self) -> None:
        try:
            for frame in self._wanted():
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = frame
                    self._changed.notify_all()
                    if self._closed:
                        return
        except BaseException as error:  # noqa: BLE001 - raised again where the frames are taken
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            if self._closed:
                self.source.close()
