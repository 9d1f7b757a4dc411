"""``edgevid bench``: measure every backend and variant on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click
import msgspec
from rich.table import Table

from edgevid.backends import BACKENDS
from edgevid.bundle import Bundle, find_bundle
from edgevid.cli.terminal import Terminal, common_options
from edgevid.errors import GateError, MissingExtraError, UsageError
from edgevid.sinks.base import check_output
from edgevid_bench.report import Report, row_table

__all__ = ["bench"]

EPILOG = """
\b
Examples:
  edgevid bench
  edgevid bench model.edgevid --source clip.mp4 --output report.json
  edgevid bench --backends litert --variants tflite-int8,tflite-fp32 --threads 1,4 --rounds 5
\b
Without --source: the sample clip 'bikes' of the [sample] extra.
"""


@click.command(epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--source", metavar="CLIP", default="sample:bikes", help="A video that looks like yours.")
@click.option("--backends", metavar="LIST", help=f"Of {', '.join(BACKENDS)}.  [default: all that are installed]")
@click.option("--variants", metavar="LIST", help="[default: all in the bundle]")
@click.option("--threads", metavar="LIST", help="Threads of one inference.  [default: 1 to the number of cores]")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measure each row N times.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="Of inference a row and round."
)
@click.option("--max-frames", type=click.IntRange(1), default=500, show_default=True, help="Of the clip, a round.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Smoothed agreement that the recommendation may lose.",
)
@click.option("--output", metavar="REPORT.json", type=click.Path(path_type=Path), help="Write the report.")
@click.option("--force", is_flag=True, help="Replace a report of that name.")
@common_options
@click.pass_obj
def bench(
    terminal: Terminal,
    bundle: Path | None,
    source: str,
    backends: str | None,
    variants: str | None,
    threads: str | None,
    rounds: int,
    seconds: float,
    max_frames: int,
    max_drop: float,
    output: Path | None,
    force: bool,
) -> None:
    """Measure frames per second, latency, memory and agreement of every backend and variant on this machine.

    Every row is measured in several rounds, in random order and in a process of its own.
    """
    if output:
        check_output(output, force)
    opened = find_bundle(bundle)
    names = _listed(backends) or [name for name, entry in BACKENDS.items() if entry.automatic and entry.installed]
    for name in names:
        if name not in BACKENDS:
            raise UsageError(f"backend {name!r}: expected some of {', '.join(BACKENDS)}")
    report = measure_with_progress(
        opened,
        terminal,
        source=source,
        backends=names,
        variants=_listed(variants) or list(opened.variant_ids),
        threads=_counts(threads),
        rounds=rounds,
        seconds=seconds,
        max_frames=max_frames,
        max_drop=max_drop,
    )
    if output:
        write_report(report, output)
    terminal.result(*report_lines(report), *([f"wrote {output}"] if output else []))
    _check_gate(report, asked=bool(backends))


def measure_with_progress(
    bundle: Bundle,
    terminal: Terminal,
    *,
    backends: list[str],
    variants: list[str],
    threads: list[int] | None = None,
    **settings: str | float,
) -> Report:
    """Measure with a progress bar; ``settings`` are those of BenchOptions.

    Raises:
        MissingExtraError: a package of the [bench] extra is not installed.
    """
    if find_spec("psutil") is None:
        raise MissingExtraError("edgevid bench", "psutil", "bench")
    from edgevid_bench.measure import BenchOptions, candidates, default_threads, run_bench  # psutil comes with it

    rows = candidates(bundle, backends, variants, threads or default_threads())
    if not rows:
        raise UsageError(f"nothing to measure: {', '.join(backends)} reads none of {', '.join(variants)}")
    with terminal.progress("measurements") as progress:
        task = progress.add_task("starting", total=None)
        return run_bench(
            bundle,
            rows,
            BenchOptions(**settings),  # type: ignore[arg-type]
            lambda what, done, total: progress.update(task, description=what, completed=done, total=total),
        )


def report_lines(report: Report) -> list[str | Table]:
    """Return the report for reading."""
    machine, method = report.machine, report.method
    recommendation = report.recommendation
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {report.source['name']}, median of {method['rounds']} rounds",
        row_table(report.rows),
        f"recommended: {recommendation.sentence}"
        if recommendation
        else "nothing to recommend: no row is known to keep the Keras model's labels within --max-drop",
    ]


def write_report(report: Report, path: Path) -> None:
    """Write the report as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _check_gate(report: Report, asked: bool) -> None:
    for row in report.rows:
        if asked and row.status != "ok":
            raise GateError(f"{row.backend} {row.variant} cannot run: {row.reason}")


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _counts(text: str | None) -> list[int] | None:
    try:
        counts = [int(name) for name in _listed(text)]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise UsageError(f"--threads {text!r}: expected whole numbers from 1 up, such as 1,2,4")
    return counts or None
