"""A fixed piece of work that no version of edgevid changes: what this machine's speed is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np

__all__ = ["calibration_ms"]

PASSES = 7


def calibration_ms() -> float:
    """Return how long the work takes on one thread, in milliseconds: the median of some passes.

    It is of the kind that a CNN on video does: a convolution in float32, and a picture in 8 bits resized.
    """
    cv2.setNumThreads(1)
    generator = np.random.default_rng(0)
    plane = generator.random((180, 320), np.float32)
    kernel = generator.random((9, 9), np.float32)
    picture = generator.integers(0, 256, (720, 1280, 3), np.uint8)

    def work() -> None:
        cv2.filter2D(plane, -1, kernel)
        cv2.resize(picture, (224, 224), interpolation=cv2.INTER_AREA)

    work()
    return 1e3 * median(_seconds(work) for _ in range(PASSES))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
