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
from edgevid.sources.video import VideoSource

__all__ = ["SCHEMES", "open_url"]

SCHEMES = tuple(scheme for scheme in PROTOCOLS if scheme not in ("file", "fd"))
TIMEOUT_S = 4.0  # of opening, and of each read
# What is looked at before the first frame, in microseconds: FFmpeg's own 5 s would be waited for.
COMMON = {"analyzeduration": "500000"}
# RTP over TCP passes firewalls and loses no packets; UDP is a --source-option away.
BY_SCHEME = {"rtsp": {"rtsp_transport": "tcp"}, "rtsps": {"rtsp_transport": "tcp"}}
FETCHED = frozenset({"hls", "dash"})  # whose parts we fetch; they come in bursts, and are shown at their own speed
# FFmpeg would go on with a connection that is not its own, and abort.
OPENED_ANEW = {"http_persistent": "0", "http_multiple": "0"}
MOST_WITHOUT_PICTURE_S = 30.0  # though something comes: longer than key frames are apart
UNTIMED = ("mpjpeg", "mjpeg")  # their timestamps are made up
REFUSALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)


def open_url(url: str, options: SourceOptions, tell: Callable[[Event], None]) -> Source:
    """Open a stream, which is live and comes back when it is lost, or a file behind a URL, which is read in order.

    Raises:
        SourceError: it cannot be opened, or there is no video in it.
    """

    def opened() -> Source:
        source = NetworkSource(url, options)
        return RealtimeSource(source) if source.in_bursts else source

    return ReconnectingSource(redact(url), opened, options, tell)


class NetworkSource(VideoSource):
    """The frames of one connection to a URL.

    Raises:
        RefusedError: the server does not let us in.
        SourceError: it cannot be opened, or there is no video in it.
    """

    stale_when_unread = True

    def __init__(self, url: str, options: SourceOptions) -> None:
        scheme, colon, rest = url.partition(":")
        self._scheme, self._url = scheme.lower(), f"{scheme.lower()}{colon}{rest}"
        self.name, self._options = redact(url), options
        self._fetching = GuardedFetching(self._url, options, TIMEOUT_S)
        self._describe()
        formats = self._container.format.name.split(",")
        playlist = any(name in FETCHED for name in formats)
        self.live = self._container.duration is None and (playlist or not _size(self._container))
        self.in_bursts = self.live and playlist
        self._untimed = any(name in UNTIMED for name in formats)

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
        """Open it; on the web a playlist, which is refused at first, with its parts fetched by us."""
        ways: list[tuple[dict[str, str], GuardedFetching | None]] = [(reach(self._scheme, self._options), None)]
        if self._scheme in ("http", "https"):
            ways.append(({**reach(self._scheme, self._options, FETCHED), **OPENED_ANEW}, self._fetching))
        for settings, fetching in ways:
            try:
                options = {**COMMON, **BY_SCHEME.get(self._scheme, {}), **settings}
                return av.open(self._url, options=options, timeout=(TIMEOUT_S, TIMEOUT_S), io_open=fetching)
            except av.error.FFmpegError as error:
                self._fetching.close()
                failure = self._failure("it cannot be opened", error)
                if not isinstance(error, av.error.ArgumentError):
                    break
            except BaseException:
                self._fetching.close()
                raise
        raise failure  # out here, since FFmpeg's own error has the URL in it, and its password

    def _demuxed(self) -> Sequence[VideoStream]:
        return ()  # all, so that a stream of sound alone can be left

    def _packets(self) -> Iterator[Packet[Any]]:
        for packet in super()._packets():
            if time.monotonic() - self._last_picture > MOST_WITHOUT_PICTURE_S:
                raise SourceError(f"{self.name}: no picture can be decoded for {MOST_WITHOUT_PICTURE_S:g} s")
            yield packet

    def _ended_by(self, error: av.error.FFmpegError) -> SourceError | None:
        return self._failure("it failed", error)

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
