"""Live sources that come back: opened again and again, whenever they fail, fall silent or end."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from time import monotonic

from edgevid.errors import RefusedError, SourceError
from edgevid.events import Event
from edgevid.sources.base import Frame, Source
from edgevid.sources.connection import Connection
from edgevid.sources.frozen import StillPicture
from edgevid.sources.options import SourceOptions

__all__ = ["Patience", "ReconnectingSource"]

FINEST_TIME_BASE = Fraction(1, 90_000)
MOST_DRIFT_S = 5.0  # of a source's clock against ours; beyond it the source has set its clock


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

    Args:
        name: what the user called it, without a password.
        open_source: opens it, each time anew.
        options: how long it is waited for.
        tell: called with what happens before it is iterated over.
        patience: the pauses between attempts.

    Raises:
        SourceError: it cannot be opened at the start, and ``options.wait`` is false.
    """

    live = True

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
        self._source: Source | None = None
        self._broken_before = self._attempts = self._next = 0
        self._lost_since: float | None = None
        self._last_arrival = monotonic()
        self._was_open = self._refused = False
        self._clock = Clock()
        self._still, self._frozen = StillPicture(), False
        while not (opened := self._opened()):
            self._pause()
        self.rate, self.time_base = opened.rate, max(opened.time_base, FINEST_TIME_BASE)

    @property
    def broken(self) -> int:  # type: ignore[override]  # over all connections
        """How many frames could not be decoded so far."""
        return self._broken_before + (self._source.broken if self._source else 0)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames for ever; raises SourceError once it was away for longer than it is waited for."""
        while not self._over.is_set():
            if self._source or self._opened():
                yield from self._connected_frames()
            self._pause()

    def interrupt(self) -> None:
        """End soon; may be called on any thread."""
        self._over.set()
        if self._connection:
            self._connection.leave()

    def close(self) -> None:
        """Let the source go; safe to call twice."""
        self.interrupt()

    def _opened(self) -> Source | None:
        """Open the source; None if that fails and it is to be tried again."""
        self._connection = Connection(self._open)
        try:
            self._source = self._connection.source(self._options.stall_after)
            self._was_open = True
        except SourceError as error:
            if not (self._was_open or self._options.wait):
                self._connection.leave()
                raise
            self._lose(error)
        except BaseException:
            self._connection.leave()
            raise
        return self._source

    def _connected_frames(self) -> Iterator[Frame]:
        """Yield what comes until the source is lost."""
        assert self._source
        assert self._connection
        self._source.pick, self._source.first_index = replace(self.pick), self._next
        began, first = monotonic(), True
        self._connection.begin()
        try:
            while (frame := self._connection.frame(self._options.stall_after)) is not None:
                yield self._placed(frame, first)
                first = False
            self._lose(SourceError("it ended"))
        except SourceError as error:
            self._lose(error)
        if monotonic() - began >= self._patience.settled_s and not first:
            self._attempts = 0

    def _placed(self, frame: Frame, first: bool) -> Frame:
        """Return a frame with its number and time in the whole stream, and tell what can be seen from it."""
        gap_s = 0.0
        time = self._clock.time(frame.time, frame.arrived, begins=first)
        self._next = frame.index + 1
        if self._lost_since is not None:
            gap_s, self._lost_since = frame.arrived - self._last_arrival, None
            self.gaps += 1
            self.tell(Event("back", time, f"{self.name}: back after {gap_s:.1f} s", {"gap_s": round(gap_s, 3)}))
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

    def _lose(self, error: SourceError) -> None:
        """Leave the connection, and tell that the source is lost if that is new."""
        assert self._connection
        self._connection.leave()
        self._broken_before, self._source = self.broken, None
        self._refused = isinstance(error, RefusedError)
        if self._lost_since is None and not self._over.is_set():
            self._lost_since = monotonic()
            reason = str(error).removeprefix(f"{self.name}: ")
            self.tell(Event("lost", self._clock.last, f"{self.name}: {reason}; trying again", {"reason": reason}))

    def _pause(self) -> None:
        """Wait before the next attempt.

        Raises:
            SourceError: the source is away for too long.
        """
        pause = self._patience.pause_s(self._attempts, self._refused)
        self._attempts += 1
        away = monotonic() - (self._lost_since or math.inf)
        if away + pause > self._options.reconnect_for and not self._over.is_set():
            raise SourceError(f"{self.name}: away for {away:.0f} s; given up, see --reconnect-for")
        self._over.wait(pause)


class Clock:
    """The time of one stream over all connections, of each of which the source's times begin anew.

    Attributes:
        epoch: when the stream began, on the monotonic clock; None before its first frame.
        last: the time of the last frame, in seconds.
    """

    def __init__(self) -> None:
        self.epoch: float | None = None
        self.last = 0.0
        self._offset = 0.0

    def time(self, time: float, arrived: float, begins: bool) -> float:
        """Return the time in the stream of a frame with that time in its connection, which it may begin."""
        self.epoch = arrived if self.epoch is None else self.epoch
        age = arrived - self.epoch
        steps_back, drift = time + self._offset < self.last, abs(time + self._offset - age)
        if begins or steps_back or drift > MOST_DRIFT_S:
            self._offset = age - time
        self.last = max(self.last, time + self._offset)
        return self.last
