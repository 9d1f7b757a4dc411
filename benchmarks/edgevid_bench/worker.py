"""Measures one row in a process of its own: a request as JSON on stdin, the answer as JSON on stdout.

A fresh process a row and round keeps rows from warming, slowing or crashing each other, and gives each its own
peak of memory.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from edgevid.classifier import VideoClassifier
from edgevid.engine import share_cores
from edgevid.errors import EdgevidError
from edgevid.pipeline import run_pipeline
from edgevid.sinks import open_video
from edgevid.sources import Frame, open_source
from edgevid.sources.feed import Feed
from edgevid_bench.machine import peak_rss_mb
from edgevid_bench.stages import stage_cpu_ms

__all__ = ["Measured", "Request"]

WARM_UP = 10
MOST_FRAMES = 64  # kept in memory for the bare inference


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: one backend × variant × thread count, over one clip."""

    bundle: str
    backend: str
    device: str
    variant: str
    threads: int
    batch: int
    source: str
    seconds: float
    max_frames: int
    video: bool


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one process measured; times in milliseconds. Where it failed, ``error`` says why."""

    error: str = ""
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
    end_to_end_fps: float = 0.0
    peak_rss_mb: float = 0.0
    stage_cpu_ms: dict[str, float] = {}


def measure(request: Request) -> Measured:
    """Load, run the whole clip, then time bare inferences on its frames."""
    threads, workers = share_cores(live=False, threads=request.threads, device=request.device)
    started = time.perf_counter()
    with _classifier(request, threads, workers) as classifier:
        load_ms = 1e3 * (time.perf_counter() - started)
        first_frame = _frames(request, 1)[0]
        first_ms = 1e3 * _seconds(lambda: classifier.engine(first_frame.picture))
        _whole_clip(request, classifier, min(WARM_UP, request.max_frames))
        end_to_end_fps = _whole_clip(request, classifier, request.max_frames)
        peak = peak_rss_mb()  # before the frames that only this program holds
        frames, proof = _frames(request, MOST_FRAMES), classifier.backend.proof
        return Measured(
            device=proof.device,
            hardware=proof.hardware,
            precision=proof.precision,
            emulated=proof.emulated,
            operators=dict(proof.places),
            on_device=proof.on_device,
            threads=classifier.backend.threads,
            workers=workers,
            load_ms=load_ms,
            first_inference_ms=first_ms,
            infer_ms=_infer_ms(classifier, frames, request.seconds),
            end_to_end_fps=end_to_end_fps,
            peak_rss_mb=peak,
            stage_cpu_ms=_stages(request, frames),
        )


def _classifier(request: Request, threads: int, workers: int) -> VideoClassifier:
    return VideoClassifier(
        request.bundle,
        backend=request.backend,
        device=request.device,
        variant=request.variant,
        threads=threads,
        workers=workers,
        batch=request.batch,
    )


def _whole_clip(request: Request, classifier: VideoClassifier, max_frames: int) -> float:
    """Return frames per second of a run over the clip, decoding included, and encoding if it is asked for."""
    source = open_source(request.source)
    with TemporaryDirectory() as folder:
        sinks = [open_video(Path(folder) / "annotated.mp4", source)] if request.video else []
        return run_pipeline(Feed(source), classifier, sinks, max_frames=max_frames).fps


def _stages(request: Request, frames: Sequence[Frame]) -> dict[str, float]:
    with _classifier(request, threads=1, workers=1) as classifier:
        return stage_cpu_ms(classifier, request.source, frames)


def _frames(request: Request, count: int) -> list[Frame]:
    with open_source(request.source) as source:
        return list(islice(source, count))


def _infer_ms(classifier: VideoClassifier, frames: Sequence[Frame], seconds: float) -> list[float]:
    """Time inferences, each on other frames, for at least ``seconds`` and as many as there are frames."""
    engine = classifier.engine
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < len(frames) + WARM_UP or time.perf_counter() < end:
        first = len(times) * engine.backend.batch
        engine.prepare(*(frames[(first + index) % len(frames)].picture for index in range(engine.backend.batch)))
        times.append(1e3 * _seconds(engine.backend.infer))
    return times[WARM_UP:]


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Answer one request; what engines print on stdout goes to stderr, so that nothing is mixed into the answer."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    try:
        measured = measure(request)
    except EdgevidError as error:
        measured = Measured(error=str(error))
    answer.write(msgspec.json.encode(measured))
    answer.close()


if __name__ == "__main__":
    main()
