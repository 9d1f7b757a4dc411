"""Where frames come from: a table of kinds, and the door through which a source is opened."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from edgevid.errors import SourceError, UsageError
from edgevid.sample import SAMPLE_CLIPS, sample_clip
from edgevid.sources.base import Frame, Source

__all__ = ["Frame", "Source", "open_camera", "open_source"]

LARGEST_CAMERA = 9999
SAMPLE_PREFIX = "sample:"
SAMPLE_NAMES = tuple(f"{SAMPLE_PREFIX}{clip}" for clip in SAMPLE_CLIPS)

# kind: (module, class); a module is imported when its kind is opened, never before.
SOURCES = {
    "video": ("edgevid.sources.video", "VideoSource"),
    "images": ("edgevid.sources.images", "ImageFolderSource"),
    "camera": ("edgevid.sources.camera", "CameraSource"),
}


def open_source(name: str | Path) -> Source:
    """Open a video file, a folder of images, or a sample clip such as ``sample:bikes``.

    Raises:
        UsageError: the name is empty or a URL.
        SourceError: there is no such file or folder, or it holds no frames.
        MissingExtraError: a sample clip was named and the [sample] extra is not installed.
    """
    text = str(name)
    if not text or "://" in text:
        raise UsageError(f"source {text!r}: expected a video file or a folder of images; URLs are not read yet")
    path = sample_clip(text.removeprefix(SAMPLE_PREFIX)) if text.startswith(SAMPLE_PREFIX) else Path(name)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; expected a video file or a folder of images")
    source = _source_class("images" if path.is_dir() else "video")(path)
    source.name = text
    return source


def open_camera(device: int | str) -> Source:
    """Open the camera of that number, or at that device path.

    Raises:
        UsageError: it is no camera's number or path.
        SourceError: it is not there or delivers no frames.
    """
    text = str(device)
    if not (int(text) <= LARGEST_CAMERA if text.isdecimal() else Path(text).is_char_device()):
        raise UsageError(
            f"camera {device!r}: expected a number such as 0, or a device such as /dev/video0; for a file use --source"
        )
    return _source_class("camera")(int(text) if text.isdecimal() else text)


def _source_class(kind: str) -> Callable[[object], Source]:
    module, class_name = SOURCES[kind]
    source_class: Callable[[object], Source] = getattr(import_module(module), class_name)
    return source_class
