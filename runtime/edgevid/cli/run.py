"""``edgevid run``: classify a video, a folder of images, a stream, or a camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgevid.backends import BackendOptions
from edgevid.bundle import BUNDLE_SUFFIX, Bundle, find_bundle
from edgevid.choice import Choice, choose
from edgevid.classifier import VideoClassifier
from edgevid.cli.config import ConfiguredCommand
from edgevid.cli.engine_options import engine_options, key_values
from edgevid.cli.output_options import OutputOptions, output_options, take_outputs
from edgevid.cli.run_lines import ran_where, summary_lines, what_runs
from edgevid.cli.service_options import ServiceOptions, service_options
from edgevid.cli.signals import stop_on_signals
from edgevid.cli.source_options import source_options, take_wishes
from edgevid.cli.terminal import Terminal, common_options
from edgevid.engine import share_cores
from edgevid.errors import UsageError
from edgevid.events import Journal
from edgevid.heap import give_back, keep_small
from edgevid.manifest import VARIANT_IDS
from edgevid.pipeline import losses, run_pipeline
from edgevid.ring import check_window
from edgevid.secrets import redact
from edgevid.service import Monitor
from edgevid.sinks import STDOUT
from edgevid.smoothing import GAPS, Prediction
from edgevid.sources import Source, SourceOptions, open_camera, open_source
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.realtime import RealtimeSource
from edgevid.summary import Tally

EPILOG = """
\b
Examples:
  edgevid run --source clip.mp4 --save out.mp4 --predictions out.jsonl
  edgevid run model.edgevid --camera 0 --show
  edgevid run --source rtsp://user:password@camera/stream --predictions out.jsonl
  edgevid run --source sample:bikes --window 1 --predictions - | head
  edgevid run gestures.edgevid --camera 0 --hop 4
\b
Unless --threads or --workers say otherwise, a camera's frame gets every core, and a file's frames get one
core each, side by side: the lowest latency, and the highest throughput.
\b
Your hardware                install                      and
  ARM board, PC              edgevid                      nothing: the CPU is the default
  PC with an Intel CPU       "edgevid[openvino]"          --backend openvino
  Intel GPU or NPU           "edgevid[openvino]", driver  --backend openvino --device gpu, or npu
  GPU with Vulkan            its driver                   --device gpu
  NVIDIA GPU, Jetson         onnxruntime-gpu              --backend onnxruntime --device gpu
  Coral Edge TPU             libedgetpu1-std              --device edgetpu
  'edgevid doctor' says what is missing here, 'edgevid bench' what is fastest.
