"""A long run of one row: whether it keeps its speed when the machine gets warm."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

import msgspec

from edgevid.child import stream_module
from edgevid.errors import EdgevidError
from edgevid_bench.report import Minute, Sustained
from edgevid_bench.worker import Request, Stretch

__all__ = ["LongRun"]

MINUTE_S = 60.0
LEAST_STRETCHES = 6  # a run of less than six minutes is told in sixths


class LongRun:
    """Runs a row for long, in a process of its own, and keeps what it did minute by minute, whatever ends it."""

    def __init__(self) -> None:
        self._row, self._error = "", ""
        self._minutes: list[Minute] = []

    def go_on(self, request: Request, row: str, duration_s: float, progress: Callable[[str, int, int], None]) -> None:
        """Run a row for so long; where that fails, the result says why."""
        self._row = row
        stretch_s = min(MINUTE_S, duration_s / LEAST_STRETCHES)
        long = msgspec.structs.replace(request, duration_s=duration_s, stretch_s=stretch_s, stages=())
        progress(f"seconds of {row}", 0, round(duration_s))
        try:
            for line in stream_module("edgevid_bench.worker", stdin=msgspec.json.encode(long)):
                answer = msgspec.json.decode(line, type=Stretch)
                self._error = answer.error
                if answer.minute:
                    self._minutes.append(answer.minute)
                    progress(f"seconds of {row}", round(answer.minute.until_s), round(duration_s))
        except (EdgevidError, OSError, msgspec.DecodeError) as error:
            self._error = str(error)

    @property
    def result(self) -> Sustained | None:
        """What it amounts to; None where there was none."""
        if not self._row:
            return None
        speeds = [minute.end_to_end_fps for minute in self._minutes]
        third = max(1, len(speeds) // 3)
        kept = fmean(speeds[-third:]) / fmean(speeds[:third]) if speeds else 0.0
        return Sustained(row=self._row, minutes=tuple(self._minutes), kept=kept, error=self._error)
