"""Whether the bench can be believed: the same row twice is called equal, and one slowed by a tenth is told apart.

    python -m edgevid_bench.studies.same_row model.edgevid [--variant tflite-int8] [--runs 40] [--slower 0.1]

In each run three rows take part: a row, the same once more, and the same with so many inferences done twice that its
frames per second fall by ``--slower``. All else is as in ``edgevid bench``, but that only runs from end to end are
measured. Nothing else should run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import msgspec

from edgevid import engine
from edgevid.backends import Backend
from edgevid.bundle import Bundle
from edgevid_bench import worker
from edgevid_bench.candidates import Candidate
from edgevid_bench.intervals import overlap
from edgevid_bench.measure import in_own_process, measure_rounds, request_for
from edgevid_bench.options import BenchOptions
from edgevid_bench.report import Row
from edgevid_bench.trials import Trials, outlines

TWICE = "EDGEVID_BENCH_TWICE"  # the share of inferences that the slowed row does twice


@dataclass(frozen=True)
class Contestant(Candidate):
    """A row by a name of its own."""

    name: str = ""
    twice: float = 0.0


def main() -> None:
    """Run the bench again and again, and say how often it was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--backend", default="litert")
    parser.add_argument("--variant", default="tflite-int8")
    parser.add_argument("--source", default="sample:bikes")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--slower", type=float, default=0.1)
    asked = parser.parse_args()
    bundle = Bundle(asked.bundle)
    options = BenchOptions(source=asked.source, max_drop=1.0)
    row = Candidate(asked.backend, "cpu", bundle.variant(asked.variant), 1)
    stages = in_own_process(request_for(bundle, row, options)).stage_cpu_ms
    share = stages["infer"] / sum(stages[stage] for stage in options.stages)
    twice = (1 / (1 - asked.slower) - 1) / share
    _say(f"{row}: {share:.0%} of a frame is inference; of {twice:.1%} of them two make it slower by {asked.slower:.0%}")
    equal, apart, ratios = 0, 0, []
    for number in range(asked.runs):
        same, again, slower = _run(bundle, row, replace(options, seed=number), twice)
        equal += overlap(same.end_to_end_ci95, again.end_to_end_ci95)
        apart += not any(overlap(slower.end_to_end_ci95, row.end_to_end_ci95) for row in (same, again))
        ratios.append(_ratio(slower, same))
        told = f"run {number + 1}: the same {_ratio(again, same):.3f}, slowed {ratios[-1]:.3f}"
        _say(f"{told}; so far equal in {equal} of {number + 1}, told apart in {apart}")
    _say(f"the slowed row had {median(ratios):.3f} of the speed (median)")


def _ratio(one: Row, other: Row) -> float:
    return (one.end_to_end_fps or 0.0) / (other.end_to_end_fps or 1.0)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(bundle: Bundle, row: Candidate, options: BenchOptions, twice: float) -> list[Row]:
    """Return the row, the same once more, and the slowed one."""
    names = {"same": 0.0, "again": 0.0, "slower": twice}
    rows: list[Candidate] = [
        Contestant(row.backend, row.device, row.variant, row.threads, name, share) for name, share in names.items()
    ]
    trials = {each: Trials() for each in rows}
    measure_rounds(trials, options, _measuring(bundle, options), lambda what, done, total: None)
    return list(outlines(rows, trials, options).values())


def _measuring(bundle: Bundle, options: BenchOptions) -> Callable[[Candidate, int], worker.Measured]:
    def measure(row: Candidate, number: int) -> worker.Measured:
        assert isinstance(row, Contestant)
        os.environ[TWICE] = str(row.twice)
        request = msgspec.structs.replace(request_for(bundle, row, options, number), single_stream=False, stages=())
        return in_own_process(request, "edgevid_bench.studies.same_row")

    return measure


def _work_twice(share: float) -> None:
    """Let that share of inferences in this process be done twice."""
    load = vars(engine)["load_backend"]

    def load_slower(*arguments: Any) -> Backend:
        backend: Backend = load(*arguments)
        infer, due = backend.infer, 0.0

        def infer_and_again() -> Any:
            nonlocal due
            due += share
            if due >= 1:
                due -= 1
                infer()
            return infer()

        backend.infer = infer_and_again  # type: ignore[method-assign]  # of this one instance
        return backend

    vars(engine)["load_backend"] = load_slower


if __name__ == "__main__":
    if TWICE in os.environ and len(sys.argv) == 1:  # the worker of a run
        _work_twice(float(os.environ[TWICE]))
        worker.main()
    else:
        main()