\b
Without BUNDLE: $EDGEVID_BUNDLE, else the only *.edgevid folder here, else the sample of 'edgevid demo'.
"""


def _window(ctx: click.Context, parameter: click.Parameter, value: Any) -> int | None:
    return None if value is None else check_window(value)


@click.command(cls=ConfiguredCommand, epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@source_options
@click.option(
    "--window",
    metavar="K",
    callback=_window,
    help="Average over the last K predictions; 1 for none.  [default: the bundle's]",
)
@click.option(
    "--hop",
    type=int,
    metavar="N",
    help="Of a model of several frames at a time: classify the window every N frames.  [default: the bundle's]",
)
@click.option(
    "--variant",
    type=click.Choice(VARIANT_IDS),
    help="Which variant of the bundle.  [default: the best that bench measured, else the fastest kind that passed]",
)
@engine_options
@click.option("--workers", type=int, default=0, help="Frames of a file classified side by side.")
@click.option("--batch", type=int, default=1, show_default=True, help="Frames of a file in one inference.")
@output_options
@click.option(
    "--gap",
    type=click.Choice(GAPS),
    default=GAPS[0],
    show_default=True,
    help="What an interruption does to the window: empty it, or let as much of it go as the interruption is long.",
)
@click.option("--stride", type=int, default=1, help="Classify every Nth frame only.", show_default=True)
@click.option("--max-fps", type=float, default=0.0, help="Classify at most N frames a second of the source's time.")
@click.option("--start", type=float, default=0.0, metavar="S", help="Begin at this second of the file.")
@click.option("--end", type=float, metavar="S", help="End before this second of the file.")
@click.option(
    "--realtime", is_flag=True, help="Play the file as a camera would: at its own speed, and the newest frame wins."
)
@click.option("--top-k", type=int, default=0, help="Write the N best labels of each frame too.")
@click.option("--max-frames", type=int, help="Stop after N frames.")
@service_options
@common_options
@click.pass_obj
def run(terminal: Terminal, /, **options: Any) -> int:
    """Classify every frame and steady the label with a rolling average.

    Files are classified frame by frame, in order. From a camera the newest frame is taken, and those that
    came too fast are counted.
    """
    return _run(RunOptions(wishes=take_wishes(options), outputs=take_outputs(options), **options), terminal)


@dataclass(frozen=True)
class RunOptions(ServiceOptions):
    """The options above, as given."""

    bundle: Path | None
    source: str | None
    camera: str | None
    window: int | None
    hop: int | None
    variant: str | None
    backend: str
    device: str
    threads: int
    allow_partial: bool
    delegate: str | None
    provider: str | None
    engine_options: Sequence[str]
    workers: int
    batch: int
    stride: int
    max_fps: float
    start: float
    end: float | None
    realtime: bool
    top_k: int
    max_frames: int | None
    gap: str
    wishes: SourceOptions
    outputs: OutputOptions


def _run(options: RunOptions, terminal: Terminal) -> int:
    signals: list[int] = []
    pick = Pick(options.stride, options.max_fps, options.start, math.inf if options.end is None else options.end)
    with ExitStack() as stack:
        monitor = stack.enter_context(Monitor(options.source or f"camera {options.camera}", options.health))
        journal = Journal()
        for listener in (terminal.event, monitor.on_event):
            journal.listen(listener)
        if options.wishes.wait:  # what is wrong is told now, and not when a camera comes at last
            options.outputs.check_names()
            _choice(options, live=True)
        source = stack.enter_context(_opened(options, replace(options.wishes, idle=monitor.beat), journal))
        if source.live:
            keep_small()
            journal.listen(lambda event: give_back() if event.kind == "back" else None)
        classifier = stack.enter_context(_classifier(options, source.live, terminal))
        # Until here Ctrl-C ends it at once; from here on it completes the files.
        stop = stack.enter_context(stop_on_signals(signals, source.interrupt))
        feed = stack.enter_context(Feed(source, pick, stop, tell=journal, wait=monitor.beat))
        options.outputs.check(source, options.health)
        sinks = [stack.enter_context(sink) for sink in options.outputs.sinks(source, stop, journal)]
        for sink in sinks if source.live else ():  # of a file, predictions are written on other threads
            journal.listen(sink.write_event)
        monitor.dropped = lambda: {
            "frames": feed.dropped,
            "broken": source.broken,
            **{loss.name: loss.dropped + loss.missing for loss in losses(sinks)},
        }
        terminal.message(what_runs(classifier))
        progress = stack.enter_context(terminal.progress("frames"))
        task = progress.add_task(redact(source.name), total=_frames_expected(feed, options.max_frames))
        tally = Tally()

        def show(prediction: Prediction) -> None:
            monitor.on_prediction(prediction)
            progress.update(task, advance=1, description=prediction.label)

        monitor.begin()
        try:
            run_pipeline(
                feed,
                classifier,
                sinks,
                max_frames=options.max_frames,
                tally=tally,
                on_prediction=show,
            )
        except BrokenPipeError:  # the reader of stdout has seen enough, and wants no summary either
            tally.frames = 0
            raise
        finally:
            summary = tally.summary(source.broken, feed.dropped, losses(sinks))
            progress.stop()
            if summary.frames:  # also of a run that failed: what was done is done
                tell = terminal.message_lines if options.outputs.predictions == STDOUT else terminal.result
                tell(*summary_lines(source.name, summary), ran_where(classifier))
                tell(*(f"wrote {sink.wrote}" for sink in sinks if sink.wrote))
    return 128 + signals[0] if signals else 0


def _choice(options: RunOptions, live: bool) -> tuple[Bundle, BackendOptions, Choice]:
    """Return what runs, and what it was chosen by."""
    engine = BackendOptions(
        device=options.device,
        allow_partial=options.allow_partial,
        delegate=options.delegate,
        provider=options.provider,
        engine_options=key_values(options.engine_options),
        batch=options.batch,
    )
    if live and engine.batch > 1:
        raise UsageError(f"--batch {engine.batch}: a camera's frame would wait for others; leave it out")
    if live and options.workers > 1:
        raise UsageError(f"--workers {options.workers}: a camera's frame is classified alone; leave it out")
    bundle = find_bundle(options.bundle, options.require_signature)
    return bundle, engine, choose(bundle, options.backend, options.variant, engine, live)


def _classifier(options: RunOptions, live: bool, terminal: Terminal) -> VideoClassifier:
    """Return the classifier that was asked for; say what was chosen where that was left open, and why."""
    bundle, engine, choice = _choice(options, live)
    if choice.stale:
        terminal.message(f"what bench measured is left aside: {choice.stale}; run 'edgevid bench' again")
    if choice.why:
        terminal.message(f"chose {choice.backend}, {choice.device}, {choice.variant.id}: {choice.why}")
    alone = live or bundle.manifest.takes_windows
    threads, workers = share_cores(alone, options.threads or choice.threads, options.workers, choice.device)
    return VideoClassifier(
        bundle,
        window=options.window,
        backend=choice.backend,
        variant=choice.variant.id,
        device=choice.device,
        threads=threads,
        workers=workers,
        top_k=options.top_k,
        hop=options.hop,
        gap=options.gap,
        allow_partial=engine.allow_partial,
        delegate=engine.delegate,
        provider=engine.provider,
        engine_options=engine.engine_options,
        batch=engine.batch,
    )


def _opened(options: RunOptions, wishes: SourceOptions, journal: Journal) -> Source:
    if options.source is not None and options.camera is not None:
        raise UsageError("--source and --camera: give one of them")
    if options.source is not None:
        source = open_source(options.source, wishes, journal)
        if source.live and (options.start or options.end is not None or options.realtime):
            raise UsageError(f"--start, --end and --realtime are for files; {source.name} is live")
        return RealtimeSource(source) if options.realtime else source
    if options.camera is not None:
        if options.start or options.end is not None or options.realtime:
            raise UsageError("--start, --end and --realtime are for a --source; a camera has no beginning")
        return open_camera(options.camera, wishes, journal)
    bundle = options.bundle
    hint = f"; {bundle} was read as BUNDLE" if bundle and bundle.suffix != BUNDLE_SUFFIX else ""
    raise UsageError(f"give one of --source FILE and --camera N{hint}")


def _frames_expected(feed: Feed, max_frames: int | None) -> int | None:
    counts = [count for count in (feed.frame_count, max_frames) if count is not None]
    return min(counts, default=None)
