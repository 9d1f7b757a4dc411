"""A sink on a thread of its own, so that encoding and inference overlap."""

from __future__ import annotations

import queue
import threading

from edgevid.sinks.base import Sink
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

__all__ = ["BackgroundSink"]

QUEUE_DEPTH = 4


class BackgroundSink(Sink):
    """Hands frames to another sink on a thread; every frame arrives, in order.

    A failure of that sink is raised by the next :meth:`write`, or by :meth:`close`.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: queue.Queue[tuple[Frame, Prediction] | None] = queue.Queue(QUEUE_DEPTH)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="edgevid-sink", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Queue the frame; waits while the queue is full."""
        self._raise_failure()
        self._waiting.put((frame, prediction))

    def close(self) -> None:
        """Write what is queued, then close the sink."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        try:
            self._raise_failure()
        finally:
            self._sink.close()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._failure is None:  # after a failure the queue is only emptied, so that nobody waits on it
                try:
                    self._sink.write(*item)
                except BaseException as error:  # noqa: BLE001 - raised again where frames are written
                    self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
