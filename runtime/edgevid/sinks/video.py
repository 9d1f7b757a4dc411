"""Annotated video: H.264 with the source's own timestamps, encoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid.backends import available_cores
from edgevid.draw import annotate_planes
from edgevid.errors import SinkError
from edgevid.sinks.base import Sink, check_output
from edgevid.sinks.canvas import CANVAS_FORMAT, Canvas
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

# Constant quality; a preset that takes three fifths of the CPU time of "veryfast", since the cores are wanted for
# inference; and no B-frames, so that a frame is in the file as soon as it is written.
ENCODER_OPTIONS = {"preset": "superfast", "crf": "23", "bf": "0"}
# Written in fragments of a second as it goes, so that what was written before a kill can be played; its header waits
# for the first fragment, to know at what time the video begins.
MP4_OPTIONS = {"movflags": "hybrid_fragmented+delay_moov", "flush_packets": "1"}
CONTAINER_OPTIONS = {".mp4": MP4_OPTIONS, ".mov": MP4_OPTIONS}
# Timestamps finer than this overflow some players.
FINEST_TIME_BASE = Fraction(1, 90_000)
T = TypeVar("T")


class VideoSink(Sink):
    """Writes each frame with its label drawn on it.

    The file is created with the first frame, so that a run that fails before it replaces nothing. That frame sets
    the size; frames of another size are fitted into it.

    Args:
        path: the file to create; its suffix chooses the container.
        rate: the frame rate to state, frames per second.
        time_base: the unit of the timestamps, in seconds.
        force: replace the file if it exists.

    Raises:
        SinkError: the file exists and ``force`` is false, or its folder is absent.
    """

    def __init__(self, path: Path, rate: Fraction, time_base: Fraction, force: bool = False) -> None:
        check_output(path, force)
        self._path = path
        self._rate = rate
        self._time_base = max(time_base, FINEST_TIME_BASE)
        self._output: tuple[OutputContainer, VideoStream, Canvas] | None = None
        self._last_pts = -1
        self._failed = self._closed = False

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Draw the label and encode the frame."""
        if self._failed or self._closed:  # FFmpeg crashes when written to after a failure
            why = "it failed" if self._failed else "it is closed"
            raise SinkError(f"{self._path}: video cannot be written any more, {why}; open another")
        if self._output is None:
            canvas = Canvas(frame.picture)
            self._output = self._guard(lambda: (*self._opened(canvas), canvas))
        container, stream, canvas = self._output
        picture = canvas.paint(frame.picture)
        annotate_planes(*canvas.planes, prediction)
        # Two frames with one timestamp, or a step back, would make the file invalid.
        self._last_pts = max(round(frame.time / self._time_base), self._last_pts + 1)
        picture.pts = self._last_pts
        picture.time_base = self._time_base
        self._mux(container, stream, picture)

    def close(self) -> None:
        """Encode what is pending and complete the file."""
        self._closed = True
        output, self._output = self._output, None
        if output is None:
            return
        container, stream, _ = output
        try:
            if not self._failed:
                self._mux(container, stream, None)
        finally:
            self._guard(container.close)

    def _opened(self, canvas: Canvas) -> tuple[OutputContainer, VideoStream]:
        options = CONTAINER_OPTIONS.get(self._path.suffix.lower(), {})
        container = av.open(str(self._path), "w", options=options)
        one_second = str(max(1, round(self._rate)))
        stream = container.add_stream("libx264", rate=self._rate, options={**ENCODER_OPTIONS, "g": one_second})
        stream.height, stream.width = canvas.shape
        stream.pix_fmt = CANVAS_FORMAT
        stream.codec_context.colorspace, stream.codec_context.color_range = canvas.colors
        stream.codec_context.time_base = self._time_base
        stream.codec_context.thread_count = max(1, available_cores() // 2)  # the others are the engines'
        return container, stream

    def _mux(self, container: OutputContainer, stream: VideoStream, picture: VideoFrame | None) -> None:
        self._guard(lambda: container.mux(stream.encode(picture)))

    def _guard(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise SinkError(
                f"{self._path}: video cannot be written ({error.strerror}); choose another place"
            ) from error
