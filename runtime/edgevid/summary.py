"""What a run amounted to: frames, speed, flips, and how long each label was shown."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from edgevid.audit import Skipped
from edgevid.smoothing import Prediction

__all__ = ["Loss", "Span", "Summary", "Tally"]

MOST_AGES = 10_000
MOST_SPANS = 10_000


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of video under one smoothed label, in seconds of the source."""

    label: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Loss:
    """The frames that one output lacks.

    Attributes:
        name: the output's.
        dropped: how many were left out because it could not keep up.
        missing: how many could not be written.
    """

    name: str
    dropped: int
    missing: int


@dataclass(frozen=True)
class Summary:
    """A finished run.

    Attributes:
        frames: how many frames got a prediction: all were classified, but for those that were skipped.
        elapsed_s: seconds of work, from the first frame read to the last output written; loading is not in it.
        broken: how many frames could not be decoded.
        dropped: how many frames of a live source came too fast.
        raw_flips: changes of the raw label from one frame to the next.
        smoothed_flips: the same of the smoothed label.
        seconds_by_label: seconds of video under each smoothed label, longest first.
        timeline: the smoothed labels in order, the last 10,000 of them.
        gaps: how often a live source was lost and came back.
        away_s: for how many seconds, in all.
        age_ms: how old frames of a live source were when their label came out, in milliseconds: the median and the
            99th percentile of the last 10,000; None for a file.
        losses: what outputs lack, one an output.
        skipped: which frames were not classified since they barely differ from one that was; None where none may be.
    """

    frames: int
    elapsed_s: float
    broken: int
    dropped: int
    raw_flips: int
    smoothed_flips: int
    seconds_by_label: dict[str, float]
    timeline: tuple[Span, ...]
    gaps: int = 0
    away_s: float = 0.0
    age_ms: tuple[float, float] | None = None
    losses: tuple[Loss, ...] = ()
    skipped: Skipped | None = None

    @property
    def fps(self) -> float:
        """Frames per second, end to end; with those that were skipped."""
        return self.frames / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def classified_fps(self) -> float:
        """Frames per second that were classified, end to end."""
        classified = self.frames - (self.skipped.frames if self.skipped else 0)
        return classified / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def video_s(self) -> float:
        """Seconds of video that were classified."""
        return sum(self.seconds_by_label.values())


@dataclass
class Tally:
    """Counts predictions from when it is made, in memory that does not grow with them."""

    started: float = field(default_factory=time.perf_counter)
    frames: int = 0
    raw_flips: int = 0
    smoothed_flips: int = 0
    gaps: int = 0
    away_s: float = 0.0
    skipped: Skipped | None = None
    _seconds: dict[str, float] = field(default_factory=dict)
    _spans: deque[Span] = field(default_factory=lambda: deque(maxlen=MOST_SPANS))
    _previous: Prediction | None = None
    _span_start: float = 0.0
    _step: float = 0.0
    _ages: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_AGES))

    def add(self, prediction: Prediction, age_s: float | None = None, gap_s: float = 0.0) -> None:
        """Count one prediction.

        Args:
            prediction: the next.
            age_s: how old its frame is, of a live source.
            gap_s: how many seconds of the stream are missing before it; infinity where another begins.
        """
        if age_s is not None:
            self._ages.append(age_s)
        self.frames += 1
        previous, self._previous = self._previous, prediction
        if previous is None:
            self._span_start = prediction.time
            return
        self.raw_flips += prediction.raw_label != previous.raw_label
        self.smoothed_flips += prediction.label != previous.label
        if gap_s:
            self.gaps += 1
            self.away_s += gap_s
            self._end_span(previous.label, previous.time + self._step, prediction.time)
            return
        self._step = prediction.time - previous.time
        if prediction.label != previous.label:
            self._end_span(previous.label, prediction.time, prediction.time)

    def summary(self, broken: int, dropped: int, losses: Iterable[Loss] = ()) -> Summary:
        """Close the last span, one frame after the last prediction, and sum up until now."""
        if self._previous:
            end = self._previous.time + self._step
            self._end_span(self._previous.label, end, end)
            self._previous = None
        return Summary(
            frames=self.frames,
            elapsed_s=time.perf_counter() - self.started,
            broken=broken,
            dropped=dropped,
            raw_flips=self.raw_flips,
            smoothed_flips=self.smoothed_flips,
            seconds_by_label=dict(sorted(self._seconds.items(), key=lambda item: -item[1])),
            timeline=tuple(self._spans),
            gaps=self.gaps,
            away_s=self.away_s,
            age_ms=_percentiles_ms(self._ages) if self._ages else None,
            losses=tuple(losses),
            skipped=replace(self.skipped) if self.skipped else None,
        )

    def _end_span(self, label: str, end: float, next_start: float) -> None:
        self._spans.append(Span(label, self._span_start, end))
        self._seconds[label] = self._seconds.get(label, 0.0) + end - self._span_start
        self._span_start = next_start


def _percentiles_ms(seconds: Iterable[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(list(seconds), (50, 99))
    return 1e3 * float(p50), 1e3 * float(p99)
