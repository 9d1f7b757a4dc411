"""``edgevid tune``: choose how a bundle's labels are steadied, on one's own clips."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace
from rich.progress import Progress, TaskID
from rich.table import Table

from edgevid.bundle import Bundle, find_bundle, write_manifest
from edgevid.classifier import VideoClassifier
from edgevid.cli.engine_options import engine_options, take_engine
from edgevid.cli.terminal import Terminal, common_options, completing, completing_paths, listed
from edgevid.errors import BundleError, MissingExtraError, SinkError, UsageError
from edgevid.manifest import MANIFEST_FILE
from edgevid.methods import METHODS
from edgevid.signature import SUFFIX
from edgevid.sinks import check_suffix
from edgevid.sinks.base import check_apart, check_output
from edgevid.sources import SAMPLE_NAMES, open_file
from edgevid.units import time_seconds
from edgevid_bench.output.writers import csv_text, markdown_table, write_text
from edgevid_bench.tuning.streams import Stream, read_stream, read_truth
from edgevid_bench.tuning.tradeoff import RAW, Point, cuts, front, knee, measure, settings, true_labels_begin

EPILOG = """
\b
Examples:
  edgevid tune model.edgevid --clip drive.mp4 --output tune.png
  edgevid tune model.edgevid --clip drive.mp4 --truth drive.csv --max-delay 1s
  edgevid tune --clip a.mp4 --clip b.mp4 --methods mean,exponential --dry-run --output tune.svg --output tune.csv
