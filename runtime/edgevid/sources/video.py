"""Video files, decoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from edgevid.errors import SourceError
from edgevid.sources.base import Frame, Source
from edgevid.sources.picture import upright_picture

EXPECTED = "a video file such as MP4, MKV or AVI"
DEFAULT_RATE = Fraction(25)
# FFmpeg draws text files as pictures of a terminal; nobody means that.
TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})


class VideoSource(Source):
    """Every frame of a video file, in order, with the file's own timestamps.

    Packets that cannot be decoded are counted in :attr:`broken` and passed over, and so are frames that the
    decoder marks as corrupt.

    Raises:
        SourceError: the file is empty, is no video, or cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = str(path)
        self.files = [Path(path)]
        self._container = _open(Path(path))
        self._sought, self._first = False, 0
        if not self._container.streams.video:
            self._container.close()
            raise SourceError(f"{path}: it has no video stream; expected {EXPECTED}")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context.name in TEXT_CODECS:
            self._container.close()
            raise SourceError(f"{path}: it is text; expected {EXPECTED}")
        self._stream.codec_context.thread_count = 1  # decoding has the feed's thread; the other cores are the engines'
        self.rate = _fraction(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE)
        self.time_base = _fraction(self._stream.time_base or 1 / self.rate)
        self.frame_count = self._stream.frames or self._estimated_frames()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded; raises SourceError if there is none."""
        delivered = 0
        for picture in self._pictures():
            if self._sought and not delivered:  # the file does not number its frames
                self._first = round((picture.time or 0.0) * self.rate)
            index = self._first + delivered + self.broken
            time = picture.time
            yield Frame(index, float(index / self.rate) if time is None else time, upright_picture(picture))
            delivered += 1
        if not delivered:
            raise SourceError(f"{self.name}: no frame of it can be decoded; is the file complete?")

    def seek(self, seconds: float) -> None:
        """Begin at the key frame before a time, if the file has an index; else at its beginning."""
        try:
            self._container.seek(int(seconds / self.time_base), stream=self._stream)
        except av.error.FFmpegError:
            return
        self._sought = True

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _pictures(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            try:
                pictures = packet.decode()
            except av.error.FFmpegError:
                self.broken += 1
                continue
            for picture in pictures:
                assert isinstance(picture, VideoFrame)
                if picture.is_corrupt:
                    self.broken += 1
                else:
                    yield picture

    def _packets(self) -> Iterator[Packet[Any]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the container itself ends in rubble: what came before is still good
                self.broken += 1
                return
            if packet is None:
                return
            yield packet

    def _estimated_frames(self) -> int | None:
        duration = self._container.duration
        return round(duration / av.time_base * self.rate) if duration else None


def _open(path: Path) -> InputContainer:
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty; expected {EXPECTED}")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise SourceError(f"{path}: it cannot be read as a video ({error.strerror}); expected {EXPECTED}") from error


def _fraction(rational: Any) -> Fraction:
    """Return a rational of PyAV, which has a type of its own since version 19, as Python's."""
    return Fraction(rational.numerator, rational.denominator)
