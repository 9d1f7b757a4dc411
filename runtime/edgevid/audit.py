"""The audit of skipping: would the smoothed label be another, had the skipped frames been classified?"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from edgevid.arrays import Probabilities
from edgevid.events import Event
from edgevid.smoothing import Prediction, Smoother
from edgevid.sources.base import Frame, Mark

__all__ = ["TARGET", "Audit", "Skipped", "off_target"]

TARGET = 0.99  # share of audits that find the smoothed label unchanged
AUDITS = 300  # the last so many count: about five minutes of a static picture
CHANCE = 1e-3  # of so many disagreements, or more, though the agreement is on target
LEAST = 3  # disagreements: one or two are no pattern
PAUSE_S = 60.0


@dataclass
class Skipped:
    """What was skipped so far.

    Attributes:
        frames: how many frames took over the probabilities of another.
        audited: at how many the smoothed label was compared, see :class:`Audit`.
        agreed: at how many of those it was the same.
        turned_off: how often skipping was turned off because too few agreed.
    """

    frames: int = 0
    audited: int = 0
    agreed: int = 0
    turned_off: int = 0


class Audit:
    """Compares the smoothed label with what it would be if twice as much were skipped: once more, what skipping costs.

    The label without skipping is not known. But beside the stream's own smoother, which has one frame in n, runs a copy
    that has one in 2n: of the static frames that are classified all the same, every other one is kept from it, as all
    those are that are skipped. The two labels of the last frame before the next are compared. What the frames of a
    static picture have of their own is noise, and the mean of half of those that are classified is as far from the mean
    of all that are as this is from the mean of all frames; what changes unseen comes as late again. So the share of
    audits that disagree is about that of frames whose smoothed label skipping changes.

    Raw labels are not compared: where two classes are a toss-up they change with every frame's noise, which averaging
    is for. Where the smoothed label itself is a toss-up, the two differ, and that counts: a user sees it.

    Skipping is turned off once at least 3 of the last 300 audits disagree, and so many that it would happen less than
    once in 1,000 times if the agreement were on target (99 %), which is to say that its one-sided Clopper-Pearson bound
    is less: 3 among up to 19 audits, 5 among 75, 10 among 299. Where one audit in two disagrees, it is off after 6 (the
    median), one in ten after 35, one in twenty after 110; on target, by chance, within 3,000 in 3 % of all runs. It is
    tried again a minute later, then after two, four, and so on, with audits counted anew.

    Args:
        smoother: the stream's own.
        counts: where audits are counted.
        tell: called with an event when skipping is turned off or on.

    Attributes:
        on: whether static frames are skipped.
    """

    def __init__(self, smoother: Smoother, counts: Skipped, tell: Callable[[Event], None]) -> None:
        self.on = True
        self._smoother = smoother
        self._counts = counts
        self._tell = tell
        self._pause_s = PAUSE_S
        self._off_until = 0.0
        self._held: Probabilities = np.zeros(0, np.float32)  # what the copy has for frames that are kept from it
        self._behind = False  # whether the last classified frame was kept from the copy
        self._same = True  # whether both had the same label at the last frame
        self._begin()

    def on_at(self, time: float) -> bool:
        """Return whether skipping is on for the next frame, which has this time."""
        if not self.on and time >= self._off_until:
            self.on = True
            self._begin()
            self._tell(Event("skipping-on", time, "static frames are skipped again"))
        return self.on

    def check(self, frame: Frame, probabilities: Probabilities, prediction: Prediction) -> None:
        """Take note of the next frame, in the order of frames; at every other static one that is classified, compare.

        Args:
            frame: the next.
            probabilities: what it was smoothed with.
            prediction: what the stream's own smoother made of it.
        """
        if frame.mark in (Mark.CHANGED, Mark.AUDIT):
            behind, self._behind = self._behind, frame.mark is Mark.AUDIT and not self._behind
            if not self._behind:
                self._held = probabilities.copy()
            if self.on and behind and frame.mark is Mark.AUDIT:
                self._count(self._same, frame.time)
        if self.on:
            label = self._copy.update(self._held, frame.index, frame.time, frame.gap_s).label
            self._same = label == prediction.label

    def _begin(self) -> None:
        self._copy = deepcopy(self._smoother)
        self._agreed: deque[bool] = deque(maxlen=AUDITS)
        self._behind, self._same = False, True

    def _count(self, agreed: bool, time: float) -> None:
        self._agreed.append(agreed)
        self._counts.audited += 1
        self._counts.agreed += agreed
        audits, agreeing = len(self._agreed), sum(self._agreed)
        if agreed or not off_target(audits - agreeing, audits):
            return
        self.on = False
        self._off_until = time + self._pause_s
        self._counts.turned_off += 1
        text = (
            f"skipping static frames is off for {self._pause_s:g} s: {agreeing} of the last {audits} audits found the "
            f"smoothed label unchanged, expected {TARGET:.0%}"
        )
        data = {"agreed": agreeing, "audited": audits, "pause_s": self._pause_s}
        self._pause_s *= 2
        self._tell(Event("skipping-off", time, text, data))


def off_target(disagreed: int, audited: int) -> bool:
    """Return whether so many disagreements, or more, were next to impossible if the agreement were on target.

    Binomial: as if audits were independent. Those of one window are not, so that it errs on the side of turning off.
    """
    fewer = (math.comb(audited, k) * (1 - TARGET) ** k * TARGET ** (audited - k) for k in range(disagreed))
    return disagreed >= LEAST and 1 - sum(fewer) < CHANCE
