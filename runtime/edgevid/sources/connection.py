"""A source on a thread of its own, which is left behind when it hangs."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic

from edgevid.errors import EdgevidError, SourceError, first_line
from edgevid.secrets import redact
from edgevid.sources.base import Frame, Source

__all__ = ["Connection", "some_hang"]

DEPTH = 2
PATIENCE_S = 0.5
at_exit_s = 5.0  # that long an end of Python waits for calls to return


class Connection:
    """Opens a source and reads it, on a daemon thread: every call that may block for ever is made there.

    Once it is left, its thread closes the source as soon as it gets out of the call it is in, and ends. What fails in
    another way than sources do is a SourceError as well: drivers and libraries raise all sorts of things, and a source
    that shall come back must not be given up for it.

    Args:
        open_source: opens the source.
    """

    def __init__(self, open_source: Callable[[], Source]) -> None:
        self._open = open_source
        self._waiting: deque[Source | Frame | BaseException | None] = deque()
        self._changed = threading.Condition()
        self._reading = self._left = False
        self._source: Source | None = None
        self._thread = threading.Thread(target=self._work, name="edgevid-connection", daemon=True)
        self._thread.start()
        _connections.add(self)

    @property
    def ended(self) -> bool:
        """Whether its thread has come to its end."""
        return not self._thread.is_alive()

    def source(self, timeout_s: float) -> Source:
        """Return the source once it is open; its frames wait for :meth:`begin`.

        Raises:
            SourceError: it cannot be opened, or not within that time.
        """
        opened = self._take(timeout_s)
        if not isinstance(opened, Source):  # the run ends meanwhile
            raise SourceError("it was left before it was open")
        return opened

    def begin(self) -> None:
        """Begin to read."""
        with self._changed:
            self._reading = True
            self._changed.notify_all()

    def frame(self, timeout_s: float) -> Frame | None:
        """Return the next frame; None at the source's end, and once this connection was left.

        Raises:
            SourceError: the source failed, or nothing was heard of it for that time.
        """
        frame = self._take(timeout_s)
        assert frame is None or isinstance(frame, Frame)
        return frame

    def leave(self) -> None:
        """Have the source closed, and wait for nothing more; safe to call twice, on any thread."""
        with self._changed:
            self._left = True
            self._changed.notify_all()
        if self._source:
            self._source.interrupt()

    def join(self, timeout_s: float) -> None:
        """Wait until its thread has ended, but no longer than that."""
        self._thread.join(timeout_s)

    def _take(self, timeout_s: float) -> Source | Frame | None:
        asked = monotonic()
        with self._changed:
            while not (self._waiting or self._left):
                heard = max(asked, self._source.heard if self._source else 0.0)
                silent_until = heard + timeout_s
                if monotonic() >= silent_until:
                    raise SourceError(f"no answer for {timeout_s:g} s")
                self._changed.wait(silent_until - monotonic())
            item = self._waiting.popleft() if self._waiting and not self._left else None
            self._changed.notify_all()
        if isinstance(item, BaseException):
            raise item
        return item

    def _put(self, item: Source | Frame | BaseException | None) -> bool:
        """Hand over an item when there is room; returns whether anyone still wants more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < DEPTH or self._left)
            self._waiting.append(item)
            self._changed.notify_all()
            return not self._left

    def _work(self) -> None:
        source = None
        try:
            source = self._source = self._open()
            if self._put(source) and self._begun():
                for frame in source:
                    if not self._put(frame):
                        break
            self._put(None)
        except EdgevidError as error:
            self._put(error)
        except BaseException as error:  # noqa: BLE001 - raised where frames are taken
            self._put(SourceError(f"unexpected {type(error).__name__}: {redact(first_line(error))}"))
        finally:
            if source is not None:
                source.close()

    def _begun(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._reading or self._left)
            return not self._left


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def some_hang() -> bool:
    """Leave every connection there is; return whether one has not ended soon after, and has no more time for it."""
    global at_exit_s
    at_exit_s = 0.0
    return not _all_end(PATIENCE_S)


def _all_end(patience_s: float) -> bool:
    connections = list(_connections)
    for connection in connections:
        connection.leave()
    until = monotonic() + patience_s
    while not all(connection.ended for connection in connections) and monotonic() < until:
        time.sleep(0.01)
    return all(connection.ended for connection in connections)


@atexit.register
def _end_all() -> None:
    """Wait for threads that ask Python whether to go on: when it has ended they would crash."""
    _all_end(at_exit_s)
