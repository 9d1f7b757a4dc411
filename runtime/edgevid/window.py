"""How far back a window reaches: so many predictions, or so many seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevid.errors import UsageError
from edgevid.units import time_seconds

__all__ = ["MAX_WINDOW", "MAX_WINDOW_S", "TIME_TOLERANCE_S", "Window", "parse_window"]

MAX_WINDOW = 100_000  # over an hour at 25 frames a second
MAX_WINDOW_S = 3600.0
TIME_TOLERANCE_S = 1e-6  # timestamps are rounded: 2 s at 25 frames a second are 50 frames, and not 50 or 51


@dataclass(frozen=True, slots=True)
class Window:
    """How many predictions are smoothed over: both limits hold, and one of them is out of reach.

    Attributes:
        frames: at most so many, 1 to 100,000.
        seconds: none that is so old, or older than that, when the newest one comes; up to 3600.
    """

    frames: int = MAX_WINDOW
    seconds: float = math.inf

    def __str__(self) -> str:
        """Return it as it is written in options."""
        return f"{self.frames}" if math.isinf(self.seconds) else f"{self.seconds:g}s"


def parse_window(window: object) -> Window:
    """Return the window that is meant by ``64`` (predictions), ``2s`` or ``500ms`` (time).

    In seconds, what comes out is nearly the same whether frames are dropped or the rate changes.

    Raises:
        UsageError: it is anything else, or not from 1 to 100,000, or more than an hour.
    """
    if isinstance(window, Window):
        return window
    try:
        frames = int(str(window))
    except ValueError:
        frames = 0
        seconds = time_seconds(str(window))
        if seconds and seconds <= MAX_WINDOW_S:
            return Window(seconds=seconds)
    if not 1 <= frames <= MAX_WINDOW:
        raise UsageError(
            f"window {window!r}: expected a whole number of predictions from 1 to {MAX_WINDOW}, such as 64, "
            "or a time up to 1h, such as 2s"
        )
    return Window(frames=frames)
