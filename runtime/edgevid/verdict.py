"""What a whole clip shows: the predictions of all its frames, pooled into one verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from edgevid.arrays import Probabilities, Scores
from edgevid.errors import BackendError, SourceError, UsageError
from edgevid.pooling import FEATURE_POOLINGS, POOLINGS, PRESENT, Pooling
from edgevid.sources.base import Frame

__all__ = ["ClipTotals", "Verdict", "check_pooling"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What edgevid says of one clip.

    Attributes:
        clip: what the user called it.
        pooling: what made one of its frames: ``mean``, ``max``, ``log-mean`` or ``vote``.
        frames: how many were classified.
        broken: how many could not be decoded.
        seconds: from the beginning of the first frame that was classified to the end of the last.
        classes: the labels of the model, one a class.
        multi_label: the model answers to each class on its own, with a sigmoid.
        scores: by pooling, all of them: float64 of shape (classes,), 0 to 1.
    """

    clip: str
    pooling: str
    frames: int
    broken: int
    seconds: float
    classes: tuple[str, ...]
    multi_label: bool
    scores: Mapping[str, Scores]

    @property
    def label(self) -> str:
        """The label with the highest score."""
        return self.best()[0]

    @property
    def score(self) -> float:
        """Its score, 0 to 1: of ``mean`` the mean probability, of ``max`` that of the frame where it is highest."""
        return self.best()[1]

    @property
    def share(self) -> float:
        """The share of frames that say so by themselves, 0 to 1: with a sigmoid, with a probability of 0.5 or more."""
        return float(self.scores["vote"][self.scores[self.pooling].argmax()])

    @property
    def labels(self) -> tuple[tuple[str, float], ...]:
        """The labels of the clip with their scores, best first: the best one, with a sigmoid all from 0.5 on."""
        if not self.multi_label:
            return (self.best(),)
        return self.top(int(np.count_nonzero(self.scores[self.pooling] >= PRESENT)))

    def best(self, pooling: str | None = None) -> tuple[str, float]:
        """Return the best label by a pooling, by default the verdict's own, and its score."""
        scores = self.scores[pooling or self.pooling]
        index = int(scores.argmax())
        return self.classes[index], float(scores[index])

    def top(self, count: int) -> tuple[tuple[str, float], ...]:
        """Return so many of the best labels with their scores, best first."""
        scores = self.scores[self.pooling]
        best_first = np.argsort(-scores, kind="stable")[:count]
        return tuple((self.classes[index], float(scores[index])) for index in best_first)

    def to_dict(self, top_k: int = 0) -> dict[str, Any]:
        """Return the verdict as JSON writes it, scores rounded to 4 digits and seconds to microseconds.

        ``pooled`` has the best label by each pooling; ``labels`` is there with a sigmoid, ``top`` with a ``top_k``.
        """
        record: dict[str, Any] = {
            "clip": self.clip,
            "label": self.label,
            "score": round(self.score, 4),
            "share": round(self.share, 4),
            "frames": self.frames,
            "broken": self.broken,
            "seconds": round(self.seconds, 6),
            "pooling": self.pooling,
            "pooled": {name: _rounded([self.best(name)])[0] for name in self.scores},
        }
        if self.multi_label:
            record["labels"] = _rounded(self.labels)
        if top_k:
            record["top"] = _rounded(self.top(top_k))
        return record


@dataclass(eq=False)
class ClipTotals:
    """Adds up the predictions of one clip, by every pooling at once, in memory that does not grow with them.

    Args:
        classes: the labels of the model, one a class.
        multi_label: the model answers to each class on its own, with a sigmoid.
        head: makes class probabilities of features, where frames come with them.
    """

    classes: Sequence[str]
    multi_label: bool
    head: Callable[[Probabilities], Probabilities] | None = None
    frames: int = 0
    _first_s: float = 0.0
    _last_s: float = 0.0
    _poolings: dict[str, Pooling] = field(init=False)
    _totals: dict[str, Scores] = field(init=False)
    _row: Scores = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.classes)
        self._poolings = {name: pooling(count, self.multi_label) for name, pooling in POOLINGS.items()}
        self._totals = {name: np.zeros(count, np.float64) for name in POOLINGS}
        self._row = np.zeros(count, np.float64)
        self._features: dict[str, Scores] = {}

    def add(self, frame: Frame, probabilities: Probabilities, features: Probabilities | None = None) -> None:
        """Add a frame with its class probabilities, of shape (classes,), and where there is a head its features.

        Raises:
            BackendError: the model answered something that is no number.
        """
        highest = float(probabilities.max())
        if not np.isfinite(highest):  # a NaN wherever it is
            raise BackendError(
                f"frame {frame.index}: the model answered {highest}, not a probability; "
                "try another variant (--variant), this one overflows"
            )
        for name, pooling in self._poolings.items():
            pooling.write(probabilities, self._row)
            pooling.combine(self._totals[name], self._row, out=self._totals[name])
        if features is not None:
            for name, combine in FEATURE_POOLINGS.items():
                total = self._features.get(name)
                self._features[name] = (
                    features.astype(np.float64) if total is None else combine(total, features, out=total)
                )
        if not self.frames:
            self._first_s = frame.time
        self._last_s = frame.time
        self.frames += 1

    def verdict(self, clip: str, pooling: str, rate: Fraction, broken: int = 0) -> Verdict:
        """Return what the frames so far amount to.

        Args:
            clip: what the user called it.
            pooling: one of POOLINGS.
            rate: frames per second of the clip.
            broken: how many frames could not be decoded.

        Raises:
            SourceError: there was none.
        """
        if not self.frames:
            raise SourceError(f"{clip}: none of the frames that are wanted can be decoded; is the file complete?")
        scores = {name: np.zeros_like(total) for name, total in self._totals.items()}
        for name, each in self._poolings.items():
            each.finish(self._totals[name], self.frames, scores[name])
        if self.head:
            for name, total in self._features.items():
                pooled = total / self.frames if FEATURE_POOLINGS[name] is np.add else total
                scores[name] = self.head(pooled.astype(np.float32)).astype(np.float64)
        return Verdict(
            clip=clip,
            pooling=pooling,
            frames=self.frames,
            broken=broken,
            seconds=self._last_s - self._first_s + float(1 / rate),
            classes=tuple(self.classes),
            multi_label=self.multi_label,
            scores=scores,
        )


def check_pooling(name: str, has_features: bool) -> str:
    """Return the name of a pooling, if it is one that a bundle with or without features has.

    Raises:
        UsageError: it is none.
    """
    known = [*POOLINGS, *(FEATURE_POOLINGS if has_features else ())]
    if name in FEATURE_POOLINGS and not has_features:
        raise UsageError(f"pooling {name!r}: the bundle has no features of frames; convert the model with --features")
    if name not in known:
        raise UsageError(f"pooling {name!r}: expected one of {', '.join(known)}")
    return name


def _rounded(pairs: Sequence[tuple[str, float]]) -> list[list[Any]]:
    return [[label, round(score, 4)] for label, score in pairs]
