"""Runs the rows in interleaved rounds, each in a process of its own, and puts the report together."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from edgevid.backends import BACKENDS
from edgevid.bundle import Bundle, sha256_file
from edgevid.child import how_it_ended, run_module
from edgevid.manifest import MANIFEST_FILE
from edgevid.sources import open_source
from edgevid_bench.candidates import Candidate, candidates
from edgevid_bench.conditions import conditions
from edgevid_bench.machine import describe_machine
from edgevid_bench.options import ALL_STAGES, BenchOptions
from edgevid_bench.recommend import faithful, ranked, recommend, undecided
from edgevid_bench.report import Clip, Method, Minute, Model, Report
from edgevid_bench.sustained import long_run, sustained
from edgevid_bench.trials import Trials, build_rows, outlines
from edgevid_bench.worker import Measured, Request

__all__ = ["Progress", "in_own_process", "measure_rounds", "request_for", "run_bench"]

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
    begin, before = time.monotonic(), conditions()
    rows, absent = candidates(bundle, options)
    clip = _clip(options.source)
    trials = {row: Trials() for row in rows if BACKENDS[row.backend].installed}
    complete, steady, minutes = False, None, list[Minute]()
    try:
        measure_rounds(
            trials, options, lambda row, number: in_own_process(request_for(bundle, row, options, number)), progress
        )
        steady = _steadiest(rows, trials, options) if options.duration_s else None
        for minute in long_run(request_for(bundle, steady, options), options.duration_s) if steady else ():
            minutes.append(minute)
            progress(f"seconds of {steady}", round(minute.until_s), round(options.duration_s))
        complete = True
    except KeyboardInterrupt:  # what was measured is worth keeping
        if not any(found.undisturbed or found.disturbed for found in trials.values()):
            raise
    finished = ranked(build_rows(rows, trials, options))
    every = [
        measured for found in trials.values() for measured in (*found.undisturbed.values(), *found.disturbed.values())
    ]
    return Report(
        machine=describe_machine(before, conditions(), min((each.calibration_ms for each in every), default=None)),
        bundle=_model(bundle),
        source=clip,
        method=Method(
            command=command,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - begin, 1),
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
        ),
        rows=finished,
        absent=absent,
        recommendation=recommend(finished, options.max_drop),
        sustained=sustained(str(steady), minutes),
    )


def measure_rounds(
    trials: dict[Candidate, Trials],
    options: BenchOptions,
    measure: Callable[[Candidate, int], Measured],
    progress: Progress,
) -> None:
    """Measure the rows round by round, those of a round in random order; fill ``trials``."""
    order = random.Random(options.seed)  # noqa: S311 - an order, not a secret
    due, done = list(trials), 0
    for number in range(options.max_rounds):
        rounds_left = (options.min_rounds if number < options.min_rounds else options.max_rounds) - number
        total = done + rounds_left * len(due)
        for row in order.sample(due, len(due)):
            for attempt in range(ATTEMPTS):
                again = " again, it was disturbed" if attempt else ""
                progress(f"round {number + 1}: {row}{again}", done, total)
                measured = measure(row, number)
                if not trials[row].add(number, measured, options.allow_disturbed):
                    break
                trials[row].repeated += 1
            done += 1
        due = [row for row in due if not trials[row].error]
        if number + 1 >= options.min_rounds:
            open_rows = undecided(outlines(due, trials, options), options.max_drop)
            due = [row for row in due if row in open_rows]
        if not due:
            return


def _steadiest(rows: Iterable[Candidate], trials: dict[Candidate, Trials], options: BenchOptions) -> Candidate | None:
    """Return the row to run for long: the fastest that keeps the labels, or where none is known to, the fastest."""
    outlined = {row: found for row, found in outlines(list(rows), trials, options).items() if found.status == "ok"}
    return max(
        outlined,
        key=lambda row: (faithful(outlined[row], options.max_drop), outlined[row].end_to_end_fps or 0.0),
        default=None,
    )


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
        stages=stages if number < STAGE_ROUNDS else (),
    )


def in_own_process(request: Request, module: str = "edgevid_bench.worker") -> Measured:
    """Measure in a new process."""
    try:
        ended = run_module(module, stdin=msgspec.json.encode(request), timeout_s=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Measured(error=f"no answer within {TIMEOUT_S} s")
    try:
        return msgspec.json.decode(ended.stdout, type=Measured)
    except msgspec.DecodeError:
        return Measured(error=how_it_ended(ended))


def _clip(name: str) -> Clip:
    with open_source(name) as source:
        width, height = next(iter(source)).picture.shape[1::-1]
        files = [Path(file) for file in source.files if Path(file).is_file()]
        return Clip(
            name=source.name.rpartition("/")[2],
            sha256=sha256_file(files[0]) if len(files) == 1 else "",
            frames=source.frame_count or 0,
            rate=float(source.rate),
            width=width,
            height=height,
        )


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
