"""How a variant compares with the Keras model: the measures that edgevid uses everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edgevid.manifest import Parity
from edgevid.ring import RingBuffer

__all__ = ["compare"]

Scores: TypeAlias = npt.NDArray[np.float32]
CONFIDENT_MARGIN = 0.1
SMALLEST_PROBABILITY = 1e-9  # keeps the divergence finite where integers round a probability to 0


def compare(
    reference: Sequence[Scores],
    candidate: Sequence[Scores],
    spacings: Sequence[float],
    window: int,
    data: Literal["held-out", "noise"],
    multi_label: bool = False,
) -> Parity:
    """Compare class probabilities, float32 (frames, classes) a clip, with those of the Keras model.

    Args:
        reference: the Keras model's, one array a clip.
        candidate: the variant's, likewise.
        spacings: how many frames of video lie between two of these, one number a clip.
        window: the rolling average's, in frames of video.
        data: what the frames were.
        multi_label: the model answers to each class on its own: that is no distribution, and has no divergence.
    """
    reference_rows, candidate_rows = np.concatenate(reference), np.concatenate(candidate)
    best = reference_rows.argmax(axis=1)
    agrees = candidate_rows.argmax(axis=1) == best
    second_and_best = np.partition(reference_rows, -2, axis=1)[:, -2:]
    confident = second_and_best[:, 1] - second_and_best[:, 0] > CONFIDENT_MARGIN
    smoothed_agrees = np.concatenate(
        [
            smoothed_labels(rows, window, spacing) == smoothed_labels(other, window, spacing)
            for rows, other, spacing in zip(reference, candidate, spacings, strict=True)
        ]
    )
    return Parity(
        data=data,
        frames=len(reference_rows),
        window=window,
        top1_agreement=float(agrees.mean()),
        confident_agreement=float(agrees[confident].mean()) if confident.any() else None,
        smoothed_agreement=float(smoothed_agrees.mean()),
        max_abs_error=float(np.abs(reference_rows - candidate_rows).max()),
        kl_divergence=None if multi_label else _kl_divergence(reference_rows, candidate_rows),
    )


def smoothed_labels(rows: Scores, window: int, spacing: float) -> npt.NDArray[np.intp]:
    """Return the smoothed label of every row; the window spans as much video as it will on the device."""
    ring = RingBuffer(max(1, round(window / spacing)), rows.shape[1])
    return np.array([ring.push(row).argmax() for row in rows])


def _kl_divergence(reference: Scores, candidate: Scores) -> float:
    """Return the mean Kullback-Leibler divergence of the candidate from the reference, in nats."""
    p = np.maximum(reference.astype(np.float64), SMALLEST_PROBABILITY)
    q = np.maximum(candidate.astype(np.float64), SMALLEST_PROBABILITY)
    return max(0.0, float((p * np.log(p / q)).sum(axis=1).mean()))  # rounding can take a 0 below 0
