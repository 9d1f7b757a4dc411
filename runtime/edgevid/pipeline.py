"""One run from a source to its sinks: decoding, inference and each output on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice

from edgevid.classifier import VideoClassifier
from edgevid.errors import UsageError
from edgevid.sinks import Sink
from edgevid.smoothing import Prediction
from edgevid.sources import Source
from edgevid.sources.feed import Feed
from edgevid.summary import Summary, Tally

__all__ = ["run_pipeline"]


def run_pipeline(
    source: Source,
    classifier: VideoClassifier,
    sinks: Sequence[Sink] = (),
    *,
    stride: int = 1,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    on_prediction: Callable[[Prediction], None] | None = None,
) -> Summary:
    """Classify a source and write every prediction to every sink.

    The source and the sinks are closed in any case, so that their files are complete.

    Args:
        source: where frames come from; from a file every frame is taken, from a live source the newest.
        classifier: the model, loaded.
        sinks: where predictions go; wrap slow ones in a BackgroundSink.
        stride: classify every Nth frame; the others are neither classified nor written.
        max_frames: stop after this many frames.
        stop: set it from outside to end the run after the current frame.
        on_prediction: called with each prediction, to show progress.

    Raises:
        SourceError: the source has no frames, or stopped delivering them.
        SinkError: an output cannot be written.
        BackendError: the engine failed.
    """
    if max_frames is not None and max_frames < 1:
        raise UsageError(f"max-frames {max_frames}: expected 1 or more")
    tally = Tally()
    start = time.perf_counter()
    with ExitStack() as stack:
        for sink in sinks:
            stack.enter_context(sink)
        feed = stack.enter_context(Feed(source, stride, stop))
        for frame, prediction in classifier.classify_frames(islice(feed, max_frames)):
            tally.add(prediction)
            for sink in sinks:
                sink.write(frame, prediction)
            if on_prediction:
                on_prediction(prediction)
    return tally.summary(time.perf_counter() - start, source.broken, feed.dropped)
