"""What happens beside predictions: a source that is lost and comes back, a disk that is full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

__all__ = ["WARNINGS", "Event", "Journal", "utc_now"]

# The kinds that someone should look at.
WARNINGS = ("lost", "frozen", "skipped", "stopped", "skipping-off", "failed", "discontinuity")


def utc_now() -> str:
    """Return date and time of day, UTC, in milliseconds: ``2025-01-31T12:00:00.123Z``."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a source or an output.

    Attributes:
        kind: ``lost`` and ``back`` (a source), ``frozen`` and ``moving`` (its picture), ``discontinuity`` (of its
            clock), ``skipped`` (one of several files), ``stream`` (which of several videos in a file is read),
            ``stopped`` and ``resumed`` (an output), ``skipping-off`` and ``skipping-on`` (of static frames), ``failed``
            (a command that ``--on-event`` runs); and, apart from these, ``start`` and ``end`` of a label.
        time: seconds of the source's time, as in predictions.
        text: what happened, one line for people; never with a password in it.
        data: more of it for programs, as JSON has it: ``{"gap_s": 4.2}``.
        clock: date and time of day, UTC, as the machine's clock has it; printed, and nothing else. Empty where it says
            nothing, as of a file.
    """

    kind: str
    time: float
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    clock: str = field(default_factory=utc_now)

    def to_dict(self) -> dict[str, Any]:
        """Return it as predictions files have it, as one JSON object."""
        clock = {"clock": self.clock} if self.clock else {}
        return {"event": self.kind, "time": round(self.time, 6), **clock, "text": self.text, **self.data}


class Journal:
    """Hands every event to whoever listens, one event at a time, on the thread where it happened."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []
        self._one_at_a_time = threading.RLock()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` with every event from now on; it should not wait for anything."""
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        """Tell an event."""
        with self._one_at_a_time:
            for listener in self._listeners:
                with suppress(Exception):  # a log that is full must hinder neither the others nor what goes on
                    listener(event)
