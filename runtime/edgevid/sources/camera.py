"""Cameras, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from edgevid.errors import SourceError
from edgevid.sources.base import Frame, Source

DEFAULT_RATE = Fraction(30)
MICROSECOND = Fraction(1, 1_000_000)


class CameraSource(Source):
    """Frames of a camera as they come; a frame's time is the seconds since the first.

    Args:
        device: the camera's number, or its path such as ``/dev/video0``.

    Raises:
        SourceError: the camera is not there, or is used by another program.
    """

    live = True
    time_base = MICROSECOND

    def __init__(self, device: int | str) -> None:
        self.name = f"camera {device}"
        self._capture = _open(device)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name}: it cannot be opened; {_cameras_here()}")
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(stated).limit_denominator(1001) if 1 <= stated <= 1000 else DEFAULT_RATE

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the camera stops, which raises SourceError."""
        index = 0
        start = 0.0
        while True:
            delivered = self._capture.grab()
            now = time.monotonic()
            start = start or now
            if now - start >= self.pick.end:
                return
            wanted = delivered and self.pick.wants(index, now - start)
            if wanted:  # only now is it decoded
                delivered, image = self._capture.retrieve()
            if not delivered:
                raise SourceError(f"{self.name}: it stopped delivering after {index} frames; is it still plugged in?")
            if wanted:
                yield Frame(index, now - start, image.astype(np.uint8, copy=False), now)
            index += 1

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def _open(device: int | str) -> cv2.VideoCapture:
    """Open without OpenCV's own warnings: what failed is said in the error."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(device)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _cameras_here() -> str:
    nodes = sorted(str(node) for node in Path("/dev").glob("video*"))
    if not nodes:
        return "no /dev/video* on this machine: plug one in, or load its driver"
    return f"there are {', '.join(nodes)}: name one, and close other programs that use it"
