"""Cameras: of Linux by their drivers, others and GStreamer pipelines through OpenCV."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

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
    """Open a camera, or ``gst:`` and a GStreamer pipeline; it is opened again whenever it is lost.

    Raises:
        UsageError: the pixel format is none that can be read, or an option is not for cameras.
        SourceError: it is not there, is used by another program, or does not deliver what was asked for.
    """
    if sys.platform == "linux" and not _is_pipeline(device):
        from edgevid.sources.v4l2_camera import V4l2Camera, known_format

        if options.format:  # told now, and not when a camera comes at last
            known_format(options.format)
        return ReconnectingSource(_name(device), lambda: V4l2Camera(device, options), options, tell)
    if options.engine_options:
        raise UsageError(f"--source-option: it is for FFmpeg, which does not read {_name(device)}")
    return ReconnectingSource(_name(device), lambda: CameraSource(device, options), options, tell)


class CameraSource(Source):
    """Frames from OpenCV as they come, until they stop; a frame's time is the seconds since the first.

    Args:
        device: the camera's number, or ``gst:`` and a pipeline.
        options: size, rate and pixel format to ask it for.

    Raises:
        SourceError: the camera is not there, is used by another program, or does not deliver what was asked for.
    """

    live = exclusive = True
    time_base = MICROSECOND

    def __init__(self, device: int | str, options: SourceOptions = DEFAULTS) -> None:
        self.name = _name(device)
        self._capture = _open(device)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name}: it cannot be opened; is it there, and used by no other program?")
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
            ("format", cv2.CAP_PROP_FOURCC, _fourcc(options.format.upper()) if options.format else 0, 0.0),
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
                    f"{self.name}: {what} {show(wanted)} is not to be had with these settings, it gives {show(got)}"
                )


def _is_pipeline(device: int | str) -> bool:
    return isinstance(device, str) and device.startswith(GSTREAMER_PREFIX)


def _name(device: int | str) -> str:
    return redact(str(device)) if _is_pipeline(device) else f"camera {device}"


def _open(device: int | str) -> cv2.VideoCapture:
    """Open without OpenCV's own warnings, also later ones: what failed is said in the error."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if isinstance(device, str) and _is_pipeline(device):
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise MissingExtraError("a GStreamer pipeline", "opencv with GStreamer", None)
        return cv2.VideoCapture(device.removeprefix(GSTREAMER_PREFIX), cv2.CAP_GSTREAMER)
    return cv2.VideoCapture(device)


def _fourcc(name: str) -> int:
    if len(name) != 4 or not name.isascii():
        raise UsageError(f"--format {name}: expected a FourCC such as MJPG or YUYV")
    return cv2.VideoWriter.fourcc(*name)


def _fourcc_text(code: float) -> str:
    letters = int(code).to_bytes(4, "little", signed=True).decode("ascii", "replace")
    return letters if letters.isprintable() else f"{code:g}"
