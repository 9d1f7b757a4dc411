"""How far back a window reaches: so many predictions, or so many seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevid.errors import UsageError
from edgevid.units import time_seconds

__all__ = ["MAX_WINDOW", "Window", "parse_window"]

MAX_WINDOW = 100_000  # over an hour at 25 frames a second


@dataclass(frozen=True, slots=True)
class Window:
    """How many predictions are smoothed over: both limits hold, and one of them is out of reach.

    Attributes:
        frames: at most so many, 1 to 100,000.
        seconds: none that is so old, or older than that, when the newest one comes.
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
        UsageError: it is anything else, or not from 1 to 100,000.
    """
    if isinstance(window, Window):
        return window
    try:
        frames = int(str(window))
    except ValueError:
        frames = 0
        if seconds := time_seconds(str(window)):
            return Window(seconds=seconds)
    if not 1 <= frames <= MAX_WINDOW:
        raise UsageError(
            f"window {window!r}: expected a whole number of predictions from 1 to {MAX_WINDOW}, such as 64, "
            "or a time, such as 2s"
        )
    return Window(frames=frames)
