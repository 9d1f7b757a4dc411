"""From a frame to its class probabilities: one variant loaded in one backend, or in several side by side."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.backends import BackendOptions, available_cores, load_backend
from edgevid.bundle import Bundle
from edgevid.crew import each_in_order, in_order
from edgevid.errors import EdgevidError, UsageError
from edgevid.manifest import Variant
from edgevid.picture import Picture
from edgevid.postprocess import Postprocessor
from edgevid.preprocess import Preprocessor
from edgevid.sources.base import Frame, Mark
from edgevid.static import Skipping

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Engine", "EnginePool", "share_cores"]

Rows: TypeAlias = npt.NDArray[Any]  # (pictures, ...): see Engine.rows
TURN = 2  # frames that a thread takes at once: the second finds decoder and engine warm, and a hand-over costs less
MOST_WORKERS = 8  # each holds the model once more; on 16 cores 8 are 1.5 to 1.8 times as fast as 4, 16 no more than 8


class Engine:
    """One variant in one backend, with what stands before and after it.

    What it answers to a picture is a row: class probabilities or, of a model of several frames at a time, what its
    window holds of each, which is the frame's features or, where the variant takes whole windows, its input.

    Raises:
        UsageError: several frames are to be in one inference, and the variant takes windows.
        BackendError: the backend cannot load the variant.
    """

    def __init__(self, bundle: Bundle, variant: Variant, backend: str, options: BackendOptions) -> None:
        manifest = bundle.manifest
        self._only_encodes = manifest.takes_windows
        if self._only_encodes:
            check_one_window("batch", options.batch, bundle)
        self.variant = variant
        self.backend = load_backend(backend, bundle, variant, options)
        self._preprocess = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
        self._postprocess = Postprocessor(manifest.row, variant.output)
        self._row = self.rows(1)

    def __call__(self, picture: Picture) -> Probabilities:
        """Return the row, float32 (classes,) mostly, of a BGR uint8 image (height, width, 3), or of planes.

        The array is the engine's own: it changes with the next call.
        """
        self.classify([picture], self._row)
        row: Probabilities = self._row[0]
        return row

    def classify(self, pictures: Sequence[Picture], out: Rows) -> None:
        """Write the rows of pictures into ``out``; as many at once as the backend takes."""
        if self._only_encodes:
            for index, picture in enumerate(pictures):
                self._preprocess(picture, out[index : index + 1])
            return
        for first in range(0, len(pictures), self.backend.batch):
            some = pictures[first : first + self.backend.batch]
            self.prepare(*some)
            for raw, row in zip(self.backend.infer(), out[first : first + len(some)], strict=False):
                self._postprocess(raw, row)

    def rows(self, count: int) -> Rows:
        """Return memory for the rows of so many pictures: values a class, or a feature, or the input of one frame."""
        if self._only_encodes:
            return np.empty((count, *self.variant.input.shape[2:]), self.variant.input.dtype)
        return np.empty((count, self._postprocess.size), np.float32)

    def prepare(self, *pictures: Picture) -> None:
        """Write the input tensor of pictures, one after the other; of a window, its first frames."""
        tensor = self.backend.input[0] if self._only_encodes else self.backend.input
        for index, picture in enumerate(pictures):
            self._preprocess(picture, tensor[index : index + 1])


class EnginePool:
    """Several engines of one variant, that classify frames side by side and hand them back in order.

    For throughput, N engines of one thread each beat one engine of N threads; for latency it is the other way.

    Args:
        skipping: decides which frames are classified; None for all.

    Raises:
        UsageError: ``workers`` is below 1, or above it where the variant takes windows.
        BackendError: the backend cannot load the variant.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        backend: str,
        options: BackendOptions,
        workers: int = 1,
        skipping: Skipping | None = None,
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers {workers}: expected 1 or more")
        if bundle.manifest.takes_windows:
            check_one_window("workers", workers, bundle)
        self.engines: list[Engine] = []
        try:
            for _ in range(workers):
                self.engines.append(Engine(bundle, variant, backend, options))
        except EdgevidError:
            self.close()
            raise
        self._skipping = skipping
        self._idle: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for engine in self.engines:
            self._idle.put(engine)

    def map(self, frames: Iterable[Frame], read_ahead: bool = False) -> Iterator[tuple[Frame, Probabilities]]:
        """Yield every frame with its row, class probabilities mostly, in the order of ``frames``.

        The row is valid until the next frame is asked for. Where ``frames`` fails, those that came before
        are yielded first.

        Args:
            frames: where frames come from.
            read_ahead: take frames before they are asked for, on threads, one thread at a time; so do several engines.
        """
        if len(self.engines) == 1 and not read_ahead:
            size = self.engines[0].backend.batch
            rows = self.engines[0].rows(size)
            for group in _groups(self._marked(frames), size):
                self._classify(group, rows)
                yield from self._settled(group, rows)
        else:
            groups = _groups(self._marked(frames), self._turn)
            for group, rows in in_order(groups, self._classify, self._slots(), self._threads):
                yield from self._settled(group, rows)

    def each(self, frames: Iterable[Frame], deliver: Callable[[Frame, Probabilities], None]) -> None:
        """Call ``deliver`` with every frame and its row, in the order of ``frames``, on threads.

        One thread at a time takes frames, and one delivers. The row is valid until ``deliver`` returns.
        """

        def deliver_group(group: list[Frame], rows: Rows) -> None:
            for frame, probabilities in self._settled(group, rows):
                deliver(frame, probabilities)

        groups = _groups(self._marked(frames), self._turn)
        each_in_order(groups, self._classify, deliver_group, self._slots(), self._threads)

    @property
    def _threads(self) -> int:
        return max(2, len(self.engines))  # one engine waits less where another thread reads what comes next

    @property
    def _turn(self) -> int:
        """How many frames a thread takes at once: whole batches."""
        batch = self.engines[0].backend.batch
        return batch * -(-TURN // batch)

    def _slots(self) -> list[Rows]:
        return [self.engines[0].rows(self._turn) for _ in range(self._threads + 2)]

    def _marked(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        return map(self._skipping.marked, frames) if self._skipping else frames

    def _settled(self, group: list[Frame], rows: Rows) -> Iterator[tuple[Frame, Probabilities]]:
        """Yield frames with their probabilities, those that were skipped with another's."""
        if self._skipping is None:
            yield from zip(group, rows, strict=False)
            return
        late, own = self.engines[0].rows(1), iter(rows)

        def classify_late(picture: Picture) -> Probabilities:
            self._classify_pictures([picture], late)
            probabilities: Probabilities = late[0]
            return probabilities

        for frame in group:
            row = None if frame.mark is Mark.STATIC else next(own)
            yield frame, self._skipping.settled(frame, row, classify_late)

    def _classify(self, group: list[Frame], rows: Rows) -> None:
        """Classify the frames of a group that are not to be skipped."""
        pictures = [frame.picture for frame in group if frame.mark is not Mark.STATIC]
        if pictures:
            self._classify_pictures(pictures, rows)

    def _classify_pictures(self, pictures: Sequence[Picture], rows: Rows) -> None:
        """Classify pictures in whichever engine is idle."""
        engine = self._idle.get()
        try:
            engine.classify(pictures, rows)
        finally:
            self._idle.put(engine)

    def close(self) -> None:
        """Release the engines; safe to call twice."""
        for engine in self.engines:
            engine.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _groups(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield frames, so many at a time; the last time, and before a failure, fewer."""
    group: list[Frame] = []
    try:
        for frame in frames:
            group.append(frame)
            if len(group) == size:
                yield group
                group = []
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


def check_one_window(what: str, count: int, bundle: Bundle) -> None:
    """Check that no more than one is asked for, of a model that takes windows.

    Raises:
        UsageError: more are.
    """
    if count > 1:
        raise UsageError(
            f"{what} {count}: {bundle.path.name} takes windows of frames, one after the other; leave it out"
        )


def share_cores(live: bool, threads: int = 0, workers: int = 0, device: str = "cpu") -> tuple[int, int]:
    """Return threads an inference and inferences at once, so that their product is the number of cores.

    Args:
        live: a camera, or a model of windows, gets all cores for one inference, the lowest latency; a file gets the
            most inferences at once, the highest throughput.
        threads: as asked for; 0 to choose.
        workers: as asked for; 0 to choose.
        device: where inferences run; an accelerator takes one at a time.
    """
    cores = available_cores()
    if not workers:
        workers = 1 if live or not device.startswith("cpu") else max(1, min(MOST_WORKERS, cores // max(threads, 1)))
    return threads or max(1, cores // workers), workers
