"""Cameras, and GStreamer pipelines, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from edgevid.errors import MissingExtraError, SourceError, UsageError
from edgevid.events import Event
from edgevid.secrets import redact
from edgevid.sources.base import Frame, Source
from edgevid.sources.options import DEFAULTS, SourceOptions
from edgevid.sources.reconnect import ReconnectingSource

__all__ = ["CameraSource", "open_capture"]

DEFAULT_RATE = Fraction(30)
MICROSECOND = Fraction(1, 1_000_000)
GSTREAMER_PREFIX = "gst:"


def open_capture(device: int | str, options: SourceOptions, tell: Callable[[Event], None]) -> Source:
    """Open a camera, or ``gst:`` and a GStreamer pipeline; it is opened again whenever it is lost."""
    return ReconnectingSource(_name(device), lambda: CameraSource(device, options), options, tell)


class CameraSource(Source):
    """Frames of a camera as they come, until it stops; a frame's time is the seconds since the first.

    Args:
        device: the camera's number, its path such as ``/dev/video0``, or ``gst:`` and a pipeline.
        options: size, rate and pixel format to ask it for.

    Raises:
        SourceError: the camera is not there, is used by another program, or does not deliver what was asked for.
    """

    live = True
    time_base = MICROSECOND

    def __init__(self, device: int | str, options: SourceOptions = DEFAULTS) -> None:
        self.name = _name(device)
        self._capture = _open(device)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name}: it cannot be opened; {_cameras_here()}")
        try:
            self._ask_for(options)
        except SourceError:
            self.close()
            raise
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(stated).limit_denominator(1001) if 1 <= stated <= 1000 else DEFAULT_RATE

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the camera stops, which raises SourceError."""
        index = self.first_index
        start = 0.0
        while True:
            delivered = self._capture.grab()
            now = self.heard = time.monotonic()
            start = start or now
            if now - start >= self.pick.end:
                return
            wanted = delivered and self.pick.wants(index, now - start)
            if wanted:  # only now is it decoded
                delivered, image = self._capture.retrieve()
            if not delivered:
                count = index - self.first_index
                raise SourceError(f"{self.name}: it stopped delivering after {count} frames; is it still plugged in?")
            if wanted:
                yield Frame(index, now - start, image.astype(np.uint8, copy=False), now)
            index += 1

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()

    def _ask_for(self, options: SourceOptions) -> None:
        """Set size, rate and format; a camera takes the nearest it has, which is not what was asked for."""
        width, height = options.size or (0, 0)
        wishes = [  # the format first: sizes and rates depend on it
            ("format", cv2.CAP_PROP_FOURCC, _fourcc(options.format) if options.format else 0, 0.0),
            ("width", cv2.CAP_PROP_FRAME_WIDTH, width, 0.0),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT, height, 0.0),
            ("fps", cv2.CAP_PROP_FPS, options.fps, 0.5),
        ]
        wishes = [wish for wish in wishes if wish[2]]
        for _, number, wanted, _ in wishes:
            self._capture.set(number, wanted)
        for what, number, wanted, tolerance in wishes:
            got = self._capture.get(number)
            if abs(got - wanted) > tolerance:
                show = _fourcc_text if what == "format" else "{:g}".format
                raise SourceError(
                    f"{self.name}: {what} {show(wanted)} is not to be had with these settings, it gives {show(got)}; "
                    "'v4l2-ctl --list-formats-ext' lists what it has"
                )


def _is_pipeline(device: int | str) -> bool:
    return isinstance(device, str) and device.startswith(GSTREAMER_PREFIX)


def _name(device: int | str) -> str:
    return redact(str(device)) if _is_pipeline(device) else f"camera {device}"


def _open(device: int | str) -> cv2.VideoCapture:
    """Open without OpenCV's own warnings: what failed is said in the error."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        if isinstance(device, str) and _is_pipeline(device):
            if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
                raise MissingExtraError("a GStreamer pipeline", "opencv with GStreamer", None)
            return cv2.VideoCapture(device.removeprefix(GSTREAMER_PREFIX), cv2.CAP_GSTREAMER)
        return cv2.VideoCapture(device)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _fourcc(name: str) -> int:
    if len(name) != 4 or not name.isascii():
        raise UsageError(f"--format {name}: expected a FourCC such as MJPG or YUYV")
    return cv2.VideoWriter.fourcc(*name)


def _fourcc_text(code: float) -> str:
    letters = int(code).to_bytes(4, "little", signed=True).decode("ascii", "replace")
    return letters if letters.isprintable() else f"{code:g}"


def _cameras_here() -> str:
    nodes = sorted(str(node) for node in Path("/dev").glob("video*"))
    if not nodes:
        return "no /dev/video* on this machine: plug one in, or load its driver"
    return f"there are {', '.join(nodes)}: name one, and close other programs that use it"
