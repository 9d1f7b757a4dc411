"""Video on standard input: raw frames, or a container such as Matroska or MPEG-TS."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

import av
from av.container import InputContainer

from edgevid.errors import SourceError, UsageError
from edgevid.events import Event
from edgevid.sources.options import SourceOptions
from edgevid.sources.reach import reach
from edgevid.sources.video import VideoSource

__all__ = ["StdinSource"]

POLL_S = 0.1
RAW_FORMAT, RAW_FPS = "bgr24", 25.0


class StdinSource(VideoSource):
    """Every frame that comes on standard input, in order; the writer waits while we are busy.

    With a size they are raw frames, by default in BGR at 25 a second; else a container that FFmpeg knows.

    Raises:
        UsageError: the pixel format is none of FFmpeg's, or stdin is a terminal.
        SourceError: nothing comes, or it is no video.
    """

    if_undecodable = "is it complete? MP4 cannot be read from a pipe unless its index comes first; Matroska can"

    def __init__(self, options: SourceOptions, tell: Callable[[Event], None] = lambda event: None) -> None:
        if sys.stdin is None or sys.stdin.isatty():
            what = "closed" if sys.stdin is None else "a terminal"
            raise UsageError(
                f"source '-': standard input is {what}; expected video, as in  ffmpeg ... | edgevid run ..."
            )
        if options.format and not options.size:
            raise UsageError(f"--format {options.format}: raw frames on standard input need --size too")
        self.name, self._options, self.tell = "stdin", options, tell
        self._pipe = Pipe(sys.stdin.fileno(), options.idle)
        self.files = [Path(f"/dev/fd/{sys.stdin.fileno()}")]  # it may be one, as in  < clip.mkv
        self._describe()
        self.frame_count = None

    def seek(self, seconds: float) -> None:
        """Begin at the beginning: what is passed over could not be read again."""

    def interrupt(self) -> None:
        """End soon; may be called on any thread."""
        self._pipe.closed = True

    def _opened(self) -> InputContainer:
        options = reach("fd", self._options)
        try:
            return self._piped(options)
        finally:
            if self._pipe.stopped_by:  # FFmpeg has made an end of the file of it
                raise self._pipe.stopped_by

    def _piped(self, options: dict[str, str]) -> InputContainer:
        self._pipe.wait()
        try:
            if self._options.size is None:
                return av.open(self._pipe, "r", options=options)
            width, height = self._options.size
            options["video_size"] = f"{width}x{height}"
            options["pixel_format"] = self._options.format or RAW_FORMAT
            options["framerate"] = f"{self._options.fps or RAW_FPS:g}"
            return av.open(self._pipe, "r", format="rawvideo", options=options)
        except av.error.ArgumentError as error:
            raise UsageError(
                f"--format {self._options.format}: expected a pixel format as FFmpeg calls it, such as bgr24 or yuv420p"
            ) from error
        except av.error.FFmpegError as error:
            raise SourceError(
                f"stdin: it cannot be read as a video ({error.strerror}); raw frames need --size WIDTHxHEIGHT"
            ) from error


class Pipe:
    """Reads a file descriptor for FFmpeg, and can be told to stop."""

    def __init__(self, descriptor: int, idle: Callable[[], None]) -> None:
        self._descriptor, self._idle = descriptor, idle
        self.closed = False
        self.stopped_by: BaseException | None = None

    def wait(self) -> None:
        """Wait until there is something to read, or the end."""
        while not select.select([self._descriptor], [], [], POLL_S)[0]:
            self._idle()

    def read(self, size: int) -> bytes:
        """Return what is there, up to so many bytes; nothing at the end, or once a signal has raised something.

        FFmpeg calls this, through which nothing can be raised.
        """
        try:
            while not (self.closed or self.stopped_by):
                if select.select([self._descriptor], [], [], POLL_S)[0]:
                    return os.read(self._descriptor, size)
                self._idle()
        except BaseException as error:  # noqa: BLE001 - raised where the file is opened
            self.stopped_by = error
        return b""
