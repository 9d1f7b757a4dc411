"""``edgevid classify``: what whole clips show, one verdict a clip."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import msgspec

from edgevid.bundle import BUNDLE_SUFFIX, find_bundle
from edgevid.classifier import VideoClassifier
from edgevid.cli.clip_progress import ClipProgress, ClipTally
from edgevid.cli.engine_options import EngineOptions, engine_options, take_engine
from edgevid.cli.run_lines import ran_where, what_runs
from edgevid.cli.service_options import signature_option
from edgevid.cli.signals import stop_on_signals
from edgevid.cli.terminal import Terminal, common_options, completing_paths
from edgevid.cli.verdict_table import VerdictTable
from edgevid.errors import EdgevidError, UsageError
from edgevid.events import Event
from edgevid.heap import keep_small
from edgevid.pooling import FEATURE_POOLINGS, POOLINGS
from edgevid.sinks import STDOUT
from edgevid.sinks.base import check_apart
from edgevid.sinks.verdicts import Record, VerdictFile, json_line, printable
from edgevid.sources import SAMPLE_NAMES
from edgevid.sources.archive import Clip, find_clips
from edgevid.sources.pick import Pick
from edgevid.verdict import check_pooling

EPILOG = """
\b
Examples:
  edgevid classify clips/ --output verdicts.jsonl
  edgevid classify 'archive/**/*.mp4' --max-fps 5 --output verdicts.csv --resume
  edgevid classify a.mp4 b.mp4 --bundle model.edgevid --pool max
  edgevid classify sample:bikes --top-k 3 --output - | head
\b
A CLIP is a video, a folder, a pattern such as 'clips/*.mp4', or sample:bikes. A folder stands for all videos in it
and in the folders in it; where there are none, each of these folders that has images in it is a clip.
\b
  --pool mean      the mean probability over all frames
  --pool max       the highest probability of any frame: for what is seen rarely, but then clearly
  --pool log-mean  the product of the probabilities, normalized: a class that many frames rule out has little chance
  --pool vote      the share of frames whose own label it is
  --pool feature-mean, feature-max   of the features before the last layer: of bundles of 'convert --features'
