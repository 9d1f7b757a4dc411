"""What was measured of each row in the rounds, and what that amounts to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import msgspec
import numpy as np

from edgevid.backends import BACKENDS, available_cores
from edgevid.errors import MissingExtraError
from edgevid_bench.candidates import Candidate
from edgevid_bench.intervals import latency, rates
from edgevid_bench.options import BenchOptions
from edgevid_bench.report import Row
from edgevid_bench.worker import Measured

__all__ = ["Trials", "build_rows", "outlines"]

LEAST_FRAMES = 50  # to compare labels on: one of them is a share of 0.02


@dataclass
class Trials:
    """What was measured of a row, by the number of the round; the last of the disturbed attempts apart."""

    undisturbed: dict[int, Measured] = field(default_factory=dict)
    disturbed: dict[int, Measured] = field(default_factory=dict)
    repeated: int = 0
    error: str = ""

    def add(self, number: int, measured: Measured, allow_disturbed: bool) -> bool:
        """Note a measurement; return whether something disturbed it, so that it should be repeated."""
        if measured.error:
            self.error = measured.error
        elif measured.disturbances and not allow_disturbed:
            self.disturbed[number] = measured
            return True
        else:
            self.undisturbed[number] = measured
            self.disturbed.pop(number, None)
        return False

    def wants_more(self, min_rounds: int) -> bool:
        """Return whether fewer rounds than that went undisturbed."""
        return not self.error and len(self.undisturbed) < min_rounds

    def disturbances(self, min_rounds: int) -> tuple[str, ...]:
        """Return what disturbed it, if too few rounds went undisturbed; else nothing."""
        if len(self.undisturbed) >= min_rounds:
            return ()
        return tuple(dict.fromkeys(text for measured in self.disturbed.values() for text in measured.disturbances))

    def rounds(self, min_rounds: int) -> dict[int, Measured]:
        """Return the measurements that count: the undisturbed ones, or all where those are too few."""
        return {**self.disturbed, **self.undisturbed} if self.disturbances(min_rounds) else self.undisturbed


def build_rows(rows: Sequence[Candidate], trials: Mapping[Candidate, Trials], options: BenchOptions) -> list[Row]:
    """Return the rows of the report; those that the bench did not come to are left out."""
    outlined = outlines(rows, trials, options)
    return [_measured_row(outlined[row], trials.get(row), options) for row in rows if row in outlined]


def outlines(
    rows: Sequence[Candidate], trials: Mapping[Candidate, Trials], options: BenchOptions
) -> dict[Candidate, Row]:
    """Return of each row what decides between them: whether it ran, how fast, and whether it keeps the labels."""
    counted = {row: found.rounds(options.min_rounds) for row, found in trials.items() if not found.error}
    counted = {row: rounds for row, rounds in counted.items() if rounds}
    # What disturbed some rows must not blur the others.
    disturbed = {row for row in counted if trials[row].disturbances(options.min_rounds)}
    speeds = {
        **rates({row: _speeds(rounds) for row, rounds in counted.items() if row not in disturbed}),
        **{row: rates({row: _speeds(counted[row])})[row] for row in disturbed},
    }
    reference = next((row for row in counted if _is_reference(row)), None)
    labels = _labels(counted[reference]) if reference else None
    outlined = {}
    for row in rows:
        if row in speeds:
            outlined[row] = msgspec.structs.replace(
                _bare_row(row, options),
                status="ok",
                emulated=any(measured.emulated for measured in counted[row].values()),
                end_to_end_fps=speeds[row].value,
                end_to_end_ci95=speeds[row].ci95,
                across_ci95=speeds[row].across_ci95,
                disturbed=trials[row].disturbances(options.min_rounds),
                **_agreement(row, labels, _labels(counted[row])),
            )
        elif row not in trials:
            outlined[row] = msgspec.structs.replace(_bare_row(row, options), status="unavailable", reason=_missing(row))
        elif trials[row].error:
            outlined[row] = msgspec.structs.replace(_bare_row(row, options), reason=trials[row].error)
    return outlined


def _speeds(rounds: Mapping[int, Measured]) -> dict[int, float]:
    return {number: measured.end_to_end_fps for number, measured in rounds.items()}


def _is_reference(row: Candidate) -> bool:
    """Return whether the labels of the others are compared with those of this row."""
    return row.variant.precision == "fp32" and row.device == "cpu" and BACKENDS[row.backend].automatic


def _bare_row(row: Candidate, options: BenchOptions) -> Row:
    """Return what is known of a row without measuring it."""
    parity, accuracy = row.variant.parity, row.variant.accuracy
    if not BACKENDS[row.backend].automatic or (parity and parity.data == "noise"):
        parity = accuracy = None  # the null backend runs no variant, and noise says nothing of real frames
    return Row(
        backend=row.backend,
        device=row.device,
        variant=row.variant.id,
        threads=row.threads,
        batch=options.batch,
        status="failed",
        file_bytes=row.variant.bytes,
        file_sha256=row.variant.sha256,
        top1_agreement=parity.top1_agreement if parity else None,
        smoothed_agreement=parity.smoothed_agreement if parity else None,
        accuracy=accuracy.accuracy if accuracy else None,
    )


def _missing(row: Candidate) -> str:
    entry = BACKENDS[row.backend]
    return str(MissingExtraError(f"backend {row.backend!r}", str(entry.package), entry.extra))


def _labels(rounds: Mapping[int, Measured]) -> tuple[list[str], list[str]]:
    """Return the raw and the smoothed labels of the longest pass: each round of a row gives the same."""
    longest = max(rounds.values(), key=lambda measured: len(measured.raw_labels))
    return longest.raw_labels, longest.smoothed_labels


def _agreement(
    row: Candidate, expected: tuple[list[str], list[str]] | None, labels: tuple[list[str], list[str]]
) -> dict[str, float]:
    """Return the shares of labels, raw and smoothed, that are the fp32 variant's, on the frames that both saw."""
    if expected is None or not BACKENDS[row.backend].automatic:
        return {}
    shares = [
        float(np.mean([one == other for one, other in zip(*pair, strict=False)]))
        for pair in zip(expected, labels, strict=True)
        if min(map(len, pair)) >= LEAST_FRAMES
    ]
    return dict(zip(("clip_top1_agreement", "clip_smoothed_agreement"), shares, strict=False))


