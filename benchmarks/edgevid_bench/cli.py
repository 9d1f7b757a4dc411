"""``edgevid bench``: measure every backend and variant on this machine."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec
from rich.table import Table

from edgevid.backends import BACKENDS, DEVICES
from edgevid.bundle import Bundle, find_bundle
from edgevid.cli.terminal import Terminal, common_options, completing, completing_paths, listed
from edgevid.errors import GateError, MissingExtraError, UsageError
from edgevid.manifest import VARIANT_IDS
from edgevid.measured import MeasuredRow, remember
from edgevid.sinks.base import check_output
from edgevid.sources import SAMPLE_NAMES
from edgevid_bench.options import BenchOptions
from edgevid_bench.report import Report, faithful_rows, row_table

__all__ = ["bench"]

AGREEMENT_NOTE = (
    "at once: inferences side by side in an end-to-end run; "
    "efficiency: end to end ÷ roofline, which is cores ÷ CPU time a frame of the bare stages; "
    "agreement: of smoothed labels with the Keras model's, measured at conversion"
)
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
    default="cpu",
    show_default=True,
    help=f"Of {', '.join(DEVICES)}, for the backends that have them.",
)
@click.option("--variants", metavar="LIST", shell_complete=completing(VARIANT_IDS), help="[default: all in the bundle]")
@click.option("--threads", metavar="LIST", help="Threads of one inference.  [default: 1 to the number of cores]")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Frames in one inference.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Measure each row N times.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="Of inference a row and round."
)
@click.option("--max-frames", type=click.IntRange(1), default=500, show_default=True, help="Of the clip, a round.")
@click.option("--video", is_flag=True, help="Write annotated video in the runs from end to end.")
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
    devices: str,
    variants: str | None,
    threads: str | None,
    batch: int,
    rounds: int,
    seconds: float,
    max_frames: int,
    video: bool,
    max_drop: float,
    output: Path | None,
    force: bool,
) -> int:
    """Measure frames per second, latency, memory and agreement of every backend and variant on this machine.

    Every row is measured in several rounds, in random order and in a process of its own.
    """
    if output:
        check_output(output, force)
    opened = find_bundle(bundle)
    names = listed(backends) or tuple(name for name, entry in BACKENDS.items() if entry.automatic and entry.installed)
    for name in names:
        if name not in BACKENDS:
            raise UsageError(f"backend {name!r}: expected some of {', '.join(BACKENDS)}")
    for device in listed(devices):
        if device.partition(":")[0] not in DEVICES:
            raise UsageError(f"device {device!r}: expected some of {', '.join(DEVICES)}")
    options = BenchOptions(
        source=source,
        backends=names,
        devices=listed(devices),
        variants=listed(variants) or opened.variant_ids,
        threads=_counts(threads),
        batch=batch,
        rounds=rounds,
        seconds=seconds,
        max_frames=max_frames,
        video=video,
        max_drop=max_drop,
    )
    report = measure_with_progress(opened, options, terminal)
    terminal.result(*report_lines(report))
    if output:
        write_report(report, output)
        terminal.result(f"wrote {output}")
    if not (backends or variants or threads or video) and batch == 1:
        _remember(opened, report, options.devices, terminal)
    _check_gate(report, listed(backends), options.devices, variants_asked=bool(variants))
    return 0 if report.method["complete"] else 128 + signal.SIGINT


def check_packages() -> None:
    """Check that the [bench] extra is installed, importing nothing.

    Raises:
        MissingExtraError: a package of it is not.
    """
    if find_spec("psutil") is None:
        raise MissingExtraError("edgevid bench", "psutil", "bench")


def measure_with_progress(bundle: Bundle, options: BenchOptions, terminal: Terminal) -> Report:
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
        )


def report_lines(report: Report) -> list[str | Table]:
    """Return the report for reading."""
    machine, method = report.machine, report.method
    incomplete = "" if method["complete"] else ", interrupted"
    return [
        f"{machine['cpu']}, cores: {machine['cores']}, {report.source['name']}, rounds: {method['rounds']}{incomplete}",
        row_table(report.rows),
        AGREEMENT_NOTE,
        *_failures(report),
        *_recommended(report),
    ]


def _remember(bundle: Bundle, report: Report, devices: tuple[str, ...], terminal: Terminal) -> None:
    """Keep what a full bench measured, so that ``run`` goes by it; where that fails, nothing else does."""
    rows = tuple(
        MeasuredRow(
            backend=row.backend,
            device=row.device,
            variant=row.variant,
            threads=row.threads,
            end_to_end_fps=row.end_to_end_fps or 0.0,
            infer_ms=row.infer_ms.p50 if row.infer_ms else 0.0,
        )
        for row in faithful_rows(report.rows, bundle.manifest.max_drop)
    )
    if rows and report.method["complete"]:
        try:
            remember(bundle, devices, rows)
            terminal.message("run goes by this from now on, where neither --backend nor --variant is given")
        except OSError as error:
            terminal.message(f"run will not know of this bench: {error.filename}: {error.strerror}")


def _failures(report: Report) -> list[str]:
    """Return why rows are not there, each reason once."""
    reasons: dict[str, list[str]] = {}
    for row in report.rows:
        if row.status != "ok":
            reasons.setdefault(row.reason, []).append(f"{row.backend} {row.device} {row.variant}")
    return [f"{', '.join(dict.fromkeys(rows))}: {reason}" for reason, rows in reasons.items()]


def _recommended(report: Report) -> list[str]:
    best = report.recommendation
    if best is None:
        return ["nothing to recommend: no row is known to keep the Keras model's labels within --max-drop"]
    where = f"--backend {best.backend} --device {best.device} --variant {best.variant} --threads {best.threads}"
    if best.batch > 1:
        where += f" --batch {best.batch}"
    command = f"edgevid run {report.bundle['path']} {where} --source CLIP"
    return [f"recommended: {best.sentence}", f"use it: {command}"]


def write_report(report: Report, path: Path) -> None:
    """Write the report as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _check_gate(report: Report, backends: tuple[str, ...], devices: tuple[str, ...], variants_asked: bool) -> None:
    """Fail if a backend or a device that was named ran nothing, or not a variant that was named too, or nothing ran."""
    ran = {name for row in report.rows if row.status == "ok" for name in (row.backend, row.device)}
    named = {*backends, *(device.partition(":")[0] for device in devices)}
    for row in report.rows:
        where = {row.backend, row.device.partition(":")[0]} & named
        if row.status != "ok" and (not ran or where - ran or (variants_asked and row.backend in backends)):
            raise GateError(f"{row.backend} {row.device} {row.variant} cannot run: {row.reason}")


def _counts(text: str | None) -> tuple[int, ...]:
    try:
        counts = tuple(int(name) for name in listed(text))
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise UsageError(f"--threads {text!r}: expected whole numbers from 1 up, such as 1,2,4")
    return counts
