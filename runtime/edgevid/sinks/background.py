"""A sink on a thread of its own, so that a live source's frames never wait for it."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

import numpy as np

from edgevid.errors import SinkError
from edgevid.events import Event
from edgevid.sinks.base import Sink
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

__all__ = ["BackgroundSink"]

# How many frames may wait: a quarter of a second of video, since pictures are big, and minutes of predictions.
DEPTH_WITH_PICTURES, DEPTH_WITHOUT = 8, 10_000
PATIENCE_S = 1.5  # of the two seconds that a run may take to end
NO_PICTURE = np.zeros((0, 0, 3), np.uint8)


class BackgroundSink(Sink):
    """Hands frames and events to another sink on a thread, in order.

    A frame that comes while too many wait is left out and counted in :attr:`dropped`; an event never is. A failure of
    that sink is raised by the next :meth:`write`, or by :meth:`close`.

    Args:
        sink: this one's from now on, and closed with it, on its thread.
        depth: how many frames may wait; None for what suits the sink.
    """

    def __init__(self, sink: Sink, depth: int | None = None) -> None:
        self.name, self.needs_picture = sink.name, sink.needs_picture
        self._sink = sink
        self._depth = depth or (DEPTH_WITH_PICTURES if sink.needs_picture else DEPTH_WITHOUT)
        self._waiting: deque[tuple[Frame, Prediction] | Event] = deque()
        self._frames = 0  # of those that wait
        self._changed = threading.Condition()
        self._deadline: float | None = None  # once it has ended
        self._given_up = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="edgevid-sink", daemon=True)
        self._thread.start()

    @property
    def missing(self) -> int:  # type: ignore[override]  # the inner sink counts
        """How many frames could not be written."""
        return self._sink.missing

    @property
    def wrote(self) -> str:  # type: ignore[override]
        """What files it left."""
        return self._sink.wrote

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Queue the frame, or leave it out; waits for nothing."""
        with self._changed:
            self._raise_failure()
            if self._deadline is not None:
                raise SinkError(f"{self.name}: nothing can be written any more; it is closed")
            if self._frames >= self._depth:
                self.dropped += 1
                return
            frame = frame if self.needs_picture else replace(frame, picture=NO_PICTURE)
            self._frames += 1
            self._put((frame, prediction))

    def write_event(self, event: Event) -> None:
        """Queue the event, behind the frames that came before it."""
        with self._changed:
            if self._failure is None and self._deadline is None:
                self._put(event)

    def end(self) -> None:
        """Have what is queued written, and the sink closed; this begins the time that :meth:`close` waits for it."""
        with self._changed:
            self._deadline = self._deadline or time.monotonic() + PATIENCE_S
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until what is queued is written and the sink closed, but not for a sink that never returns."""
        self.end()
        assert self._deadline is not None
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        with self._changed:
            if self._thread.is_alive() and self._failure is None and not self._given_up:
                self._given_up = True
                self._failure = SinkError(
                    f"{self.name}: given up after {PATIENCE_S:g} s, with {self._frames} frames waiting to be written; "
                    "is its disk slow, or who reads it stopped?"
                )
                self._waiting.clear()
            failure, self._failure = self._failure, None
        if failure:
            raise failure

    def _put(self, item: tuple[Frame, Prediction] | Event) -> None:
        self._waiting.append(item)
        self._changed.notify_all()

    def _work(self) -> None:
        try:
            with self._sink:
                while (item := self._next()) is not None:
                    if isinstance(item, Event):
                        self._sink.write_event(item)
                    else:
                        self._sink.write(*item)
        except BaseException as error:  # noqa: BLE001 - raised again where frames are written
            with self._changed:
                self._failure = error
                self._waiting.clear()

    def _next(self) -> tuple[Frame, Prediction] | Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
            item = self._waiting.popleft() if self._waiting else None
            self._frames -= isinstance(item, tuple)
            return item

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
