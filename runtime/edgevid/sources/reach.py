"""What FFmpeg may open for a source, and nothing else: no local files for a stream, no other hosts for a playlist.

FFmpeg follows what playlists and manifests name. So formats that name other files are refused, unless the user allows
them; and the playlists of HTTP, which are nothing but such names, are fetched here, from their own host.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPDigestAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    HTTPRedirectHandler,
    OpenerDirector,
    Request,
    build_opener,
)

import av

from edgevid.errors import RefusedError, SourceError, first_line
from edgevid.secrets import redact
from edgevid.sources.options import SourceOptions

__all__ = ["PROTOCOLS", "GuardedFetching", "reach"]

# scheme: the protocols of FFmpeg that it needs
PROTOCOLS = {
    "file": ("file",),
    "fd": ("fd", "pipe"),
    "http": ("http", "tcp"),
    "https": ("https", "http", "tls", "tcp"),
    "rtsp": ("rtsp", "rtp", "rtcp", "udp", "tcp", "http"),
    "rtsps": ("rtsps", "rtsp", "rtp", "srtp", "rtcp", "udp", "tcp", "tls", "https"),
    "rtmp": ("rtmp", "tcp"),
    "rtmps": ("rtmps", "rtmp", "tls", "tcp"),
    "rtp": ("rtp", "udp"),
    "srt": ("srt",),
    "tcp": ("tcp",),
    "udp": ("udp",),
}
REFUSALS = (401, 403)
BROKEN = (OSError, HTTPException, ValueError)  # what Python's HTTP raises; ValueError for a URL that is none
# Formats that name other files, or are no files at all.
PLAYLISTS = frozenset({"concat", "concatf", "dash", "hls", "imf"})
NO_VIDEO = frozenset({"ffmetadata", "image2", "lavfi", "vapoursynth"})


def reach(scheme: str, options: SourceOptions, fetched: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return the options for FFmpeg that let a source of that scheme open what it needs, and what the user allows.

    Args:
        scheme: of :data:`PROTOCOLS`.
        options: with what the user allows.
        fetched: formats that name others, whose parts are fetched by :class:`GuardedFetching`.
    """
    follows = PLAYLISTS if scheme == "file" and "file" in options.allow_protocols else fetched
    return {
        "fflags": "-genpts",  # which makes timestamps up where there are none, in the wrong order
        **options.engine_options,
        "protocol_whitelist": ",".join((*PROTOCOLS[scheme], *options.allow_protocols)),
        "format_whitelist": ",".join(sorted(av.formats_available - NO_VIDEO - (PLAYLISTS - follows))),
    }


class GuardedFetching:
    """Opens the parts of a playlist for FFmpeg: over HTTP, from the host of ``url`` and those that the user allows.

    Being called raises:
        SourceError: a part is elsewhere, or cannot be fetched.
    """

    def __init__(self, url: str, options: SourceOptions, timeout_s: float) -> None:
        main = urlsplit(url)
        self._hosts = {main.hostname, *(host.lower() for host in options.allow_hosts)}
        self._files, self._timeout_s = "file" in options.allow_protocols, timeout_s
        passwords = HTTPPasswordMgrWithDefaultRealm()
        if main.username:
            site = _bare(main._replace(path="/", query="", fragment=""))
            passwords.add_password(None, site, unquote(main.username), unquote(main.password or ""))
        logins = HTTPBasicAuthHandler(passwords), HTTPDigestAuthHandler(passwords)
        self._opener = build_opener(SameHosts(self._hosts), *logins)
        self._open: set[Part] = set()

    def __call__(self, url: str, flags: int, settings: Mapping[str, str]) -> Any:
        """Return a part as a file to be read."""
        part = urlsplit(url)
        if part.scheme in ("file", "") and self._files:
            return _file(url.removeprefix("file:"))
        _check(part, self._hosts)
        return Part(_response(self._opener, _bare(part), settings, self._timeout_s), self._open)

    def close(self) -> None:
        """Close what FFmpeg has left open."""
        for part in list(self._open):
            part.close()


class SameHosts(HTTPRedirectHandler):
    """Follows a redirection to the allowed hosts only."""

    def __init__(self, allowed: set[str | None]) -> None:
        self._allowed = allowed

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Check where a redirection leads."""
        try:
            _check(urlsplit(newurl), self._allowed)
        except SourceError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Part:
    """A part of a playlist, as FFmpeg reads it: what is there, and not only when all of it is."""

    def __init__(self, response: HTTPResponse, among: set[Part]) -> None:
        self._response, self._among = response, among
        among.add(self)

    def read(self, size: int) -> bytes:
        """Return what is there, up to so many bytes; nothing at the end."""
        try:
            return self._response.read1(size)
        except BROKEN as error:
            raise SourceError(f"a part of the playlist broke off ({first_line(error)})") from None

    def close(self) -> None:
        """End the connection."""
        self._response.close()
        self._among.discard(self)


def _check(part: SplitResult, allowed: set[str | None]) -> None:
    if part.scheme.startswith("crypto"):
        raise SourceError("the playlist is encrypted, which is not supported; ask for one that is not")
    if part.scheme not in ("http", "https"):
        raise SourceError(
            f"the playlist names {part.scheme or 'a file'!r}; expected http; if it is your own, --allow-protocol file "
            "lets it open files"
        )
    if part.hostname not in allowed:
        raise SourceError(f"the playlist leads to another host, {part.hostname}; if you trust it, use --allow-host")


def _file(path: str) -> Any:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise SourceError(f"the playlist names {path}, which cannot be read ({error.strerror})") from None


def _bare(part: SplitResult) -> str:
    """Return a URL without user and password."""
    return part._replace(netloc=part.netloc.rpartition("@")[2]).geturl()


def _response(opener: OpenerDirector, part: str, settings: Mapping[str, str], timeout_s: float) -> HTTPResponse:
    first, end = settings.get("offset"), settings.get("end_offset")
    headers = {"Range": f"bytes={first or 0}-{int(end) - 1 if end else ''}"} if first or end else {}
    failure: type[SourceError] = SourceError
    try:
        response: HTTPResponse = opener.open(Request(part, headers=headers), timeout=timeout_s)  # noqa: S310 - checked
        return response
    except HTTPError as error:
        why = f"{error.code} {error.reason}"
        failure = RefusedError if error.code in REFUSALS else SourceError
        error.close()
    except BROKEN as error:
        why = str(getattr(error, "reason", first_line(error)))
    raise failure(f"a part of the playlist cannot be fetched ({redact(why)})")
