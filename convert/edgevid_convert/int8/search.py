"""The search for the best int8: of the candidates that are about as fast as plain int8, one of the most faithful.

Of those that are nearly as faithful as the best it takes the one with the fewest operators in float: this machine may
have float and integers equally fast, where the device that the model is for does not.

It starts from everything in int8, settles how ranges are chosen, and then lets operators compute in float, an
activation at a time with all that touch it: those first that cost the most agreement. Agreement is measured on frames
that neither calibrated nor judge; latency beside plain int8, turn by turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgevid.backends import available_cores
from edgevid.manifest import Parity
from edgevid_convert.int8.candidates import Answers, Candidates, Unit, units
from edgevid_convert.int8.ranges import METHODS, Range, ranges

__all__ = ["SPEED_CLASSES", "Found", "Judge", "Tried", "find_best", "loss_of"]

# Times the latency of plain int8: a candidate of the first class that has one that will do is taken.
# The first aims at 1.10, and a measured ratio is not exact; beyond the last, float is hardly slower.
SPEED_CLASSES = (1.08, 1.25, 2.0)
NEARLY = 1.5  # times the least loss, a candidate is as faithful as the best: labels do not tell them apart
CHOICES_A_CLASS = 2  # of speed: where the held-out frames reject one by a frame or two, the next is as good
MOST_CHOICES = 4  # that the held-out frames are asked about
TURNS = 21  # of a candidate and of plain int8, in a latency
TAIL_KINDS = frozenset({"SOFTMAX", "Softmax", "LOGISTIC", "Sigmoid"})
COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)  # of activations that stay in float together


@dataclass(frozen=True)
class Tried:
    """One candidate, and what was measured of it. ``loss`` is how far it is from Keras."""

    in_float: frozenset[str]
    parity: Parity
    loss: float
    latency_ratio: float = 0.0


@dataclass(frozen=True)
class Judge:
    """How candidates are measured.

    Attributes:
        compared: from a function that answers, its parity with Keras on the search frames.
        quick: the same on few of them.
        passes: whether a parity will do.
        frame: an input tensor to time with.
        plain: the file that plain quantization made, to time beside.
    """

    compared: Callable[[Answers], Parity]
    quick: Callable[[Answers], Parity]
    passes: Callable[[Parity], bool]
    frame: npt.NDArray[np.float32]
    plain: Path


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        choices: what to use: the best candidate, then the best of those that may be slower.
        ranges: of the activations, in all of them.
        method: how these were chosen.
        tried: every candidate that was measured, in order.
        sensitivity: by how much the loss falls when one activation alone stays in float, by its name.
        complete: false if the time was up before the search was done.
    """

    choices: tuple[Tried, ...]
    ranges: Mapping[str, Range]
    method: str
    tried: tuple[Tried, ...]
    sensitivity: Mapping[str, float]
    complete: bool


def loss_of(parity: Parity) -> float:
    """Return how far a candidate is from Keras: the divergence or, for sigmoids, which have none, the largest error.

    Labels do not count: of so few frames, one label more or less is luck. The gate is there for them.
    """
    return parity.max_abs_error if parity.kl_divergence is None else parity.kl_divergence