Each line of --output has the best label by all of them; --pool says which is the verdict.
\b
Without --bundle: a NAME.edgevid among the clips, else $EDGEVID_BUNDLE, else the only *.edgevid folder here, else the
sample of 'edgevid demo'.
"""


@click.command(epilog=EPILOG)
@click.argument("clips", metavar="CLIP...", nargs=-1, required=True, shell_complete=completing_paths(SAMPLE_NAMES))
@click.option("--bundle", metavar="NAME.edgevid", shell_complete=completing_paths(), help="The model.")
@click.option(
    "--pool",
    type=click.Choice([*POOLINGS, *FEATURE_POOLINGS]),
    default="mean",
    show_default=True,
    help="What makes one of the frames.",
)
@click.option("--stride", type=int, default=1, help="Classify every Nth frame only.", show_default=True)
@click.option("--max-fps", type=float, default=0.0, help="Classify at most N frames for a second of video.")
@click.option("--top-k", type=int, default=0, help="Write the N best labels of each clip too.")
@click.option(
    "--output",
    metavar="OUT.jsonl|OUT.csv",
    shell_complete=completing_paths(),
    help="Write verdicts, a line a clip; - for JSON lines on stdout.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with an --output that exists: clips that are in it, and have not changed since, are passed over.",
)
@click.option("--force", is_flag=True, help="Replace an --output that exists.")
@engine_options
@signature_option
@common_options
@click.pass_obj
def classify(terminal: Terminal, /, **options: Any) -> int:
    """Say what whole clips show: the frames of each are classified, and pooled into one verdict.

    A clip that cannot be read is told, and the others go on; the exit status is 1 then.
    """
    return _classify(ClassifyOptions(engine=take_engine(options), **options), terminal)


@dataclass(frozen=True)
class ClassifyOptions:
    """The options above, as given."""

    clips: Sequence[str]
    bundle: str | None
    pool: str
    stride: int
    max_fps: float
    top_k: int
    output: str | None
    resume: bool
    force: bool
    require_signature: str | None
    engine: EngineOptions


def _classify(options: ClassifyOptions, terminal: Terminal) -> int:
    Pick(options.stride, options.max_fps)  # what is out of range is told before anything is loaded
    bundle_name, clips = _what_is_named(options, terminal)
    file = _output(options, clips)
    bundle = find_bundle(bundle_name, options.require_signature)
    if file:
        check_apart([("--output", file.path)], {"a file of the bundle": bundle.path.iterdir()})
    signals: list[int] = []
    keep_small()  # each clip has threads of its own
    with ExitStack() as stack:
        classifier = stack.enter_context(options.engine.load(bundle, False, terminal, top_k=options.top_k))
        check_pooling(options.pool, classifier.has_features)
        settings = _settings(classifier, options)
        kept = _kept(file, clips, settings) if file else {}
        if file:
            stack.callback(file.close)
        stop = stack.enter_context(stop_on_signals(signals, lambda: None))
        terminal.message(what_runs(classifier))
        table = VerdictTable(terminal)
        stack.callback(table.close)  # below the progress, which ends before
        progress = ClipProgress(stack.enter_context(terminal.progress("{task.fields[unit]}")), len(clips), len(kept))
        tally = ClipTally()
        cv2.setNumThreads(1)  # its own threads would fight the engines for the cores
        for clip in clips:
            record = kept.get(printable(clip.name))
            if record is None:
                record = _record(clip, classifier, options, settings, stop, progress.begin(clip), terminal.event)
                if stop.is_set():
                    break
                if file:
                    file.append(record)
                progress.end()
                tally.add(record, terminal)
            if options.output == STDOUT:
                click.echo(json_line(record).decode(), nl=False)
            else:
                table.add(record)
    terminal.message_lines(tally.summary(len(clips), len(kept)), ran_where(classifier))
    if file and tally.done:
        terminal.message(f"wrote {file.path}")
    if signals:
        how = "the same command with --resume goes on" if file else "name an --output to be able to go on"
        terminal.message(f"stopped; {how}")
        return 128 + signals[0]
    tally.check(len(clips))
    return 0


def _what_is_named(options: ClassifyOptions, terminal: Terminal) -> tuple[str | None, list[Clip]]:
    """Return the bundle, if one is named, and the clips.

    Raises:
        UsageError: several bundles are named, or no clips, or what cannot be a clip.
        SourceError: nothing is there by any of the names.
    """
    bundles = [name for name in options.clips if name.rstrip("/").endswith(BUNDLE_SUFFIX)]
    names = [name for name in options.clips if name not in bundles]
    if options.bundle:
        bundles.append(options.bundle)
    if len(set(bundles)) > 1:
        raise UsageError(f"several bundles named ({', '.join(bundles)}): expected one, by --bundle say")
    if not names:
        raise UsageError(
            f"no clips named beside {bundles[0]}; expected files, folders or patterns such as 'clips/*.mp4'"
        )
    clips = find_clips(names, terminal.event)
    if not any(clip.files for clip in clips):
        clips[0].open().close()  # says why
    return next(iter(bundles), None), clips


def _output(options: ClassifyOptions, clips: Sequence[Clip]) -> VerdictFile | None:
    """Return the file to write verdicts to, if one is asked for; nothing is written yet."""
    path = None if options.output in (None, STDOUT) else Path(str(options.output))
    if options.resume and (path is None or options.force):
        raise UsageError("--resume: it goes on with an --output file; name one, and leave out --force")
    if path is None:
        return None
    check_apart([("--output", path)], {"one of the clips": (file for clip in clips for file in clip.files)})
    return VerdictFile(path, force=options.force, resume=options.resume)


def _settings(classifier: VideoClassifier, options: ClassifyOptions) -> str:
    """Return what verdicts depend on beside the clip: the model, with all that it is fed by, and options."""
    manifest, variant = classifier.bundle.manifest, classifier.variant
    fed = (manifest.input, manifest.preprocessing, manifest.output, manifest.sequence)
    model = (variant.sha256, manifest.labels_sha256, *fed)
    digest = hashlib.sha256(msgspec.json.encode(model)).hexdigest()[:12]
    chosen = f"--pool {options.pool} --stride {options.stride} --max-fps {options.max_fps:g} --top-k {options.top_k}"
    return f"{manifest.name} {variant.id} {digest} {chosen}"


def _kept(file: VerdictFile, clips: Sequence[Clip], settings: str) -> dict[str, Record]:
    """Return the verdicts that are there already, by clip; the file then has these, and those of clips not named now.

    Raises:
        UsageError: the file was written with other settings.
    """
    for record in file.found:
        if record["settings"] != settings:
            raise UsageError(
                f"--resume {file.path}: written with '{record['settings']}', and not with '{settings}'; give the same "
                "model and options, or another --output"
            )
    states = {printable(clip.name): clip.state() for clip in clips}

    def holds(record: Record) -> bool:
        state = states.get(record["clip"])
        return state is None or ("error" not in record and all(record[name] == state[name] for name in state))

    kept = [record for record in file.found if holds(record)]
    file.keep(kept)
    return {record["clip"]: record for record in kept if record["clip"] in states}


def _record(
    clip: Clip,
    classifier: VideoClassifier,
    options: ClassifyOptions,
    settings: str,
    stop: threading.Event,
    on_frame: Callable[[int, int | None], None],
    tell: Callable[[Event], None],
) -> Record:
    """Classify a clip; return its verdict, or what kept it from having one, and what it is known by again."""
    name, known = printable(clip.name), {**clip.state(), "settings": settings}
    try:
        verdict = classifier.classify_clip(
            clip.open(tell),
            options.stride,
            pooling=options.pool,
            max_fps=options.max_fps,
            stop=stop,
            on_frame=on_frame,
        )
    except EdgevidError as error:
        return {"clip": name, "error": printable(str(error)), **known}
    return {**verdict.to_dict(options.top_k), "clip": name, **known}
