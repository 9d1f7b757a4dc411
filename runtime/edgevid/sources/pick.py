"""Which frames of a source are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from edgevid.errors import UsageError

__all__ = ["Pick"]

ROUNDING_S = 1e-3  # timestamps are rounded, to milliseconds in some containers


@dataclass
class Pick:
    """The frames from ``start`` to before ``end``, every ``stride``-th of them, and no more than ``max_fps`` a second.

    Attributes:
        stride: frames whose number is a multiple of it.
        max_fps: at most so many for a second of the source's time; 0 for all.
        start: seconds of the source's own timestamps; 0 for its beginning.
        end: likewise; infinity for none.

    Raises:
        UsageError: a number is out of range, or the end is not after the start.
    """

    stride: int = 1
    max_fps: float = 0.0
    start: float = 0.0
    end: float = math.inf
    _due: float = -math.inf

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"stride {self.stride}: expected 1 or more")
        if not 0 <= self.max_fps < math.inf:
            raise UsageError(f"max-fps {self.max_fps}: expected 0 or more")
        if not (0 <= self.start < self.end and math.isfinite(self.start)):
            raise UsageError(
                f"--start {self.start:g}, --end {self.end:g}: expected seconds from 0 up, the end after the start"
            )

    @property
    def everything(self) -> bool:
        """Whether every frame is wanted."""
        return self.stride == 1 and not self.max_fps and not self.start and math.isinf(self.end)

    def wants(self, index: int, time: float) -> bool:
        """Return whether a frame of that number and time is wanted, after those that were taken.

        A start of 0 is the beginning, which lies before 0 in some files.
        """
        started = self.start <= time or not self.start
        return index % self.stride == 0 and started and time < self.end and time >= self._due - ROUNDING_S

    def take(self, time: float) -> None:
        """Note that a frame was taken."""
        if self.max_fps:
            period = 1 / self.max_fps
            self._due = (self._due if time - self._due < period else time) + period

    def count(self, frame_count: int, rate: Fraction) -> int:
        """Return how many frames are wanted of so many, at a rate in frames per second."""
        first, stop = math.ceil(self.start * rate), min(frame_count, math.ceil(min(self.end, 1e9) * rate))
        count = -(-stop // self.stride) + -first // self.stride  # multiples of the stride before the stop and the start
        if self.max_fps:
            count = min(count, math.ceil((stop - first) / rate * Fraction(self.max_fps)))
        return max(0, count)
