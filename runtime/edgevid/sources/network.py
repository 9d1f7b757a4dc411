"""Video over the network: RTSP, HTTP, MJPEG, HLS and what else FFmpeg speaks, through PyAV."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import av
from av.container import InputContainer

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
IN_BURSTS = ("hls", "dash")  # they come a segment at a time: shown at their own speed
UNTIMED = ("mpjpeg", "mjpeg")  # their timestamps are made up
REFUSALS = (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)


def open_url(url: str, options: SourceOptions, tell: Callable[[Event], None]) -> Source:
    """Open a stream, which is live and comes back when it is lost, or a file behind a URL, which is read in order.

    Raises:
        SourceError: it cannot be opened, or there is no video in it.
    """

    def opened() -> Source:
        source = NetworkSource(url, options)
        if not source.live:
            raise FiniteError(source)
        return RealtimeSource(source) if source.in_bursts else source

    try:
        return ReconnectingSource(redact(url), opened, options, tell)
    except FiniteError as found:
        return found.source


class FiniteError(Exception):
    """What was opened has an end: it is no stream."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source.name}: it is a file now; expected a stream")
        self.source = source


class NetworkSource(VideoSource):
    """The frames of one connection to a URL.

    Raises:
        RefusedError: the server does not let us in.
        SourceError: it cannot be opened, or there is no video in it.
    """

    def __init__(self, url: str, options: SourceOptions) -> None:
        self._url, self.name, self._options = url, redact(url), options
        self._fetching = GuardedFetching(url, options, TIMEOUT_S)
        self._describe()
        formats = self._container.format.name.split(",")
        self.live = self._container.duration is None
        self.in_bursts = self.live and any(name in IN_BURSTS for name in formats)
        self._untimed = any(name in UNTIMED for name in formats)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded; raises SourceError where the connection fails."""
        began = time.monotonic()
        for frame in super().__iter__():
            yield replace(frame, time=frame.arrived - began) if self._untimed else frame

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._fetching.close()

    def _opened(self) -> InputContainer:
        scheme = urlsplit(self._url).scheme.lower()
        settings = {**COMMON, **BY_SCHEME.get(scheme, {})}
        try:
            try:
                return av.open(
                    self._url, options={**settings, **reach(scheme, self._options)}, timeout=(TIMEOUT_S, TIMEOUT_S)
                )
            except av.error.ArgumentError:  # a format that is not to be opened like this
                if scheme not in ("http", "https"):
                    raise
                return av.open(
                    self._url,
                    options={**settings, **reach(scheme, self._options, playlists=True)},
                    timeout=(TIMEOUT_S, TIMEOUT_S),
                    io_open=self._fetching,
                )
        except SourceError:
            self._fetching.close()
            raise
        except av.error.FFmpegError as error:  # its text has the URL, and with it the password
            raise self._failure("it cannot be opened", error) from None

    def _ended_by(self, error: av.error.FFmpegError) -> None:
        raise self._failure("it failed", error) from None

    def _failure(self, what: str, error: av.error.FFmpegError) -> SourceError:
        kind = RefusedError if isinstance(error, REFUSALS) else SourceError
        return kind(f"{self.name}: {what} ({_reason(error)})")


def _reason(error: av.error.FFmpegError) -> str:
    """Return why it failed, where FFmpeg's own words say too little in others."""
    if isinstance(error, av.error.ExitError):
        return f"no answer for {TIMEOUT_S:g} s"
    return "no such host, or the connection broke off" if error.errno == errno.EIO else str(error.strerror)