def _measured_row(row: Row, found: Trials | None, options: BenchOptions) -> Row:
    """Return a row with all that its rounds amount to."""
    if row.status != "ok" or found is None:
        return row
    counted = found.rounds(options.min_rounds)
    rounds = [counted[number] for number in sorted(counted)]
    first, staged = rounds[0], [measured for measured in rounds if measured.stage_cpu_ms]
    stages = {
        stage: median(measured.stage_cpu_ms[stage] for measured in staged if stage in measured.stage_cpu_ms)
        for stage in (staged[0].stage_cpu_ms if staged else ())
    }
    infer_ms = latency([np.array(measured.infer_ms) for measured in rounds])
    rooflines = [(measured, _roofline(measured, options)) for measured in staged]
    energy = [measured for measured in rounds if measured.joules_a_frame is not None]
    return msgspec.structs.replace(
        row,
        rounds=len(rounds),
        repeated=found.repeated,
        hardware=first.hardware,
        precision=first.precision,
        operators=first.operators,
        on_device=first.on_device,
        threads=first.threads,
        workers=first.workers,
        load_ms=median(measured.load_ms for measured in rounds),
        first_inference_ms=median(measured.first_inference_ms for measured in rounds),
        infer_ms=infer_ms,
        label_ms=latency([np.array(measured.label_ms) for measured in rounds]),
        infer_fps=options.batch * 1e3 / infer_ms.p50,
        stage_cpu_ms=stages,
        roofline_fps=_median([roofline for _, roofline in rooflines if roofline]),
        efficiency=_median([measured.end_to_end_fps / roofline for measured, roofline in rooflines if roofline]),
        energy_mj=_median([1e3 * (measured.joules_a_frame or 0.0) for measured in energy]),
        watts=_median([measured.watts or 0.0 for measured in energy]),
        meter=energy[0].meter if energy else "",
        temperature_c=rounds[-1].after.temperature_c if rounds[-1].after else None,
        clock_mhz=rounds[-1].after.clock_mhz if rounds[-1].after else None,
        peak_rss_mb=max(measured.peak_rss_mb for measured in rounds),
    )


def _roofline(measured: Measured, options: BenchOptions) -> float | None:
    """Return the frames per second that the CPU time of the bare stages allows; None where inference is off the CPU."""
    if measured.device != "cpu":
        return None
    return available_cores() * 1e3 / sum(measured.stage_cpu_ms[stage] for stage in options.stages)


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
