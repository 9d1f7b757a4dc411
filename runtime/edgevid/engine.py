"""From a frame to its class probabilities: one variant loaded in one backend, or in several side by side."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from edgevid.arrays import Picture, Probabilities
from edgevid.backends import BackendOptions, available_cores, load_backend
from edgevid.bundle import Bundle
from edgevid.errors import EdgevidError, UsageError
from edgevid.manifest import Variant
from edgevid.postprocess import Postprocessor
from edgevid.preprocess import Preprocessor
from edgevid.sources.base import Frame

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Engine", "EnginePool", "share_cores"]

MOST_WORKERS = 4  # each holds the model once more; beyond this, decoding on one thread is the limit


class Engine:
    """One variant in one backend, with what stands before and after it.

    Raises:
        BackendError: the backend cannot load the variant.
    """

    def __init__(self, bundle: Bundle, variant: Variant, backend: str, options: BackendOptions) -> None:
        manifest = bundle.manifest
        self.backend = load_backend(backend, bundle, variant, options)
        self._preprocess = Preprocessor(manifest.input, manifest.preprocessing, variant.input)
        self._postprocess = Postprocessor(manifest.output, variant.output)

    def __call__(self, picture: Picture) -> Probabilities:
        """Return the class probabilities, float32 (classes,), of a BGR uint8 image (height, width, 3), or of planes."""
        return self.batch([picture])[0]

    def batch(self, pictures: Sequence[Picture]) -> list[Probabilities]:
        """Return the class probabilities of each of several pictures, no more than the backend takes at once."""
        self.prepare(*pictures)
        rows = self.backend.infer()
        return [self._postprocess(row) for row in rows[: len(pictures)]]

    def prepare(self, *pictures: Picture) -> None:
        """Write the input tensor of pictures, one after the other."""
        tensor = self.backend.input
        for index, picture in enumerate(pictures):
            self._preprocess(picture, tensor[index : index + 1])


class EnginePool:
    """Several engines of one variant, that classify frames side by side and hand them back in order.

    For throughput, N engines of one thread each beat one engine of N threads; for latency it is the other way.

    Raises:
        UsageError: ``workers`` is below 1.
        BackendError: the backend cannot load the variant.
    """

    def __init__(
        self, bundle: Bundle, variant: Variant, backend: str, options: BackendOptions, workers: int = 1
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers {workers}: expected 1 or more")
        self.engines: list[Engine] = []
        try:
            for _ in range(workers):
                self.engines.append(Engine(bundle, variant, backend, options))
        except EdgevidError:
            self.close()
            raise

    def map(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Probabilities]]:
        """Yield every frame with its class probabilities, in the order of ``frames``.

        Where ``frames`` fails, those that came before are yielded first.
        """
        size, failures = self.engines[0].backend.batch, list[EdgevidError]()
        batches = _batches(_until_failure(frames, failures), size)
        if len(self.engines) == 1:
            for batch in batches:
                yield from zip(batch, self.engines[0].batch([frame.picture for frame in batch]), strict=True)
        else:
            yield from self._side_by_side(batches)
        if failures:
            raise failures[0]

    def _side_by_side(self, batches: Iterable[list[Frame]]) -> Iterator[tuple[Frame, Probabilities]]:
        idle: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for engine in self.engines:
            idle.put(engine)

        def classify(batch: list[Frame]) -> list[Probabilities]:
            engine = idle.get()
            try:
                return engine.batch([frame.picture for frame in batch])
            finally:
                idle.put(engine)

        waiting: deque[tuple[list[Frame], Future[list[Probabilities]]]] = deque()
        executor = ThreadPoolExecutor(len(self.engines), thread_name_prefix="edgevid-worker")
        try:
            for batch in batches:
                waiting.append((batch, executor.submit(classify, batch)))
                if len(waiting) > 2 * len(self.engines):
                    earliest, future = waiting.popleft()
                    yield from zip(earliest, future.result(), strict=True)
            for earliest, future in waiting:
                yield from zip(earliest, future.result(), strict=True)
        finally:
            executor.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Release the engines; safe to call twice."""
        for engine in self.engines:
            engine.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Yield frames, so many at a time; the last time fewer."""
    frames = iter(frames)
    while batch := list(islice(frames, size)):
        yield batch


def _until_failure(frames: Iterable[Frame], failures: list[EdgevidError]) -> Iterator[Frame]:
    """Yield frames until they end or fail; put the failure aside, since frames before it are still under way."""
    try:
        yield from frames
    except EdgevidError as error:
        failures.append(error)


def share_cores(live: bool, threads: int = 0, workers: int = 0, device: str = "cpu") -> tuple[int, int]:
    """Return threads an inference and inferences at once, so that their product is the number of cores.

    Args:
        live: a camera gets all cores for one inference, the lowest latency; a file gets the most inferences
            at once, the highest throughput.
        threads: as asked for; 0 to choose.
        workers: as asked for; 0 to choose.
        device: where inferences run; an accelerator takes one at a time.
    """
    cores = available_cores()
    if not workers:
        workers = 1 if live or not device.startswith("cpu") else max(1, min(MOST_WORKERS, cores // max(threads, 1)))
    return threads or max(1, cores // workers), workers
