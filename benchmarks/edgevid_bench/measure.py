"""Runs the rows in interleaved rounds, each in a process of its own, and puts the report together."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from edgevid.backends import BACKENDS
from edgevid.bundle import Bundle, sha256_file
from edgevid.child import how_it_ended, run_module
from edgevid.cli.signals import Terminated
from edgevid.manifest import MANIFEST_FILE
from edgevid.sources import open_file
from edgevid_bench.candidates import Candidate, candidates
from edgevid_bench.conditions import conditions
from edgevid_bench.machine import describe_machine
from edgevid_bench.options import ALL_STAGES, BenchOptions
from edgevid_bench.recommend import ranked, recommend, undecided
from edgevid_bench.report import Clip, Method, Model, Report
from edgevid_bench.sustained import LongRun
from edgevid_bench.trials import Trials, build_rows, outlines
from edgevid_bench.worker import Measured, Request

__all__ = ["Progress", "in_own_process", "measure_rounds", "planned", "request_for", "run_bench"]

TIMEOUT_S = 600
ATTEMPTS = 3  # at a round that something disturbs
STAGE_ROUNDS = 3  # in which the stages are measured, too

# Called with what is measured, how many measurements are done, and how many there will be at most.
Progress = Callable[[str, int, int], None]


def run_bench(bundle: Bundle, options: BenchOptions, progress: Progress, command: str = "") -> Report:
    """Measure every row in interleaved rounds, and return the report.

    Each row is measured in ``min_rounds`` rounds, and those that may be the fastest that keeps the labels in up to
    ``max_rounds``, until they are told apart. After Ctrl-C the report holds what was measured, and says that it is not
    complete.

    Raises:
        UsageError: there is nothing to measure.
        SourceError: the clip cannot be opened.
    """
    begin, plan = time.monotonic(), planned(bundle, options, command)
    rows, absent = candidates(bundle, options)
    trials = {row: Trials() for row in rows if BACKENDS[row.backend].installed}
    long = LongRun()
    complete = False
    try:
        measure_rounds(
            trials, options, lambda row, number: in_own_process(request_for(bundle, row, options, number)), progress
        )
        steady = _steadiest(rows, trials, options) if options.duration_s else None
        if steady:
            request = request_for(bundle, steady, options)
            long.go_on(request, str(steady), options.duration_s, progress)
        complete = True
    except (KeyboardInterrupt, Terminated):  # what was measured is worth keeping
        if not any(found.undisturbed or found.disturbed for found in trials.values()):
            raise
    finished = ranked(build_rows(rows, trials, options))
    every = [each for found in trials.values() for each in (*found.undisturbed.values(), *found.disturbed.values())]
    calibrated = min((each.calibration_ms for each in every), default=None)
    return msgspec.structs.replace(
        plan,
        machine=describe_machine(plan.machine.before, conditions(), calibrated),
        method=_method(options, command, time.monotonic() - begin, complete),
        rows=finished,
        absent=absent,
        recommendation=recommend(finished, options.max_drop),
        sustained=long.result,
    )


def planned(bundle: Bundle, options: BenchOptions, command: str = "") -> Report:
    """Return the report as it is before anything is measured: of which model, which clip, and by which method.

    Raises:
        SourceError: the clip cannot be opened.
    """
    return Report(
        machine=describe_machine(),
        bundle=_model(bundle),
        source=_clip(options.source),
        method=_method(options, command, 0.0, complete=False),
        rows=(),
        absent={},
        recommendation=None,
    )


def _method(options: BenchOptions, command: str, seconds: float, complete: bool) -> Method:
    return Method(
        command=command,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        min_rounds=options.min_rounds,
        max_rounds=options.max_rounds,
        min_secs=options.min_secs,
        max_frames=options.max_frames,
        video=options.video,
        batch=options.batch,
        max_drop=options.max_drop,
        allow_disturbed=options.allow_disturbed,
        seed=options.seed,
        complete=complete,
    )


def measure_rounds(
    trials: dict[Candidate, Trials],
    options: BenchOptions,
    measure: Callable[[Candidate, int], Measured],
    progress: Progress,
) -> None:
    """Measure the rows round by round, those of a round in random order, and fill ``trials``.

    What was disturbed is measured again at the end of its round, when the disturbance may be over.
    """
    order = random.Random(options.seed)  # noqa: S311 - an order, not a secret
    due, done = list(trials), 0
    for number in range(options.max_rounds):
        rounds_left = (options.min_rounds if number < options.min_rounds else options.max_rounds) - number
        total = done + rounds_left * len(due)
        again: list[Candidate] = []
        for attempt in range(ATTEMPTS):
            rows = again if attempt else due
            again = []
            for row in order.sample(rows, len(rows)):
                progress(f"round {number + 1}: {row}{' again, it was disturbed' if attempt else ''}", done, total)
                trials[row].repeated += attempt > 0
                if trials[row].add(number, measure(row, number), options.allow_disturbed):
                    again.append(row)
                done += attempt == 0
        if number + 1 >= options.min_rounds:
            good = [row for row in trials if not trials[row].error]
            rivals = undecided(outlines(good, trials, options), options.max_drop)
            due = [row for row in good if row in rivals or trials[row].wants_more(options.min_rounds)]
        else:
            due = [row for row in due if not trials[row].error]
        if not due:
            return


def _steadiest(rows: list[Candidate], trials: dict[Candidate, Trials], options: BenchOptions) -> Candidate | None:
    """Return the row to run for long: the recommended one, or where none is, the fastest that ran."""
    outlined = {row: found for row, found in outlines(rows, trials, options).items() if found.status == "ok"}
    best = recommend(list(outlined.values()), options.max_drop)
    fastest = max(outlined, key=lambda row: outlined[row].end_to_end_fps or 0.0, default=None)
    return next((row for row, found in outlined.items() if best and found.key == best.key), fastest)


def request_for(bundle: Bundle, row: Candidate, options: BenchOptions, number: int = 0) -> Request:
    """Return what to measure of a row in the round of that number."""
    stages = ALL_STAGES if number == 0 else options.stages
    return Request(
        bundle=str(bundle.path),
        backend=row.backend,
        device=row.device,
        variant=row.variant.id,
        threads=row.threads,
        batch=options.batch,
        source=options.source,
        secs=options.secs_a_round,
        max_frames=options.max_frames,
        video=options.video,
        emulated=row.device in options.devices,
        labels=number == 0,
        stages=stages if number < STAGE_ROUNDS else (),
    )


def in_own_process(request: Request, module: str = "edgevid_bench.worker") -> Measured:
    """Measure in a new process."""
    patience_s = TIMEOUT_S + 10 * request.secs
    try:
        ended = run_module(module, stdin=msgspec.json.encode(request), timeout_s=patience_s)
    except subprocess.TimeoutExpired:
        return Measured(error=f"no answer within {patience_s:.0f} s")
    try:
        return msgspec.json.decode(ended.stdout, type=Measured)
    except msgspec.DecodeError:
        return Measured(error=how_it_ended(ended))


def _clip(name: str) -> Clip:
    with open_file(name) as source:
        height, width = next(iter(source)).picture.shape[:2]
        return Clip(
            name=source.name.rpartition("/")[2],
            sha256=_together([sha256_file(Path(file)) for file in source.files]),
            frames=source.frame_count or 0,
            rate=float(source.rate),
            width=width,
            height=height,
        )


def _together(digests: list[str]) -> str:
    """Return what tells several files from others: of one its own digest, of none nothing."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""


def _model(bundle: Bundle) -> Model:
    manifest = bundle.manifest
    accuracy = manifest.keras_accuracy
    return Model(
        name=manifest.name,
        path=str(bundle.path),
        source_sha256=manifest.source.sha256,
        manifest_sha256=sha256_file(bundle.path / MANIFEST_FILE),
        keras_accuracy=accuracy.accuracy if accuracy else None,
    )
