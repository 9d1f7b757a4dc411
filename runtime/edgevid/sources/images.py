"""Images, read by OpenCV: folders of them in the order of their names, single ones, and animations."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Image
from edgevid.errors import SourceError
from edgevid.events import Event
from edgevid.sources.base import Frame, Source
from edgevid.sources.files import ANIMATED_SUFFIXES, IMAGE_SUFFIXES, files_in, is_image, left_out

__all__ = ["AnimationSource", "ImageFolderSource", "count_pictures", "is_animated", "open_image", "read_image"]

# Images carry no timestamps: they are numbered as FFmpeg does it, at 25 a second.
IMAGE_RATE = Fraction(25)
TIFF = (b"II*\0", b"MM\0*")
FLOATS = (b"PF", b"Pf")  # from 0 to 1, of which OpenCV makes black; FFmpeg reads them
JPEG, JPEG_SCAN, JPEG_END, JPEG_APP2 = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9", b"\xff\xe2"
JPEG_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # others stand among coded pixels
SEVERAL_SUFFIXES = ANIMATED_SUFFIXES | {".tif", ".tiff"}
UNTIMED_MS = 100  # how long browsers show a picture of an animation that says no time
AVIF_HEAD = 2**16  # bytes, before which its properties stand
TO_BGR = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}  # by the number of channels
CHUNK_BYTES = 2**27  # of an animation's pictures at a time


class ImageFolderSource(Source):
    """Every image of a folder and of the folders in it, ``img2`` before ``img10``; of an animation the first picture.

    Args:
        folder: the folder, or what the user called the images.
        files: the images, if not those of the folder.
        tell: called with what is left out, since it cannot be read.

    Raises:
        SourceError: there is no image in it.
    """

    rate = IMAGE_RATE
    time_base = 1 / IMAGE_RATE

    def __init__(
        self,
        folder: str | Path,
        files: Sequence[Path] | None = None,
        tell: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.name, self.tell = str(folder), tell
        remark = ""
        if files is None:
            inside = files_in(folder)
            files, remark = [file for file in inside if is_image(file)], left_out(inside)
        self.files = files
        if not self.files:
            raise SourceError(
                f"{folder}: no images in it; expected .jpg or .png files, or of videos a pattern, '{folder}/*.mp4'"
                + (f"; {remark}" if remark else "")
            )
        if remark:
            tell(Event("skipped", 0.0, f"{folder}: {remark}", clock=""))
        self.frame_count = len(self.files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images that can be decoded; raises SourceError if there is none."""
        given, told = False, False
        for index, path in enumerate(self.files):
            if not self.pick.wants(index, float(index / self.rate)):
                continue
            if not told and path.suffix.lower() in SEVERAL_SUFFIXES and (count := count_pictures(path)) > 1:
                told = True
                remark = f"{path}: {count} pictures, the first is taken"
                self.tell(Event("skipped", float(index / self.rate), remark, clock=""))
            image = read_image(path)
            if image is None:
                self.broken += 1
            else:
                given = True
                yield Frame(index, float(index / self.rate), image)
        if self.broken and not given:
            if list(self.files) == [Path(self.name)]:
                raise SourceError(f"{self.name}: it cannot be decoded as an image; is the file complete?")
            raise SourceError(f"{self.name}: none of its {self.broken} images can be decoded")

    def close(self) -> None:
        """Do nothing: every file is closed once it is read."""