\b
Without --truth, or where no label of it begins within a clip, the delay is measured at artificial cuts: a clip goes on
as another, in which the classes have changed their names. With --truth, a CSV file with the columns start,end,label
(seconds; of several clips, and clip), it is measured where true labels begin, and how often the label is right is
measured, too.
"""


PICTURES = (".png", ".svg")
SUFFIXES = (*PICTURES, ".csv", ".md")
TEXT_COLUMNS = ("method", "parameter", "choice")


@click.command("tune", epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--clip",
    "clips",
    metavar="CLIP",
    multiple=True,
    required=True,
    help="A video like those to come; can be given several times.",
    shell_complete=completing_paths(SAMPLE_NAMES),
)
@click.option("--truth", metavar="CSV", type=click.Path(path_type=Path), help="What is true when: start,end,label.")
@click.option(
    "--methods",
    metavar="LIST",
    default=",".join(METHODS),
    show_default=True,
    shell_complete=completing(METHODS),
    help="Try these.",
)
@click.option(
    "--max-delay",
    metavar="TIME",
    default="2s",
    show_default=True,
    help="Choose none where more than one decision in ten is later.",
)
@engine_options
@click.option("--dry-run", is_flag=True, help="Change nothing in the bundle.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Write the picture, .png or .svg, or the table, .csv or .md. Can be given several times.",
)
@click.option("--force", is_flag=True, help="Replace a file of that name.")
@common_options
@click.pass_obj
def tune(terminal: Terminal, /, **options: Any) -> int:
    """Choose how labels are steadied: as few flips as can be had for little delay.

    Measures every method on your clips, with windows from 0.1 s on, marks the knee of flips a minute over the delay of
    a decision, and makes that the bundle's default.
    """
    for path in options["output"]:
        check_suffix(path, SUFFIXES)
        check_output(path, options["force"])
        if path.suffix.lower() in PICTURES and not find_spec("matplotlib"):
            raise MissingExtraError(f"--output {path}", "matplotlib", "tune")
    methods, longest_s = _methods(options["methods"]), time_seconds(options["max_delay"])
    if longest_s is None:
        raise UsageError(f"--max-delay {options['max_delay']}: expected a time such as 2s or 500ms")
    bundle = find_bundle(options["bundle"])
    _check_bundle(bundle, options["dry_run"])
    read = {"one of the clips": _files(options["clips"]), "a file of the bundle": bundle.path.iterdir()}
    truth = [options["truth"]] if options["truth"] else []
    check_apart([("--output", path) for path in options["output"]], {**read, "the --truth": truth})
    with take_engine(options).load(bundle, False, terminal) as classifier:
        streams = _read(classifier, options["clips"], options["truth"], terminal)
    points = _measured(methods, streams, terminal)
    best = front(points, longest_s)
    _check_choice(points, best, options["max_delay"], ", ".join(options["clips"]))
    chosen = knee(best)
    table = _rows(points, best, chosen)
    delay_of = "after a true label begins" if true_labels_begin(streams) else "after an artificial cut"
    terminal.result(_table(table), *_verdict(points, chosen, delay_of))
    for path in options["output"]:
        try:
            _write(path, table, points, chosen, streams, delay_of)
        except OSError as error:
            raise SinkError(f"--output {path}: it cannot be written ({error.strerror}); name another place") from error
        terminal.result(f"wrote {path}")
    if not options["dry_run"]:
        write_manifest(replace(bundle.manifest, smoothing=chosen.smoothing), bundle.path)
        terminal.result(f"{bundle.path}: smoothing was {bundle.manifest.smoothing}; now it is {chosen.smoothing}")
    return 0


def _methods(text: str) -> tuple[str, ...]:
    methods = listed(text)
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise UsageError(f"--methods {text}: {unknown[0] if unknown else text!r} is none of {', '.join(METHODS)}")
    return methods


def _check_bundle(bundle: Bundle, dry_run: bool) -> None:
    """Refuse what cannot be tuned, before minutes of work."""
    if bundle.manifest.output.multi_label:
        raise UsageError(
            f"{bundle.path}: its model answers to each class on its own, with a sigmoid; tune is for one label a frame"
        )
    if dry_run:
        return
    if not os.access(bundle.path, os.W_OK):
        raise BundleError(f"{bundle.path}: it cannot be changed; use --dry-run, or tune a copy that is yours")
    signature = bundle.path / f"{MANIFEST_FILE}{SUFFIX}"
    if signature.exists():
        raise BundleError(
            f"{bundle.path}: it is signed, and its signature would not fit any more; use --dry-run, or remove "
            f"{signature.name} and sign it again"
        )


def _check_choice(points: Sequence[Point], best: Sequence[Point], max_delay: str, clips: str) -> None:
    """Refuse to choose where there is nothing to choose by."""
    if not any(point.flips for point in points):
        raise UsageError(
            f"--clip {clips}: the label never changes, even without smoothing; give clips in which it flickers"
        )
    if not best:
        soonest = min(point.delay_s for point in points)
        raise UsageError(
            f"--max-delay {max_delay}: nine true labels of ten take {soonest:.2f} s to be shown, at best; "
            "give a longer one, or look whether --truth fits the clip"
        )


def _files(clips: Sequence[str]) -> Iterator[Path]:
    for clip in clips:
        with open_file(clip) as source:
            yield from source.files


def _read(classifier: VideoClassifier, clips: Sequence[str], truth: Path | None, terminal: Terminal) -> list[Stream]:
    spans = read_truth(truth, clips, classifier.bundle.labels) if truth else {}
    streams = []
    with terminal.progress("frames") as progress:
        for clip in dict.fromkeys(clips):
            task = progress.add_task(clip, total=None)
            show = partial(_show, progress, task)
            streams.append(read_stream(classifier, clip, spans.get(clip), show))
    return streams


def _show(progress: Progress, task: TaskID, done: int, expected: int | None) -> None:
    progress.update(task, completed=done, total=expected)


def _measured(methods: Sequence[str], streams: Sequence[Stream], terminal: Terminal) -> list[Point]:
    tried = settings(methods, max(stream.seconds for stream in streams) / 4)
    artificial = cuts(streams)
    points = []
    with terminal.progress("settings") as progress:
        task = progress.add_task("smoothing", total=len(tried))
        for smoothing in tried:
            points.append(measure(smoothing, streams, artificial))
            progress.update(task, advance=1, description=str(smoothing))
    return points


def _rows(points: Sequence[Point], best: Sequence[Point], chosen: Point) -> list[tuple[str, ...]]:
    """Return the table, its heading first: the front is marked, and the knee."""
    labelled = any(point.accuracy is not None for point in points)
    right = ["right"] if labelled else []
    rows: list[tuple[str, ...]] = [("method", "parameter", "flips/min", "median s", "p90 s", *right, "choice")]
    for point in points:
        method, _, parameter = str(point.smoothing).partition(", ")
        mark = "chosen" if point is chosen else "best" if point in best else ""
        right = [] if point.accuracy is None else [f"{point.accuracy:.3f}"]
        numbers = (f"{point.flips:.1f}", f"{point.median_s:.2f}", f"{point.delay_s:.2f}")
        rows.append((method, parameter, *numbers, *right, mark))
    return rows


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _verdict(points: Sequence[Point], chosen: Point, delay_of: str) -> list[str]:
    raw = next(point for point in points if point.smoothing == RAW)
    fewer = f"{1 - chosen.flips / raw.flips:.0%} fewer than {raw.flips:.1f}" if raw.flips else "as many as"
    text = (
        f"{chosen.smoothing}: {chosen.flips:.1f} label flips a minute, {fewer} without smoothing; nine decisions "
        f"of ten come within {chosen.delay_s:.2f} s {delay_of}, half of them within {chosen.median_s:.2f} s"
        f" ({chosen.decisions} measured)"
    )
    lines = [text]
    if chosen.accuracy is not None and raw.accuracy is not None:
        lines.append(f"right on {chosen.accuracy:.1%} of the labelled frames; without smoothing on {raw.accuracy:.1%}")
    return lines


def _write(
    path: Path,
    table: Sequence[tuple[str, ...]],
    points: Sequence[Point],
    chosen: Point,
    streams: Sequence[Stream],
    delay_of: str,
) -> None:
    match path.suffix.lower():
        case ".csv":
            write_text(csv_text(table), path)
        case ".md":
            write_text("\n".join(markdown_table(table[0], table[1:], TEXT_COLUMNS)) + "\n", path)
        case _:
            from edgevid_bench.tuning.plot import draw  # matplotlib comes with it, in half a second

            draw(points, chosen, ", ".join(Path(stream.name).name for stream in streams), delay_of, path)
