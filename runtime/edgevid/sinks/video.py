"""Annotated video: H.264 with the source's own timestamps, encoded by FFmpeg through PyAV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from edgevid.backends import available_cores
from edgevid.draw import annotate_planes
from edgevid.errors import SinkError
from edgevid.sinks.base import Sink, check_output
from edgevid.sinks.canvas import CANVAS_FORMAT, Canvas
from edgevid.sinks.whole import EncodedFile
from edgevid.smoothing import Prediction
from edgevid.sources.base import Frame

# Constant quality; a preset that takes three fifths of the CPU time of "veryfast", since the cores are wanted for
# inference; and no B-frames, so that a frame is in the file as soon as it is written.
ENCODER_OPTIONS = {"preset": "superfast", "crf": "23", "bf": "0"}
# Of a live source the encoder keeps not even the last frame back.
LIVE_OPTIONS = {"tune": "zerolatency"}
KEY_EVERY_S = 1.0
# Written in fragments of a quarter of a second of video as it goes, so that what was written before a kill can be
# played; an MP4 header waits for the first fragment, to know at what time the video begins.
MP4_OPTIONS = {
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "250000",
    "movie_timescale": "90000",  # in which it says when the video begins; milliseconds would shift all frames
}


class Container(NamedTuple):
    """A kind of file: FFmpeg's name of it, FFmpeg's options, and what hides a piece that is not all there."""

    kind: str
    options: Mapping[str, str]
    cover: Callable[[int], bytes]


def skip_box(size: int) -> bytes:
    """Return the header of a box that players pass over: half a fragment without it is an error to them."""
    return size.to_bytes(4, "big") + b"skip"  # in one of type "free" FFmpeg looks for what a header holds


def nothing(size: int) -> bytes:
    """Return nothing: half a cluster of Matroska is no error."""
    return b""


CONTAINERS = {
    ".mp4": Container("mp4", MP4_OPTIONS, skip_box),
    ".mov": Container("mov", MP4_OPTIONS, skip_box),
    ".mkv": Container("matroska", {"cluster_time_limit": "250"}, nothing),
}
BUFFER_BYTES = 1 << 18  # of FFmpeg's: it hands over most fragments at once
# Timestamps finer than this overflow some players.
FINEST_TIME_BASE = Fraction(1, 90_000)
# From one frame to the next MP4 counts so far, 6.6 hours of the finest; coarser, it is 24 days.
LONGEST_STEP_S = 2**31 * FINEST_TIME_BASE
COARSE_TIME_BASE = Fraction(1, 1000)
LONGEST_SIDE = 16_384  # pixels, of x264
LONGEST_LAST_S = 1.0  # what a pause before the last frame says of how long that lasts


@dataclass(frozen=True, slots=True)
class Output:
    """What a file is written with."""

    file: EncodedFile
    container: OutputContainer
    stream: VideoStream
    canvas: Canvas

    def close(self) -> None:
        """Have FFmpeg complete the file, and close it."""
        try:
            self.container.close()
            self.file.keep()
        finally:
            self.file.close()


class VideoSink(Sink):
    """Writes each frame with its label drawn on it.

    The file is created with the first frame, so that a run that fails before it replaces nothing. That frame sets
    the size; frames of another size are fitted into it. Whatever ends it, a kill or a full disk, what was written can
    be played, but for its last quarter of a second, or last frame if frames are further apart.

    Args:
        path: the file to create; its suffix chooses the container.
        rate: the frame rate to state, frames per second.
        time_base: the unit of the source's timestamps, in seconds; those of the file are as fine as they can be, since
            another clip of the source may have another one.
        force: replace the file if it exists.
        live: frames come from a live source: they are written without delay, and reach the disk twice a second.
        duration: how long the source is, in seconds; None where nobody knows.

    Raises:
        SinkError: the file exists and ``force`` is false, or its folder is absent.
    """

    def __init__(
        self,
        path: Path,
        rate: Fraction,
        time_base: Fraction,
        force: bool = False,
        live: bool = False,
        duration: float | None = None,
    ) -> None:
        check_output(path, force)
        self.name = path.name
        self._path = path
        self._rate = rate
        self._time_base = max(time_base / max(1, time_base // FINEST_TIME_BASE), FINEST_TIME_BASE)
        if live or (duration or 0) > LONGEST_STEP_S:  # a camera may be away for a day
            self._time_base = COARSE_TIME_BASE
        self._duration = round(1 / rate / self._time_base)
        self._force, self._live = force, live
        self._output: Output | None = None
        self._begin = 0.0  # the time that is written as 0: that of the first frame where it is negative
        self._last_pts = -1
        self._last_key = -math.inf
        self._given = self._packets = self._saved = 0  # frames: taken, encoded, and in the file
        self._failed = self._closed = False

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Draw the label and encode the frame."""
        if self._failed or self._closed:
            why = "it failed" if self._failed else "it is closed"
            raise SinkError(f"{self._path}: video cannot be written any more, {why}; open another")
        with self._failures():
            if self._output is None:
                self._output, self._begin = self._opened(frame), min(0.0, frame.time)
            output = self._output
            picture = output.canvas.paint(frame)
            annotate_planes(*output.canvas.planes, prediction)
            # Two frames with one timestamp, or a step back, would make the file invalid.
            pts = max(round((frame.time - self._begin) / self._time_base), self._last_pts + 1)
            if self._given and not frame.gap_s:
                self._duration = min(pts - self._last_pts, round(LONGEST_LAST_S / self._time_base))
            self._check_pause(pts)
            self._last_pts = pts
            # The next frame ends it; the last one lasts as long as the one before it.
            picture.pts, picture.time_base, picture.duration = pts, self._time_base, self._duration
            picture.pict_type = self._picture_type(frame.time)
            self._mux(output, output.stream.encode(picture))
        self._given += 1
        self.unsaved = self._given - self._saved

    def _check_pause(self, pts: int) -> None:
        if self._given and pts - self._last_pts >= 2**31 and CONTAINERS[self._path.suffix.lower()].kind == "mp4":
            pause_s = float((pts - self._last_pts) * self._time_base)
            raise SinkError(f"{self._path}: MP4 cannot hold a pause of {pause_s:.0f} s; write .mkv, or use --segment")

    def close(self) -> None:
        """Encode what is pending and complete the file; after a failure leave what can be played, and no empty file."""
        self._closed = True
        output, self._output = self._output, None
        if output is None:
            return
        try:
            if self._failed:
                with suppress(SinkError), self._failures():
                    output.close()
            else:
                with self._failures():
                    output.container.mux(output.stream.encode(None))
                    output.close()
                self._saved, self.unsaved, self.wrote = self._given, 0, str(self._path)
        finally:
            if not self._saved and self._path.is_file():  # it holds a header at most
                with suppress(OSError):
                    self._path.unlink()

    def _opened(self, first: Frame) -> Output:
        height, width = first.picture.shape[:2]
        if max(height, width) > LONGEST_SIDE:
            raise SinkError(
                f"{self._path}: pictures of {width}×{height} pixels are too large for H.264 video, which has at most "
                f"{LONGEST_SIDE} in each direction; make the source smaller, or write no video"
            )
        canvas = Canvas(first)
        kind, options, cover = CONTAINERS[self._path.suffix.lower()]
        file = EncodedFile(self._path, force=self._force, sync=self._live, cover=cover)
        container = av.open(file, "w", format=kind, options={"flush_packets": "1", **options}, buffer_size=BUFFER_BYTES)
        encoder = {**ENCODER_OPTIONS, "g": str(max(1, round(KEY_EVERY_S * self._rate)))}
        stream = container.add_stream(
            "libx264", rate=self._rate, options=encoder | (LIVE_OPTIONS if self._live else {})
        )
        stream.height, stream.width = canvas.shape
        stream.pix_fmt = CANVAS_FORMAT
        if canvas.sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = canvas.sample_aspect_ratio
        stream.codec_context.colorspace, stream.codec_context.color_range = canvas.colors
        stream.codec_context.time_base = self._time_base
        stream.codec_context.flags |= Flags.frame_duration  # by the rate all would last as long as the first clip's
        stream.codec_context.thread_count = max(1, available_cores() // 2)  # the others are the engines'
        return Output(file, container, stream, canvas)

    def _picture_type(self, time: float) -> PictureType:
        """Return a key frame's type once a second of the source's time, however few frames that has."""
        if abs(time - self._last_key) < KEY_EVERY_S:
            return PictureType.NONE
        self._last_key = time
        return PictureType.I

    def _mux(self, output: Output, packets: Sequence[Packet[VideoStream]]) -> None:
        output.container.mux(packets)
        self._packets += len(packets)
        # What comes with the first packet is the header, and the newest waits for the next, to know how long it lasts.
        if output.file.keep() and self._packets > 1:
            self._saved = self._packets - 1
            self.wrote = str(self._path)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self._failed = True
            raise SinkError(
                f"{self._path}: video cannot be written ({error.strerror}); choose another place"
            ) from error
