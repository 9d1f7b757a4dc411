"""Live sources that come back: opened again and again, whenever they fail, fall silent or end."""

from __future__ import annotations

import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from time import monotonic

from edgevid.errors import RefusedError, SourceError
from edgevid.events import Event, utc_now
from edgevid.sources.base import Frame, Source
from edgevid.sources.clock import Clock
from edgevid.sources.connection import Connection
from edgevid.sources.frozen import StillPicture
from edgevid.sources.options import SourceOptions
from edgevid.sources.pick import Pick

__all__ = ["Patience", "ReconnectingSource"]

FINEST_TIME_BASE = Fraction(1, 90_000)
LONGEST_OPENING_S = 5.0
STALE_AFTER_S = 2.0  # open and unread
POLL_S = 0.1
PATIENCE_S = 2.0  # of closing
MOST_HANGING = 4  # threads that were left in a call that does not return


@dataclass(frozen=True)
class Patience:
    """The pauses between attempts to reach a source, in seconds of the monotonic clock.

    Attributes:
        first_s: before the first retry; each further pause is longer by half.
        longest_s: the longest pause. Short, since the source shall be seen soon after it is back, and an attempt costs
            next to nothing.
        refused_s: the longest pause where the source is there and refuses: cameras lock out who insists.
        settled_s: what has lived for so long begins with the first pause again.
    """

    first_s: float = 0.5
    longest_s: float = 2.0
    refused_s: float = 10.0
    settled_s: float = 10.0

    def pause_s(self, attempts: int, refused: bool) -> float:
        """Return the pause after so many attempts in vain: up to a quarter shorter or longer, by chance."""
        longest = (self.refused_s if refused else self.longest_s) / 1.25
        pause: float = min(longest, self.first_s * 1.5 ** min(attempts, 20))
        return pause * random.uniform(0.75, 1.25)  # noqa: S311 - so that many devices do not come at once


