"""The frames of a source that are wanted: of a file all of them in order, of a camera the newest."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from edgevid.errors import SourceError
from edgevid.events import Event
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
        tell: called with what happens to a live source, between the frames where it happens, where frames are taken.
        wait: called ten times a second while a live source is waited for.
    """

    def __init__(
        self,
        source: Source,
        pick: Pick | None = None,
        stop: threading.Event | None = None,
        *,
        tell: Callable[[Event], None] = lambda event: None,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self._replaced = 0
        self._pick = source.pick = replace(pick or Pick())  # our own: it notes what was taken
        self._stop = stop or threading.Event()
        self._tell, self._wait = tell, wait
        self._waiting: deque[Frame | Event] = deque()  # at most one frame
        self._changed = threading.Condition()
        self._reading = threading.Lock()  # a file, held by whoever reads it
        self._closed = False
        self._ended = False
        self._failure: BaseException | None = None
        # A daemon: a camera driver that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._read, name="edgevid-source", daemon=True)

    @property
    def dropped(self) -> int:
        """How many frames of a live source were not taken, since newer ones had come."""
        return self._replaced + self.source.dropped

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
        self.source.interrupt()
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
                try:
                    frame = None if self._closed else next(frames, None)
                except SourceError:
                    if self._stop.is_set():  # who ends it need not know how it would have ended
                        return
                    raise
            if frame is None or self._stop.is_set() or self._closed:
                return
            yield frame

    def _wanted(self) -> Iterator[Frame]:
        pick, given, frame, gap_s = self._pick, False, None, 0.0
        if pick.start:
            self.source.seek(pick.start)
        for frame in self.source:
            if self._stop.is_set() or self._closed:
                return
            if frame.time >= pick.end:
                break
            gap_s += frame.gap_s
            if pick.wants(frame.index, frame.time):
                given = True
                pick.take(frame.time)
                yield replace(frame, gap_s=gap_s) if gap_s else frame
                gap_s = 0.0
        if not given and not self._closed and (pick.start or pick.end < math.inf):
            last = "" if frame is None else f", the last seen is at {frame.time:.2f} s"
            until = "" if math.isinf(pick.end) else f" and before {pick.end:g} s"
            raise SourceError(
                f"{self.source.name}: no frame from {pick.start:g} s on{until}{last}; give another --start or --end"
            )

    def _as_they_come(self) -> Iterator[Frame]:
        self.source.tell = self._admit
        self._thread.start()
        while items := self._taken():
            for item in items:
                if isinstance(item, Frame):
                    yield item
                else:
                    self._tell(item)
        if self._failure and not self._stop.is_set():
            raise self._failure

    def _taken(self) -> list[Frame | Event]:
        """Wait for a frame or an event, and take all there are; nothing at the end."""
        while not self._stop.is_set():
            with self._changed:
                if not self._waiting and not self._ended:
                    self._changed.wait(POLL_S)
                if self._waiting or self._ended:
                    items = list(self._waiting)
                    self._waiting.clear()
                    return items
            self._wait()
        return []

    def _admit(self, item: Frame | Event) -> None:
        """Have an item taken next: an event in its place, a frame instead of an older one."""
        with self._changed:
            older = next((other for other in self._waiting if isinstance(other, Frame)), None)
            if older and isinstance(item, Frame):
                self._waiting.remove(older)
                self._replaced += 1
                item = replace(item, gap_s=item.gap_s + older.gap_s)
            self._waiting.append(item)
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for frame in self._wanted():
                self._admit(frame)
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
