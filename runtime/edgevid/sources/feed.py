"""A source on a thread of its own, so that decoding and inference overlap."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator

from edgevid.errors import UsageError
from edgevid.sources.base import Frame, Source

__all__ = ["Feed"]

QUEUE_DEPTH = 4
POLL_S = 0.1
ROUNDING_S = 1e-3  # timestamps are rounded, to milliseconds in some containers


class Feed:
    """Reads a source on a thread and hands its frames over.

    From a file every frame, in order: the reader waits while the queue is full. From a live source the newest
    frame: one that was not taken in time is dropped and counted.

    Args:
        source: the feed's from now on, and closed with it.
        stride: hand over every Nth frame only.
        max_fps: hand over no more frames for a second of the source's time; 0 for all.
        stop: set from outside (by a signal, say) to end the feed after the current frame.

    Attributes:
        dropped: how many frames of a live source were replaced by a newer one before they were taken.
    """

    def __init__(
        self, source: Source, stride: int = 1, stop: threading.Event | None = None, max_fps: float = 0.0
    ) -> None:
        if stride < 1 or not max_fps >= 0:
            source.close()
            wrong = f"stride {stride}: expected 1 or more" if stride < 1 else f"max-fps {max_fps}: expected 0 or more"
            raise UsageError(wrong)
        self.source = source
        self.dropped = 0
        self._stride = stride
        self._period = 1 / max_fps if max_fps else 0.0
        self._stop = stop or threading.Event()
        self._waiting: deque[Frame] = deque()
        self._depth = 1 if source.live else QUEUE_DEPTH
        self._changed = threading.Condition()
        self._closed = False
        self._ended = False
        self._failure: BaseException | None = None
        # A daemon: a camera driver that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._read, name="edgevid-source", daemon=True)

    def __iter__(self) -> Iterator[Frame]:
        """Start reading, and yield frames until the source ends or the stop is set; its errors are raised here."""
        self._thread.start()
        while True:
            with self._changed:
                while not self._waiting and not self._ended and not self._stop.is_set():
                    self._changed.wait(POLL_S)
                if self._stop.is_set():
                    return
                if not self._waiting:
                    break
                frame = self._waiting.popleft()
                self._changed.notify_all()
            yield frame
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """Stop reading and close the source; safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=1)
        if not self._thread.is_alive():  # else the driver hangs in it, and closing it as well would hang us
            self.source.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _read(self) -> None:
        try:
            due = -math.inf
            for frame in self.source:
                wanted = frame.index % self._stride == 0 and frame.time >= due - ROUNDING_S
                if wanted:
                    due = (due if frame.time - due < self._period else frame.time) + self._period
                if wanted and not self._hand_over(frame):
                    return
                if self._closed:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the frames are taken
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _hand_over(self, frame: Frame) -> bool:
        """Queue a frame; False if the feed was closed meanwhile."""
        with self._changed:
            while len(self._waiting) >= self._depth and not self._closed:
                if self.source.live:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            self._waiting.append(frame)
            self._changed.notify_all()
            return not self._closed
