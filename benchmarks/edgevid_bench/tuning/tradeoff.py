"""What each way of smoothing comes to: flips a minute against the delay of a decision, and where the knee is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from edgevid.methods import METHODS, MethodName, Smoothing, new_method
from edgevid_bench.tuning.streams import UNKNOWN, Stream

__all__ = ["RAW", "Point", "front", "knee", "measure", "settings"]

RAW = Smoothing(window=1)
SECONDS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)  # of windows, and of twice the half-lives
STAYS = (0.9, 0.99, 0.999, 0.9999, 0.999999, 0.99999999)
CUTS = 24  # artificial ones
HALF_LIVES = 10  # after so many, nothing is left
HMM_REACH_S = 10.0


@dataclass(frozen=True)
class Point:
    """One way of smoothing, measured.

    Attributes:
        smoothing: which.
        flips: changes of the label in a minute of video.
        delay_s: how long after a cut the label is the new scene's: the median.
        delay_p90_s: the 90th percentile.
        accuracy: the share of labelled frames where the label is the true one; None without labels.
    """

    smoothing: Smoothing
    flips: float
    delay_s: float
    delay_p90_s: float
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


def measure(smoothing: Smoothing, streams: Sequence[Stream]) -> Point:
    """Measure one way of smoothing.

    The delay is that of the true labels' beginnings where there are any, else of artificial cuts; see
    :func:`delays_at_cuts`.
    """
    shown = [labels(smoothing, stream.rows, stream.times) for stream in streams]
    minutes = sum(stream.seconds for stream in streams) / 60
    flips = sum(int(np.count_nonzero(np.diff(each))) for each in shown)
    delays = delays_of_truth(shown, streams) or delays_at_cuts(smoothing, streams)
    median, p90 = np.percentile(delays, (50, 90), method="inverted_cdf")
    return Point(smoothing, flips / minutes, float(median), float(p90), _accuracy(shown, streams))


def labels(smoothing: Smoothing, rows: npt.NDArray[np.float32], times: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the smoothed label, the number of the class, of each frame."""
    method = new_method(smoothing, rows.shape[1])
    return np.array([method.update(row, time).argmax() for row, time in zip(rows, times.tolist(), strict=True)])


def delays_of_truth(shown: Sequence[npt.NDArray[np.intp]], streams: Sequence[Stream]) -> list[float]:
    """Return how long after each true label's beginning it is shown, in seconds; where it never is, until its end.

    The first label of a clip has no beginning.
    """
    delays = []
    for each, stream in zip(shown, streams, strict=True):
        truth = stream.truth
        if truth is None:
            continue
        changes = np.flatnonzero(np.diff(truth)) + 1
        ends = [*changes[1:], len(truth)]
        for begin, end in zip(changes, ends, strict=True):
            if truth[begin] == UNKNOWN:
                continue
            right = np.flatnonzero(each[begin:end] == truth[begin])
            until = begin + right[0] if len(right) else end - 1
            delays.append(float(stream.times[until] - stream.times[begin]))
    return delays


def delays_at_cuts(smoothing: Smoothing, streams: Sequence[Stream]) -> list[float]:
    """Return how long after each of some artificial cuts the label is that of the new scene, in seconds.

    A cut joins the beginning of one clip to the end of another or the same one, in which the classes have changed their
    names: so the new scene has other labels, and the model is as sure of them, and flickers as much, as on real clips.
    The new scene's label is the one that the same smoothing would show had there been no cut.
    """
    reach_s = _reach_s(smoothing)
    longest = max(streams, key=lambda stream: stream.seconds)
    # As much as the method looks back on lies before either place, and after it.
    usable = [stream for stream in streams if stream.seconds >= 2 * reach_s] or [longest]
    random = np.random.default_rng(0)
    delays = []
    for number in range(CUTS):
        before, after = usable[number % len(usable)], usable[(number // len(usable)) % len(usable)]
        cut = _place(before, min(reach_s, before.seconds / 2), random)
        entry = _place(after, min(reach_s, after.seconds / 2), random)
        delays.append(_delay(smoothing, before, cut, after, entry, reach_s))
    return delays


def _reach_s(smoothing: Smoothing) -> float:
    parameter = METHODS[smoothing.method].parameter
    if parameter == "half_life_s":
        return HALF_LIVES * smoothing.half_life_s
    if parameter == "stay":
        return HMM_REACH_S
    return float(str(smoothing.window).removesuffix("s")) if isinstance(smoothing.window, str) else 0.0


def _place(stream: Stream, apart_s: float, random: np.random.Generator) -> int:
    """Return the number of a frame, so far from the beginning and the end of a stream."""
    low, high = np.searchsorted(stream.times - stream.times[0], (apart_s, stream.seconds - apart_s))
    return int(random.integers(max(1, low), max(2, low + 1, high)).clip(1, len(stream.times) - 1))


def _delay(smoothing: Smoothing, before: Stream, cut: int, after: Stream, entry: int, reach_s: float) -> float:
    classes = before.rows.shape[1]
    joined, alone = new_method(smoothing, classes), new_method(smoothing, classes)
    renamed = np.roll(after.rows, max(1, classes // 2), axis=1)
    shift = float(before.times[cut] - after.times[entry])
    for stream, rows, end, method, by in (
        (before, before.rows, cut, joined, 0.0),
        (after, renamed, entry, alone, shift),
    ):
        begin = np.searchsorted(stream.times, stream.times[end] - reach_s)
        for index in range(int(begin), end):
            method.update(rows[index], float(stream.times[index]) + by)
    for index in range(entry, len(after.times)):
        time = float(after.times[index]) + shift
        if joined.update(renamed[index], time).argmax() == alone.update(renamed[index], time).argmax():
            break
    return float(after.times[index] - after.times[entry])


def _accuracy(shown: Sequence[npt.NDArray[np.intp]], streams: Sequence[Stream]) -> float | None:
    known = [
        each[stream.truth != UNKNOWN] == stream.truth[stream.truth != UNKNOWN]
        for each, stream in zip(shown, streams, strict=True)
        if stream.truth is not None
    ]
    return float(np.concatenate(known).mean()) if known else None


def front(points: Iterable[Point], longest_s: float = math.inf) -> list[Point]:
    """Return the points that no other beats in both flips and delay, by rising delay, up to a delay."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.delay_s, point.flips, point.delay_p90_s)):
        if point.delay_s <= longest_s and (not best or point.flips < best[-1].flips):
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
