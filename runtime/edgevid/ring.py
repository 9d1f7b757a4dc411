"""The ring buffer of the last predictions and what they come to together, at O(classes) a frame."""

from __future__ import annotations

import math

import numpy as np

from edgevid.arrays import Probabilities, Scores
from edgevid.window import MAX_WINDOW, TIME_TOLERANCE_S, Window, parse_window

__all__ = ["RingBuffer"]

FIRST_ROWS = 64  # of a window in seconds, which has as many rows as come; it doubles when it is full


class RingBuffer:
    """Keeps the predictions of a window and their sum, or what else ``combine`` makes of them.

    Any associative operation will do, also one that cannot be undone, as a maximum: nothing is ever taken out of a
    total, so no rounding error piles up either, and no NaN stays. The rows are two stacks (Tangwongsan et al., "General
    Incremental Sliding-Window Aggregation", VLDB 2015). New rows are added to one total, the back. Each of the old
    rows, the front, holds the total of itself and all younger ones of the front, so whichever is the oldest is the
    total of the front. When the front is used up, the back becomes the front, in one pass over the window. That is
    O(classes) a frame on average, two additions, and steady state allocates nothing.

    Args:
        window: how many predictions are kept, or, as ``2s``, for how long.
        classes: the length of a prediction.
        combine: an associative operation over arrays, such as ``numpy.add`` or ``numpy.maximum``.

    Raises:
        UsageError: ``window`` cannot be meant.
    """

    def __init__(self, window: int | str | Window, classes: int, combine: np.ufunc = np.add) -> None:
        self.window = parse_window(window)
        rows = FIRST_ROWS if self.window.frames == MAX_WINDOW else self.window.frames
        self._rows = np.zeros((rows, classes), np.float64)
        self._times = np.zeros(rows, np.float64)
        self._combine = combine
        self._back = np.zeros(classes, np.float64)
        self._total = np.zeros(classes, np.float64)
        self._oldest = self._count = 0
        self._front = 0  # so many of the oldest rows hold totals

    def __len__(self) -> int:
        """How many predictions it holds."""
        return self._count

    def push(self, row: Probabilities | Scores, time: float = 0.0) -> Scores:
        """Add a prediction of shape (classes,), forget those that leave the window, and return the total of the others.

        Args:
            row: the prediction.
            time: its timestamp, in seconds, not before that of the row before; only a window in seconds looks at it.

        Returns:
            The total, float64 of shape (classes,): the buffer's own, which changes with the next call.
        """
        self._make_room(time)
        here = (self._oldest + self._count) % len(self._rows)
        newest = self._rows[here]
        newest[:] = row
        self._times[here] = time
        if self._count == self._front:
            np.copyto(self._back, newest)
        else:
            self._combine(self._back, newest, out=self._back)
        self._count += 1
        if not self._front:
            return self._back
        return self._combine(self._rows[self._oldest], self._back, out=self._total)  # type: ignore[no-any-return]

    def pass_over(self, gap_s: float) -> None:
        """Forget as many of the oldest predictions as would have come in a gap of so many seconds, at their own rate.

        A window in seconds forgets them anyway, by their times.
        """
        if not self._count or not math.isinf(self.window.seconds):
            return
        newest = (self._oldest + self._count - 1) % len(self._rows)
        span = float(self._times[newest] - self._times[self._oldest])
        missing = self._count if not span else math.ceil(gap_s * (self._count - 1) / span)
        for _ in range(min(missing, self._count)):
            self._forget_oldest()
        self._times += gap_s  # at the next gap, this one is no time in which predictions came

    def clear(self) -> None:
        """Forget every prediction."""
        self._oldest = self._count = self._front = 0

    def _make_room(self, time: float) -> None:
        if self._count == self.window.frames:
            self._forget_oldest()
        too_old = time - self.window.seconds + TIME_TOLERANCE_S
        while self._count and self._times[self._oldest] <= too_old:
            self._forget_oldest()
        if self._count == len(self._rows):
            self._grow()

    def _forget_oldest(self) -> None:
        if not self._front:
            self._turn()
        self._oldest = (self._oldest + 1) % len(self._rows)
        self._count -= 1
        self._front -= 1

    def _turn(self) -> None:
        """Make the back the front: add to each row all the younger ones, from the youngest on."""
        for age in range(self._count - 2, -1, -1):
            row = (self._oldest + age) % len(self._rows)
            self._combine(self._rows[row], self._rows[(row + 1) % len(self._rows)], out=self._rows[row])
        self._front = self._count

    def _grow(self) -> None:
        """Double the memory, the oldest row first."""
        unused = np.zeros_like(self._rows)
        self._rows = np.concatenate((np.roll(self._rows, -self._oldest, axis=0), unused))
        self._times = np.concatenate((np.roll(self._times, -self._oldest), np.zeros(len(unused))))
        self._oldest = 0
