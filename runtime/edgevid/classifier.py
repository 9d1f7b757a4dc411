"""One stream, classified: preprocess, infer, smooth."""

from __future__ import annotations

import math
import threading
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgevid.arrays import Image, Probabilities
from edgevid.backends import Backend, BackendOptions
from edgevid.bundle import Bundle, find_bundle
from edgevid.choice import AUTO, choose
from edgevid.decisions import Decisions
from edgevid.engine import EnginePool
from edgevid.errors import EdgevidError, UsageError
from edgevid.events import Event
from edgevid.methods import Smoothing, changed
from edgevid.sequence import window_model
from edgevid.smoothing import GAPS, Prediction, Smoother
from edgevid.sources import Frame, Source, open_camera, open_source
from edgevid.sources.base import Mark
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick
from edgevid.static import STATIC_THRESHOLD, Skipping
from edgevid.verdict import ClipTotals, Verdict, check_pooling

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["VideoClassifier"]


class VideoClassifier:
    """Classifies the frames of one video stream and steadies the label.

    Args:
        bundle: a bundle or the path of one; None for the bundle that :func:`edgevid.find_bundle` finds.
        window: how many predictions the rolling average spans, or for how long, as ``2s``; 1 for none. None for the one
            of ``smoothing``, whose method must have a window otherwise.
        smoothing: how the label is steadied; None for the bundle's default.
        decisions: when a label begins and ends; None for the bundle's default.
        backend: a name in the table of backends, or ``auto``; see :func:`edgevid.choice.choose`.
        variant: the id of a variant, such as ``tflite-int8``; None for the best for the device.
        device: ``cpu``, ``gpu``, ``npu``, ``edgetpu``, which of several after a colon, or ``auto``.
        threads: how many threads one inference uses on the CPU; 0 for one a core.
        workers: how many frames :meth:`stream` classifies at once, each in an engine of its own; more than one
            is for files, and wants fewer threads.
        top_k: how many of the best labels each prediction carries.
        hop: of a model of several frames at a time: classify the window every ``hop`` frames; None for the bundle's
            default. See :class:`edgevid.sequence.WindowModel`.
        gap: what an interruption of a live source does to the window, ``reset`` or ``decay``; see
            :class:`edgevid.smoothing.Smoother`.
        skip_static: have frames that barely differ from the last classified one take over its probabilities, see
            :class:`edgevid.static.Skipping`.
        static_threshold: how much they may differ, in grey levels of 0–255.
        allow_partial, delegate, provider, engine_options, batch: see :class:`edgevid.backends.BackendOptions`; a batch
            of more than one is for files, as each frame waits for the others.

    Attributes:
        skipping: what decides which frames are skipped, and counts them; None where none may be.
        tell: called with an event when skipping is turned off, or on again.

    Raises:
        BundleError: the bundle cannot be found, read or verified.
        UsageError: an argument is out of range or unknown.
        MissingExtraError: the backend's package is not installed.
        BackendError: the engine cannot load the variant, or not on that device.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        *,
        window: int | str | None = None,
        smoothing: Smoothing | None = None,
        decisions: Decisions | None = None,
        backend: str = AUTO,
        variant: str | None = None,
        device: str = "cpu",
        threads: int = 0,
        workers: int = 1,
        top_k: int = 0,
        hop: int | None = None,
        gap: str = GAPS[0],
        allow_partial: bool = False,
        delegate: str | None = None,
        provider: str | None = None,
        engine_options: Mapping[str, str] | None = None,
        batch: int = 1,
        skip_static: bool = False,
        static_threshold: float = STATIC_THRESHOLD,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        manifest = self.bundle.manifest
        self.smoothing = changed(smoothing or manifest.smoothing, window=window)
        self.smoother = Smoother(
            self.bundle.labels,
            self.smoothing,
            decisions or manifest.decisions,
            top_k=top_k,
            gap=gap,
            multi_label=manifest.output.multi_label,
        )
        options = BackendOptions(device, threads, allow_partial, delegate, provider, engine_options or {}, batch)
        choice = choose(self.bundle, backend, variant, options)
        self.variant = choice.variant
        options = replace(options, device=choice.device)
        if skip_static and manifest.sequence and manifest.sequence.frames > 1:
            raise UsageError(f"skip-static: {self.bundle.path.name} takes several frames at a time; leave it out")
        self.skipping = Skipping(static_threshold, self.smoother, self._tell_event) if skip_static else None
        self.tell: Callable[[Event], None] = lambda event: None
        self._pool = EnginePool(self.bundle, choice.variant, choice.backend, options, workers, self.skipping)
        self.engine = self._pool.engines[0]
        try:
            self.windows = window_model(self.bundle, self.engine, choice.backend, options, hop)
        except EdgevidError:
            self._pool.close()
            raise
        self._index = 0
        self._start: float | None = None

    @property
    def backend(self) -> Backend:
        """The backend, or the first of those that work side by side."""
        return self.engine.backend

    @property
    def workers(self) -> int:
        """How many frames of a file are classified at once."""
        return len(self._pool.engines)

    def classify(self, frame: Image, time: float | None = None) -> Prediction:
        """Classify the next frame of one's own loop.

        Args:
            frame: uint8 of shape (height, width, 3), BGR.
            time: its timestamp in seconds; None for the seconds since the first call.

        Raises:
            UsageError: ``frame`` has another shape or dtype.
            BackendError: the engine failed.
        """
        if time is None:
            now = clock.monotonic()
            self._start = self._start or now
            time = now - self._start
        taken = Frame(self._index, time, frame)
        if self.skipping is None:
            row = self.engine(frame)
        else:
            taken = self.skipping.marked(taken)
            own = None if taken.mark is Mark.STATIC else self.engine(frame)
            row = self.skipping.settled(taken, own, self.engine)
        self._index += 1
        return self.predict(taken, row)

    def classify_frames(self, frames: Iterable[Frame], read_ahead: bool = False) -> Iterator[tuple[Frame, Prediction]]:
        """Yield every frame with its prediction, in order; raises as :meth:`classify` does.

        Args:
            frames: where frames come from.
            read_ahead: take frames before they are asked for, on threads of their own; so do several workers.
        """
        for frame, row in self._pool.map(frames, read_ahead):
            yield frame, self.predict(frame, row)

    def classify_each(self, frames: Iterable[Frame], deliver: Callable[[Frame, Prediction], None]) -> None:
        """Call ``deliver`` with every frame and its prediction, in order, but not always on one thread.

        The fastest way through a file: the threads that classify also read and deliver, one of them at a time.

        Args:
            frames: where frames come from.
            deliver: what is done with them; it should not wait for anything.

        Raises:
            BackendError: the engine failed.
            Exception: what ``frames`` or ``deliver`` raised.
        """
        self._pool.each(frames, lambda frame, row: deliver(frame, self.predict(frame, row)))

    def rows(self, frames: Iterable[Frame], read_ahead: bool = False) -> Iterator[tuple[Frame, Probabilities]]:
        """Yield every frame with a row of its own, in order, for :meth:`predict`; of a bundle cut for it, its features.

        Args:
            frames: where frames come from.
            read_ahead: see :meth:`classify_frames`.

        Raises:
            BackendError: the engine failed.
        """
        for frame, row in self._pool.map(frames, read_ahead):
            yield frame, row.copy()

    @property
    def has_features(self) -> bool:
        """Whether rows are features of single frames, which :meth:`head` takes: the bundle was cut for it."""
        return self.windows is not None and self.windows.frames == 1

    def head(self, features: Probabilities) -> Probabilities:
        """Return the class probabilities, float32 (classes,), of features, such as a mean over the frames of a clip.

        Args:
            features: float32 of shape (features,).

        Raises:
            UsageError: the bundle has none, or another number of them.
            BackendError: the engine failed.
        """
        sequence = self.bundle.manifest.sequence
        if sequence and self.has_features and features.shape != (sequence.features,):
            raise UsageError(f"features of shape {features.shape}: expected ({sequence.features},)")
        if self.windows is None or not self.has_features:
            raise UsageError(
                f"{self.bundle.path.name}: it has no features of frames to pool; convert it with --features"
            )
        return self.windows.of(features[None])

    def predict(self, frame: Frame, row: Probabilities) -> Prediction:
        """Return the prediction of the next frame, of which the engine made ``row``."""
        probabilities = self.of_row(frame, row)
        prediction = self.smoother.update(probabilities, frame.index, frame.time, frame.gap_s)
        if self.skipping:
            self.skipping.check(frame, probabilities, prediction)
        return prediction

    def of_row(self, frame: Frame, row: Probabilities) -> Probabilities:
        """Return the class probabilities of the next frame, of which the engine made ``row``, not smoothed."""
        return self.windows(row, frame.gap_s) if self.windows else row

    def _tell_event(self, event: Event) -> None:
        self.tell(event)

    def stream(
        self,
        source: str | Path | int | Source,
        stride: int = 1,
        *,
        max_fps: float = 0.0,
        start: float = 0.0,
        end: float = math.inf,
        tell: Callable[[Event], None] = lambda event: None,
    ) -> Iterator[Prediction]:
        """Yield the prediction of every frame of a source that is wanted, decoding on threads of its own.

        Args:
            source: a video file, a folder of images, a URL, the number of a camera, or an open source, which is
                closed at the end. A live one that is lost is waited for, see :class:`edgevid.SourceOptions`.
            stride: classify every Nth frame only.
            max_fps: classify at most so many frames for a second of the source's time; 0 for all.
            start: begin at this second of the source.
            end: end before this second of the source.
            tell: called with what happens between two predictions: that a live source is lost, or back; that the
                skipping of static frames is turned off, or on.

        Raises:
            UsageError: an argument is out of range.
            SourceError: the source cannot be opened, has no such frame, or stopped delivering frames.
        """
        self.reset()
        self.tell = tell
        with Feed(_opened(source), Pick(stride, max_fps, start, end), tell=tell) as feed:
            for _, prediction in self.classify_frames(feed, read_ahead=not feed.source.live):
                yield prediction

    def classify_clip(
        self,
        source: str | Path | Source,
        stride: int = 1,
        *,
        pooling: str = "mean",
        max_fps: float = 0.0,
        start: float = 0.0,
        end: float = math.inf,
        stop: threading.Event | None = None,
        on_frame: Callable[[int, int | None], None] = lambda done, expected: None,
    ) -> Verdict:
        """Return what a whole clip shows; its frames are classified side by side, and the window is left alone.

        Args:
            source: a video file, a folder of images, or an open source with an end, which is closed then.
            stride: classify every Nth frame only.
            pooling: what makes one of the frames: ``mean``, ``max``, ``log-mean`` or ``vote``, see
                :mod:`edgevid.pooling`, and of a bundle with features ``feature-mean`` or ``feature-max``. The verdict
                has the scores of all of them.
            max_fps: classify at most so many frames for a second of the clip; 0 for all.
            start: begin at this second of the clip.
            end: end before this second of the clip.
            stop: set from outside (by a signal, say) to end after the current frame; the verdict is of those so far.
            on_frame: called on any thread after each frame, with how many are done and how many to expect, if known.

        Raises:
            UsageError: an argument is out of range, or the source is live, and has no end.
            SourceError: the source cannot be opened, or has no frame that can be decoded.
            BackendError: the engine failed, or the model answered something that is no number.
        """
        check_pooling(pooling, self.has_features)
        multi_label = self.bundle.manifest.output.multi_label
        totals = ClipTotals(self.bundle.labels, multi_label, self.head if self.has_features else None)
        if self.windows:
            self.windows.reset()
        with Feed(_opened(source), Pick(stride, max_fps, start, end), stop) as feed:
            if feed.source.live:
                raise UsageError(f"{feed.source.name}: it is live, and no clip; record one first")
            expected = feed.frame_count

            def add(frame: Frame, row: Probabilities) -> None:
                totals.add(frame, self.of_row(frame, row), row if self.has_features else None)
                on_frame(totals.frames, expected)

            self._pool.each(feed, add)
            return totals.verdict(feed.source.name, pooling, feed.source.rate, feed.source.broken)

    def reset(self) -> None:
        """Forget the window and start counting again, as for another stream."""
        self.smoother.reset()
        if self.skipping:
            self.skipping.reset()
        if self.windows:
            self.windows.reset()
        self._index = 0
        self._start = None

    def close(self) -> None:
        """Release the engine; safe to call twice."""
        self._pool.close()
        if self.windows:
            self.windows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _opened(source: str | Path | int | Source) -> Source:
    if isinstance(source, Source):
        return source
    return open_camera(source) if isinstance(source, int) else open_source(source)
