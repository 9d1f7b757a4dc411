"""Runs the rows in interleaved rounds, each in a process of its own, and puts the report together."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
import numpy as np

from edgevid.backends import BACKENDS, available_cores
from edgevid.bundle import Bundle
from edgevid.child import how_it_ended, run_module
from edgevid.errors import MissingExtraError, UsageError
from edgevid.manifest import Variant
from edgevid.sources import open_source
from edgevid_bench.machine import describe_machine
from edgevid_bench.options import ALL_STAGES, BenchOptions
from edgevid_bench.report import InferMs, Report, Row, recommend
from edgevid_bench.worker import Measured, Request

__all__ = ["Candidate", "candidates", "default_threads", "run_bench"]

RESAMPLES = 1000
BLOCK = 20  # neighbouring latencies depend on each other, so they are resampled in blocks of this length
TIMEOUT_S = 600

# Called with what is measured, how many measurements are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A row to be measured."""

    backend: str
    device: str
    variant: Variant
    threads: int


def candidates(bundle: Bundle, options: BenchOptions) -> list[Candidate]:
    """Return every backend × device it runs on × variant it reads × thread count, one of those off the CPU.

    Raises:
        UsageError: a variant is not in the bundle, or there is nothing to measure.
    """
    variants = [bundle.variant(variant_id) for variant_id in options.variants]
    rows = [
        Candidate(backend, device, variant, count)
        for backend in options.backends
        for device in options.devices
        if device.partition(":")[0] in BACKENDS[backend].devices
        for variant in variants
        if variant.format in BACKENDS[backend].formats
        for count in (options.threads or default_threads() if device == "cpu" else (0,))
    ]
    if not rows:
        raise UsageError(
            f"nothing to measure: {', '.join(options.backends)} reads none of {', '.join(options.variants)} "
            f"on {', '.join(options.devices)}"
        )
    return rows


def run_bench(bundle: Bundle, options: BenchOptions, progress: Progress) -> Report:
    """Measure every row in every round, the rows of a round in random order, and return the report.

    After Ctrl-C the report holds what was measured, and says that it is not complete.

    Raises:
        UsageError: there is nothing to measure.
        SourceError: the clip cannot be opened.
    """
    rows = candidates(bundle, options)
    machine = describe_machine()
    with open_source(options.source) as source:
        facts: dict[str, str | int | float] = {
            "name": source.name.rpartition("/")[2],
            "frames": source.frame_count or 0,
            "rate": float(source.rate),
        }
    order = random.Random(options.seed)  # noqa: S311 - an order, not a secret
    measured: dict[Candidate, list[Measured]] = {row: [] for row in rows if BACKENDS[row.backend].installed}
    done, total = 0, options.rounds * len(measured)
    try:
        for _ in range(options.rounds):
            for row in order.sample(list(measured), len(measured)):
                progress(f"{row.backend} {row.device} {row.variant.id} × {row.threads}", done, total)
                measured[row].append(_in_own_process(bundle, row, options))
                done += 1
    except KeyboardInterrupt:  # what was measured is worth keeping
        if not done:
            raise
    finished = tuple(_row(row, measured.get(row), options) for row in rows if measured.get(row, [None]))
    return Report(
        machine=machine,
        bundle={"name": bundle.manifest.name, "path": str(bundle.path), "source_sha256": bundle.manifest.source.sha256},
        source=facts,
        method={
            "rounds": options.rounds,
            "complete": done == total,
            "seconds_a_round": options.seconds,
            "frames_a_round": options.max_frames,
            "order": f"random within each round, seed {options.seed}",
            "process": "a new one for each row and round",
            "end_to_end": f"{', '.join(options.stages)} every frame of the clip; median of the rounds",
            "roofline": "cores ÷ CPU time a frame of these stages, each alone on one core, warm; median of the rounds",
            "agreement": "with the Keras model, on the frames held out at conversion",
        },
        rows=finished,
        recommendation=recommend(finished, options.max_drop),
    )


