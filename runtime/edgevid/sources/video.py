"""Video files, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import Any

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edgevid.errors import SourceError
from edgevid.events import Event
from edgevid.planes import OrientationReader, stated_aspect_ratio, upright_picture
from edgevid.sources.base import Frame, Source
from edgevid.sources.lead_in import LeadIn
from edgevid.sources.options import DEFAULTS, SourceOptions
from edgevid.sources.plan import Plan
from edgevid.sources.reach import reach
from edgevid.sources.streams import best_video_stream, passed_over, without_video
from edgevid.sources.timestamps import Timestamps
from edgevid.sources.timing import complete_count, even_timing, frame_number

EXPECTED = "a video file such as MP4, MKV or AVI"
DEFAULT_RATE = Fraction(25)
# Where packets have timestamps, and are a frame each.
STAMPED = ("mp4", "matroska", "mpegts")
MPEG = ("mpegts", "mpeg", "hls")  # whose clock begins anew after 26.5 hours
# FFmpeg draws text files as pictures of a terminal; nobody means that.
TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})
Tell = Callable[[Event], None]


class VideoSource(Source):
    """Every frame of a video file, in order, with the file's own timestamps.

    Packets that cannot be decoded are counted in :attr:`broken` and passed over, and so are frames that the
    decoder marks as corrupt.

    Raises:
        SourceError: the file is empty, is no video, or cannot be read.
    """

    if_undecodable = "is the file complete?"
    _interrupted = False

    def __init__(self, path: str | Path, options: SourceOptions = DEFAULTS, tell: Tell = lambda event: None) -> None:
        self.name = str(path)
        self.files = [Path(path)]
        self._options, self.tell = options, tell
        self._describe()

    def _describe(self) -> None:
        """Open it, and say what it is."""
        self._begin()
        try:
            self._state()
            if choice := passed_over(self._container, self._stream):
                self.tell(Event("stream", 0.0, f"{self.name}: {choice}", clock=""))
        except BaseException:
            self._container.close()
            raise

    def _state(self) -> None:
        stated = (self._stream.average_rate, self._stream.guessed_rate)
        self.rate = min((_fraction(rate) for rate in stated if rate), default=DEFAULT_RATE)  # AVI has half frames
        self.time_base = _fraction(self._stream.time_base or 1 / self.rate)
        self.duration = self._container.duration / av.time_base if self._container.duration else None
        self.frame_count = self._stream.frames or self._estimated_frames()

    def _begin(self) -> None:
        """Open the file, at its beginning."""
        self._container, self._sought, self._first = self._opened(), False, 0
        self._landed: int | None = None  # where seeking led to, a decoding timestamp
        self._lead_in: LeadIn | None = None
        self._made_up = Flags.no_timestamps in Flags(self._container.format.flags)  # the timestamps, of JPEGs say
        stream = best_video_stream(self._container)
        complaint = _complaint(stream) if stream else f"{without_video(self._container)}; expected {EXPECTED}"
        if complaint or stream is None:
            self._container.close()
            raise SourceError(f"{self.name}: {complaint}")
        self._stream = stream
        self._sample_aspect_ratio, self._orientation = stated_aspect_ratio(stream), OrientationReader()
        self._stream.codec_context.thread_count = 1  # the other cores are the engines'

    def _opened(self) -> InputContainer:
        return _open(self.files[0], self._options)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded; raises SourceError if there is none.

        Where only some are wanted, and the file's index says where they lie, others are left out.
        """
        delivered, last = 0, self.first_index - 1
        plan, times = self._plan(), None
        for picture in self._wanted_pictures(plan) if plan else self._pictures_from_start():
            index = self.first_index + self._first + delivered + self.broken
            if plan and picture.pts is not None:
                index = plan.timing.number(picture.pts)
                if index <= last:  # a jump landed before what was there already
                    continue
            times = times or self._timestamps()
            time, jump_s = times.place(self._seconds(picture.pts), self._seconds(picture.dts), max(1, index - last))
            if jump_s:
                self.tell(discontinuity(self.name, time, jump_s))
            last = index
            upright, sample_aspect_ratio = upright_picture(
                picture, self._orientation(picture), self._sample_aspect_ratio()
            )
            gap_s = math.inf if jump_s else 0.0
            yield Frame(index, time, upright, gap_s=gap_s, sample_aspect_ratio=sample_aspect_ratio)
            delivered += 1
        if not delivered:
            raise SourceError(f"{self.name}: no frame of it can be decoded; {self.if_undecodable}")

    def seek(self, seconds: float) -> None:
        """Begin at the key frame before a time, if the file tells where that is; else at its beginning."""
        if not any(name in self._container.format.name for name in STAMPED):
            return
        if not complete_count(self._stream):
            self._lead_in = LeadIn(seconds, self._timestamps())
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
        """Yield every picture; from the first of the file, where what was sought is not there."""
        pictures = self._pictures()
        first = next(pictures, None)
        if self._sought or self._lead_in:
            number = self._number_there(first)
            if number is None:
                self._begin_again()
                pictures, first = self._pictures(), None
            else:
                self._first = number - self.broken
        if first is not None:
            yield first
        yield from pictures

    def _begin_again(self) -> None:
        """Open the file anew, to read it from its beginning."""
        self._container.close()
        self._begin()
        self.broken = 0

    def _pictures(self) -> Iterator[VideoFrame]:
        packets = self._packets()
        for packet in self._lead_in.packets(packets) if self._lead_in else packets:
            yield from self._decoded(packet.decode)

    def _timestamps(self) -> Timestamps:
        kind = self._container.format
        jumps, wraps = Flags.ts_discont in Flags(kind.flags), any(name in kind.name for name in MPEG)
        times = Timestamps(float(self.rate), may_jump=self.live or jumps, wraps=wraps)
        times.offset = self._lead_in.offset if self._lead_in else 0.0
        return times

    def _seconds(self, timestamp: int | None) -> float | None:
        return None if timestamp is None or self._made_up else float(timestamp * self.time_base)

    def _plan(self) -> Plan | None:
        """Return how to leave out what is not wanted; None where everything has to be decoded."""
        timing = None if self.pick.everything else even_timing(self._stream)
        plan = Plan(timing, self.pick, float(self.time_base), self._sought) if timing else None
        return None if plan is None or plan.finished else plan

    def _wanted_pictures(self, plan: Plan) -> Iterator[VideoFrame]:
        """Yield the pictures that are wanted, and more; all of them where the index is wrong about key frames."""
        for picture in self._planned_pictures(plan):
            if picture.pts is not None and plan.is_astray(plan.timing.number(picture.pts), picture.key_frame):
                break
            yield picture
        else:
            if not plan.landing:
                return
        self._begin_again()
        yield from self._pictures()

    def _planned_pictures(self, plan: Plan) -> Iterator[VideoFrame]:
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
            if plan.finished or (key is not None and plan.landing):
                return
            if key is not None:
                plan.jumps()
                self._go_to(key)

    def _go_to(self, timestamp: int) -> None:
        self._container.seek(timestamp, stream=self._stream)  # which makes the decoder forget, too

    def _number_there(self, picture: VideoFrame | None) -> int | None:
        """Return the number of the first picture after seeking; None where that is not what was sought."""
        if picture is None or picture.pts is None or not picture.key_frame:
            return None
        if self._lead_in:
            return self._lead_in.number(picture.pts)
        if self._landed is None or picture.pts * self.time_base > self.pick.start:
            return None
        return frame_number(self._stream, self._landed)

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
        return round(self.duration * self.rate) if self.duration else None


def discontinuity(name: str, time: float, jump_s: float) -> Event:
    """Return what is told of a clock that jumped."""
    direction = "ahead" if jump_s > 0 else "back"
    text = f"{name}: its clock jumped {direction} by {abs(jump_s):.1f} s; time goes on by the frame rate"
    return Event("discontinuity", time, text, {"jump_s": round(jump_s, 3)}, clock="")


def _complaint(stream: VideoStream) -> str:
    """Return why a video cannot be classified; empty if it can."""
    codec = getattr(stream, "codec_context", None)  # None without a decoder, whatever its type says
    if codec is None:
        return f"there is no decoder for its video; expected {EXPECTED}, in H.264 say"
    if codec.name == "webp" and not codec.width:
        return "it is an animated WebP, which FFmpeg cannot decode; convert it to a GIF or MP4"
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
