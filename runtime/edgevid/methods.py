"""What becomes of a window of predictions: the methods by which a label is steadied, and what each costs and delays.

A delay is how much later than the raw label the smoothed one changes at a hard cut between scenes of which the model is
equally sure. All of them cost O(classes) a frame, and no memory that grows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from msgspec.structs import replace

from edgevid.arrays import Probabilities, Scores
from edgevid.errors import UsageError
from edgevid.pooling import POOLINGS, least_probability
from edgevid.record import Record
from edgevid.ring import RingBuffer
from edgevid.window import parse_window

__all__ = ["METHODS", "Method", "MethodName", "Smoothing", "changed", "new_method"]

MethodName = Literal["mean", "exponential", "vote", "max", "log-mean", "hmm"]
MOMENT_S = 1e-9


class Smoothing(Record, frozen=True, kw_only=True):
    """How a label is steadied.

    Attributes:
        window: how many predictions count, 64 say, or for how long, ``2s``; of the methods that have a window.
        method: one of METHODS.
        half_life_s: of ``exponential``: after so many seconds a prediction counts half.
        stay: of ``hmm``: how probable it is that the label of a frame is that of the frame before.
    """

    window: int | str = 64
    method: MethodName = "mean"
    half_life_s: float = 1.0
    stay: float = 0.99

    def __post_init__(self) -> None:
        parse_window(self.window)
        if self.method not in METHODS:  # from Python; a manifest is checked by its types
            raise UsageError(f"method {self.method!r}: expected one of {', '.join(METHODS)}")
        if not 0 < self.half_life_s < math.inf:
            raise UsageError(f"half-life {self.half_life_s:g}: expected seconds above 0, such as 0.5")
        if not 0.5 <= self.stay < 1:
            raise UsageError(f"stay {self.stay:g}: expected a probability from 0.5 to below 1, such as 0.99")

    def __str__(self) -> str:
        """Return method and parameter, for reading: ``mean, window 64``."""
        told = {
            "window": f"window {self.window}",
            "half_life_s": f"half-life {self.half_life_s:g}s",
            "stay": f"stay {self.stay:.10g}",
        }
        return f"{self.method}, {told[METHODS[self.method].parameter]}"


class Method(ABC):
    """Makes one array of scores of all predictions so far.

    What :meth:`update` returns is float64 of shape (classes,), 0 to 1, and the method's own: the next call changes it.
    """

    @abstractmethod
    def update(self, probabilities: Probabilities, time: float) -> Scores:
        """Add a frame's class probabilities, of shape (classes,), and return the scores.

        Args:
            probabilities: the model's.
            time: the frame's, in seconds; not before that of the frame before.
        """

    @abstractmethod
    def pass_over(self, gap_s: float) -> None:
        """Let go as much as a gap of so many seconds in a live stream is long."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything."""


class Intervals:
    """Integrates over time, by the trapezoid rule, what is known at moments: frames that are missing hardly matter.

    A moment alone stands for next to no time.

    Args:
        classes: how many values there are.
        longest_s: after so many seconds without one, moments do not belong together.
    """

    def __init__(self, classes: int, longest_s: float) -> None:
        self._longest_s = longest_s
        self._before = np.zeros(classes, np.float64)
        self._row = np.zeros(classes + 1, np.float64)
        self._time = -math.inf

    def add(self, values: Scores, time: float) -> Scores:
        """Return the integral since the moment before, and the seconds since then, as one array of (classes + 1,)."""
        step_s, self._time = time - self._time, time
        if 0 < step_s < self._longest_s:
            np.add(self._before, values, out=self._row[:-1])
            np.multiply(self._row[:-1], step_s / 2, out=self._row[:-1])
        else:
            step_s = MOMENT_S
            np.multiply(values, step_s, out=self._row[:-1])
        self._row[-1] = step_s
        np.copyto(self._before, values)
        return self._row

    def cut(self) -> None:
        """Take the next moment for the first."""
        self._time = -math.inf


