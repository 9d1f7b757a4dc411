"""Where frames come from: a table of kinds, and the doors through which a source is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgevid.errors import SourceError, UsageError
from edgevid.events import Event
from edgevid.sample import SAMPLE_CLIPS, sample_clip
from edgevid.secrets import redact
from edgevid.sources.base import Frame, Source
from edgevid.sources.options import DEFAULTS, SourceOptions

__all__ = ["Frame", "Source", "SourceOptions", "open_camera", "open_file", "open_source"]

LARGEST_CAMERA = 9999
SAMPLE_PREFIX, GSTREAMER_PREFIX = "sample:", "gst:"
SAMPLE_NAMES = tuple(f"{SAMPLE_PREFIX}{clip}" for clip in SAMPLE_CLIPS)
STDIN = "-"
EXPECTED = (
    "expected a video file, a folder of images, a pattern such as 'clips/*.mp4', or a URL such as rtsp://host/live"
)

# kind: (module, function or class); a module is imported when its kind is opened, never before.
SOURCES = {
    "video": ("edgevid.sources.video", "VideoSource"),
    "images": ("edgevid.sources.images", "ImageFolderSource"),
    "image": ("edgevid.sources.images", "open_image"),
    "pattern": ("edgevid.sources.clips", "open_pattern"),
    "stdin": ("edgevid.sources.stdin", "StdinSource"),
    "url": ("edgevid.sources.network", "open_url"),
    "camera": ("edgevid.sources.camera", "open_capture"),
}
Tell = Callable[[Event], None]


def open_source(name: str | Path, options: SourceOptions = DEFAULTS, tell: Tell = lambda event: None) -> Source:
    """Open a source of frames by its name.

    Args:
        name: a video file, a folder of images, a pattern of either such as ``clips/*.mp4``, a URL such as
            ``rtsp://host/stream``, a sample clip such as ``sample:bikes``, ``gst:`` and a GStreamer pipeline that ends
            in an appsink, or ``-`` for standard input.
        options: how it is opened.
        tell: called with what happens to a source before its frames are asked for.

    Raises:
        UsageError: the name is empty, or a URL of a kind that is not known.
        SourceError: there is no such file or folder, or it holds no frames.
        MissingExtraError: a sample clip was named and the [sample] extra is not installed.
    """
    text = str(name)
    if not text:
        raise UsageError(f"source '': {EXPECTED}")
    if text.startswith(GSTREAMER_PREFIX):
        return _open("camera", text, options, tell)
    if "://" in text:
        return _open_url(text, options, tell)
    if text == STDIN:
        return _open("stdin", options, tell)
    if text.startswith("/dev/video") or (text.isdecimal() and not Path(text).exists()):
        raise UsageError(f"source {text!r}: for a camera use --camera {text}")
    path = sample_clip(text.removeprefix(SAMPLE_PREFIX)) if text.startswith(SAMPLE_PREFIX) else Path(name)
    if not path.exists():
        if any(letter in text for letter in "*?["):
            return _open("pattern", text, options, tell)
        raise SourceError(f"{redact(text)}: no such file or folder; {EXPECTED}")
    if path.is_dir():
        return _open("images", text, None, tell)
    source = _open("image", path, tell) or _open("video", path, options, tell)
    source.name = text
    return source


def open_file(name: str | Path) -> Source:
    """Open a source that has an end and can be read more than once: files, but neither streams nor standard input.

    Raises:
        UsageError: it is no such source.
        SourceError, MissingExtraError: as :func:`open_source` does.
    """
    text = str(name)
    if text == STDIN or text.startswith(GSTREAMER_PREFIX) or "://" in text:
        raise UsageError(f"source {redact(text)!r}: expected a file here, which can be read again; record one first")
    return open_source(name)


def open_camera(device: int | str, options: SourceOptions = DEFAULTS, tell: Tell = lambda event: None) -> Source:
    """Open the camera of that number, or at that device path; it is waited for when it is unplugged later.

    Raises:
        UsageError: it is no camera's number or path.
        SourceError: it is not there, delivers no frames, or not in the size, rate or format asked for.
    """
    text = str(device)
    if not (int(text) <= LARGEST_CAMERA if text.isdecimal() else _may_be_device(text)):
        raise UsageError(
            f"camera {device!r}: expected a number such as 0, or a device such as /dev/video0; for a file use --source"
        )
    return _open("camera", int(text) if text.isdecimal() else text, options, tell)


def _may_be_device(text: str) -> bool:
    """Return whether that is a device, or would be one if it were plugged in."""
    path = Path(text)
    return path.is_char_device() or (text.startswith("/dev/") and not path.exists())


def _open_url(url: str, options: SourceOptions, tell: Tell) -> Source:
    _check_url(url)
    schemes: tuple[str, ...] = import_module("edgevid.sources.network").SCHEMES
    if urlsplit(url).scheme.lower() not in schemes:
        raise UsageError(f"source {redact(url)!r}: expected one of {', '.join(schemes)} before the ://")
    return _open("url", url, options, tell)


def _check_url(url: str) -> None:
    """Refuse what FFmpeg would read in another way than it is meant."""
    authority = url.partition("://")[2]
    host = authority.rpartition("@")[2] or authority
    try:
        parts = urlsplit(url)
        named, numbered = parts.hostname, parts.port is None or parts.port
    except ValueError:
        named, numbered = host, False
    if "@" in authority and "@" not in urlsplit(url).netloc:
        raise UsageError(
            f"source {redact(url)!r}: in a user or password write / as %2F, ? as %3F, # as %23 and @ as %40"
        )
    if not named or not numbered:
        raise UsageError(f"source {redact(url)!r}: expected a host, and behind a colon the number of its port")


def _open(kind: str, *arguments: Any) -> Source:
    module, name = SOURCES[kind]
    source: Source = getattr(import_module(module), name)(*arguments)
    return source
