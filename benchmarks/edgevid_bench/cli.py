"""``edgevid bench``: measure every backend and variant on this machine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from edgevid.backends import BACKENDS, DEVICES
from edgevid.bundle import Bundle, find_bundle
from edgevid.cli.terminal import Terminal, common_options, completing, completing_paths, listed
from edgevid.errors import GateError, MissingExtraError, UsageError
from edgevid.manifest import VARIANT_IDS
from edgevid.measured import MeasuredRow, remember
from edgevid.sinks.base import check_apart
from edgevid.sources import SAMPLE_NAMES, open_file
from edgevid.units import time_seconds
from edgevid_bench.baseline import check_baseline
from edgevid_bench.options import BenchOptions
from edgevid_bench.output.lines import report_lines
from edgevid_bench.output.writers import WRITERS, check_report, write_report
from edgevid_bench.recommend import faithful
from edgevid_bench.report import Report, Row, check_same, read_report

__all__ = ["bench"]

EPILOG = """
\b
Examples:
  edgevid bench
  edgevid bench model.edgevid --source clip.mp4 --output report.json --output report.html
  edgevid bench --backends litert --variants tflite-int8,tflite-fp32 --threads 1,4
  edgevid bench --duration 10m                       does it keep its speed when it gets warm?
  edgevid bench --baseline old.json --fail-below 0.9 exits 3 where a row got slower
