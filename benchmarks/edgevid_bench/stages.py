"""What each stage costs alone: CPU time a frame, with nothing beside it and everything warm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import av.error
import numpy as np

from edgevid.classifier import VideoClassifier
from edgevid.draw import annotate_planes
from edgevid.errors import SinkError
from edgevid.sinks import open_video
from edgevid.sinks.canvas import Canvas
from edgevid.smoothing import Prediction
from edgevid.sources import Frame, open_source
from edgevid_bench.options import VIDEO_STAGES

__all__ = ["stage_cpu_ms"]

PASSES = 3  # over the frames, after one that warms up


def stage_cpu_ms(
    classifier: VideoClassifier, source: str, frames: Sequence[Frame], stages: Sequence[str], inferences: int
) -> dict[str, float]:
    """Return the CPU time a frame of each stage alone, in milliseconds; the median of some passes.

    Args:
        classifier: with one engine, of one thread.
        source: the clip that the frames are the first of.
        frames: which every stage works on, in order.
        stages: which; ``draw`` and ``encode`` go together.
        inferences: a pass over how many, where all frames would take too long.
    """
    engine, smoother, windows = classifier.engine, classifier.smoother, classifier.windows
    predictions = [prediction for _, prediction in classifier.classify_frames(frames[:inferences])]
    probabilities = np.full(len(classifier.bundle.labels), 1 / len(classifier.bundle.labels), np.float32)
    indices = range(len(frames))
    batches = range(0, inferences, engine.backend.batch)
    costs = {
        "preprocess": _cost(lambda index: engine.prepare(frames[index].picture), indices),
        "infer": _cost(lambda _: engine.backend.infer(), batches) / engine.backend.batch,
        "smooth": _cost(lambda index: smoother.update(probabilities, index, 0.0), indices),
    }
    if windows and windows.backend is engine.backend:
        costs["infer"] /= windows.hop
    elif windows:
        costs["infer"] += _cost(lambda _: windows.backend.infer(), batches) / windows.hop
    costs["decode"] = _decode(source, len(frames))
    if not set(stages).isdisjoint(VIDEO_STAGES):
        with suppress(SinkError, av.error.FFmpegError):  # a build of FFmpeg without an encoder, say
            costs |= _video(source, frames, predictions)
    return {stage: costs[stage] for stage in stages if stage in costs}


def _decode(source: str, count: int) -> float:
    """Return the cost of a frame of the clip, after the first few, which the decoder starts with."""

    def one_pass() -> float:
        with open_source(source) as opened:
            frames = iter(opened)
            first = len(list(islice(frames, count // 8)))
            start = time.process_time()
            counted = sum(1 for _ in islice(frames, count - first))
            return 1e3 * (time.process_time() - start) / max(1, counted)

    return median(one_pass() for _ in range(PASSES))


def _video(source: str, frames: Sequence[Frame], predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return what drawing and encoding cost."""
    indices = range(len(frames))
    canvas = Canvas(frames[0])

    def draw(index: int) -> None:
        canvas.paint(frames[index])
        annotate_planes(*canvas.planes, predictions[index % len(predictions)])

    draw_ms = _cost(draw, indices)
    with (
        TemporaryDirectory() as folder,
        open_source(source) as opened,
        open_video(Path(folder) / "stage.mp4", opened) as sink,
    ):
        both_ms = _cost(lambda index: sink.write(frames[index], predictions[index % len(predictions)]), indices)
    return {"draw": draw_ms, "encode": max(0.0, both_ms - draw_ms)}


def _cost(stage: Callable[[int], object], indices: Sequence[int]) -> float:
    """Return the CPU time of one call, in milliseconds."""
    passes = list(_passes(stage, indices))
    return median(passes[1:])


def _passes(stage: Callable[[int], object], indices: Sequence[int]) -> Iterator[float]:
    for _ in range(1 + PASSES):
        start = time.process_time()
        for index in indices:
            stage(index)
        yield 1e3 * (time.process_time() - start) / len(indices)
