"""From probabilities to predictions: the label of one frame alone, and the steady label of the window."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.errors import BackendError, UsageError
from edgevid.ring import RingBuffer

__all__ = ["GAPS", "Prediction", "Smoother"]

GAPS = ("reset", "decay")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What edgevid says of one frame.

    Attributes:
        frame: the frame's number in its source, from 0.
        time: the source's own timestamp, in seconds.
        label: the smoothed label, with the highest mean probability over the window.
        score: that mean probability, 0 to 1.
        raw_label: the label of this frame alone.
        raw_score: its probability, 0 to 1.
        top: the best labels of the window with their mean probabilities, best first; empty unless asked for.
    """

    frame: int
    time: float
    label: str
    score: float
    raw_label: str
    raw_score: float
    top: tuple[tuple[str, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON writes it, scores rounded to 4 digits and the time to microseconds."""
        record: dict[str, Any] = {
            "frame": self.frame,
            "time": round(self.time, 6),
            "label": self.label,
            "score": round(self.score, 4),
            "raw_label": self.raw_label,
            "raw_score": round(self.raw_score, 4),
        }
        if self.top:
            record["top"] = [[label, round(score, 4)] for label, score in self.top]
        return record


class Smoother:
    """Steadies the label of one stream with a rolling average over its last predictions.

    Args:
        labels: one a class.
        window: how many predictions the average spans; 1 classifies every frame alone.
        top_k: how many of the best labels each prediction carries; 0 for none.
        gap: what a gap in a live stream does to the window: ``reset`` empties it, ``decay`` takes out as many of the
            oldest predictions as the gap would have pushed out.

    Raises:
        UsageError: ``window`` or ``top_k`` is out of range, or ``gap`` is another word.
    """

    def __init__(self, labels: Sequence[str], window: int, top_k: int = 0, gap: str = GAPS[0]) -> None:
        if gap not in GAPS:
            raise UsageError(f"gap {gap!r}: expected {' or '.join(GAPS)}")
        if not 0 <= top_k <= len(labels):
            raise UsageError(f"top-k {top_k}: expected 0 to {len(labels)}, the number of classes")
        self._labels = tuple(labels)
        self._ring = RingBuffer(window, len(self._labels))
        self._top_k = top_k
        self._decays = gap == "decay"
        self._times: deque[float] = deque(maxlen=window)

    def update(self, probabilities: Probabilities, frame: int, time: float, gap_s: float = 0.0) -> Prediction:
        """Add one frame's probabilities, of shape (classes,), and return its prediction.

        Args:
            probabilities: the model's.
            frame: the frame's number in its source.
            time: its timestamp, in seconds.
            gap_s: how many seconds of the stream are missing before it; infinity where another begins.

        Raises:
            BackendError: the model answered something that is no number.
        """
        raw = int(probabilities.argmax())
        raw_score = float(probabilities[raw])
        if not np.isfinite(raw_score):  # argmax finds a NaN wherever it is
            raise BackendError(
                f"frame {frame}: the model answered {raw_score}, not a probability; "
                "try another variant (--variant), this one overflows"
            )
        if gap_s:
            self._pass_over(gap_s)
        self._times.append(time)
        mean = self._ring.push(probabilities)
        best = int(mean.argmax())
        return Prediction(
            frame=frame,
            time=time,
            label=self._labels[best],
            score=float(mean[best]),
            raw_label=self._labels[raw],
            raw_score=raw_score,
            top=self._top(mean) if self._top_k else (),
        )

    def reset(self) -> None:
        """Forget the window, as at a cut or the start of another clip."""
        self._ring.clear()
        self._times.clear()

    def _pass_over(self, gap_s: float) -> None:
        """Take out of the window what a gap of so many seconds pushes out."""
        span = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        if not (self._decays and span and math.isfinite(gap_s)):
            self.reset()
            return
        missing = math.ceil(gap_s * (len(self._times) - 1) / span)
        self._ring.forget(missing)
        for _ in range(min(missing, len(self._times))):
            self._times.popleft()

    def _top(self, mean: npt.NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
        best_first = np.argsort(-mean, kind="stable")[: self._top_k]
        return tuple((self._labels[index], float(mean[index])) for index in best_first)