class AnimationSource(Source):
    """Every picture of an animated GIF, PNG, WebP or AVIF, at the times that it states.

    OpenCV reads these as browsers show them. FFmpeg has no animated WebP, of AVIF the first picture only, and of a GIF
    without times as well.

    Raises:
        SourceError: none of its pictures can be decoded.
    """

    time_base = Fraction(1, 1000)

    def __init__(self, path: str | Path, count: int) -> None:
        self.name, self.files, self.frame_count = str(path), [Path(path)], count
        first = self._pictures(0, 1)
        if not first:
            raise SourceError(f"{path}: no picture of it can be decoded; is the file complete?")
        self._chunk = max(1, CHUNK_BYTES // first[0][0].nbytes)
        self._ahead = self._pictures(0, self._chunk)
        times = [milliseconds for _, milliseconds in self._ahead]
        self.rate = Fraction(1000 * len(times), sum(times))

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures."""
        index, milliseconds = 0, 0
        while pictures := self._ahead or self._pictures(index, self._chunk):
            self._ahead = []
            for image, duration in pictures:
                if self.pick.wants(index, milliseconds / 1000):
                    yield Frame(index, milliseconds / 1000, image)
                index, milliseconds = index + 1, milliseconds + duration
        self.broken = (self.frame_count or index) - index

    def close(self) -> None:
        """Do nothing: the file is closed whenever something has been read of it."""
        self._ahead = []

    def _pictures(self, start: int, count: int) -> list[tuple[Image, int]]:
        """Return some of its pictures, and how many milliseconds each is shown."""
        with _named_for_opencv(self.files[0]) as name:
            _, animation = cv2.imreadanimation(name, start, min(count, (self.frame_count or 0) - start))
        shown = (int(milliseconds) or UNTIMED_MS for milliseconds in animation.durations)
        return list(zip(map(_bgr, animation.frames), shown, strict=True))


def open_image(path: Path, tell: Callable[[Event], None] = lambda event: None) -> Source | None:
    """Open a file that is an image or an animation, by its first bytes; return None for one that is neither."""
    count = count_pictures(path)
    if count > 1 and _first_bytes(path) not in TIFF:
        return AnimationSource(path, count)
    return ImageFolderSource(path, [path], tell) if count else None


def is_animated(path: Path) -> bool:
    """Return whether it is a file with an animation's name, and an animation."""
    return path.suffix.lower() in ANIMATED_SUFFIXES and count_pictures(path) > 1


def count_pictures(path: Path) -> int:
    """Return how many pictures a file holds that OpenCV reads; 0 of a video, of Motion JPEG too, and of rubble."""
    if not path.is_file() or _first_bytes(path).startswith(FLOATS):
        return 0
    try:
        with _named_for_opencv(path) as name:
            count = cv2.imcount(name) if cv2.haveImageReader(name) else 0
    except cv2.error:  # it is of an absurd size, say
        return 1
    except OSError:  # who reads it will say so
        return 0
    return 0 if count and path.suffix.lower() not in IMAGE_SUFFIXES and _is_motion_jpeg(path) else count


def read_image(path: Path) -> Image | None:
    """Return the image as BGR and upright, or None if it cannot be decoded."""
    try:
        data = np.fromfile(path, np.uint8)
        if not data.size:
            return None
        with _silent_opencv():
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if image is None and data[:4].tobytes() in TIFF:  # of floats, from 0 to 1
                image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except (OSError, cv2.error):  # OpenCV raises at absurd sizes, and returns None at anything else
        return None
    if image is None:
        return None
    if data[8:12].tobytes() == b"avif":
        image = _upright_avif(data[:AVIF_HEAD].tobytes(), image)
    return _bgr(image)


def _bgr(image: npt.NDArray[Any]) -> Image:
    """Return pixels as OpenCV has them of any depth, with any channels, as BGR of 8 bits."""
    if image.dtype.kind == "f":
        image = np.clip(image * 255, 0, 255).round()
    elif image.dtype == np.uint16:
        image = image >> 8
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels in TO_BGR:
        image = cv2.cvtColor(image.astype(np.uint8), TO_BGR[channels])
    return image.astype(np.uint8, copy=False)


def _upright_avif(head: bytes, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn and mirror an image as its file says, which OpenCV does with other kinds, but not with AVIF."""
    turned, mirrored = (head.find(name) for name in (b"\0\0\0\x09irot", b"\0\0\0\x09imir"))
    if turned >= 0:
        image = np.rot90(image, head[turned + 8])  # counter-clockwise, as the file counts
    if mirrored >= 0:
        image = np.flip(image, head[mirrored + 8])
    return np.ascontiguousarray(image)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4)
    except OSError:
        return b""


def _is_motion_jpeg(path: Path) -> bool:
    """Return whether a JPEG follows the first, and belongs to it in no way."""
    if not _first_bytes(path).startswith(JPEG):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 2
        while JPEG_MARKER.match(data, at):
            marker = data[at : at + 2]
            if marker == JPEG_END:
                return data[at + 2 : at + 5] == JPEG
            if marker == JPEG_APP2 and data[at + 4 : at + 8] == b"MPF\0":  # several pictures of one sight
                return False
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == JPEG_SCAN:
                following = JPEG_MARKER.search(data, at)
                at = following.start() if following else len(data)
    return False


@contextmanager
def _named_for_opencv(path: Path) -> Iterator[str]:
    """Yield a name of a file by which OpenCV can open it, without a word of its own: its names are UTF-8."""
    with path.open("rb") as file, _silent_opencv():
        yield f"/dev/fd/{file.fileno()}"


@contextmanager
def _silent_opencv() -> Iterator[None]:
    log: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # which is where OpenCV 4 has it
    level = log.getLogLevel()
    log.setLogLevel(0)
    try:
        yield
    finally:
        log.setLogLevel(level)
