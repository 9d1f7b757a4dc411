"""Measures one row in a process of its own: a request as JSON on stdin, the answer as JSON on stdout.

A fresh process a row and round keeps rows from warming, slowing or crashing each other, and gives each its own
peak of memory.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from edgevid.backends import BACKENDS
from edgevid.backends.proof import NOT_TOLD, Proof
from edgevid.bundle import Bundle
from edgevid.classifier import VideoClassifier
from edgevid.engine import share_cores
from edgevid.errors import BackendError, EdgevidError
from edgevid.pipeline import run_pipeline
from edgevid.sinks import open_video
from edgevid.smoothing import Prediction
from edgevid.sources import Frame, open_source
from edgevid.sources.feed import Feed
from edgevid_bench.calibration import calibration_ms
from edgevid_bench.conditions import Watch, conditions
from edgevid_bench.energy import measured_energy
from edgevid_bench.machine import peak_rss_mb
from edgevid_bench.report import Conditions, Minute
from edgevid_bench.stages import stage_cpu_ms

__all__ = ["Measured", "Request", "Stretch", "check_as_asked"]

WARM_UP = 10
MOST_FRAMES = 64  # kept in memory for what is measured without decoding
LEAST_INFERENCES, ENOUGH_INFERENCES = 10, 128  # three rounds of enough of them carry a 99th percentile
ENOUGH_LABELS = 128  # of frames, before a pass whose labels are wanted may be cut short
# What a variant of a precision computes in: floats in nothing else, integers also in floats. A CPU computes in float32
# what is stored in halves; what the weights of dynamic-int8 are multiplied with is up to the engine.
FLOATS = {"fp32": {"float32", "fp32"}, "fp16": {"float16", "fp16", "float32"}}
INTEGERS = {"int8": {"int8"}, "int8-full": {"int8", "int8-full"}}
PATIENCE = 3  # what takes so many times as long as was asked for is cut short


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: one backend × variant × thread count, over one clip.

    ``secs`` is how long runs from end to end go on at least, and single inferences as well; with ``duration_s`` only
    runs, for so long, an answer for each stretch of ``stretch_s``.
    """

    bundle: str
    backend: str
    device: str
    variant: str
    threads: int
    batch: int
    source: str
    secs: float
    max_frames: int
    video: bool
    emulated: bool
    single_stream: bool = True
    labels: bool = False
    stages: tuple[str, ...] = ()
    duration_s: float = 0.0
    stretch_s: float = 0.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one process measured; times in milliseconds. Where it failed, ``error`` says why."""

    error: str = ""
    disturbances: tuple[str, ...] = ()
    after: Conditions | None = None
    calibration_ms: float = 0.0
    device: str = ""
    hardware: str = ""
    precision: str = ""
    emulated: bool = False
    operators: dict[str, int] = {}
    on_device: int | None = None
    threads: int = 0
    workers: int = 1
    load_ms: float = 0.0
    first_inference_ms: float = 0.0
    infer_ms: list[float] = []
    label_ms: list[float] = []
    end_to_end_fps: float = 0.0
    joules_a_frame: float | None = None
    watts: float | None = None
    meter: str = ""
    peak_rss_mb: float = 0.0
    stage_cpu_ms: dict[str, float] = {}
    raw_labels: list[str] = []
    smoothed_labels: list[str] = []


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of a long run, or why there is none."""

    minute: Minute | None
    error: str = ""


def measure(request: Request) -> Measured:
    """Load, run the clip from end to end, then time single inferences and stages on its frames."""
    started = time.perf_counter()
    with _classifier(request) as classifier:
        load_ms = 1e3 * (time.perf_counter() - started)
        proof = classifier.backend.proof
        if proof.emulated and not request.emulated:
            raise BackendError(f"{proof.hardware} is emulated on the CPU; name the device with --devices to measure it")
        check_as_asked(proof, request)
        first_frame = _frames(request, 1)[0]
        first_ms = 1e3 * _seconds(lambda: classifier.engine(first_frame.picture))
        _Run(request, classifier).over_clip(WARM_UP)
        calibrated, watch, run = calibration_ms(), Watch(), _Run(request, classifier)
        with measured_energy() as energy:
            run.go_on(request.secs)
        peak = peak_rss_mb()  # before the frames that only this program holds
        frames = _frames(request, MOST_FRAMES)
        infer_ms, label_ms = _single_stream(classifier, frames, request.secs) if request.single_stream else ([], [])
        disturbances, after = watch.disturbances(), conditions()
        return Measured(
            disturbances=disturbances,
            after=after,
            calibration_ms=calibrated,
            device=proof.device,
            hardware=proof.hardware,
            precision=proof.precision,
            emulated=proof.emulated,
            operators=dict(proof.places),
            on_device=proof.on_device,
            threads=classifier.backend.threads,
            workers=classifier.workers,
            load_ms=load_ms,
            first_inference_ms=first_ms,
            infer_ms=infer_ms,
            label_ms=label_ms,
            end_to_end_fps=run.fps,
            joules_a_frame=energy.value.joules / run.frames if energy.value else None,
            watts=energy.value.joules / energy.value.seconds if energy.value else None,
            meter=energy.value.meter if energy.value else "",
            peak_rss_mb=peak,
            stage_cpu_ms=_stages(request, frames, median(infer_ms)) if request.stages else {},
            raw_labels=run.raw_labels,
            smoothed_labels=run.smoothed_labels,
        )


