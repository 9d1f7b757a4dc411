"""What each way of smoothing comes to: flips a minute against the delay of a decision, and where the knee is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from edgevid.methods import METHODS, MethodName, Smoothing, new_method
from edgevid.window import parse_window
from edgevid_bench.tuning.streams import UNKNOWN, Stream, Truth

__all__ = ["RAW", "Cut", "Point", "cuts", "front", "knee", "measure", "settings", "true_labels_begin"]

RAW = Smoothing(window=1)
SECONDS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)  # of windows, and of twice the half-lives
STAYS = (0.9, 0.99, 0.999, 0.9999, 0.999999, 0.99999999)
CUTS = 24  # artificial ones
NEAR = 25  # frames on each side of one by which its labels are told
WORSE = 0.02  # of accuracy, that fewer flips or less delay may cost
HALF_LIVES = 10  # after so many, nothing is left
HMM_REACH_S = 10.0


@dataclass(frozen=True)
class Point:
    """One way of smoothing, measured.

    Attributes:
        smoothing: which.
        flips: changes of the label in a minute of video.
        median_s: how long after a cut the label is the new scene's, in seconds: the median.
        delay_s: within which time it is at nine cuts of ten; what is chosen by.
        decisions: at how many cuts, or true labels that begin, that was measured.
        accuracy: the share of labelled frames where the label is the true one; None without labels.
    """

    smoothing: Smoothing
    flips: float
    median_s: float
    delay_s: float
    decisions: int
    accuracy: float | None = None


def settings(methods: Iterable[str], longest_s: float) -> list[Smoothing]:
    """Return what is tried: no smoothing, and each method with windows (half-lives of half as much) up to a time."""
    spans = [seconds for seconds in SECONDS if seconds <= longest_s]
    found = [RAW]
    for method in methods:
        name = cast(MethodName, method)
        match METHODS[name].parameter:
            case "window":
                found += [Smoothing(method=name, window=f"{seconds:g}s") for seconds in spans]
            case "half_life_s":
                found += [Smoothing(method=name, half_life_s=seconds / 2) for seconds in spans]
            case "stay":
                found += [Smoothing(method=name, stay=stay) for stay in STAYS]
    return found


def measure(smoothing: Smoothing, streams: Sequence[Stream], artificial: Sequence[Cut]) -> Point:
    """Measure one way of smoothing; the delay is that after true labels begin, or where there are none, after cuts."""
    shown = [labels(smoothing, stream.rows, stream.times) for stream in streams]
    minutes = sum(stream.seconds for stream in streams) / 60
    flips = sum(int(np.count_nonzero(np.diff(each))) for each in shown)
    of_truth = true_labels_begin(streams)
    delays = delays_of_truth(shown, streams) if of_truth else [delay_at(cut, smoothing) for cut in artificial]
    median, p90 = np.percentile(delays, (50, 90), method="inverted_cdf")
    return Point(smoothing, flips / minutes, float(median), float(p90), len(delays), _accuracy(shown, streams))


def labels(smoothing: Smoothing, rows: npt.NDArray[np.float32], times: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the smoothed label, the number of the class, of each frame."""
    method = new_method(smoothing, rows.shape[1])
    return np.array([method.update(row, time).argmax() for row, time in zip(rows, times.tolist(), strict=True)])


def true_labels_begin(streams: Iterable[Stream]) -> bool:
    """Return whether any true label begins in a clip; the first label of one has no beginning."""
    return any(stream.truth is not None and any(_true_spans(stream.truth)) for stream in streams)


def _true_spans(truth: Truth) -> Iterator[tuple[int, int]]:
    """Yield the first frame of each true label that begins in a clip, and the first after it."""
    changes = [*(np.flatnonzero(np.diff(truth)) + 1).tolist(), len(truth)]
    return ((begin, end) for begin, end in itertools.pairwise(changes) if truth[begin] != UNKNOWN)


def delays_of_truth(shown: Sequence[npt.NDArray[np.intp]], streams: Sequence[Stream]) -> list[float]:
    """Return how long after each true label's beginning it is shown, in seconds; where it never is, until its end."""
    delays = []
    for each, stream in zip(shown, streams, strict=True):
        if (truth := stream.truth) is None:
            continue
        for begin, end in _true_spans(truth):
            right = np.flatnonzero(each[begin:end] == truth[begin])
            until = begin + right[0] if len(right) else end - 1
            delays.append(float(stream.times[until] - stream.times[begin]))
    return delays


