"""Video files, decoded by FFmpeg through PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid.errors import SourceError
from edgevid.planes import stated_aspect_ratio, upright_picture
from edgevid.sources.base import Frame, Source
from edgevid.sources.options import DEFAULTS, SourceOptions
from edgevid.sources.plan import Plan
from edgevid.sources.reach import reach
from edgevid.sources.timing import even_timing, frame_number

EXPECTED = "a video file such as MP4, MKV or AVI"
DEFAULT_RATE = Fraction(25)
SEEKABLE = ("mp4", "matroska", "mpegts")  # where a timestamp also tells the frame's number
# FFmpeg draws text files as pictures of a terminal; nobody means that.
TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})


class VideoSource(Source):
    """Every frame of a video file, in order, with the file's own timestamps.

    Packets that cannot be decoded are counted in :attr:`broken` and passed over, and so are frames that the
    decoder marks as corrupt.

    Raises:
        SourceError: the file is empty, is no video, or cannot be read.
    """

    if_undecodable = "is the file complete?"
    _interrupted = False

    def __init__(self, path: str | Path, options: SourceOptions = DEFAULTS) -> None:
        self.name = str(path)
        self.files = [Path(path)]
        self._options = options
        self._describe()

    def _describe(self) -> None:
        """Open it, and say what it is."""
        self._begin()
        try:
            self._state()
        except BaseException:
            self._container.close()
            raise

    def _state(self) -> None:
        self.rate = _fraction(self._stream.average_rate or self._stream.guessed_rate or DEFAULT_RATE)
        self.time_base = _fraction(self._stream.time_base or 1 / self.rate)
        self.frame_count = self._stream.frames or self._estimated_frames()

    def _begin(self) -> None:
        """Open the file, at its beginning."""
        self._container, self._sought, self._first = self._opened(), False, 0
        self._landed: int | None = None  # where seeking led to, a decoding timestamp
        if complaint := _complaint(self._container):
            self._container.close()
            raise SourceError(f"{self.name}: {complaint}")
        self._stream = self._container.streams.video[0]
        self._sample_aspect_ratio = stated_aspect_ratio(self._stream)
        self._stream.codec_context.thread_count = 1  # the other cores are the engines'

    def _opened(self) -> InputContainer:
        return _open(self.files[0], self._options)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded; raises SourceError if there is none.

        Where only some are wanted, and the file's index says where they lie, others are left out.
        """
        delivered, last = 0, -1
        plan = self._plan()
        for picture in self._wanted_pictures(plan) if plan else self._pictures_from_start():
            if self._sought and not delivered:
                self._first = self._number_there(picture) - self.broken
            index = self.first_index + self._first + delivered + self.broken
            if plan and picture.pts is not None:
                index = plan.timing.number(picture.pts)
                if index <= last:  # a jump landed before what was there already
                    continue
            last = index
            untimed = float((index - self.first_index) / self.rate)
            time = untimed if picture.pts is None else picture.time
            upright, sample_aspect_ratio = upright_picture(picture, self._sample_aspect_ratio())
            yield Frame(index, time, upright, sample_aspect_ratio=sample_aspect_ratio)
            delivered += 1
        if not delivered:
            raise SourceError(f"{self.name}: no frame of it can be decoded; {self.if_undecodable}")

    def seek(self, seconds: float) -> None:
        """Begin at the key frame before a time, if the file tells where that is; else at its beginning."""
        if not any(name in self._container.format.name for name in SEEKABLE):
            return
        try:
            self._container.seek(int(seconds / self.time_base), stream=self._stream)
        except av.error.FFmpegError:
            return
        self._sought = True

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _pictures_from_start(self) -> Iterator[VideoFrame]:
        """Yield every picture; from the first of the file, where seeking went too far."""
        pictures = self._pictures()
        first = next(pictures, None)
        if self._sought and (first is None or first.time is None or first.time > self.pick.start):
            self._container.close()
            self._begin()
            pictures, first = self._pictures(), None
        if first is not None:
            yield first
        yield from pictures

    def _pictures(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            yield from self._decoded(packet.decode)

    def _plan(self) -> Plan | None:
        """Return how to leave out what is not wanted; None where everything has to be decoded."""
        timing = None if self.pick.everything else even_timing(self._stream)
        plan = Plan(timing, self.pick, float(self.time_base), self._sought) if timing else None
        return None if plan is None or plan.finished else plan

    def _wanted_pictures(self, plan: Plan) -> Iterator[VideoFrame]:
        """Yield the pictures that are wanted, and those between them that others need.

        Of the rest, those that no other needs are not decoded; and where the next that is wanted has a key frame of its
        own, decoding goes on there.
        """
        decoder = self._stream.codec_context
        decoder.open(strict=False)  # some look at what to skip only then
        for packet in self._packets():
            if packet.pts is None:  # the last one, which empties the decoder
                yield from self._decoded(packet.decode)
                return
            number = plan.timing.number(packet.pts)
            if plan.missed(number):
                self._go_to(plan.earlier_key())
                continue
            decoder.skip_frame = "DEFAULT" if plan.wants(number) else "NONREF"
            yield from self._decoded(packet.decode)
            key = plan.sent(number)
            if key is not None or plan.finished:
                yield from self._decoded(self._drained)
            if plan.finished:
                return
            if key is not None:
                self._go_to(key)

    def _go_to(self, timestamp: int) -> None:
        self._container.seek(timestamp, stream=self._stream)  # which makes the decoder forget, too

    def _number_there(self, picture: VideoFrame) -> int:
        """Return the number of the first picture after seeking: by the file's index, else by its time."""
        landed = None if self._landed is None else frame_number(self._stream, self._landed)
        begin = float((self._stream.start_time or 0) * self.time_base)
        return round(((picture.time or 0.0) - begin) * self.rate) if landed is None else landed

    def _drained(self) -> list[VideoFrame]:
        """Return what the decoder still holds; it takes nothing more until it is sent elsewhere."""
        pictures = list(self._stream.codec_context.decode(None))
        for picture in pictures:
            picture.time_base = self._stream.time_base
        return pictures

    def _decoded(self, decode: Callable[[], Sequence[object]]) -> Iterator[VideoFrame]:
        """Yield what the decoder has; what it cannot decode is counted."""
        try:
            pictures = decode()
        except av.error.FFmpegError:
            self.broken += 1
            return
        for picture in pictures:
            assert isinstance(picture, VideoFrame)
            if picture.is_corrupt:
                self.broken += 1
            else:
                yield picture

    def interrupt(self) -> None:
        """End with the next packet; may be called on any thread."""
        self._interrupted = True

    def _packets(self) -> Iterator[Packet[Any]]:
        packets = self._container.demux(*self._demuxed())
        while not self._interrupted:
            packet, failure = None, None
            try:
                packet = next(packets, None)
            except IndexError:  # a packet of a stream that was not there before, which PyAV does not know
                packets = self._container.demux(*self._demuxed())
                continue
            except av.error.FFmpegError as error:
                failure = self._ended_by(error)
            if failure:  # raised out here, since FFmpeg's own error has the URL in it, and its password
                raise failure
            if packet is None:
                return
            if packet.stream.index != self._stream.index:
                continue
            self.heard = monotonic()
            if self._sought and self._landed is None:
                self._landed = packet.dts
            yield packet

    def _demuxed(self) -> Sequence[VideoStream]:
        """Return whose packets are read; none stands for all."""
        return (self._stream,)

    def _ended_by(self, error: av.error.FFmpegError) -> SourceError | None:
        """Note that the container itself ends in rubble; what came before is still good, unless there is an error."""
        self.broken += 1
        return None

    def _estimated_frames(self) -> int | None:
        duration = self._container.duration
        return round(duration / av.time_base * self.rate) if duration else None


def _complaint(container: InputContainer) -> str:
    """Return why a file cannot be classified; empty if it can."""
    if not container.streams.video:
        return f"it has no video stream; expected {EXPECTED}"
    codec = getattr(container.streams.video[0], "codec_context", None)  # None without a decoder, whatever its type says
    if codec is None:
        return f"there is no decoder for its video; expected {EXPECTED}, in H.264 say"
    return f"it is text; expected {EXPECTED}" if codec.name in TEXT_CODECS else ""


def _open(path: Path, options: SourceOptions) -> InputContainer:
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty; expected {EXPECTED}")
    try:
        return av.open(f"file:{path}", options=reach("file", options))
    except av.error.ArgumentError as error:
        raise SourceError(
            f"{path}: it is a playlist or no video at all; expected {EXPECTED}; "
            "a playlist that you trust may open other files with --allow-protocol file"
        ) from error
    except av.error.FFmpegError as error:
        raise SourceError(f"{path}: it cannot be read as a video ({error.strerror}); expected {EXPECTED}") from error


def _fraction(rational: Any) -> Fraction:
    """Return a rational of PyAV, which has a type of its own since version 19, as Python's."""
    return Fraction(rational.numerator, rational.denominator)
