"""The time of one stream over several connections."""

from __future__ import annotations

__all__ = ["Clock"]

MOST_DRIFT_S = 5.0  # of a source's clock against ours


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
        """Return the time in the stream of a frame with that time in its connection, which it may begin.

        A source whose clock is set back, or falls behind, goes on by ours. One that is ahead, since its clock is faster
        or much came at once, goes at half its speed until it is not: time neither stops nor steps back.
        """
        self.epoch = arrived if self.epoch is None else self.epoch
        age = arrived - self.epoch
        ahead = time + self._offset - age
        if begins or time + self._offset < self.last or ahead < -MOST_DRIFT_S:
            self._offset = max(age, self.last) - time
        elif ahead > MOST_DRIFT_S:
            self._offset -= (time + self._offset - self.last) / 2
        self.last = time + self._offset
        return self.last
