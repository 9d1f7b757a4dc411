"""A part of a source: what lies between two times."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgevid.errors import SourceError, UsageError
from edgevid.sources.base import Frame, Source

__all__ = ["PartSource"]


class PartSource(Source):
    """The frames of a source from ``start`` to before ``end``, in seconds of its own timestamps.

    What comes before is passed over by seeking, where the source can, and keeps its numbers and times.

    Raises:
        UsageError: the times are no times, or in the wrong order.
        SourceError: there is no frame between them.
    """

    def __init__(self, source: Source, start: float = 0.0, end: float | None = None) -> None:
        last = math.inf if end is None else end
        if not (0 <= start < last and math.isfinite(start)):
            source.close()
            raise UsageError(f"--start {start:g}, --end {last:g}: expected seconds from 0 up, the end after the start")
        self._source, self._start, self._end = source, start, last
        self.name, self.live, self.files = source.name, source.live, source.files
        self.rate, self.time_base = source.rate, source.time_base
        if source.frame_count is not None:
            first, stop = math.ceil(start * self.rate), min(source.frame_count, math.ceil(min(last, 1e9) * self.rate))
            self.frame_count = max(0, stop - first)

    @property
    def broken(self) -> int:  # type: ignore[override]  # the inner source counts
        """How many frames could not be decoded so far."""
        return self._source.broken

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames of the part."""
        if self._start:
            self._source.seek(self._start)
        given, frame = 0, None
        for frame in self._source:
            if frame.time >= self._end:
                break
            if frame.time >= self._start:
                given += 1
                yield frame
        if not given:
            last = "" if frame is None else f", the last seen is at {frame.time:.2f} s"
            until = "" if math.isinf(self._end) else f" and before {self._end:g} s"
            raise SourceError(
                f"{self.name}: no frame from {self._start:g} s on{until}{last}; give another --start or --end"
            )

    def close(self) -> None:
        """Close the source."""
        self._source.close()
