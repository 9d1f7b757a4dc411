"""Events of labels: when each begins and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgevid.events import Event, utc_now
from edgevid.sinks.base import Sink
from edgevid.sinks.command import Command
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

__all__ = ["LabelEvents"]


@dataclass(slots=True)
class Holding:
    """A label that holds, so far."""

    label: str
    start: float
    frames: int = 0
    total: float = 0.0
    peak: float = 0.0

    def add(self, score: float) -> None:
        """Count one more frame."""
        self.frames += 1
        self.total += score
        self.peak = max(self.peak, score)


class LabelEvents(Sink):
    """Tells when a label begins and when it ends, once it is known; ``uncertain`` and ``none`` are no labels.

    A label ends with the first frame where it does not hold, and one frame after the last before a gap or the end.

    Args:
        file: gets the events, and those of the source too; this one's from now on, and closed with it.
        command: run at each event of a label; likewise.
        live: frames come from a live source, so the time of day means something.
    """

    needs_picture = False

    def __init__(self, file: Sink | None, command: Command | None, live: bool = False) -> None:
        self.name = file.name if file else "events"
        self._file, self._command, self._live = file, command, live
        self._listeners: list[Callable[[Event], None]] = []
        if file:
            self._listeners.append(file.write_event)
        if command:
            self._listeners.append(command)
        self._holding: dict[str, Holding] = {}
        self._time: float | None = None
        self._step_s = 0.0

    @property
    def missing(self) -> int:  # type: ignore[override]  # the inner sink counts
        """How many events could not be written."""
        return self._file.missing if self._file else 0

    @property
    def dropped(self) -> int:  # type: ignore[override]
        """How many commands were not run because others took too long."""
        return self._command.dropped if self._command else 0

    @property
    def wrote(self) -> str:  # type: ignore[override]
        """What files it left."""
        return self._file.wrote if self._file else ""

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Tell what ends and what begins with this frame."""
        now, time = dict(prediction.holding), prediction.time
        if frame.gap_s or (self._time is not None and time < self._time):
            self._end_all()
        elif self._time is not None:
            self._step_s = time - self._time
        self._time = time
        for label in [label for label in self._holding if label not in now]:
            self._tell_end(self._holding.pop(label), time)
        for label, score in now.items():
            holding = self._holding.setdefault(label, Holding(label, time))
            holding.add(score)
            if holding.frames == 1:
                data = {"label": label, "start": round(time, 6), "frame": prediction.frame, "score": round(score, 4)}
                self._tell("start", time, f"{label} begins at {time:.2f} s", data)

    def write_event(self, event: Event) -> None:
        """Write what happened to the source or to an output, among the events of labels."""
        if self._file:
            self._file.write_event(event)

    def end(self) -> None:
        """Tell that what holds has ended, and begin to close the outputs."""
        self._end_all()
        for output in (self._file, self._command):
            if output:
                output.end()

    def close(self) -> None:
        """Complete the file, and wait for the command."""
        try:
            self._end_all()
        finally:
            try:
                if self._file:
                    self._file.close()
            finally:
                if self._command:
                    self._command.close()

    def _end_all(self) -> None:
        holding, self._holding = self._holding, {}
        for each in holding.values():
            self._tell_end(each, (self._time or 0.0) + self._step_s)

    def _tell_end(self, holding: Holding, end: float) -> None:
        duration = end - holding.start
        data = {
            "label": holding.label,
            "start": round(holding.start, 6),
            "end": round(end, 6),
            "duration": round(duration, 6),
            "mean_score": round(holding.total / holding.frames, 4),
            "peak_score": round(holding.peak, 4),
            "frames": holding.frames,
        }
        self._tell("end", end, f"{holding.label} ends at {end:.2f} s, after {duration:.2f} s", data)

    def _tell(self, kind: str, time: float, text: str, data: dict[str, object]) -> None:
        event = Event(kind, time, text, data, utc_now() if self._live else "")
        for listener in self._listeners:
            listener(event)
