"""What a run says of itself, for reading: what it runs, and what it amounted to."""

from __future__ import annotations

import math

from edgevid.audit import Skipped
from edgevid.backends import BACKENDS
from edgevid.classifier import VideoClassifier
from edgevid.summary import Summary

__all__ = ["ran_where", "summary_lines", "what_runs"]

LABELS_SHOWN = 8


def summary_lines(name: str, summary: Summary) -> list[str]:
    """Return what a run amounted to, for reading."""
    longest = list(summary.seconds_by_label.items())[:LABELS_SHOWN]
    others = len(summary.seconds_by_label) - len(longest)
    flips = ", ".join(
        f"{kind} {count} ({60 * count / summary.video_s if summary.video_s else 0:.0f} a minute)"
        for kind, count in (("raw", summary.raw_flips), ("smoothed", summary.smoothed_flips))
    )
    frames = _counted(summary.frames, "frame")
    lines = [
        f"{name}: {frames} in {summary.elapsed_s:.2f} s"
        + ("" if summary.skipped else f", {summary.fps:.1f} frames per second"),
        *(_skipping_lines(summary, summary.skipped) if summary.skipped else ()),
        f"label flips: {flips}",
        "time per label: "
        + ", ".join(f"{label} {seconds:.2f} s" for label, seconds in longest)
        + (f", and {others} others" if others else ""),
    ]
    if summary.broken:
        lines.append(f"broken frames passed over: {summary.broken}")
    if summary.age_ms:
        lines.append("age of a frame when its label came out: {:.1f} ms, p99 {:.1f} ms".format(*summary.age_ms))
    if summary.dropped:
        lines.append(f"frames dropped because newer ones had come: {summary.dropped}")
    if summary.gaps and math.isfinite(summary.away_s):
        lines.append(f"lost and came back: {_counted(summary.gaps, 'time')}, {summary.away_s:.1f} s in all")
    for loss in summary.losses:
        if loss.dropped:
            lines.append(f"left out of {loss.name}, which could not keep up: {loss.dropped}")
        if loss.missing:
            lines.append(f"missing in {loss.name}, which could not be written: {loss.missing}")
    return lines


def _skipping_lines(summary: Summary, skipped: Skipped) -> list[str]:
    """Return the speed of a run that skips, which is not that of one that classifies every frame, and what it cost."""
    off = f"; turned off {_counted(skipped.turned_off, 'time')}" if skipped.turned_off else ""
    agreed = f"{skipped.agreed} of {skipped.audited}"
    return [
        f"with skipping {summary.fps:.1f} frames per second, {summary.classified_fps:.1f} of them classified",
        f"{skipped.frames} of {_counted(summary.frames, 'frame')} skipped, audit {agreed} agree{off}",
    ]


def what_runs(classifier: VideoClassifier) -> str:
    """Return which variant runs where, and how faithful it is, for reading."""
    backend, parity = classifier.backend, classifier.variant.parity
    cores = f"{_counted(classifier.workers, 'frame')} at once, {_counted(backend.threads, 'thread')} each"
    what = f"{classifier.bundle.path.name}: {classifier.variant.id} on {backend.name} ({backend.device}, {cores})"
    if classifier.windows and classifier.windows.frames > 1:
        what += (
            f", windows of {classifier.windows.frames} frames, one every {_counted(classifier.windows.hop, 'frame')}"
        )
    if parity is None or parity.data == "noise" or not BACKENDS[backend.name].automatic:
        return what
    rejected = f", rejected at conversion: it {classifier.variant.rejected}" if classifier.variant.rejected else ""
    return f"{what}; keeps {parity.smoothed_agreement:.1%} of Keras' smoothed labels{rejected}"


def ran_where(classifier: VideoClassifier) -> str:
    """Return which variant ran where, as proven, for reading."""
    return f"{classifier.variant.id} ran in {classifier.backend.name} on {classifier.backend.proof}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
