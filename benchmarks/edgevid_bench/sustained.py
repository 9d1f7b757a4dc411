"""A long run of one row: whether it keeps its speed when the machine gets warm."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from edgevid.child import stream_module
from edgevid.errors import BackendError
from edgevid_bench.report import Minute, Sustained
from edgevid_bench.worker import Request, Stretch

__all__ = ["long_run", "sustained"]

MINUTE_S = 60.0
LEAST_STRETCHES = 5  # a run of less than five minutes is told in fifths


def long_run(request: Request, duration_s: float) -> Iterator[Minute]:
    """Run a row for so long in a process of its own, and yield its speed minute by minute.

    Raises:
        BackendError: it cannot run.
    """
    stretch_s = min(MINUTE_S, duration_s / LEAST_STRETCHES)
    long = msgspec.structs.replace(request, duration_s=duration_s, stretch_s=stretch_s, stages=())
    for line in stream_module("edgevid_bench.worker", stdin=msgspec.json.encode(long)):
        answer = msgspec.json.decode(line, type=Stretch)
        if answer.minute is None:
            raise BackendError(answer.error)
        yield answer.minute


def sustained(row: str, minutes: list[Minute]) -> Sustained | None:
    """Return what a long run amounts to; None where there was none."""
    speeds = [minute.end_to_end_fps for minute in minutes]
    return Sustained(row=row, minutes=tuple(minutes), kept=speeds[-1] / max(speeds)) if minutes else None
