"""What samples of a noisy machine amount to: percentiles, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import NormalDist, fmean
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "Latency", "latency", "ranks", "rates"]

Samples = npt.NDArray[np.float64]
Interval = tuple[float, float]
Key = TypeVar("Key", bound=Hashable)
RESAMPLES = 1000
BLOCK = 20  # neighbouring latencies depend on each other, so they are resampled in blocks of this length
PERCENTILES = (50, 90, 99)
SWEEPS = 30
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds: percentiles of ``count`` samples, and the 95 % interval of each by its name.

    ``p99`` is None where there are too few samples for it.
    """

    p50: float
    p90: float
    p99: float | None
    ci95: dict[str, Interval]
    count: int


def latency(rounds: Sequence[Samples], seed: int = 0) -> Latency:
    """Return the percentiles of latencies in ms, measured in several rounds, and their 95 % intervals.

    By a bootstrap over blocks of neighbouring values. Source: Künsch, "The jackknife and the bootstrap for general
    stationary observations" (1989).
    """
    together = np.concatenate(rounds)
    carried = [percentile for percentile in PERCENTILES if _carries(together.size, percentile / 100)]
    p50, p90, p99 = (float(value) for value in np.percentile(together, PERCENTILES))
    blocks = [block for values in rounds for block in np.array_split(values, max(1, len(values) // BLOCK))]
    bounds = _bootstrap(blocks, lambda some: np.percentile(np.concatenate(some), carried), seed)
    named = {f"p{percentile}": interval for percentile, interval in zip(carried, bounds, strict=True)}
    return Latency(p50, p90, p99 if 99 in carried else None, named, together.size)


def rates(measured: Mapping[Key, Mapping[int, float]]) -> dict[Key, tuple[float, Interval]]:
    """Return the rate of each row, and its 95 % interval, from what was measured of it in some of the rounds.

    Each round of a row is a process of its own, so Student's t applies to the logarithms of their rates. What slows or
    speeds up all rows of a round alike is the machine's and taken out first, so that a drift does not hide differences:
    rounds are the blocks of a randomized block design. The noise that is left is taken to be that of all rows together,
    since that of one row alone is badly known after a few rounds, or the row's own where that is larger. A row that
    was measured alone, and once, has no interval but from 0 to infinity.

    Sources: Georges, Buytaert, Eeckhout, "Statistically rigorous Java performance evaluation" (2007); Montgomery,
    "Design and analysis of experiments", chapter 4.

    Args:
        measured: of each row, the rate by the number of the round.
    """
    logs = {key: {number: math.log(value) for number, value in rounds.items()} for key, rounds in measured.items()}
    effects = _round_effects(logs)
    adjusted = {key: [value - effects[number] for number, value in rounds.items()] for key, rounds in logs.items()}
    squares = {key: sum((value - fmean(values)) ** 2 for value in values) for key, values in adjusted.items()}
    shared = len(effects) if len(logs) > 1 else 1  # what the rounds' effects took of the freedom
    freedom = sum(map(len, adjusted.values())) - len(adjusted) - shared + 1
    pooled = sum(squares.values()) / freedom if freedom > 0 else math.inf
    results = {}
    for key, values in adjusted.items():
        center, half = fmean(values), math.inf
        if freedom > 0:
            # A row is a part of its rounds' means, so that its own deviations look smaller than they are.
            apart = len(logs) / (len(logs) - 1) if len(logs) > 1 else 1.0
            own = apart * squares[key] / (len(values) - 1) if len(values) > 1 else 0.0
            half = _student(freedom) * math.sqrt(max(pooled, own) / len(values))
        results[key] = math.exp(center), (math.exp(center - half), math.exp(center + half))
    return results


def _round_effects(logs: Mapping[Key, Mapping[int, float]]) -> dict[int, float]:
    """Return by how much the rows of each round were faster than they are on the mean of all rounds."""
    numbers = sorted({number for rounds in logs.values() for number in rounds})
    effects = dict.fromkeys(numbers, 0.0)
    if len(logs) < 2:
        return effects
    for _ in range(SWEEPS):
        centers = {
            key: fmean(value - effects[number] for number, value in rounds.items()) for key, rounds in logs.items()
        }
        effects = {
            number: fmean(rounds[number] - centers[key] for key, rounds in logs.items() if number in rounds)
            for number in numbers
        }
        middle = fmean(effects.values())
        effects = {number: effect - middle for number, effect in effects.items()}
    return effects


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    normal = NormalDist().inv_cdf(0.975)
    return normal + (normal**3 + normal) / (4 * freedom)  # Cornish and Fisher's expansion, exact to 0.001 from here


def ranks(intervals: Sequence[Interval]) -> list[int]:
    """Return the rank of each rate by its interval, from 1: one more than there are rates that lie wholly above it.

    Two whose intervals overlap are not told apart: neither is a reason for the other's rank.
    """
    return [1 + sum(other[0] > interval[1] for other in intervals) for interval in intervals]


def _carries(count: int, share: float) -> bool:
    """Return whether so many samples have one beyond the upper end of the 95 % interval of that quantile.

    Source: David and Nagaraja, "Order Statistics" (2003), section 7.1.
    """
    return share == 0.5 or 1 - share**count >= 0.975


def _bootstrap(parts: Sequence[Samples], statistic: Callable[[list[Samples]], Samples], seed: int) -> list[Interval]:
    """Return the 95 % interval of each number that the statistic makes of the parts."""
    generator = np.random.default_rng(seed)
    drawn = [
        statistic([parts[index] for index in generator.integers(0, len(parts), len(parts))]) for _ in range(RESAMPLES)
    ]
    lows, highs = np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
    return [(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]
