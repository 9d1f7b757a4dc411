"""From class probabilities to predictions: the label of one frame alone, and the steady label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevid.arrays import Probabilities, Scores
from edgevid.decisions import NONE, UNCERTAIN, Decisions, new_decider
from edgevid.errors import BackendError, UsageError
from edgevid.methods import Smoothing, new_method

__all__ = ["GAPS", "Prediction", "Smoother"]

GAPS = ("reset", "decay")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What edgevid says of one frame.

    Attributes:
        frame: the frame's number in its source, from 0.
        time: the source's own timestamp, in seconds.
        label: the smoothed label, with the highest score. Where none is sure enough to hold, ``uncertain``; of a model
            with several labels, the best of those that hold, or ``none``.
        score: its mean probability over the window, or what another method makes of that, 0 to 1; of ``uncertain`` and
            ``none``, that of the best label.
        raw_label: the label of this frame alone.
        raw_score: its probability, 0 to 1.
        top: the best labels of the window with their scores, best first; empty unless asked for.
        labels: of a model that answers to each class on its own: all labels that hold, with their scores, best first.
    """

    frame: int
    time: float
    label: str
    score: float
    raw_label: str
    raw_score: float
    top: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, float], ...] | None = None

    @property
    def holding(self) -> tuple[tuple[str, float], ...]:
        """The labels that hold, with their scores: one, none, or of a multi-label model several."""
        if self.labels is not None:
            return self.labels
        return () if self.label == UNCERTAIN else ((self.label, self.score),)

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
        for name, pairs in (("top", self.top or None), ("labels", self.labels)):
            if pairs is not None:
                record[name] = [[label, round(score, 4)] for label, score in pairs]
        return record


class Smoother:
    """Steadies the label of one stream: a method over its last predictions, then the decision which label holds.

    Args:
        labels: one a class.
        smoothing: which method, and how far back it looks.
        decisions: when a label begins and ends.
        top_k: how many of the best labels each prediction carries; 0 for none.
        gap: what a gap in a live stream does: ``reset`` forgets what came before, ``decay`` as much of it as the gap is
            long.
        multi_label: the model answers to each class on its own, with a sigmoid, and several labels may hold, or none.

    Raises:
        UsageError: an argument is out of range or cannot be meant.
    """

    def __init__(
        self,
        labels: Sequence[str],
        smoothing: Smoothing = Smoothing(),  # noqa: B008 - frozen
        decisions: Decisions = Decisions(),  # noqa: B008
        *,
        top_k: int = 0,
        gap: str = GAPS[0],
        multi_label: bool = False,
    ) -> None:
        if gap not in GAPS:
            raise UsageError(f"gap {gap!r}: expected {' or '.join(GAPS)}")
        if not 0 <= top_k <= len(labels):
            raise UsageError(f"top-k {top_k}: expected 0 to {len(labels)}, the number of classes")
        self._labels = tuple(labels)
        self._nothing = NONE if multi_label else UNCERTAIN
        self._method = new_method(smoothing, len(self._labels), multi_label)
        self._decider = new_decider(decisions, len(self._labels), multi_label)
        self._top_k = top_k
        self._decays = gap == "decay"
        self._multi_label = multi_label
        self._time = -math.inf

    def update(self, probabilities: Probabilities, frame: int, time: float, gap_s: float = 0.0) -> Prediction:
        """Add one frame's probabilities, of shape (classes,), and return its prediction.

        Args:
            probabilities: the model's.
            frame: the frame's number in its source.
            time: its timestamp, in seconds; where it goes back, another stream begins.
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
        if gap_s or time < self._time:
            self._pass_over(gap_s or math.inf)
        self._time = time
        scores = self._method.update(probabilities, time)
        held = self._decider.decide(scores, time)
        shown = held[0] if held else int(scores.argmax())
        return Prediction(
            frame=frame,
            time=time,
            label=self._labels[shown] if held else self._nothing,
            score=float(scores[shown]),
            raw_label=self._labels[raw],
            raw_score=raw_score,
            top=self._top(scores) if self._top_k else (),
            labels=tuple((self._labels[index], float(scores[index])) for index in held) if self._multi_label else None,
        )

    def reset(self) -> None:
        """Forget what came before, as at a cut or the start of another clip."""
        self._method.reset()
        self._decider.reset()
        self._time = -math.inf

    def _pass_over(self, gap_s: float) -> None:
        if self._decays and math.isfinite(gap_s):
            self._method.pass_over(gap_s)
        else:
            self.reset()

    def _top(self, scores: Scores) -> tuple[tuple[str, float], ...]:
        best_first = np.argsort(-scores, kind="stable")[: self._top_k]
        return tuple((self._labels[index], float(scores[index])) for index in best_first)
