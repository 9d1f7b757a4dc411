"""The ring buffer of the last K predictions and their mean, at O(classes) a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.errors import UsageError

__all__ = ["MAX_WINDOW", "RingBuffer"]

MAX_WINDOW = 100_000  # over an hour at 25 frames a second


class RingBuffer:
    """Keeps the last ``window`` predictions, preallocated, and their mean.

    The running sum adds the newest row and subtracts the oldest. Rounding errors would pile up in it for ever,
    and a single NaN would never leave it; so a second sum is built from additions alone and takes its place
    each time the buffer wraps. Both cost O(classes) a frame, and steady state allocates nothing.

    Args:
        window: how many predictions the mean spans, 1 or more.
        classes: the length of a prediction.

    Raises:
        UsageError: ``window`` is not a whole number from 1 to 100,000.
    """

    def __init__(self, window: int, classes: int) -> None:
        self._rows = np.zeros((check_window(window), classes), np.float32)
        self._sum = np.zeros(classes, np.float64)
        self._fresh_sum = np.zeros(classes, np.float64)
        self._mean = np.zeros(classes, np.float64)
        self._wide = np.zeros(classes, np.float64)  # a row in the type of the sums: mixed types make NumPy allocate
        self._next = 0
        self._count = 0

    def __len__(self) -> int:
        """How many predictions it holds: ``window`` once it is full."""
        return self._count

    @property
    def window(self) -> int:
        """How many predictions it can hold."""
        return len(self._rows)

    def push(self, probabilities: Probabilities) -> npt.NDArray[np.float64]:
        """Add a prediction of shape (classes,) and return the mean of those held, float64 of shape (classes,).

        Before the buffer is full it is the mean of what is there. The array returned is the buffer's own: it
        changes with the next call.
        """
        row = self._rows[self._next]
        if self._count == self.window:
            np.copyto(self._wide, row)
            np.subtract(self._sum, self._wide, out=self._sum)
        else:
            self._count += 1
        row[:] = probabilities
        np.copyto(self._wide, row)
        np.add(self._sum, self._wide, out=self._sum)
        np.add(self._fresh_sum, self._wide, out=self._fresh_sum)
        self._next += 1
        if self._next == self.window:
            self._next = 0
            self._sum, self._fresh_sum = self._fresh_sum, self._sum
            self._fresh_sum.fill(0)
        return np.divide(self._sum, self._count, out=self._mean)

    def forget(self, oldest: int) -> None:
        """Forget so many of the oldest predictions, or all there are."""
        kept = max(0, self._count - oldest)
        rows = np.roll(self._rows, -self._next, axis=0)[self.window - kept :]  # the newest, in order
        self.clear()
        for row in rows:
            self.push(row)

    def clear(self) -> None:
        """Forget every prediction."""
        self._sum.fill(0)
        self._fresh_sum.fill(0)
        self._next = self._count = 0


def check_window(window: object) -> int:
    """Return ``window`` if it is a whole number from 1 to 100,000.

    Raises:
        UsageError: it is anything else.
    """
    try:
        frames = int(str(window))
    except ValueError:
        frames = 0
    if not 1 <= frames <= MAX_WINDOW:
        raise UsageError(f"window {window!r}: expected a whole number of frames from 1 to {MAX_WINDOW}, such as 64")
    return frames
