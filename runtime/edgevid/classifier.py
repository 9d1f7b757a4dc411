"""One stream, classified: preprocess, infer, smooth."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgevid.arrays import Image, Probabilities
from edgevid.backends import Backend, BackendOptions
from edgevid.bundle import Bundle, find_bundle
from edgevid.choice import AUTO, choose
from edgevid.engine import EnginePool
from edgevid.errors import EdgevidError, UsageError
from edgevid.events import Event
from edgevid.sequence import window_model
from edgevid.smoothing import GAPS, Prediction, Smoother
from edgevid.sources import Frame, Source, open_camera, open_source
from edgevid.sources.feed import Feed
from edgevid.sources.pick import Pick

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["VideoClassifier"]


class VideoClassifier:
    """Classifies the frames of one video stream and steadies the label.

    Args:
        bundle: a bundle or the path of one; None for the bundle that :func:`edgevid.find_bundle` finds.
        window: how many predictions the rolling average spans; None for the bundle's default, 1 for none.
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
        allow_partial, delegate, provider, engine_options, batch: see :class:`edgevid.backends.BackendOptions`; a batch
            of more than one is for files, as each frame waits for the others.

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
        window: int | None = None,
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
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else find_bundle(bundle)
        manifest = self.bundle.manifest
        if window is None:
            window = manifest.smoothing.window
        self.smoother = Smoother(self.bundle.labels, window, top_k, gap)
        options = BackendOptions(device, threads, allow_partial, delegate, provider, engine_options or {}, batch)
        choice = choose(self.bundle, backend, variant, options)
        self.variant = choice.variant
        options = replace(options, device=choice.device)
        self._pool = EnginePool(self.bundle, choice.variant, choice.backend, options, workers)
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
        row = self.engine(frame)
        prediction = self.smoother.update(self.windows(row) if self.windows else row, self._index, time)
        self._index += 1
        return prediction

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
        """Yield every frame with its row, in order, for :meth:`predict`; of a bundle cut for it, its features.

        Args:
            frames: where frames come from.
            read_ahead: see :meth:`classify_frames`. A row is valid until the next frame is asked for.

        Raises:
            BackendError: the engine failed.
        """
        return self._pool.map(frames, read_ahead)

    @property
    def has_features(self) -> bool:
        """Whether rows are features of single frames, which :meth:`head` takes: the bundle was cut for it."""
        return self.windows is not None and self.windows.frames == 1

    def head(self, features: Probabilities) -> Probabilities:
        """Return the class probabilities, float32 (classes,), of features, such as a mean over the frames of a clip.

        Args:
            features: float32 of shape (features,).

        Raises:
            UsageError: the bundle has none.
            BackendError: the engine failed.
        """
        if self.windows is None or not self.has_features:
            raise UsageError(
                f"{self.bundle.path.name}: it has no features of frames to pool; convert it with --features"
            )
        return self.windows.of(features[None])

    def predict(self, frame: Frame, row: Probabilities) -> Prediction:
        """Return the prediction of the next frame, of which the engine made ``row``."""
        probabilities = self.windows(row, frame.gap_s) if self.windows else row
        return self.smoother.update(probabilities, frame.index, frame.time, frame.gap_s)

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
            tell: called with what happens to a live source between two predictions: that it is lost, or back.

        Raises:
            UsageError: an argument is out of range.
            SourceError: the source cannot be opened, has no such frame, or stopped delivering frames.
        """
        self.reset()
        with Feed(_opened(source), Pick(stride, max_fps, start, end), tell=tell) as feed:
            for _, prediction in self.classify_frames(feed, read_ahead=not feed.source.live):
                yield prediction

    def reset(self) -> None:
        """Forget the window and start counting again, as for another stream."""
        self.smoother.reset()
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
