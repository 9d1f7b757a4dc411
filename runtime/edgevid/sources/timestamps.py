"""Times that rise, whatever timestamps a container has."""

from __future__ import annotations

import math

__all__ = ["Timestamps"]

# As FFmpeg has it for the containers whose clocks may jump.
LONGEST_STEP_S = 10.0
# Pictures are shown at most so many frames from where they are decoded; a longer step back is another clock's.
MOST_REORDERED = 16
WRAP_S = 2**33 / 90_000  # after that the clocks of MPEG begin anew


class Timestamps:
    """Turns the timestamps of one stream into times that rise.

    A picture without a timestamp follows the one before it by the frame rate. A clock that steps back, or ahead by more
    than the stream can mean, goes on by the frame rate from there: that is a discontinuity. One that steps back by a
    few frames, since some are out of order, is waited for. A clock of MPEG that has come to its end goes on as if it
    had not. Where presentation timestamps step back more often than those of decoding, they are in the wrong order, and
    those of decoding are taken, as FFmpeg does it.

    Args:
        rate: frames per second.
        may_jump: whether the stream's clock may jump ahead, as that of a live stream or of MPEG-TS; else such a step is
            a pause, as in a file that holds only what moved.
        wraps: whether it is a clock of MPEG.

    Attributes:
        last: the time of the last picture, in seconds; None before the first.
        offset: what is added to its timestamps, in seconds.
    """

    def __init__(self, rate: float, may_jump: bool, wraps: bool) -> None:
        self.last: float | None = None
        self.offset = 0.0
        self._step = 1 / rate
        self._longest = max(LONGEST_STEP_S, 10 * self._step) if may_jump else math.inf
        self._wraps = wraps
        self._previous: list[float | None] = [None, None]  # timestamps, of presentation and of decoding
        self._faults = [0, 0]  # how often each stepped back

    def place(self, shown: float | None, decoded: float | None = None, frames: int = 1) -> tuple[float, float]:
        """Return the time of the next picture, and how far the clock jumped, in seconds: 0 where it did not.

        Args:
            shown: its presentation timestamp, in seconds; None where it has none.
            decoded: its decoding timestamp, likewise.
            frames: how many frames it lies behind the last one; more than 1 where some could not be decoded.
        """
        for kind, stamp in enumerate((shown, decoded)):
            if stamp is not None:
                previous, self._previous[kind] = self._previous[kind], stamp
                self._faults[kind] += previous is not None and stamp <= previous
        in_order = self._faults[0] <= self._faults[1] or decoded is None
        time, jump = self._placed(shown if shown is not None and in_order else decoded, frames)
        self.last = time
        return time, jump

    def _placed(self, stamp: float | None, frames: int) -> tuple[float, float]:
        if self.last is None:
            return (0.0 if stamp is None else stamp + self.offset), 0.0
        follows = self.last + frames * self._step
        if stamp is None:
            return follows, 0.0
        for offset in self._offsets():
            if 0 < stamp + offset - self.last <= self._longest:
                self.offset = offset
                return stamp + offset, 0.0
        ahead = stamp + self.offset - self.last
        if -MOST_REORDERED * self._step <= ahead <= 0:  # at half the speed, until it is not behind any more
            return self.last + self._step / 2, 0.0
        self.offset = follows - stamp
        return follows, ahead

    def _offsets(self) -> tuple[float, ...]:
        return (self.offset, self.offset + WRAP_S) if self._wraps else (self.offset,)