def check_as_asked(proof: Proof, request: Request) -> None:
    """Refuse what runs on another device, or computes in another precision, than the row is called by.

    Raises:
        BackendError: it does.
    """
    if not BACKENDS[request.backend].automatic:
        return
    if proof.device != request.device.partition(":")[0]:
        raise BackendError(f"it runs on {proof.device}, not on {request.device}: {proof}")
    precision, found = request.variant.partition("-")[2], set(proof.precision.split(" and "))
    floats, integers = FLOATS.get(precision), INTEGERS.get(precision)
    if found != {NOT_TOLD} and ((floats and not found <= floats) or (integers and not found & integers)):
        raise BackendError(
            f"it computes in {proof.precision}, which is not {precision}; name another variant or device"
        )


def stretches(request: Request) -> Iterator[Stretch]:
    """Run the clip over and over for ``duration_s``, and yield the speed of each stretch."""
    with _classifier(request) as classifier:
        _Run(request, classifier).over_clip(WARM_UP)
        begin = time.monotonic()
        while time.monotonic() - begin < request.duration_s - request.stretch_s / 2:  # no runt at the end
            run, watch = _Run(request, classifier), Watch()
            run.go_on(request.stretch_s)
            yield Stretch(
                Minute(
                    until_s=time.monotonic() - begin,
                    end_to_end_fps=run.fps,
                    conditions=conditions(),
                    disturbances=watch.disturbances(),
                )
            )


class _Run:
    """Runs over the clip from end to end, decoding included, and encoding if it is asked for."""

    def __init__(self, request: Request, classifier: VideoClassifier) -> None:
        self._request, self._classifier = request, classifier
        self.frames, self.seconds = 0, 0.0
        self.raw_labels: list[str] = []  # of the first pass
        self.smoothed_labels: list[str] = []

    @property
    def fps(self) -> float:
        """Frames per second of all passes."""
        return self.frames / self.seconds

    def go_on(self, seconds: float) -> None:
        """Make passes over the clip until they took so long; a pass that would take far longer is cut short."""
        while self.seconds < seconds:
            self.over_clip(self._request.max_frames, seconds * PATIENCE)

    def over_clip(self, max_frames: int, limit_s: float = float("inf")) -> None:
        """Make a pass."""
        source, stop = open_source(self._request.source), threading.Event()
        first, cut = not self.frames, time.monotonic() + limit_s
        enough = ENOUGH_LABELS if first and self._request.labels else 0

        def note(prediction: Prediction) -> None:
            if first:
                self.raw_labels.append(prediction.raw_label)
                self.smoothed_labels.append(prediction.label)
            if time.monotonic() > cut and len(self.raw_labels) >= enough:
                stop.set()

        with TemporaryDirectory() as folder:
            sinks = [open_video(Path(folder) / "annotated.mp4", source)] if self._request.video else []
            feed = Feed(source, stop=stop)
            summary = run_pipeline(feed, self._classifier, sinks, max_frames=max_frames, on_prediction=note)
        self.frames += summary.frames
        self.seconds += summary.elapsed_s


def _classifier(request: Request, threads: int = 0, workers: int = 0) -> VideoClassifier:
    if not workers:
        alone = Bundle(request.bundle).manifest.takes_windows
        threads, workers = share_cores(alone, threads=request.threads, device=request.device)
    return VideoClassifier(
        request.bundle,
        backend=request.backend,
        device=request.device,
        variant=request.variant,
        threads=threads,
        workers=workers,
        batch=request.batch,
    )


def _single_stream(
    classifier: VideoClassifier, frames: Sequence[Frame], seconds: float
) -> tuple[list[float], list[float]]:
    """Time inferences, and ways from decoded frames to labels, turn by turn, each on other frames; in ms."""
    engine = classifier.engine
    size = engine.backend.batch
    rows = engine.rows(size)
    infer_ms: list[float] = []
    label_ms: list[float] = []

    def label(some: Sequence[Frame]) -> None:
        engine.classify([frame.picture for frame in some], rows)
        for frame, row in zip(some, rows, strict=True):
            classifier.predict(frame, row)

    begin = time.perf_counter()
    while (
        len(infer_ms) < WARM_UP + LEAST_INFERENCES
        or (took := time.perf_counter() - begin) < seconds
        or (len(infer_ms) < WARM_UP + ENOUGH_INFERENCES and took < 2 * seconds)
    ):
        first = len(infer_ms) * size
        some = [frames[(first + index) % len(frames)] for index in range(size)]
        label_ms.append(1e3 * _seconds(partial(label, some)))
        engine.prepare(*(frame.picture for frame in some))
        infer_ms.append(1e3 * _seconds(engine.backend.infer))
    return infer_ms[WARM_UP:], label_ms[WARM_UP:]


def _stages(request: Request, frames: Sequence[Frame], median_ms: float) -> dict[str, float]:
    """Return what the stages cost alone."""
    inferences = max(LEAST_INFERENCES, min(len(frames), int(1e3 * request.secs / 4 / median_ms)))
    with _classifier(request, threads=1, workers=1) as classifier:
        return stage_cpu_ms(classifier, request.source, frames, request.stages, inferences)


def _frames(request: Request, count: int) -> list[Frame]:
    with open_source(request.source) as source:
        return list(islice(source, count))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def _answers() -> Iterator[Callable[[object], None]]:
    """Give what answers on stdout; what engines print there goes to stderr, so that nothing is mixed in."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with answer:

        def write(value: object) -> None:
            answer.write(msgspec.json.encode(value) + b"\n")
            answer.flush()

        yield write


def main() -> None:
    """Answer one request."""
    with _answers() as write:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
        try:
            if not request.duration_s:
                write(measure(request))
            for stretch in stretches(request) if request.duration_s else ():
                write(stretch)
        except EdgevidError as error:
            write(Stretch(None, str(error)) if request.duration_s else Measured(error=str(error)))


if __name__ == "__main__":
    main()