class Windowed(Method):
    """Pools the predictions of a window: one of POOLINGS over the rows of a ring buffer.

    A row is a frame, and its weight is 1; of a window in seconds it is the time from one frame to the next.
    """

    def __init__(self, smoothing: Smoothing, classes: int, multi_label: bool) -> None:
        self._pooling = POOLINGS[smoothing.method](classes, multi_label)
        self._ring = RingBuffer(smoothing.window, classes + 1, self._pooling.combine)
        by_time = self._pooling.combine is np.add and not math.isinf(self._ring.window.seconds)
        self._intervals = Intervals(classes, self._ring.window.seconds) if by_time else None
        self._row = np.ones(classes + 1, np.float64)
        self._scores = np.zeros(classes, np.float64)

    def update(self, probabilities: Probabilities, time: float) -> Scores:
        """Add a frame's class probabilities, and return the scores."""
        self._pooling.write(probabilities, self._row[:-1])
        row = self._intervals.add(self._row[:-1], time) if self._intervals else self._row
        total = self._ring.push(row, time)
        self._pooling.finish(total[:-1], total[-1], self._scores)
        return self._scores

    def pass_over(self, gap_s: float) -> None:
        """Let the oldest predictions go."""
        self._ring.pass_over(gap_s)
        if self._intervals:
            self._intervals.cut()

    def reset(self) -> None:
        """Empty the window."""
        self._ring.clear()
        if self._intervals:
            self._intervals.cut()


class Exponential(Method):
    """The mean over all time so far, weighted by 2^(−age ÷ half-life): it needs no window.

    Between two frames the probabilities are taken to change in a straight line, which is integrated exactly, however
    far apart they are (Eckner, "Algorithms for Unevenly Spaced Time Series: Moving Averages and Other Rolling
    Operators", 2012). A frame alone stands for next to no time.
    """

    def __init__(self, smoothing: Smoothing, classes: int, multi_label: bool) -> None:
        self._lifetime_s = smoothing.half_life_s / math.log(2)
        self._before, self._row = np.ones(classes + 1, np.float64), np.ones(classes + 1, np.float64)
        self._total, self._weighted = np.zeros(classes + 1, np.float64), np.zeros(classes + 1, np.float64)
        self._scores = np.zeros(classes, np.float64)
        self._time, self._alone = -math.inf, True

    def update(self, probabilities: Probabilities, time: float) -> Scores:
        """Add a frame's class probabilities, and return the scores."""
        step = (time - self._time) / self._lifetime_s
        left = math.exp(-step)
        before, now = 0.0, MOMENT_S
        if step and not self._alone:
            mean_left = -math.expm1(-step) / step  # of what is spread evenly over the step
            before, now = mean_left - left, 1 - mean_left
        self._time, self._alone = time, False
        np.copyto(self._row[:-1], probabilities)
        np.multiply(self._total, left, out=self._total)
        for frame, weight in ((self._before, before), (self._row, now)):
            np.multiply(frame, weight, out=self._weighted)
            np.add(self._total, self._weighted, out=self._total)
        self._before, self._row = self._row, self._before
        np.divide(self._total[:-1], self._total[-1], out=self._scores)
        return self._scores

    def pass_over(self, gap_s: float) -> None:
        """Leave the gap out; the age of what was before it fades that."""
        self._alone = True

    def reset(self) -> None:
        """Forget everything."""
        self._total.fill(0)
        self._time, self._alone = -math.inf, True