def default_threads() -> list[int]:
    """Return the thread counts worth measuring here: all up to 4 cores, then powers of two and all cores."""
    cores = available_cores()
    few = range(1, min(cores, 4) + 1)
    many = (2**exponent for exponent in range(3, 12) if 2**exponent < cores)
    return sorted({*few, *many, cores})


def _in_own_process(bundle: Bundle, row: Candidate, options: BenchOptions) -> Measured:
    request = Request(
        bundle=str(bundle.path),
        backend=row.backend,
        device=row.device,
        variant=row.variant.id,
        threads=row.threads,
        batch=options.batch,
        source=options.source,
        seconds=options.seconds,
        max_frames=options.max_frames,
        video=options.video,
    )
    try:
        ended = run_module("edgevid_bench.worker", stdin=msgspec.json.encode(request), timeout_s=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Measured(error=f"no answer within {TIMEOUT_S} s")
    try:
        return msgspec.json.decode(ended.stdout, type=Measured)
    except msgspec.DecodeError:
        return Measured(error=how_it_ended(ended))


def _row(row: Candidate, rounds: Sequence[Measured] | None, options: BenchOptions) -> Row:
    """Return what the rounds of one row amount to."""
    parity = row.variant.parity
    if not BACKENDS[row.backend].automatic or (parity and parity.data == "noise"):
        parity = None  # the null backend runs no variant, and noise says nothing of real frames
    bare = Row(
        backend=row.backend,
        device=row.device,
        variant=row.variant.id,
        threads=row.threads,
        batch=options.batch,
        status="failed",
        file_bytes=row.variant.bytes,
        top1_agreement=parity.top1_agreement if parity else None,
        smoothed_agreement=parity.smoothed_agreement if parity else None,
    )
    if rounds is None:
        entry = BACKENDS[row.backend]
        reason = str(MissingExtraError(f"backend {row.backend!r}", str(entry.package), entry.extra))
        return msgspec.structs.replace(bare, status="unavailable", reason=reason)
    errors = [measured.error for measured in rounds if measured.error]
    if errors:
        return msgspec.structs.replace(bare, reason=errors[0])
    latencies = [np.array(measured.infer_ms) for measured in rounds]
    together = np.concatenate(latencies)
    p50, p90, p99 = (float(value) for value in np.percentile(together, (50, 90, 99)))
    stages = {stage: median(measured.stage_cpu_ms[stage] for measured in rounds) for stage in ALL_STAGES}
    end_to_end_fps = median(measured.end_to_end_fps for measured in rounds)
    # Off the CPU, the CPU time of an inference says nothing.
    cpu_ms = sum(stages[stage] for stage in options.stages) if rounds[0].device == "cpu" else 0.0
    roofline = available_cores() * 1e3 / cpu_ms if cpu_ms else None
    return msgspec.structs.replace(
        bare,
        device=rounds[0].device,
        hardware=rounds[0].hardware,
        precision=rounds[0].precision,
        emulated=rounds[0].emulated,
        operators=rounds[0].operators,
        on_device=rounds[0].on_device,
        threads=rounds[0].threads,
        workers=rounds[0].workers,
        status="ok",
        load_ms=median(measured.load_ms for measured in rounds),
        first_inference_ms=median(measured.first_inference_ms for measured in rounds),
        infer_ms=InferMs(p50, p90, p99, median_interval(latencies)),
        infer_fps=options.batch * 1e3 / p50,
        end_to_end_fps=end_to_end_fps,
        stage_cpu_ms=stages,
        roofline_fps=roofline,
        efficiency=end_to_end_fps / roofline if roofline else None,
        peak_rss_mb=max(measured.peak_rss_mb for measured in rounds),
    )


def median_interval(rounds: Sequence[np.typing.NDArray[np.float64]], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the median, by a bootstrap over blocks of neighbouring values.

    Source: Künsch, "The jackknife and the bootstrap for general stationary observations" (1989).
    """
    blocks = [block for values in rounds for block in np.array_split(values, max(1, len(values) // BLOCK))]
    generator = np.random.default_rng(seed)
    medians = [
        np.median(np.concatenate([blocks[index] for index in generator.integers(0, len(blocks), len(blocks))]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)
