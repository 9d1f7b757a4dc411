"""One run from a source to its sinks."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice

import cv2

from edgevid.classifier import VideoClassifier
from edgevid.errors import UsageError
from edgevid.events import Event
from edgevid.sinks import Sink
from edgevid.smoothing import Prediction
from edgevid.sources import Frame
from edgevid.sources.feed import Feed
from edgevid.summary import Loss, Summary, Tally

__all__ = ["losses", "run_pipeline"]


def run_pipeline(
    feed: Feed,
    classifier: VideoClassifier,
    sinks: Sequence[Sink] = (),
    *,
    max_frames: int | None = None,
    tally: Tally | None = None,
    events: deque[Event] | None = None,
    on_prediction: Callable[[Prediction], None] | None = None,
) -> Summary:
    """Classify what a feed hands over, from an empty window on, and write every prediction to every sink.

    The feed and the sinks are closed in any case, so that their files are complete. OpenCV's own threads are turned
    off in this process: they would fight the engines for the cores.

    Args:
        feed: where frames come from.
        classifier: the model, loaded.
        sinks: where predictions go; of a live source, those that may be slow in a BackgroundSink.
        max_frames: stop after this many frames.
        tally: counts the predictions; give one to know them when the run fails.
        events: what the source of a file has told and no sink has written yet: written between the predictions where it
            happened. Of a live source, events come to the sinks at once.
        on_prediction: called with each prediction, to show progress; of a file, on any thread.

    Raises:
        SourceError: the source has no frames, or stopped delivering them.
        SinkError: an output cannot be written.
        BackendError: the engine failed.
    """
    cv2.setNumThreads(1)
    tally = tally or Tally()
    with ExitStack() as stack:
        stack.enter_context(feed)
        for sink in sinks:
            stack.enter_context(sink)
        stack.callback(_end, sinks)  # all at once, before each is closed: together they have two seconds
        if max_frames is not None and max_frames < 1:
            raise UsageError(f"max-frames {max_frames}: expected 1 or more")
        classifier.reset()
        tally.skipped = classifier.skipping.counts if classifier.skipping else None
        frames, live = islice(feed, max_frames), feed.source.live

        def deliver(frame: Frame, prediction: Prediction) -> None:
            tally.add(prediction, time.monotonic() - frame.arrived if live else None, frame.gap_s)
            _write_events(events, frame.time, sinks)
            for sink in sinks:
                sink.write(frame, prediction)
            if on_prediction:
                on_prediction(prediction)

        if live or any(sink.main_thread for sink in sinks):
            for frame, prediction in classifier.classify_frames(frames, read_ahead=not live):
                deliver(frame, prediction)
        else:
            classifier.classify_each(frames, deliver)
        _write_events(events, math.inf, sinks)
    return tally.summary(feed.source.broken, feed.dropped, losses(sinks))


def _write_events(events: deque[Event] | None, until: float, sinks: Sequence[Sink]) -> None:
    while events and events[0].time <= until:  # told where frames are read, which is ahead of here
        event = replace(events.popleft(), clock="")  # the time of day says nothing about a file
        for sink in sinks:
            sink.write_event(event)


def losses(sinks: Sequence[Sink]) -> list[Loss]:
    """Return what each of the outputs lacks."""
    return [Loss(sink.name, sink.dropped, sink.missing) for sink in sinks]


def _end(sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        sink.end()