@dataclass(frozen=True)
class Cut:
    """An artificial cut: a clip up to a frame, then one from a frame on, in which the classes have other names.

    So the new scene has another label, and the model is as sure of it, and flickers as much, as on real clips.

    Attributes:
        before: the clip before the cut.
        last: the number of its last frame.
        after: the clip after it.
        first: the number of its first frame.
    """

    before: Stream
    last: int
    after: Stream
    first: int

    @property
    def turn(self) -> int:
        """By how many classes their names are exchanged: by half of them, or so many more that the label is another."""
        classes = self.before.rows.shape[1]
        old = self.before.rows[max(0, self.last + 1 - NEAR) : self.last + 1].mean(axis=0).argmax()
        new = self.after.rows[self.first : self.first + NEAR].mean(axis=0).argmax()
        turns = (*range(classes // 2, classes), *range(classes // 2))
        return next((turn for turn in turns if (new + turn) % classes != old), 0)


def cuts(streams: Sequence[Stream]) -> list[Cut]:
    """Return some cuts, the same for every way of smoothing: late in a clip, to early in another or the same one.

    Clips less than half as long as the longest are left out, since little would come before a cut, or after it.
    """
    longest_s = max(stream.seconds for stream in streams)
    usable = [stream for stream in streams if stream.seconds >= longest_s / 2]
    random = np.random.default_rng(0)
    found = []
    for number in range(CUTS):
        before, after = usable[number % len(usable)], usable[(number // len(usable)) % len(usable)]
        last = int(len(before.times) * random.uniform(0.5, 1)) - 1
        found.append(Cut(before, max(0, last), after, int(len(after.times) * random.uniform(0, 0.5))))
    return found


def delay_at(cut: Cut, smoothing: Smoothing) -> float:
    """Return how long after a cut the label is that of the new scene, in seconds; at most until its end.

    That is the one that the same smoothing would show had there been no cut.
    """
    classes = cut.before.rows.shape[1]
    joined, alone = new_method(smoothing, classes), new_method(smoothing, classes)
    turn = cut.turn
    step_s = cut.after.seconds / len(cut.after.times)
    shift = float(cut.before.times[cut.last] - cut.after.times[cut.first]) + step_s
    begin = int(np.searchsorted(cut.before.times, cut.before.times[cut.last] - _reach_s(smoothing)))
    for index in range(begin, cut.last + 1):
        joined.update(cut.before.rows[index], float(cut.before.times[index]))
    for index in range(len(cut.after.times)):
        row, time = np.roll(cut.after.rows[index], turn), float(cut.after.times[index])
        label = alone.update(row, time).argmax()
        if index >= cut.first and joined.update(row, time + shift).argmax() == label:
            break
    return float(cut.after.times[index] - cut.after.times[cut.first])


def _reach_s(smoothing: Smoothing) -> float:
    """Return how much of what came before can matter, in seconds."""
    parameter = METHODS[smoothing.method].parameter
    if parameter == "half_life_s":
        return HALF_LIVES * smoothing.half_life_s
    if parameter == "stay":
        return HMM_REACH_S
    return parse_window(smoothing.window).seconds if smoothing != RAW else 0.0


def _accuracy(shown: Sequence[npt.NDArray[np.intp]], streams: Sequence[Stream]) -> float | None:
    known = [
        each[stream.truth != UNKNOWN] == stream.truth[stream.truth != UNKNOWN]
        for each, stream in zip(shown, streams, strict=True)
        if stream.truth is not None
    ]
    return float(np.concatenate(known).mean()) if known else None


def front(points: Iterable[Point], longest_s: float = math.inf) -> list[Point]:
    """Return the points that no other beats in both flips and delay, by rising delay, up to a delay.

    Of labelled clips only those count that are right about as often as the best.
    """
    soon = [point for point in points if point.delay_s <= longest_s]
    right = max((point.accuracy or 0 for point in soon), default=0)
    best: list[Point] = []
    for point in sorted(
        (point for point in soon if (point.accuracy or 0) >= right - WORSE),
        key=lambda point: (point.delay_s, point.flips, point.median_s),
    ):
        if not best or point.flips < best[-1].flips:
            best.append(point)
    return best


def knee(points: Sequence[Point]) -> Point:
    """Return the knee of a front: the point that lies farthest below the line from its first to its last.

    Both axes are stretched to the front's own range (Satopää et al., "Finding a 'Kneedle' in a Haystack", 2011).
    """
    first, last = points[0], points[-1]
    if len(points) < 3:
        return last

    def below(point: Point) -> float:
        x = (point.delay_s - first.delay_s) / (last.delay_s - first.delay_s)
        y = (point.flips - last.flips) / (first.flips - last.flips)
        return 1 - x - y

    return max(points, key=below)
