"""Frames that barely differ from the last classified one take over its probabilities: less work, the same labels."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Probabilities
from edgevid.audit import Audit, Skipped
from edgevid.errors import UsageError
from edgevid.events import Event
from edgevid.picture import Picture
from edgevid.preprocess import checked_shape
from edgevid.smoothing import Prediction, Smoother
from edgevid.sources.base import Frame, Mark

if TYPE_CHECKING:
    from edgevid.planes import Planes

__all__ = ["STATIC_THRESHOLD", "Skipping"]

STATIC_THRESHOLD = 4.0  # grey levels; 'python -m edgevid_bench.studies.static_scenes' has what others skip and cost
REFRESH_S = 1.0  # no label is older than this
AUDITED = 1 / 16  # of the frames that would be skipped
GRID = 32  # blocks in each direction: of a model that sees 224×224 pixels, 7×7
SAMPLES = 256  # pixels in each direction of which the blocks are the means


class Skipping:
    """Decides which frames of one stream need not be classified, and audits that decision while it goes on.

    A frame is static if the mean luma of each of 32 × 32 blocks differs by no more than a threshold from that of the
    last frame that was not skipped: a change in one block counts, however small the picture's mean difference, and a
    slow fade adds up. It is classified all the same where the next one might come more than a second after the last
    that was, and every sixteenth time on average, at random from a fixed seed: both serve the audit. A gap in the
    stream, another size and a step back in time force it as well.

    What is static depends on nothing but the frames, in their order; whether skipping is on depends on nothing but the
    audits, in the order of frames. So the result is the same for any number of workers, whatever they have read ahead.

    Luma only: what changes its colour and not its brightness is not seen here, and left to the audit.

    Args:
        threshold: the largest difference of a block, in grey levels of 0–255.
        smoother: the stream's; audits compare with copies of it.
        tell: called with an event when skipping is turned off or on.

    Raises:
        UsageError: ``threshold`` is not from 0 to 255.
    """

    def __init__(self, threshold: float, smoother: Smoother, tell: Callable[[Event], None]) -> None:
        if not 0 <= threshold <= 255:
            raise UsageError(f"static-threshold {threshold:g}: expected 0 to 255 grey levels, such as 4")
        self._threshold = threshold
        self._smoother = smoother
        self._tell = tell
        self.reset()

    def reset(self) -> None:
        """Begin another stream."""
        self.counts = Skipped()
        self._audit = Audit(self._smoother, self.counts, self._tell)
        self._random = random.Random(0)  # noqa: S311 - the same each time
        self._reference: npt.NDArray[np.uint8] | None = None
        self._reference_time = self._time = 0.0
        self._shape = 0, 0
        self._last: Probabilities = np.zeros(0, np.float32)

    def marked(self, frame: Frame) -> Frame:
        """Return the next frame with what is to be done about it; one thread at a time, ahead of :meth:`settled`."""
        mark = self._mark(frame)
        if mark is Mark.STATIC and not self._audit.on:
            mark = Mark.SPARE  # it will be wanted soon, unless skipping is turned on before it is
        return frame if mark is Mark.CHANGED else replace(frame, mark=mark)

    def settled(
        self, frame: Frame, own: Probabilities | None, classify: Callable[[Picture], Probabilities]
    ) -> Probabilities:
        """Return the probabilities of a frame, in the order of frames: its own, or those of the last classified one.

        Args:
            frame: as :meth:`marked` returned it.
            own: its own, where it was classified.
            classify: called where it was not, and skipping has been turned off since.
        """
        on = self._audit.on_at(frame.time)
        if frame.mark in (Mark.CHANGED, Mark.AUDIT):
            assert own is not None
            self._last = own.copy()
        elif on:
            self.counts.frames += 1
            return self._last
        return classify(frame.picture) if own is None else own

    def check(self, frame: Frame, probabilities: Probabilities, prediction: Prediction) -> None:
        """Audit a frame, in the order of frames, once it is settled and smoothed."""
        self._audit.check(frame, probabilities, prediction)

    def _mark(self, frame: Frame) -> Mark:
        blocks, shape = luma_blocks(frame.picture), frame.picture.shape[:2]
        step, self._time = frame.time - self._time, frame.time
        mark = Mark.CHANGED
        reference = self._reference
        comparable = shape == self._shape and step >= 0 and not frame.gap_s
        if reference is not None and comparable and cv2.norm(blocks, reference, cv2.NORM_INF) <= self._threshold:
            mark = Mark.AUDIT
            due = frame.time + step > self._reference_time + REFRESH_S
            if not due and self._random.random() >= AUDITED:
                return Mark.STATIC
        self._reference, self._reference_time, self._shape = blocks, frame.time, shape
        return mark


def luma_blocks(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return the mean luma of each block of a picture: uint8 of shape (32, 32), whatever the picture's size.

    Each is the mean of 64 samples, and not of all pixels: so a large picture takes no longer than a small one.

    Raises:
        UsageError: ``picture`` is no image.
    """
    if hasattr(picture, "luma"):
        picture = cast("Planes", picture)
        return picture.orientation.upright(_blocks(cv2.resize(picture.luma(), (SAMPLES, SAMPLES))))
    checked_shape(picture)
    return _blocks(cv2.cvtColor(cv2.resize(picture, (SAMPLES, SAMPLES)), cv2.COLOR_BGR2GRAY))


def _blocks(sampled: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    blocks = cv2.resize(sampled, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return blocks.astype(np.uint8, copy=False)
