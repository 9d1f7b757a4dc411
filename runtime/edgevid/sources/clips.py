"""Several files as one source, named by a pattern such as ``clips/*.mp4``."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgevid.errors import SourceError
from edgevid.sources.base import Frame, Source
from edgevid.sources.images import IMAGE_SUFFIXES, ImageFolderSource, natural_order
from edgevid.sources.options import SourceOptions
from edgevid.sources.video import VideoSource

__all__ = ["ClipsSource", "open_pattern"]


def open_pattern(pattern: str, options: SourceOptions) -> Source:
    """Open the images or the videos that a pattern names; ``**`` stands for any folders.

    Raises:
        SourceError: nothing has such a name, or images and videos do.
    """
    files = sorted(map(Path, glob.glob(pattern, recursive=True)), key=natural_order)  # noqa: PTH207 - any folder
    files = [file for file in files if file.is_file()]
    if not files:
        raise SourceError(f"{pattern}: no file has such a name; expected videos, or images")
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if images and len(images) < len(files):
        other = next(file for file in files if file not in images)
        raise SourceError(f"{pattern}: images and others, such as {other}; expected images only, or videos only")
    return ImageFolderSource(pattern, images) if images else ClipsSource(pattern, files, options)


class ClipsSource(Source):
    """Every frame of several video files, one after the other; numbers and times go on, the window begins anew.

    Raises:
        SourceError: one of them cannot be read as a video.
    """

    def __init__(self, name: str, files: Sequence[Path], options: SourceOptions) -> None:
        self.name, self.files, self._options = name, files, options
        self._broken_before = 0
        self._clip = VideoSource(files[0], options)
        self.rate, self.time_base = self._clip.rate, self._clip.time_base

    @property
    def broken(self) -> int:  # type: ignore[override]  # over all clips
        """How many frames could not be decoded so far."""
        return self._broken_before + self._clip.broken

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames that can be decoded; raises SourceError where a file has none."""
        index, time, step = 0, 0.0, 0.0
        for number, file in enumerate(self.files):
            if number:
                self._broken_before = self.broken
                self._clip.close()
                self._clip = VideoSource(file, self._options)
            first_index, first_time, gap_s = index, time + step, math.inf if number else 0.0
            for frame in self._clip:
                index = first_index + frame.index
                time, step = first_time + frame.time, float(1 / self._clip.rate)
                yield replace(frame, index=index, time=time, gap_s=gap_s)
                gap_s = 0.0
            index += 1

    def close(self) -> None:
        """Close the file that is open."""
        self._clip.close()
