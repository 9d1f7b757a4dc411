"""What samples of a noisy machine amount to: percentiles, and how far they can be trusted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist, fmean, variance
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "Latency", "Rate", "latency", "overlap", "ranks", "rates"]

Samples = npt.NDArray[np.float64]
Interval = tuple[float, float]
Key = TypeVar("Key", bound=Hashable)
RESAMPLES = 1000
BLOCK = 20  # neighbouring latencies depend on each other, so they are resampled in blocks of this length
PERCENTILES = (50, 90, 99)
SWEEPS = 30
NOISIER = 4  # times the variance of all rows: then a row's own counts
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds: percentiles of ``count`` samples, and the 95 % interval of each by its name.

    ``p90`` and ``p99`` are None where there are too few samples for them. ``quantiles`` are those from 5 % to 95 %, in
    steps of 5 %.
    """

    p50: float
    p90: float | None
    p99: float | None
    ci95: dict[str, Interval]
    quantiles: list[float]
    count: int


class Rate(msgspec.Struct, frozen=True):
    """A rate, and its 95 % intervals; None where there are too few rounds for them.

    ``ci95`` is for telling it from other rates of the same bench, ``across_ci95`` for other benches on the same
    machine, which the drift of the machine between the rounds makes wider.
    """

    value: float
    ci95: Interval | None
    across_ci95: Interval | None


def latency(rounds: Sequence[Samples], seed: int = 0) -> Latency:
    """Return the percentiles of latencies in ms, measured in several rounds, and their 95 % intervals.

    By a bootstrap over rounds, and in them over blocks of neighbouring values. Source: Künsch, "The jackknife and the
    bootstrap for general stationary observations" (1989).
    """
    together = np.concatenate(rounds)
    carried = [percentile for percentile in PERCENTILES if _carries(together.size, percentile / 100)]
    values = dict(zip(carried, np.percentile(together, carried).tolist(), strict=True))
    blocks = [np.array_split(each, max(1, len(each) // BLOCK)) for each in rounds]
    generator = np.random.default_rng(seed)
    drawn = np.array([np.percentile(np.concatenate(_resampled(blocks, generator)), carried) for _ in range(RESAMPLES)])
    lows, highs = np.percentile(drawn, (2.5, 97.5), axis=0)
    ci95 = {f"p{name}": (float(low), float(high)) for name, low, high in zip(carried, lows, highs, strict=True)}
    quantiles = np.percentile(together, range(5, 100, 5)).tolist()
    return Latency(values[50], values.get(90), values.get(99), ci95, quantiles, together.size)


def _resampled(rounds: Sequence[Sequence[Samples]], generator: np.random.Generator) -> list[Samples]:
    """Return blocks of some of the rounds, both drawn with replacement."""
    some = [rounds[index] for index in generator.integers(0, len(rounds), len(rounds))]
    return [blocks[index] for blocks in some for index in generator.integers(0, len(blocks), len(blocks))]


def rates(measured: Mapping[Key, Mapping[int, float]]) -> dict[Key, Rate]:
    """Return the rate of each row from what was measured of it in some of the rounds.

    Each round of a row is a process of its own, so Student's t applies to the logarithms of their rates. What slows or
    speeds up all rows of a round alike is the machine's and taken out first, so that a drift does not hide differences:
    rounds are the blocks of a randomized block design. The noise that is left is taken to be that of all rows together,
    since that of one row alone is badly known after a few rounds; but a row that is clearly noisier has its own.

    Sources: Georges, Buytaert, Eeckhout, "Statistically rigorous Java performance evaluation" (2007); Montgomery,
    "Design and analysis of experiments", chapter 4.

    Args:
        measured: of each row, the rate by the number of the round.
    """
    logs = {key: {number: math.log(value) for number, value in rounds.items()} for key, rounds in measured.items()}
    effects = _round_effects(logs)
    adjusted = {key: [value - effects[number] for number, value in rounds.items()] for key, rounds in logs.items()}
    squares = {key: sum((value - fmean(values)) ** 2 for value in values) for key, values in adjusted.items()}
    beside = Counter(number for rounds in logs.values() for number in rounds)  # how many rows a round has
    lost = len(effects) - 1 if len(logs) > 1 else 0  # of the freedom, to the effects of the rounds
    freedom = sum(map(len, adjusted.values())) - len(adjusted) - lost
    pooled = sum(squares.values()) / freedom if freedom > 0 else math.inf
    drift = variance(effects.values()) / len(effects) if len(logs) > 1 and len(effects) > 1 else 0.0
    results = {}
    for key, values in adjusted.items():
        rows = fmean(beside[number] for number in logs[key])
        noise, free = pooled, freedom
        if len(values) > 2:  # two values say next to nothing of their spread
            # A row is a part of its rounds' means, so that its own deviations look smaller than they are.
            own = squares[key] / (len(values) - 1) * (rows / (rows - 1) if rows > 1 else 1.0)
            if own > NOISIER * pooled:
                noise, free = own, len(values) - 1
        center, error = fmean(values), noise / len(values)
        across = min(free, len(effects) - 1) if drift else free
        results[key] = Rate(math.exp(center), _around(center, error, free), _around(center, error + drift, across))
    return results


def overlap(one: Interval | None, other: Interval | None) -> bool:
    """Return whether two rates are not told apart: their intervals overlap, or one has none."""
    return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])


def _around(center: float, squared_error: float, freedom: int) -> Interval | None:
    """Return the 95 % interval of a rate from its logarithm and the squared standard error of that."""
    if freedom < 1 or math.isinf(squared_error):
        return None
    half = _student(freedom) * math.sqrt(squared_error)
    return math.exp(center - half), math.exp(center + half)


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
    """Return the rank of each rate by its interval, from 1: one more than there are rates that lie wholly above it."""
    return [1 + sum(other[0] > interval[1] for other in intervals) for interval in intervals]


def _carries(count: int, share: float) -> bool:
    """Return whether so many samples have one beyond the upper end of the 95 % interval of that quantile.

    Source: David and Nagaraja, "Order Statistics" (2003), section 7.1.
    """
    return share == 0.5 or 1 - share**count >= 0.975
