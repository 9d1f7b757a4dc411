"""A window on the desktop, through OpenCV."""

from __future__ import annotations

import threading

import cv2

from edgevid.draw import annotate
from edgevid.errors import SinkError
from edgevid.sinks.base import Sink
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

QUIT_KEYS = (ord("q"), 27)  # q or Escape


class WindowSink(Sink):
    """Shows each frame with its label; ``q`` or Escape ends the run.

    Args:
        title: what stands on the window.
        stop: set when the user quits from the window.

    Raises:
        SinkError: the installed OpenCV has no windows, or there is no desktop to open one on.
    """

    name = "the window"
    main_thread = True

    def __init__(self, title: str, stop: threading.Event) -> None:
        self._title = title
        self._stop = stop
        self._sized = False
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError(
                "--show: this OpenCV opens no windows (headless build, or no desktop); run  "
                "pip uninstall opencv-python-headless && pip install opencv-python  on a desktop, or use --save"
            ) from error

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Show the frame; sets the stop when the user quits from the window."""
        if not self._sized:
            height, width = frame.image.shape[:2]
            cv2.resizeWindow(self._title, width, height)
            self._sized = True
        cv2.imshow(self._title, annotate(frame.image, prediction))
        if cv2.waitKey(1) & 0xFF in QUIT_KEYS:
            self._stop.set()

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