\b
Without --source: the sample clip 'bikes' of the [sample] extra.
"""


@click.command(epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--source",
    metavar="CLIP",
    shell_complete=completing_paths(SAMPLE_NAMES),
    default="sample:bikes",
    help="A video that looks like yours.",
)
@click.option(
    "--backends",
    metavar="LIST",
    shell_complete=completing(BACKENDS),
    help=f"Of {', '.join(BACKENDS)}.  [default: all that are installed]",
)
@click.option(
    "--devices",
    metavar="LIST",
    shell_complete=completing(DEVICES),
    help=f"Of {', '.join(DEVICES)}.  [default: all that can be used here]",
)
@click.option("--variants", metavar="LIST", shell_complete=completing(VARIANT_IDS), help="[default: all in the bundle]")
@click.option("--threads", metavar="LIST", help="Threads of one inference.  [default: 1 to the number of cores]")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Frames in one inference.")
@click.option(
    "--min-rounds", type=click.IntRange(1), default=3, show_default=True, help="Measure each row N times at least."
)
@click.option(
    "--max-rounds",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="And those that may be the fastest so often at most.",
)
@click.option(
    "--min-secs",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Run each row so long at least, all rounds together.",
)
@click.option("--max-frames", type=click.IntRange(1), default=500, show_default=True, help="Of the clip, a pass.")
@click.option("--video", is_flag=True, help="Write annotated video in the runs from end to end.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Smoothed agreement that the recommendation may lose.",
)
@click.option("--allow-disturbed", is_flag=True, help="Take what was measured while other programs ran, too.")
@click.option("--duration", metavar="TIME", help="Then run the best row for so long, such as 10m or 90s.")
@click.option(
    "--baseline",
    metavar="REPORT.json",
    type=click.Path(path_type=Path),
    help="Compare with an earlier report, and exit 3 where a row got slower.",
)
@click.option(
    "--fail-below",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Of the baseline's speed, beyond the noise.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help=f"Write the report, as its suffix says: {', '.join(WRITERS)}. Can be given several times.",
)
@click.option("--force", is_flag=True, help="Replace a report of that name.")
@common_options
@click.pass_obj
def bench(
    terminal: Terminal,
    /,
    bundle: Path | None,
    backends: str | None,
    devices: str | None,
    variants: str | None,
    threads: str | None,
    duration: str | None,
    baseline: Path | None,
    fail_below: float,
    output: tuple[Path, ...],
    force: bool,
    **chosen: Any,
) -> None:
    """Measure frames per second, latency, memory and agreement of every backend and variant on this machine.

    Every row is measured in several rounds, in random order and in a process of its own. Rows whose 95 % intervals
    overlap are not told apart.
    """
    check_packages()
    from edgevid_bench.measure import planned  # psutil comes with it

    for path in output:
        check_report(path, force)
    old = read_report(baseline) if baseline else None
    opened = find_bundle(bundle)
    with open_file(chosen["source"]) as source:
        read = {"the source itself": source.files, "a file of the bundle": opened.path.iterdir()}
        check_apart([("--output", path) for path in output], read)
    options = BenchOptions(
        backends=listed(backends),
        devices=listed(devices),
        variants=listed(variants),
        threads=_counts(threads),
        duration_s=_seconds(duration),
        **chosen,
    )
    if old:
        check_same("the baseline", old, "this bench", planned(opened, options))
    report = measure_with_progress(opened, options, terminal, " ".join(["edgevid", *map(shlex.quote, sys.argv[1:])]))
    # What a signal stopped is written all the same, and the signal takes effect after that.
    stopped, terminal.stopped_by = terminal.stopped_by, None
    terminal.result(*report_lines(report))
    if options.full:
        _remember(opened, report, terminal)
    for path in sorted(output, key=lambda path: path.suffix.lower() != ".json"):  # first what the others come from
        write_report(report, path)
        terminal.result(f"wrote {path}")
    if not report.method.complete:
        raise stopped or KeyboardInterrupt
    _check_gate(report, options)
    if old:
        terminal.result(*check_baseline(report, old, fail_below))


def check_packages() -> None:
    """Check that the [bench] extra is installed, importing nothing.

    Raises:
        MissingExtraError: a package of it is not.
    """
    for package in ("psutil", "jinja2"):
        if find_spec(package) is None:
            raise MissingExtraError("edgevid bench", package, "bench")


def measure_with_progress(bundle: Bundle, options: BenchOptions, terminal: Terminal, command: str = "") -> Report:
    """Measure with a progress bar.

    Raises:
        MissingExtraError: a package of the [bench] extra is not installed.
    """
    check_packages()
    from edgevid_bench.measure import run_bench  # psutil comes with it

    with terminal.progress("measurements") as progress:
        task = progress.add_task("starting", total=None)
        return run_bench(
            bundle,
            options,
            lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
            command,
        )


def _remember(bundle: Bundle, report: Report, terminal: Terminal) -> None:
    """Keep what a full bench measured, so that ``run`` goes by it; where that fails, nothing else does."""
    rows = tuple(
        MeasuredRow(
            backend=row.backend,
            device=row.device,
            variant=row.variant,
            threads=row.threads,
            end_to_end_fps=row.end_to_end_fps or 0.0,
            label_ms=row.label_ms.p50 if row.label_ms else 0.0,
        )
        for row in report.rows
        if faithful(row, bundle.manifest.max_drop)
    )
    if rows and report.method.complete:
        try:
            remember(bundle, tuple(dict.fromkeys(row.device for row in report.rows)), rows)
            terminal.message("run goes by this from now on, where neither --backend nor --variant is given")
        except OSError as error:
            terminal.message(f"run will not know of this bench: {error.filename}: {error.strerror}")


def _check_gate(report: Report, options: BenchOptions) -> None:
    """Fail if what was named ran nothing: a backend, a device, both together, a variant with them; or nothing ran."""
    ran = [row for row in report.rows if row.status == "ok"]
    for row in report.rows:
        if row.status != "ok" and not _ran_enough(ran, row.backend, row.device, row.variant, options):
            raise GateError(f"{row.backend} {row.device} {row.variant} cannot run: {row.reason}")
    for place, reason in report.absent.items():
        backend, _, device = place.partition(" ")
        if not _ran_enough(ran, backend, device, "", options):
            raise GateError(f"{place} cannot run: {reason}")


def _ran_enough(ran: Sequence[Row], backend: str, device: str, variant: str, options: BenchOptions) -> bool:
    """Return whether something ran of what was named of a row that did not."""
    named = [
        (options.backends, "backend", backend),
        (options.devices, "device", device),
        (options.variants if options.backends else (), "variant", variant),
    ]
    wanted = [(field, value) for names, field, value in named if value in names]
    return any(all(getattr(row, field) == value for field, value in wanted) for row in ran)


def _seconds(text: str | None) -> float:
    if text is None:
        return 0.0
    seconds = time_seconds(text)
    if seconds is None:
        raise UsageError(f"--duration {text!r}: expected a time such as 90s, 10m or 1h")
    return seconds


def _counts(text: str | None) -> tuple[int, ...]:
    try:
        counts = tuple(int(name) for name in listed(text))
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise UsageError(f"--threads {text!r}: expected whole numbers from 1 up, such as 1,2,4")
    return counts