class ReconnectingSource(Source):
    """The frames of a live source, numbered and timed as one stream over all its interruptions.

    Times begin with 0, are the source's own within a connection, and go on by the monotonic clock over an interruption.
    The first frame after one says how long it was; no frame is invented. What happens is told as events: ``lost`` and
    ``back``, and ``frozen`` and ``moving`` of a picture that stops and goes on.

    What turns out to be no live source, a file behind a URL, is read once, in order; its failure is an error.

    Args:
        name: what the user called it, without a password.
        open_source: opens it, each time anew.
        options: how long it is waited for.
        tell: called with what happens before it is iterated over.
        patience: the pauses between attempts.

    Raises:
        SourceError: it cannot be opened at the start, and ``options.wait`` is false.
    """

    def __init__(
        self,
        name: str,
        open_source: Callable[[], Source],
        options: SourceOptions,
        tell: Callable[[Event], None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self.tell = tell or self.tell
        self._open, self._options, self._patience = open_source, options, patience or Patience()
        self._over = threading.Event()
        self._connection: Connection | None = None
        self._hanging: list[Connection] = []
        self._source: Source | None = None
        self._broken_before = self._dropped_before = self._attempts = self._next = 0
        self._lost_since: float | None = None
        self._last_arrival: float | None = None
        self._was_open = self._refused = False
        self._clock = Clock()
        self._still, self._frozen = StillPicture(), False
        self._told: deque[Event] = deque()  # by the source, which does not know the time in the whole stream
        while not (opened := self._opened()):
            self._pause(options.idle)
        self._opened_at = monotonic()
        self.live, self.frame_count, self.duration = opened.live, opened.frame_count, opened.duration
        self.rate, self.time_base = opened.rate, max(opened.time_base, FINEST_TIME_BASE)
        self._exclusive = opened.exclusive

    @property
    def broken(self) -> int:  # type: ignore[override]  # over all connections
        """How many frames could not be decoded so far."""
        source = self._source
        return self._broken_before + (source.broken if source else 0)

    @property
    def dropped(self) -> int:  # type: ignore[override]  # over all connections
        """How many frames were not decoded so far, since newer ones had come."""
        source = self._source
        return self._dropped_before + (source.dropped if source else 0)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames for ever; raises SourceError once it was away for longer than it is waited for."""
        if not self.live:
            yield from self._frames_of_file()
            return
        if self._source and self._source.stale_when_unread and monotonic() - self._opened_at > STALE_AFTER_S:
            self._leave()  # what has come since would be seen late, and all at once
        while not self._over.is_set():
            if self._source or self._opened():
                yield from self._connected_frames()
            if not self._source:
                self._pause()

    def seek(self, seconds: float) -> None:
        """Begin shortly before a time, where it is a file."""
        if self._source and not self.live:
            self._source.seek(seconds)

    def interrupt(self) -> None:
        """End soon; may be called on any thread."""
        self._over.set()
        connection = self._connection
        if connection:
            connection.leave()

    def close(self) -> None:
        """Let the source go; of an exclusive one, return when others can have it. Safe to call twice."""
        self.interrupt()
        if self._exclusive and self._connection:
            for connection in (*self._hanging, self._connection):
                connection.join(PATIENCE_S)

    def _opened(self) -> Source | None:
        """Open the source; None if that fails and it is to be tried again."""
        try:
            self._connect()
        except SourceError as error:
            if not (self._was_open or self._options.wait):
                raise self._named(error) from error.__cause__
            self._lose(error)
        return self._source

    def _connect(self) -> None:
        self._hanging = [connection for connection in self._hanging if not connection.ended]
        if len(self._hanging) >= MOST_HANGING:
            raise SourceError(f"{len(self._hanging)} earlier attempts hang in it still")
        connection = self._connection = Connection(self._open)
        try:
            if self._over.is_set():
                raise SourceError("it was left")
            source = connection.source(LONGEST_OPENING_S)
            if self._was_open and not source.live:
                raise SourceError("the stream is over")
        except BaseException:
            self._leave()
            raise
        self._source, self._was_open = source, True

    def _frames_of_file(self) -> Iterator[Frame]:
        assert self._source
        assert self._connection
        self._source.pick, self._source.tell = self.pick, self.tell
        self._connection.begin()
        while (frame := self._connection.frame(self._options.stall_after)) is not None:
            yield frame

    def _connected_frames(self) -> Iterator[Frame]:
        """Yield what comes until the source is lost."""
        source, connection, began, first = self._source, self._connection, monotonic(), True
        assert source
        assert connection
        # Times are those of the connection in there, and the choice by them is the feed's.
        source.pick, source.first_index = Pick(self.pick.stride, self.pick.max_fps), self._next
        source.tell = self._told.append
        connection.begin()
        try:
            while (frame := connection.frame(self._options.stall_after)) is not None:
                source.pick.take(frame.time)
                yield self._placed(frame, first)
                first = False
            lost = SourceError("it ended")
        except SourceError as error:
            lost = error
        if self._last_arrival is None and not (self._options.wait or self._over.is_set()):
            raise SourceError(f"{self._named(lost)}; it was opened, and never gave a picture")
        self._lose(lost)
        if monotonic() - began >= self._patience.settled_s and not first:
            self._attempts = 0

    def _placed(self, frame: Frame, first: bool) -> Frame:
        """Return a frame with its number and time in the whole stream, and tell what can be seen from it."""
        gap_s = frame.gap_s
        time = self._clock.time(frame.time, frame.arrived, begins=first)
        self._next = frame.index + 1
        if self._lost_since is not None:
            away_s = frame.arrived - (self._last_arrival or self._lost_since)
            how = "there, after"
            if self._last_arrival:  # else it was never there before
                how, gap_s = "back after", gap_s + away_s
                self.gaps += 1
            self._lost_since = None
            self.tell(Event("back", time, f"{self.name}: {how} {away_s:.1f} s", {"gap_s": round(away_s, 3)}))
        while self._told:
            self.tell(replace(self._told.popleft(), time=time, clock=utc_now()))
        self._watch(frame, time)
        self._last_arrival = frame.arrived
        return replace(frame, time=time, gap_s=gap_s)

    def _watch(self, frame: Frame, time: float) -> None:
        """Tell when the picture stops, and when it goes on."""
        if math.isinf(self._options.frozen_after):
            return
        still_s = self._still.seconds(frame.picture, frame.arrived)
        if not self._frozen and still_s >= self._options.frozen_after:
            self._frozen = True
            self.tell(Event("frozen", time, f"{self.name}: the picture has not changed for {still_s:.0f} s"))
        elif self._frozen and not still_s:
            self._frozen = False
            self.tell(Event("moving", time, f"{self.name}: the picture changes again"))

    def _leave(self) -> None:
        """Leave the connection, and what it holds."""
        assert self._connection
        self._connection.leave()
        self._hanging.append(self._connection)
        self._broken_before, self._dropped_before, self._source = self.broken, self.dropped, None

    def _lose(self, error: SourceError) -> None:
        """Leave the connection, and tell that the source is lost if that is new."""
        if self._source:
            self._leave()
        self._still, self._frozen = StillPicture(), False
        self._refused = isinstance(error, RefusedError)
        if self._lost_since is None and not self._over.is_set():
            self._lost_since = monotonic()
            reason = str(error).removeprefix(f"{self.name}: ")
            self.tell(Event("lost", self._clock.last, f"{self.name}: {reason}; trying again", {"reason": reason}))

    def _named(self, error: SourceError) -> SourceError:
        """Return an error that names the source; one of the connection does not."""
        return error if str(error).startswith(f"{self.name}: ") else SourceError(f"{self.name}: {error}")

    def _pause(self, idle: Callable[[], None] = lambda: None) -> None:
        """Wait before the next attempt; ``idle`` is called meanwhile.

        Raises:
            SourceError: the source is away for too long.
        """
        pause = self._patience.pause_s(self._attempts, self._refused)
        self._attempts += 1
        away = monotonic() - (self._lost_since or math.inf)
        if away + pause > self._options.reconnect_for and not self._over.is_set():
            limit = f"{self._options.reconnect_for:g} s"
            raise SourceError(f"{self.name}: not back within {limit}; given up, as --reconnect-for says")
        until = monotonic() + pause
        while (left := until - monotonic()) > 0 and not self._over.wait(min(left, POLL_S)):
            idle()
