"""From scores to labels: which one holds, or none, once a threshold, a margin and a minimum time have had their say."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np

from edgevid.arrays import Scores
from edgevid.errors import UsageError
from edgevid.record import Record
from edgevid.window import TIME_TOLERANCE_S

__all__ = ["NONE", "UNCERTAIN", "Decider", "Decisions", "new_decider"]

UNCERTAIN = "uncertain"  # what stands for a label where none is sure enough ...
NONE = "none"  # ... and where a model that answers to each class on its own sees none of them
PRESENT = 0.5


class Decisions(Record, frozen=True, kw_only=True):
    """When a label begins, and when it ends. With the defaults the best label holds, whatever its score.

    A model with a sigmoid decides for each class on its own, and may name several or none.

    Attributes:
        enter: a label begins at this score, 0 to 1; None for 0, and for 0.5 with a sigmoid.
        leave: one that has begun goes on until its score is below this, or a better one begins; None for ``enter``.
        margin: a label begins only where its score is so much above the second best.
        hold_s: a label that has begun goes on for so many seconds at least.
    """

    enter: float | None = None
    leave: float | None = None
    margin: float = 0.0
    hold_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("enter", self.enter), ("leave", self.leave), ("margin", self.margin)):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} {value:g}: expected a score from 0 to 1, such as 0.6")
        if not 0 <= self.hold_s < math.inf:
            raise UsageError(f"hold {self.hold_s:g}: expected seconds from 0 on, such as 0.5")

    def thresholds(self, enter: float) -> tuple[float, float]:
        """Return the scores at which a label begins and ends, where ``enter`` is the default.

        Raises:
            UsageError: a label would end as soon as it begins.
        """
        begin = enter if self.enter is None else self.enter
        end = begin if self.leave is None else self.leave
        if end > begin:
            raise UsageError(
                f"leave {end:g} is above enter {begin:g}: a label would end as soon as it begins; "
                "give a lower leave or a higher enter"
            )
        return begin, end


class Decider(ABC):
    """Says which classes hold, frame by frame."""

    @abstractmethod
    def decide(self, scores: Scores, time: float) -> tuple[int, ...]:
        """Return the numbers of the classes that hold, the best first; none where none is sure enough.

        Args:
            scores: the smoothed ones, of shape (classes,).
            time: the frame's, in seconds; not before that of the frame before.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget what held."""


class OneLabel(Decider):
    """One class at a time: the best, if it is good enough to begin, or good enough to go on."""

    def __init__(self, decisions: Decisions) -> None:
        self._enter, self._leave = decisions.thresholds(0.0)
        self._margin, self._hold_s = decisions.margin, decisions.hold_s
        self._held: int | None = None
        self._since = 0.0

    def decide(self, scores: Scores, time: float) -> tuple[int, ...]:
        """Return the class that holds, or none."""
        best, held = int(scores.argmax()), self._held
        if held is not None and time - self._since < self._hold_s - TIME_TOLERANCE_S:
            return (held,)
        if best != held and self._may_begin(scores, best):
            self._held, self._since = best, time
        elif held is not None and scores[held] < self._leave:
            self._held = None
        return () if self._held is None else (self._held,)

    def reset(self) -> None:
        """Forget what held."""
        self._held = None

    def _may_begin(self, scores: Scores, best: int) -> bool:
        score = scores[best]
        if score < self._enter:
            return False
        if not self._margin or len(scores) < 2:
            return True
        scores[best] = -math.inf  # for a moment: finding the second best in a copy would take memory
        second = scores.max()
        scores[best] = score
        return bool(score - second >= self._margin)


class ManyLabels(Decider):
    """Each class on its own."""

    def __init__(self, decisions: Decisions, classes: int) -> None:
        self._enter, self._leave = decisions.thresholds(PRESENT)
        self._hold_s = decisions.hold_s
        self._held = np.zeros(classes, bool)
        self._since = np.zeros(classes, np.float64)

    def decide(self, scores: Scores, time: float) -> tuple[int, ...]:
        """Return the classes that hold, the best first."""
        begins = ~self._held & (scores >= self._enter)
        held_long = time - self._since >= self._hold_s - TIME_TOLERANCE_S
        ends = self._held & (scores < self._leave) & held_long
        self._since[begins] = time
        self._held ^= begins | ends
        held = np.flatnonzero(self._held)
        return tuple(int(index) for index in held[np.argsort(-scores[held], kind="stable")])

    def reset(self) -> None:
        """Forget what held."""
        self._held.fill(False)


def new_decider(decisions: Decisions, classes: int, multi_label: bool = False) -> Decider:
    """Return a decider that has seen nothing yet.

    Raises:
        UsageError: a label would end as soon as it begins, or a margin is asked for where classes decide on their own.
    """
    if multi_label and decisions.margin:
        raise UsageError(
            f"margin {decisions.margin:g}: this model answers to each class on its own, with a sigmoid; leave it out"
        )
    return ManyLabels(decisions, classes) if multi_label else OneLabel(decisions)