def find_best(
    candidates: Candidates,
    judge: Judge,
    calibration: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    seconds: float,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Found:
    """Search for a candidate that is about as fast as plain int8, and as faithful as can be.

    Args:
        candidates: makes them.
        judge: measures them.
        calibration: input tensors, float32 (1, height, width, channels).
        folder: for the files of candidates.
        seconds: when to stop looking.
        progress: called with what is being tried, how many are done, and how many there will be.

    Raises:
        ModelError: the quantizer cannot make a candidate.
    """
    search = _Search(candidates, judge, folder / f"candidate.{candidates.suffix}", time.monotonic() + seconds)
    progress("observing activations", 0, 1)
    seen = candidates.observe(calibration)
    tail = _tail(candidates)
    by_method = {method: ranges(seen, method) for method in METHODS}
    losses = {method: search.loss(chosen, tail) for method, chosen in by_method.items()}
    method = min(losses, key=lambda name: losses[name])
    chosen = by_method[method]
    search.measure(chosen, tail)
    found = units(candidates.operators)
    sensitivity: dict[str, float] = {}
    for index, unit in enumerate(found):
        if search.time_is_up:
            break
        progress(f"{unit.activation.split(';')[0]} in float", index, len(found))
        sensitivity[unit.activation] = losses[method] - search.loss(chosen, tail | unit.operators)
    sets = _sets(found, sensitivity, tail)
    for index, in_float in enumerate(sets):
        if search.time_is_up:
            break
        progress(f"{len(in_float)} operators in float", index, len(sets))
        search.measure(chosen, in_float)
    choices = _choices(search.tried, judge.passes)
    return Found(choices, chosen, method, tuple(search.tried), sensitivity, not search.time_is_up)


@dataclass
class _Search:
    candidates: Candidates
    judge: Judge
    path: Path
    deadline: float
    tried: list[Tried] = field(default_factory=list)

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() > self.deadline

    def loss(self, chosen: Mapping[str, Range], in_float: frozenset[str]) -> float:
        """Return a candidate's loss on few frames."""
        self.candidates.write(self.path, chosen, in_float)
        return loss_of(self.judge.quick(self.candidates.opened(self.path, available_cores())))

    def measure(self, chosen: Mapping[str, Range], in_float: frozenset[str]) -> None:
        """Compare a candidate with Keras on all frames, and time it; keep what was measured."""
        self.candidates.write(self.path, chosen, in_float)
        parity = self.judge.compared(self.candidates.opened(self.path, available_cores()))
        one, other = (self.candidates.opened(path, 1) for path in (self.path, self.judge.plain))
        ratio = _latency_ratio(one, other, self.judge.frame)
        self.tried.append(Tried(in_float, parity, loss_of(parity), ratio))


def _latency_ratio(answers: Answers, plain: Answers, frame: npt.NDArray[np.float32]) -> float:
    """Return the candidate's median latency ÷ that of plain int8, measured turn by turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for one, taken in zip((answers, plain), times, strict=True):
            started = time.perf_counter()
            one(frame)
            taken.append(time.perf_counter() - started)
    return float(np.median(times[0]) / np.median(times[1]))


def _tail(candidates: Candidates) -> frozenset[str]:
    """Return the last operator, if it only makes probabilities: in 8 bits the small ones would all be 0."""
    last = candidates.operators[-1]
    return frozenset({last.name}) if last.kind in TAIL_KINDS else frozenset()


def _sets(found: Sequence[Unit], sensitivity: Mapping[str, float], tail: frozenset[str]) -> list[frozenset[str]]:
    """Return which operators to leave in float together, set after set.

    The activations from the input on, since errors grow from there and each alone may be worth nothing; the most
    sensitive ones, wherever they are; and some of both.
    """

    def together(chosen: Sequence[Unit], counts: Sequence[int]) -> list[frozenset[str]]:
        return [frozenset(name for unit in chosen[:count] for name in unit.operators) for count in counts]

    helping = sorted((unit for unit in found if sensitivity.get(unit.activation, 0) > 0), key=_by(sensitivity))
    firsts = together(found, [count for count in COUNTS if count < len(found)])
    worst = together(helping, [count for count in COUNTS if count <= len(helping)])
    both = [first | other for first in firsts[1:4] for other in worst[1:6:2]]
    return list(dict.fromkeys(tail | chosen for chosen in (*firsts, *worst, *both)))


def _by(sensitivity: Mapping[str, float]) -> Callable[[Unit], float]:
    return lambda unit: -sensitivity[unit.activation]


def _choices(tried: Sequence[Tried], passes: Callable[[Parity], bool]) -> tuple[Tried, ...]:
    """Return the two best candidates that will do of each class of speed, then those nearest to them."""
    best = []
    for limit in (*SPEED_CLASSES, float("inf")):
        passing = [one for one in tried if one.latency_ratio <= limit and passes(one.parity)]
        for _ in range(CHOICES_A_CLASS):
            left = [one for one in passing if one not in best]
            if left:
                least = min(one.loss for one in left)
                near = [one for one in left if one.loss <= NEARLY * least]
                best.append(min(near, key=lambda one: (len(one.in_float), one.loss)))
    nearest = sorted(tried, key=lambda one: (not passes(one.parity), one.loss))
    return tuple(dict.fromkeys([*best, *nearest]))[:MOST_CHOICES]
