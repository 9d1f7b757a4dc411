"""Whether the recommendation holds: the rows beside it, run by hand afterwards, are at most 2 % faster.

    python -m edgevid_bench.studies.best_by_hand model.edgevid [--times 5] [--rounds 15] [OPTION...]

Each time ``edgevid bench`` runs first, with all other options. Then ``edgevid run`` does the recommended row and others
that keep the labels and are not far behind, as a user would, in turn, a process each; the medians of the frames per
second that it prints are compared. Nothing else should run.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from edgevid_bench.recommend import faithful
from edgevid_bench.report import Report, Row, read_report

NEAR = 0.7  # of the recommended row's speed: what is slower than this in the report is not run again
MOST_ROWS = 4


def main() -> None:
    """Compare, and say how the recommended row stands among the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--source", default="sample:bikes")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    asked, options = parser.parse_known_args()
    good = 0
    for time in range(asked.times):
        report = _bench(asked.bundle, asked.source, options)
        rows = near_rows(report)
        speeds = _by_hand(asked.bundle, asked.source, rows, asked.rounds)
        best = max(speeds)
        good += speeds[0] >= 0.98 * best
        _say(f"{time + 1}: recommended {rows[0].name}, {speeds[0]:.0f} by hand, × {speeds[0] / best:.3f} of the best")
        for row, speed in zip(rows, speeds, strict=True):
            _say(f"   {row.name}: {row.end_to_end_fps:.0f} in the report, {speed:.0f} by hand")
    _say(f"within 2 % of the best: {good} of {asked.times}")


def near_rows(report: Report) -> list[Row]:
    """Return the recommended row, then the other good rows that are not far behind."""
    chosen = report.recommendation
    if chosen is None:
        raise SystemExit("edgevid: nothing was recommended")
    good = [row for row in report.rows if faithful(row, report.method.max_drop)]
    near = [row for row in good if row.key != chosen.key and (row.end_to_end_fps or 0) >= NEAR * chosen.end_to_end_fps]
    return [next(row for row in good if row.key == chosen.key), *near[: MOST_ROWS - 1]]


def _bench(bundle: str, source: str, options: Sequence[str]) -> Report:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        _edgevid("bench", bundle, "--source", source, *options, "--output", str(path))
        return read_report(path)


def _by_hand(bundle: str, source: str, rows: Sequence[Row], rounds: int) -> list[float]:
    """Return the median of what ``edgevid run`` prints, for each row."""
    speeds: list[list[float]] = [[] for _ in rows]
    for _ in range(rounds):
        for row, found in zip(rows, speeds, strict=True):
            what = ["--backend", row.backend, "--device", row.device, "--variant", row.variant]
            told = _edgevid("run", bundle, "--source", source, *what, "--threads", str(row.threads))
            match = re.search(r"([\d.]+) frames per second", told)
            assert match, told
            found.append(float(match[1]))
    return [median(found) for found in speeds]


def _edgevid(*arguments: str) -> str:
    command = [sys.executable, "-m", "edgevid", *arguments, "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
