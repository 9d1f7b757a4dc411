"""Video over the network: RTSP, HTTP, MJPEG, HLS and what else FFmpeg speaks, through PyAV."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from edgevid.errors import RefusedError, SourceError
from edgevid.events import Event
from edgevid.secrets import redact
from edgevid.sources.base import Frame, Source
from edgevid.sources.options import SourceOptions
from edgevid.sources.reach import PROTOCOLS, GuardedFetching, reach
from edgevid.sources.realtime import RealtimeSource
from edgevid.sources.reconnect import ReconnectingSource
from edgevid.sources.timing import complete_count
from edgevid.sources.video import VideoSource

__all__ = ["SCHEMES", "open_url"]

SCHEMES = tuple(scheme for scheme in PROTOCOLS if scheme not in ("file", "fd"))
TIMEOUT_S = 4.0  # of opening, and of each read
# What is looked at before the first frame, in microseconds: FFmpeg's own 5 s would be waited for.
COMMON = {"analyzeduration": "500000"}
# RTP over TCP passes firewalls and loses no packets; UDP is a --source-option away.
OVER_TCP = {"rtsp_transport": "tcp"}
# FFmpeg goes on with a connection that the server has closed already; then it asks once more, and at once.
ASKED_AGAIN = {"reconnect_on_network_error": "1", "reconnect_delay_max": "0"}
BY_SCHEME = {"rtsp": OVER_TCP, "rtsps": OVER_TCP, "http": ASKED_AGAIN, "https": ASKED_AGAIN}
FETCHED = frozenset({"hls", "dash"})  # whose parts we fetch; they come in bursts, and are shown at their own speed
# FFmpeg would go on with a connection that is not its own, and abort.
OPENED_ANEW = {"http_persistent": "0", "http_multiple": "0"}
MOST_WITHOUT_PICTURE_S = 30.0  # though something comes: longer than key frames are apart
PARTED, RAW_JPEGS = "mpjpeg", "mjpeg"  # pictures in the parts of a message, which have a type each; and without
UNTIMED = (PARTED, RAW_JPEGS)  # their timestamps are made up
PICTURE = "_pipe"  # so end the names of FFmpeg's formats for one picture
# By such a name FFmpeg looks for a series of pictures, which would be other files, and are refused.
SNAPSHOT, JPEG_SUFFIXES = "jpeg_pipe", (".jpg", ".jpeg")
SHORT_S = 1.0  # by how much less of a file than it states is a loss
REFUSALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)


def open_url(url: str, options: SourceOptions, tell: Callable[[Event], None]) -> Source:
    """Open a stream, which is live and comes back when it is lost, or a file behind a URL, which is read in order.

    Raises:
        SourceError: it cannot be opened, or there is no video in it.
    """

    def opened() -> Source:
        source = NetworkSource(url, options, tell)
        return RealtimeSource(source) if source.in_bursts else source

    return ReconnectingSource(redact(url), opened, options, tell)


class NetworkSource(VideoSource):
    """The frames of one connection to a URL.

    Raises:
        RefusedError: the server does not let us in.
        SourceError: it cannot be opened, or there is no video in it.
    """

    stale_when_unread = True
    if_undecodable = "is it complete? An MP4 with its index at the end needs a server that sends parts of it (Range)"

    def __init__(self, url: str, options: SourceOptions, tell: Callable[[Event], None] = lambda event: None) -> None:
        scheme, colon, rest = url.partition(":")
        self._scheme, self._url = scheme.lower(), f"{scheme.lower()}{colon}{rest}"
        self.name, self._options, self.tell = redact(url), options, tell
        self._web = self._scheme in ("http", "https")
        self._format: str | None = None
        self._garbled = False
        self._fetching = GuardedFetching(self._url, options, TIMEOUT_S)
        self._describe()
        formats = self._container.format.name.split(",")
        playlist = any(name in FETCHED for name in formats)
        endless = self._container.duration is None and (playlist or not _size(self._container))
        self.live = endless and not any(name.endswith(PICTURE) for name in formats)
        self.in_bursts = self.live and playlist
        self._untimed = self.live and any(name in UNTIMED for name in formats)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded; raises SourceError where the connection fails."""
        began = self._last_picture = time.monotonic()
        for frame in super().__iter__():
            self._last_picture = time.monotonic()
            yield replace(frame, time=frame.arrived - began) if self._untimed else frame

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._fetching.close()

    def _opened(self) -> InputContainer:
        """Open it; on the web in other ways, too, where FFmpeg's own one fails."""
        settings = {**COMMON, **BY_SCHEME.get(self._scheme, {}), **reach(self._scheme, self._options)}
        opened = self._tried(settings)
        if self._web and isinstance(opened, av.error.ArgumentError) and self._url.lower().endswith(JPEG_SUFFIXES):
            self._format = SNAPSHOT
            opened = self._tried(settings)
        elif self._web and isinstance(opened, av.error.ArgumentError):  # a playlist: its parts are fetched by us
            settings |= {**reach(self._scheme, self._options, FETCHED), **OPENED_ANEW}
            opened = self._tried(settings, self._fetching)
        elif self._web and isinstance(opened, av.error.InvalidDataError) and self._is_parted(settings):
            self._format = RAW_JPEGS
            pictures = self._tried(settings)
            if isinstance(pictures, InputContainer) and pictures.streams.video[0].codec_context.width:
                opened = pictures  # else there is none in it, and what failed first is told
        if isinstance(opened, av.error.FFmpegError):  # raised out here, since it has the URL in it, and its password
            raise self._failure("it cannot be opened", opened)
        return opened

    def _tried(
        self, settings: dict[str, str], fetching: GuardedFetching | None = None
    ) -> InputContainer | av.error.FFmpegError:
        """Return it opened, or why it cannot be."""
        timeout = (TIMEOUT_S, TIMEOUT_S)
        try:
            return av.open(self._url, format=self._format, options=settings, timeout=timeout, io_open=fetching)
        except av.error.FFmpegError as error:
            self._fetching.close()
            return error
        except BaseException:
            self._fetching.close()
            raise

    def _is_parted(self, settings: dict[str, str]) -> bool:
        """Return whether the server calls it pictures in parts, though it does not begin like that.

        Then FFmpeg takes it for that, which fails in another way where that format is not allowed.
        """
        others = ",".join(name for name in settings["format_whitelist"].split(",") if name != PARTED)
        return isinstance(self._tried({**settings, "format_whitelist": others}), av.error.ArgumentError)

    def _demuxed(self) -> Sequence[VideoStream]:
        return ()  # all, so that a stream of sound alone can be left

    def _packets(self) -> Iterator[Packet[Any]]:
        """Yield the packets; raises SourceError where no picture comes for long, or less of a file than it states."""
        yield from self._watched(super()._packets())
        if self._garbled:  # there is more in it than pictures, text say: they are found by their own marks
            self._garbled, self._format = False, RAW_JPEGS
            self._container.close()
            self._begin()
            yield from self._watched(super()._packets())

    def _watched(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Yield these packets, and see that they keep coming."""
        entire, count, end_s, drained = self.pick.everything and not self._sought, 0, 0.0, False
        for packet in packets:
            if time.monotonic() - self._last_picture > MOST_WITHOUT_PICTURE_S:
                raise SourceError(f"{self.name}: no picture can be decoded for {MOST_WITHOUT_PICTURE_S:g} s")
            count, drained = count + bool(packet.size), not packet.size
            stamp = packet.dts if packet.pts is None else packet.pts
            end_s = max(end_s, float((stamp or 0) * self.time_base))
            yield packet
        if self.live or self._interrupted or not entire:
            return
        if not drained:
            last: Packet[Any] = Packet()
            last.stream = self._stream
            yield last
        if missing := self._missing(count, end_s):
            raise SourceError(f"{self.name}: {missing} did not come; is the connection good? Run it again")

    def _missing(self, count: int, end_s: float) -> str:
        """Return what a file states beyond what has come of it; empty if that is all, or nothing has."""
        if not count:
            return ""
        if lost := max(0, complete_count(self._stream) - count):
            return f"{lost} of its {count + lost} frames"
        duration = self._stream.duration
        stated_s = float(duration * self.time_base) if duration else (self._container.duration or 0) / av.time_base
        short_s = stated_s - end_s
        return "" if _size(self._container) or short_s < SHORT_S else f"its last {short_s:.1f} s of {stated_s:.1f} s"

    def _ended_by(self, error: av.error.FFmpegError) -> SourceError | None:
        self._garbled = isinstance(error, av.error.InvalidDataError) and self._container.format.name == PARTED
        # Of a file whose length nobody states, the end of the connection is the end.
        ended = error.errno == errno.EIO and not self.live and not _size(self._container)
        if self._garbled or ended:
            return None
        failure = self._failure("it failed", error)
        return failure if self.live or self.heard else SourceError(f"{failure}; {self.if_undecodable}")

    def _failure(self, what: str, error: av.error.FFmpegError) -> SourceError:
        if isinstance(error, REFUSALS):
            return RefusedError(f"{self.name}: {what} ({error.strerror}): is user:password@ before the host right?")
        return SourceError(f"{self.name}: {what} ({_reason(error, self._url)})")


def _reason(error: av.error.FFmpegError, url: str) -> str:
    """Return why it failed, where FFmpeg's own words say too little in others."""
    if isinstance(error, av.error.ExitError):
        return f"no answer for {TIMEOUT_S:g} s"
    if isinstance(error, av.error.ArgumentError):
        return "it is no video, or of a kind that may open other files"
    if isinstance(error, av.error.InvalidDataError):
        return "what is there is no video, or damaged"
    if error.errno != errno.EIO:
        return str(error.strerror)
    return "the connection broke off, or what is there is no video" if _is_known(url) else "no such host"


def _is_known(url: str) -> bool:
    """Return whether the host of a URL has an address."""
    try:
        return bool(socket.getaddrinfo(urlsplit(url).hostname, None))
    except OSError:
        return False


def _size(container: InputContainer) -> int:
    """Return how many bytes there are in all; 0 where there is no end, or nobody knows."""
    return max(0, container.size)
