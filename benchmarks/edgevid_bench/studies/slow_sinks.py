"""Measures whether an output that is slow, or stuck, slows the classification of a live source.

    python -m edgevid_bench.studies.slow_sinks model.edgevid [--source CLIP] [--frames 500] [--rounds 7]

The frames of a clip, decoded before, come faster than they can be classified. In each round every kind of output has
its turn, in random order; printed is how many frames were classified a second, divided by those without output in the
same round: the median and the range. Nothing else should run.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from edgevid.classifier import VideoClassifier
from edgevid.errors import EdgevidError, SinkError
from edgevid.pipeline import run_pipeline
from edgevid.sinks import Sink, open_predictions, open_video
from edgevid.sinks.background import BackgroundSink
from edgevid.smoothing import Prediction
from edgevid.sources import Frame, Source, open_file
from edgevid.sources.feed import Feed

PERIOD_S = 0.002  # of the frames: twice as fast as the fastest engine here
HELD = 64  # pictures


class Fast(Source):
    """A live source of pictures that are there already."""

    live = True

    def __init__(self, clip: str) -> None:
        with open_file(clip) as source:
            self.name, self.rate, self.time_base = source.name, source.rate, source.time_base
            self._frames = list(islice(source, HELD))

    def __iter__(self) -> Iterator[Frame]:
        """Yield pictures for ever."""
        due = time.monotonic()
        for index, frame in enumerate(cycle(self._frames)):
            due += PERIOD_S
            time.sleep(max(0.0, due - time.monotonic()))
            yield Frame(index, float(index * PERIOD_S), frame.picture)

    def close(self) -> None:
        """Do nothing."""


class Stuck(Sink):
    """Takes so many seconds for a frame, as a disk or a network does that is too slow; infinity for a dead one."""

    name = "stuck"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Wait."""
        self._over.wait(min(self._seconds, threading.TIMEOUT_MAX))

    def close(self) -> None:
        """Wait no more."""
        self._over.set()


Opener = Callable[[Path, Source], list[Sink]]
OUTPUTS: dict[str, Opener] = {
    "none": lambda folder, source: [],
    "one that takes 100 ms a frame": lambda folder, source: [Stuck(0.1)],
    "one that never returns": lambda folder, source: [Stuck(float("inf"))],
    "predictions": lambda folder, source: [open_predictions(folder / "out.jsonl", live=True)],
    "annotated video": lambda folder, source: [open_video(folder / "out.mp4", source)],
}


def frames_per_second(classifier: VideoClassifier, source: Source, kind: str, frames: int) -> float:
    """Classify so many frames with that output; what it takes to end is not in it."""
    began, ended = 0.0, 0.0

    def note(prediction: Prediction) -> None:
        nonlocal began, ended
        ended = time.perf_counter()
        began = began or ended

    with TemporaryDirectory() as folder:
        sinks = [BackgroundSink(sink) for sink in OUTPUTS[kind](Path(folder), source)]
        with suppress(SinkError):  # the one that never returns is given up at the end
            run_pipeline(Feed(source), classifier, sinks, max_frames=frames, on_prediction=note)
    return (frames - 1) / (ended - began)


def main() -> int:
    """Run it, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--source", default="sample:bikes")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {kind: [] for kind in OUTPUTS}
    try:
        source = Fast(arguments.source)
        with VideoClassifier(arguments.bundle, threads=1) as classifier:
            frames_per_second(classifier, source, "none", arguments.frames)
            for _ in range(arguments.rounds):
                for kind in random.sample(list(OUTPUTS), len(OUTPUTS)):
                    found[kind].append(frames_per_second(classifier, source, kind, arguments.frames))
    except EdgevidError as error:
        sys.stderr.write(f"slow_sinks: {error}\n")
        return 1
    sys.stdout.write(f"without output: {median(found['none']):.0f} frames a second\n")
    for kind, rates in found.items():
        ratios = sorted(rate / bare for rate, bare in zip(rates, found["none"], strict=True))
        sys.stdout.write(f"{kind}: {median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
