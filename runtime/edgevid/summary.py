"""What a run amounted to: frames, speed, flips, and how long each label was shown."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from edgevid.smoothing import Prediction

__all__ = ["Loss", "Span", "Summary", "Tally"]

MOST_AGES = 10_000


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
        frames: how many frames were classified.
        elapsed_s: seconds of work, from the first frame read to the last output written; loading is not in it.
        broken: how many frames could not be decoded.
        dropped: how many frames of a live source came too fast.
        raw_flips: changes of the raw label from one frame to the next.
        smoothed_flips: the same of the smoothed label.
        timeline: the smoothed labels in order.
        age_ms: how old frames of a live source were when their label came out, in milliseconds: the median and the
            99th percentile of the last 10,000; None for a file.
        losses: what outputs lack, one an output.
    """

    frames: int
    elapsed_s: float
    broken: int
    dropped: int
    raw_flips: int
    smoothed_flips: int
    timeline: tuple[Span, ...]
    age_ms: tuple[float, float] | None = None
    losses: tuple[Loss, ...] = ()

    @property
    def fps(self) -> float:
        """Frames per second, end to end."""
        return self.frames / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def video_s(self) -> float:
        """Seconds of video that were classified."""
        return self.timeline[-1].end - self.timeline[0].start if self.timeline else 0.0

    @property
    def seconds_by_label(self) -> dict[str, float]:
        """Seconds of video under each smoothed label, longest first."""
        seconds: dict[str, float] = {}
        for span in self.timeline:
            seconds[span.label] = seconds.get(span.label, 0.0) + span.end - span.start
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))


@dataclass
class Tally:
    """Counts predictions from when it is made, in memory that grows with label changes only."""

    started: float = field(default_factory=time.perf_counter)
    frames: int = 0
    raw_flips: int = 0
    starts: list[tuple[str, float]] = field(default_factory=list)
    _previous: Prediction | None = None
    _step: float = 0.0
    _ages: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_AGES))

    def add(self, prediction: Prediction, age_s: float | None = None) -> None:
        """Count one prediction; ``age_s`` is how old its frame is, of a live source."""
        if age_s is not None:
            self._ages.append(age_s)
        previous = self._previous
        self.frames += 1
        if previous is not None:
            self.raw_flips += prediction.raw_label != previous.raw_label
            self._step = prediction.time - previous.time
        if previous is None or prediction.label != previous.label:
            self.starts.append((prediction.label, prediction.time))
        self._previous = prediction

    def summary(self, broken: int, dropped: int, losses: Iterable[Loss] = ()) -> Summary:
        """Close the last span, one frame after the last prediction, and sum up until now."""
        end = self._previous.time + self._step if self._previous else 0.0
        bounds = [*self.starts, ("", end)]
        timeline = tuple(Span(label, start, stop) for (label, start), (_, stop) in pairwise(bounds))
        return Summary(
            frames=self.frames,
            elapsed_s=time.perf_counter() - self.started,
            broken=broken,
            dropped=dropped,
            raw_flips=self.raw_flips,
            smoothed_flips=max(0, len(self.starts) - 1),
            timeline=timeline,
            age_ms=_percentiles_ms(self._ages) if self._ages else None,
            losses=tuple(losses),
        )


def _percentiles_ms(seconds: Iterable[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(list(seconds), (50, 99))
    return 1e3 * float(p50), 1e3 * float(p99)
