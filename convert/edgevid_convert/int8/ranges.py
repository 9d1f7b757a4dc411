"""Which range of an activation its 256 levels should span: all of it, or less of it and finer.

Sources: percentile and entropy as in Migacz 2017, "8-bit Inference with TensorRT"; the mean squared error as in Banner
et al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment" (arXiv:1810.05723).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["METHODS", "Range", "Seen", "observed", "ranges"]

Range: TypeAlias = tuple[float, float]
Values: TypeAlias = npt.NDArray[np.float32]

LEVELS = 255
VALUES_PER_FRAME = 1024  # of each activation that are kept
SHARES = np.linspace(1, 0.4, 25)  # of the largest value, tried as the end of the range
PERCENTILE = 0.01  # per cent, cut off at either end
BINS = 512


@dataclass
class Seen:
    """What an activation was over the calibration frames: its exact ends, and a sample of its values."""

    low: float = 0.0  # a range of integers always has 0 in it
    high: float = 0.0
    samples: list[Values] = field(default_factory=list)

    @property
    def values(self) -> Values:
        """The sampled values, in one row."""
        return np.concatenate(self.samples)


def observed(frames: Iterable[Mapping[str, Values]], seed: int = 0) -> dict[str, Seen]:
    """Return what each activation was, by its name; ``frames`` yields all activations of one frame after the other."""
    generator = np.random.default_rng(seed)
    seen: dict[str, Seen] = {}
    for activations in frames:
        for name, tensor in activations.items():
            entry, flat = seen.setdefault(name, Seen()), tensor.reshape(-1)
            entry.low, entry.high = min(entry.low, float(flat.min())), max(entry.high, float(flat.max()))
            many = flat.size > VALUES_PER_FRAME
            entry.samples.append(flat[generator.integers(0, flat.size, VALUES_PER_FRAME)] if many else flat.copy())
    return seen


def ranges(seen: Mapping[str, Seen], method: str) -> dict[str, Range]:
    """Return the range of each activation by one of :data:`METHODS`, with 0 in it and never empty."""
    found = {name: METHODS[method](entry) for name, entry in seen.items()}
    return {name: (min(low, 0.0), max(high, low + 1e-6, 0.0)) for name, (low, high) in found.items()}


def _minmax(seen: Seen) -> Range:
    return seen.low, seen.high


def _percentile(seen: Seen) -> Range:
    low, high = np.percentile(seen.values, [PERCENTILE, 100 - PERCENTILE])
    return float(low), float(high)


def _mse(seen: Seen) -> Range:
    """Return the range with the least squared error, the upper end found first, then the lower."""
    values = seen.values
    _, high = min((_squared_error(values, seen.low, seen.high * share), seen.high * share) for share in SHARES)
    _, low = min((_squared_error(values, seen.low * share, high), seen.low * share) for share in SHARES)
    return low, high


def _squared_error(values: Values, low: float, high: float) -> float:
    step = max(high - low, 1e-12) / LEVELS
    rounded = np.rint(np.clip(values, low, high) / step) * step
    return float(np.mean((rounded - values) ** 2))


def _entropy(seen: Seen) -> Range:
    """Return the range, cut at one magnitude on both sides, whose levels lose the least information on the values."""
    magnitudes = np.abs(seen.values)
    largest = max(-seen.low, seen.high, 1e-12)
    counts, _ = np.histogram(magnitudes, BINS, (0, largest))
    ends = range(BINS // 4, BINS + 1, BINS // 32)
    _, best = min((_divergence(counts.astype(np.float64), end), end) for end in ends)
    limit = largest * best / BINS
    return max(seen.low, -limit), min(seen.high, limit)


def _divergence(counts: npt.NDArray[np.float64], end: int) -> float:
    """Return the divergence, in nats, between the values below bin ``end`` and what 128 levels make of them."""
    wanted = counts[:end].copy()
    level = np.arange(end) * 128 // end
    filled = counts[:end] > 0
    sums, bins = np.bincount(level, counts[:end], 128), np.bincount(level, filled, 128)
    given = np.where(filled, (sums / np.maximum(bins, 1))[level], 0)
    wanted[-1] += counts[end:].sum()
    p, q = wanted / wanted.sum(), np.maximum(given / max(given.sum(), 1e-12), 1e-9)
    return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))


METHODS: dict[str, Callable[[Seen], Range]] = {
    "min-max": _minmax,
    "mse": _mse,
    "percentile": _percentile,
    "entropy": _entropy,
}
