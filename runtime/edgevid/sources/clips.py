"""Several files as one source, named by a pattern such as ``clips/*.mp4``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgevid.errors import SourceError
from edgevid.events import Event
from edgevid.sources.base import Frame, Source
from edgevid.sources.files import ANIMATED_SUFFIXES, IMAGE_SUFFIXES, matching
from edgevid.sources.images import ImageFolderSource, is_animated, open_image
from edgevid.sources.options import SourceOptions
from edgevid.sources.video import VideoSource

__all__ = ["ClipsSource", "open_pattern"]


def open_pattern(pattern: str, options: SourceOptions, tell: Callable[[Event], None]) -> Source:
    """Open the images or the videos that a pattern names; ``**`` stands for any folders.

    Raises:
        SourceError: nothing has such a name, or images and videos do.
    """
    files = [file for file in matching(pattern) if file.is_file()]
    if not files:
        raise SourceError(f"{pattern}: no file has such a name; expected videos, or images")
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and not is_animated(file)]
    if len(images) < len(files) and all(file.suffix.lower() in ANIMATED_SUFFIXES for file in files):
        images = []  # among animations an image is one of a single picture
    if images and len(images) < len(files):
        other = next(file for file in files if file not in images)
        raise SourceError(f"{pattern}: images and others, such as {other}; expected images only, or videos only")
    return ImageFolderSource(pattern, images, tell) if images else ClipsSource(pattern, files, options, tell)


class ClipsSource(Source):
    """Every frame of several video files, one after the other; numbers and times go on, the window begins anew.

    A file that cannot be read is told as an event, ``skipped``, and passed over.

    Raises:
        SourceError: none of them can be read as a video.
    """

    def __init__(self, name: str, files: Sequence[Path], options: SourceOptions, tell: Callable[[Event], None]) -> None:
        self.name, self.files, self._options, self.tell = name, files, options, tell
        self._left = iter(files)
        self._broken_before, self._time = 0, 0.0
        first = self._clip = self._next_clip()
        if first is None:
            raise SourceError(f"{name}: none of its {len(files)} files can be read as a video")
        self.rate, self.time_base = first.rate, first.time_base

    @property
    def broken(self) -> int:  # type: ignore[override]  # over all clips
        """How many frames could not be decoded so far."""
        clip = self._clip
        return self._broken_before + (clip.broken if clip else 0)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded."""
        index, gap_s = 0, 0.0
        while clip := self._clip:
            first_index, begin, before, failure = index, self._time, None, None
            clip.tell = partial(self._tell_of_clip, begin)
            try:
                for frame in clip:
                    before = max(0.0, -frame.time) if before is None else before  # its own times may begin below 0
                    index, time = first_index + frame.index, begin + before + frame.time
                    self._time = time + float(1 / clip.rate)
                    yield replace(frame, index=index, time=time, gap_s=gap_s or frame.gap_s)
                    gap_s = 0.0
            except SourceError as error:
                failure = error
            if failure:
                self._skip(failure)
            index, gap_s = index + 1, math.inf
            self._broken_before = self.broken
            self._clip = None
            clip.close()
            self._clip = self._next_clip()

    def close(self) -> None:
        """Close the file that is open."""
        clip = self._clip
        if clip:
            clip.close()

    def _next_clip(self) -> Source | None:
        for file in self._left:
            try:
                return open_image(file) or VideoSource(file, self._options)
            except SourceError as error:
                self._skip(error)
        return None

    def _tell_of_clip(self, begin: float, event: Event) -> None:
        self.tell(replace(event, time=begin + event.time))

    def _skip(self, error: SourceError) -> None:
        self.tell(Event("skipped", self._time, f"{error}; passed over", clock=""))
