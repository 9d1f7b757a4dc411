"""``edgevid run``: classify a video, a folder of images, a stream, or a camera."""

from __future__ import annotations

import math
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from edgevid.bundle import BUNDLE_SUFFIX, Bundle, find_bundle
from edgevid.classifier import VideoClassifier
from edgevid.cli.config import ConfiguredCommand
from edgevid.cli.engine_options import EngineOptions, engine_options, take_engine
from edgevid.cli.output_options import OutputOptions, output_options, take_outputs
from edgevid.cli.run_lines import ran_where, summary_lines, what_runs
from edgevid.cli.service_options import ServiceOptions, service_options
from edgevid.cli.signals import stop_on_signals
from edgevid.cli.skipping_options import skipping_options, static_threshold
from edgevid.cli.smoothing_options import SmoothingOptions, smoothing_options, take_smoothing
from edgevid.cli.source_options import source_options, take_wishes
from edgevid.cli.terminal import Terminal, common_options
from edgevid.errors import UsageError
from edgevid.events import Event, Journal
from edgevid.heap import give_back, keep_small
from edgevid.methods import METHODS
from edgevid.pipeline import losses, run_pipeline
from edgevid.secrets import redact
from edgevid.service import Monitor
from edgevid.smoothing import Prediction
from edgevid.sources import Source, SourceOptions, open_camera, open_source
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.sources.realtime import RealtimeSource
from edgevid.summary import Tally

METHOD_LINES = "\n".join(f"  {name:12}{kind.delay:48}{kind.cost}" for name, kind in METHODS.items())
EPILOG = f"""
\b
Examples:
  edgevid run --source clip.mp4 --save out.mp4 --predictions out.jsonl
  edgevid run model.edgevid --camera 0 --show
  edgevid run --source rtsp://user:password@camera/stream --predictions out.jsonl
  edgevid run --source sample:bikes --window 1 --predictions - | head
  edgevid run --camera 0 --window 2s --enter 0.6 --leave 0.4 --events events.jsonl --on-event ./notify.sh
  edgevid run gestures.edgevid --camera 0 --hop 4
\b
Unless --threads or --workers say otherwise, a camera's frame gets every core, and a file's frames get one
core each, side by side: the lowest latency, and the highest throughput.
\b
--method      changes at a cut as late as                     work a frame, for each class
{METHOD_LINES}
\b
Your hardware                install                      and
  ARM board, PC              edgevid                      nothing: the CPU is the default
  PC with an Intel CPU       "edgevid[openvino]"          --backend openvino
  Intel GPU or NPU           "edgevid[openvino]", driver  --backend openvino --device gpu, or npu
  GPU with Vulkan            its driver                   --device gpu
  NVIDIA GPU                 "onnxruntime-gpu[cuda,cudnn]" --backend onnxruntime --device gpu
  Coral Edge TPU             libedgetpu1-std              --device edgetpu
  'edgevid doctor' says what is missing here, 'edgevid bench' what is fastest.
\b
Without BUNDLE: $EDGEVID_BUNDLE, else the only *.edgevid folder here, else the sample of 'edgevid demo'.
"""


@click.command(cls=ConfiguredCommand, epilog=EPILOG)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@source_options
@engine_options
@click.option(
    "--hop",
    type=int,
    metavar="N",
    help="Of a model of several frames at a time: classify the window every N frames.  [default: the bundle's]",
)
@smoothing_options
@output_options
@skipping_options
@click.option("--stride", type=int, default=1, help="Classify every Nth frame only.", show_default=True)
@click.option("--max-fps", type=float, default=0.0, help="Classify at most N frames a second of the source's time.")
@click.option("--start", type=float, default=0.0, metavar="S", help="Begin at this second of the file.")
@click.option("--end", type=float, metavar="S", help="End before this second of the file.")
@click.option(
    "--realtime", is_flag=True, help="Play the file as a camera would: at its own speed, and the newest frame wins."
)
@click.option("--max-frames", type=int, help="Stop after N frames.")
@service_options
@common_options
@click.pass_obj
def run(terminal: Terminal, /, **options: Any) -> int:
    """Classify every frame and steady the label with a rolling average.

    Files are classified frame by frame, in order. From a camera the newest frame is taken, and those that
    came too fast are counted.
    """
    groups: dict[str, Any] = {
        "engine": take_engine(options),
        "wishes": take_wishes(options),
        "steadying": take_smoothing(options),
        "outputs": take_outputs(options),
    }
    return _run(RunOptions(**groups, **options), terminal)


