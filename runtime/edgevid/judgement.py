"""What a manifest says of how well a variant does: parity with Keras, accuracy, and the search for a better int8."""

from __future__ import annotations

from typing import Literal

from edgevid.record import Record

__all__ = ["Accuracy", "Candidate", "Parity", "Search", "Sensitivity"]


class Parity(Record, frozen=True, kw_only=True):
    """How a variant compares with the Keras model on frames that did not calibrate it.

    ``frames`` is how many were compared, or windows, of a model of several frames at a time, and ``data`` what they
    were: ``held-out`` frames of the calibration sources, or ``noise`` where no real frames were given. ``window`` is
    the rolling average's, in frames of the video; where only some frames of a video were compared, it spanned as many
    fewer of them.
    """

    data: Literal["held-out", "noise"]
    frames: int
    window: int
    top1_agreement: float
    confident_agreement: float | None
    smoothed_agreement: float
    max_abs_error: float
    kl_divergence: float | None


class Accuracy(Record, frozen=True, kw_only=True):
    """How often a model is right on labelled frames, from 0 to 1.

    ``accuracy`` is of single frames (top-1), ``smoothed_accuracy`` of the rolling average's labels, and
    ``worst_class`` the label with the lowest accuracy of single frames among those with frames enough to tell.
    """

    frames: int
    accuracy: float
    smoothed_accuracy: float
    worst_class: str | None = None
    worst_class_accuracy: float | None = None


class Candidate(Record, frozen=True, kw_only=True):
    """One int8 model that a search measured: how much stays in float, how close to Keras it is, and how fast.

    The agreements are on the frames that the search chooses by, which neither calibrate nor judge; so is ``loss``,
    the divergence or, for sigmoids, the largest error. ``latency_ratio`` is its latency ÷ that of plain int8, measured
    turn by turn on one thread.
    """

    in_float: int
    latency_ratio: float
    top1_agreement: float
    smoothed_agreement: float
    loss: float


class Sensitivity(Record, frozen=True, kw_only=True):
    """By how much the loss falls when the output of one layer alone stays in float."""

    layer: str
    loss: float


class Search(Record, frozen=True, kw_only=True):
    """How the best int8 was found.

    ``in_float`` are the operators left in float and ``reason`` says why; ``sensitivity`` is by how much the loss
    falls when one activation alone stays in float, by its name.
    ``plain`` is the parity of plain int8, which this replaced. ``complete`` is false where the time was up first.
    """

    calibration: str
    in_float: tuple[str, ...]
    reason: str
    latency_ratio: float
    seed: int
    seconds: float
    complete: bool
    plain: Parity
    candidates: tuple[Candidate, ...]
    sensitivity: tuple[Sensitivity, ...]
