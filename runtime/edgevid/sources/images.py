"""Folders of images, read by OpenCV in the order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from edgevid.arrays import Image
from edgevid.errors import SourceError
from edgevid.sources.base import Frame, Source

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Images carry no timestamps: they are numbered as FFmpeg does it, at 25 a second.
IMAGE_RATE = Fraction(25)


class ImageFolderSource(Source):
    """Every image of a folder and of the folders in it, ``img2`` before ``img10``.

    Args:
        folder: the folder, or what the user called the images.
        files: the images, if not those of the folder.

    Raises:
        SourceError: there is no image in it.
    """

    rate = IMAGE_RATE
    time_base = 1 / IMAGE_RATE

    def __init__(self, folder: str | Path, files: Sequence[Path] | None = None) -> None:
        self.name = str(folder)
        if files is None:
            found = (path for path in Path(folder).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            files = sorted(found, key=natural_order)
        self.files = files
        if not self.files:
            raise SourceError(
                f"{folder}: no images in it; expected .jpg or .png files, or of videos a pattern, '{folder}/*.mp4'"
            )
        self.frame_count = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images that can be decoded; raises SourceError if there is none."""
        given = False
        for index, path in enumerate(self.files):
            if not self.pick.wants(index, float(index / self.rate)):
                continue
            image = read_image(path)
            if image is None:
                self.broken += 1
            else:
                given = True
                yield Frame(index, float(index / self.rate), image)
        if self.broken and not given:
            raise SourceError(f"{self.name}: none of its {self.broken} images can be decoded")

    def close(self) -> None:
        """Do nothing: every file is closed once it is read."""


def read_image(path: Path) -> Image | None:
    """Return the image as BGR, or None if it cannot be decoded."""
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):  # OpenCV raises at absurd sizes, and returns None at anything else
        return None
    return None if image is None else image.astype(np.uint8, copy=False)


def natural_order(path: Path) -> list[str | int]:
    """Return what sorts ``img2`` before ``img10``."""
    parts = re.split(r"(\d+)", str(path).lower())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]