@dataclass(frozen=True)
class RunOptions(ServiceOptions):
    """The options above, as given."""

    bundle: Path | None
    source: str | None
    camera: str | None
    hop: int | None
    stride: int
    max_fps: float
    start: float
    end: float | None
    realtime: bool
    max_frames: int | None
    skip_static: bool
    static_threshold: float | None
    engine: EngineOptions
    wishes: SourceOptions
    steadying: SmoothingOptions
    outputs: OutputOptions


def _run(options: RunOptions, terminal: Terminal) -> int:
    signals: list[int] = []
    pick = Pick(options.stride, options.max_fps, options.start, math.inf if options.end is None else options.end)
    with ExitStack() as stack:
        monitor = stack.enter_context(Monitor(options.source or f"camera {options.camera}", options.health))
        journal = Journal()
        for listener in (terminal.event, monitor.on_event):
            journal.listen(listener)
        options.outputs.check_names()
        if options.wishes.wait:  # what is wrong is told now, and not when a camera comes at last
            options.engine.choose(_bundle(options), live=True)
        source = stack.enter_context(_opened(options, replace(options.wishes, idle=monitor.beat), journal))
        if source.live:
            keep_small()
            journal.listen(lambda event: give_back() if event.kind == "back" else None)
        classifier = stack.enter_context(_classifier(options, source.live, terminal))
        classifier.tell = journal
        # Until here Ctrl-C ends it at once; from here on it completes the files.
        stop = stack.enter_context(stop_on_signals(signals, source.interrupt))
        feed = stack.enter_context(Feed(source, pick, stop, tell=journal, wait=monitor.beat))
        options.outputs.check(source, classifier.bundle, options.health)
        sinks = [stack.enter_context(sink) for sink in options.outputs.sinks(source, stop, journal)]
        told: deque[Event] = deque()
        for write in [sink.write_event for sink in sinks] if source.live else [told.append]:
            journal.listen(write)
        monitor.dropped = lambda: {
            "frames": feed.dropped,
            "broken": source.broken,
            **{loss.name: loss.dropped + loss.missing for loss in losses(sinks)},
        }
        monitor.skipped = lambda: classifier.skipping.counts.frames if classifier.skipping else 0
        terminal.message(what_runs(classifier))
        if lacking := options.outputs.undrawable(classifier.bundle.labels):
            terminal.warning(lacking)
        progress = stack.enter_context(terminal.progress("frames"))
        task = progress.add_task(redact(source.name), total=_frames_expected(feed, options.max_frames))
        tally = Tally()

        def show(prediction: Prediction) -> None:
            monitor.on_prediction(prediction)
            progress.update(task, advance=1, description=prediction.label)

        monitor.begin()
        try:
            run_pipeline(
                feed, classifier, sinks, max_frames=options.max_frames, tally=tally, events=told, on_prediction=show
            )
        except BrokenPipeError:  # the reader of stdout has seen enough, and wants no summary either
            tally.frames = 0
            raise
        finally:
            summary = tally.summary(source.broken, feed.dropped, losses(sinks))
            progress.stop()
            if summary.frames:  # also of a run that failed: what was done is done
                tell = terminal.message_lines if options.outputs.on_stdout else terminal.result
                tell(*summary_lines(source.name, summary), ran_where(classifier))
                tell(*(f"wrote {sink.wrote}" for sink in sinks if sink.wrote))
    return 128 + signals[0] if signals else 0


def _bundle(options: RunOptions) -> Bundle:
    return find_bundle(options.bundle, options.require_signature)


def _classifier(options: RunOptions, live: bool, terminal: Terminal) -> VideoClassifier:
    bundle = _bundle(options)
    return options.engine.load(
        bundle,
        live,
        terminal,
        hop=options.hop,
        skip_static=options.skip_static,
        static_threshold=static_threshold(options.skip_static, options.static_threshold),
        **options.steadying.of(bundle.manifest),
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