class Hmm(Method):
    """The forward filter of a hidden Markov model: how probable each label is, given all frames so far (Rabiner 1989).

    From one frame to the next the label stays with probability ``stay``, and else turns to any other, all alike; the
    model's probabilities are how well each label explains a frame. Of a sigmoid model every class is a chain of its
    own, with two states. Unlike the others it goes by frames and not by seconds. No probability counts for less than in
    :class:`edgevid.pooling.LogMean`.
    """

    def __init__(self, smoothing: Smoothing, classes: int, multi_label: bool) -> None:
        self._multi_label, self._least = multi_label, least_probability(classes, multi_label)
        self._labels = 2 if multi_label else max(classes, 2)
        self._turn = (1 - smoothing.stay) / (self._labels - 1)  # to one certain other label
        self._fading = smoothing.stay - self._turn
        self._belief = np.full(classes, 1 / self._labels, np.float64)
        self._row, self._other = np.zeros(classes, np.float64), np.zeros(classes, np.float64)
        self._time, self._step_s = math.inf, 0.0  # seconds from one frame to the next; none is known yet

    def update(self, probabilities: Probabilities, time: float) -> Scores:
        """Add a frame's class probabilities, and return the scores."""
        if math.isfinite(self._time):
            self._step_s = time - self._time
        self._time = time
        belief, row = self._belief, self._row
        self._fade(self._fading)
        np.copyto(row, probabilities)
        if self._multi_label:
            np.clip(row, self._least, 1 - self._least, out=row)
            np.subtract(1, belief, out=self._other)
            np.multiply(belief, row, out=belief)
            np.subtract(1, row, out=row)
            np.multiply(self._other, row, out=self._other)
            np.add(self._other, belief, out=self._other)
            np.divide(belief, self._other, out=belief)
        else:
            np.maximum(row, self._least, out=row)
            np.multiply(belief, row, out=belief)
            np.divide(belief, belief.sum(), out=belief)
        return belief

    def pass_over(self, gap_s: float) -> None:
        """Let the labels turn as often as frames are missing."""
        missing = gap_s / self._step_s if self._step_s else math.inf
        self._fade(self._fading**missing)
        self._time = math.inf  # until the frame after the next, the step is that from before the gap

    def reset(self) -> None:
        """Hold all labels for equally probable again."""
        self._belief.fill(1 / self._labels)
        self._time, self._step_s = math.inf, 0.0

    def _fade(self, rest: float) -> None:
        """Come nearer to all labels being equally probable: of the distance to that, ``rest`` is left."""
        np.multiply(self._belief, rest, out=self._belief)
        np.add(self._belief, (1 - rest) / self._labels, out=self._belief)


@dataclass(frozen=True, slots=True)
class Kind:
    """A method: what makes it, which parameter of Smoothing it has, and what to expect of it, for reading."""

    make: type[Windowed | Exponential | Hmm]
    parameter: Literal["window", "half_life_s", "stay"]
    delay: str
    cost: str


METHODS: Mapping[str, Kind] = MappingProxyType(
    {
        "mean": Kind(Windowed, "window", "half the window", "two additions"),
        "exponential": Kind(
            Exponential, "half_life_s", "the half-life", "three multiplications and two additions; no window"
        ),
        "vote": Kind(Windowed, "window", "half the window", "two additions and a maximum"),
        "max": Kind(Windowed, "window", "up to the window", "two comparisons"),
        "log-mean": Kind(Windowed, "window", "half the window", "a logarithm, two additions and an exponential"),
        "hmm": Kind(Hmm, "stay", "the fewer frames the surer the model is", "two multiplications; no window"),
    }
)


def changed(
    smoothing: Smoothing,
    *,
    method: str | None = None,
    window: int | str | None = None,
    half_life_s: float | None = None,
    stay: float | None = None,
) -> Smoothing:
    """Return ``smoothing`` with what is given in place of its own. A window of 1 is no smoothing, whatever the method.

    Raises:
        UsageError: a parameter is out of range, or one that the method does not have.
    """
    if window in (1, "1") and method is None:
        method = "mean"
    given = {"method": method, "window": window, "half_life_s": half_life_s, "stay": stay}
    given = {name: value for name, value in given.items() if value is not None}
    how = replace(smoothing, **given)
    own = METHODS[how.method].parameter
    for name in given.keys() - {"method", own}:
        told = {"half_life_s": "half-life"}
        which = how.method if method else f"{how.method}, the default here,"
        others = " or ".join(each for each, kind in METHODS.items() if kind.parameter == name)
        raise UsageError(
            f"{told.get(name, name)} {given[name]}: the method {which} has {told.get(own, own)} instead; "
            f"leave it out, or name the method {others}"
        )
    return how


def new_method(smoothing: Smoothing, classes: int, multi_label: bool = False) -> Method:
    """Return a method that has seen nothing yet.

    Args:
        smoothing: which, and how far back it looks.
        classes: the length of a prediction.
        multi_label: the model answers to each class on its own, with a sigmoid.
    """
    return METHODS[smoothing.method].make(smoothing, classes, multi_label)
