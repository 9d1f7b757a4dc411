"""A picture as video stores it: luma Y, and chroma U and V of the same size or smaller, in FFmpeg's memory.

Whoever needs a few of its pixels resizes the planes and converts what is left, instead of the whole.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from edgevid.arrays import Image, Matrix, Plane

__all__ = ["PlaneResizer", "Planes", "plane_arrays", "upright_picture"]

# What FFmpeg calls formats of three planes of 8 bits; those with a j span 0–255.
PLANAR = frozenset(f"yuv{full}{layout}p" for full in ("", "j") for layout in ("420", "422", "444"))
# By FFmpeg's numbers, which are those of ITU-T H.273.
MATRICES: dict[int, Matrix] = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
# By quarter turns counter-clockwise.
ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
FINE_FORMAT = "yuv444p16le"
T = TypeVar("T", np.uint8, np.uint16)


class Planes:
    """A decoded frame in one of the formats :data:`PLANAR`; it is not to be written to.

    Attributes:
        frame: FFmpeg's.
        quarter_turns: how often it has to be turned counter-clockwise to be upright.
        shape: height and width, upright.
        matrix: how RGB became YUV.
        full_range: whether luma spans 0–255 (JPEG) and not 16–235.
    """

    def __init__(self, frame: VideoFrame, quarter_turns: int = 0) -> None:
        self.frame = frame
        self.quarter_turns = quarter_turns
        size = frame.height, frame.width
        self.shape = size[::-1] if quarter_turns % 2 else size
        self.matrix: Matrix = MATRICES.get(frame.colorspace, "unspecified")
        self.full_range = frame.format.name.startswith("yuvj") or frame.color_range == ColorRange.JPEG

    def arrays(self) -> tuple[Plane, Plane, Plane]:
        """Return Y, U and V, upright: uint8 of shape (height, width)."""
        y, u, v = (turned(plane, self.quarter_turns) for plane in plane_arrays(self.frame))
        return y, u, v

    def luma(self) -> Plane:
        """Return Y as it lies, not turned: uint8 of shape (height, width), the frame's own memory."""
        return plane_arrays(self.frame)[0]

    def to_bgr(self) -> Image:
        """Return the whole picture as BGR, upright: uint8 of shape (height, width, 3)."""
        return turned(bgr(self.frame), self.quarter_turns)


def upright_picture(frame: VideoFrame) -> Image | Planes:
    """Return a decoded frame turned as it was filmed: its planes where it has them in 8 bits, else BGR."""
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise: how a phone was held
    if frame.format.name in PLANAR:
        return Planes(frame, quarter_turns)
    return turned(bgr(frame), quarter_turns)


class PlaneResizer:
    """Resizes planes bilinearly with half-pixel centres, without antialiasing and without rounding to 8 bits.

    By FFmpeg's "fast bilinear", which is just that, also where it shrinks. It keeps what FFmpeg has computed for frames
    of one size, so it is used by one thread at a time.

    Args:
        size: height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._converter = VideoReformatter()

    def __call__(self, planes: Planes, out: npt.NDArray[np.uint16]) -> None:
        """Write Y, U and V, resized and upright, into ``out``: (height, width, 3), in steps of 1/256 grey level."""
        height, width = self._size[::-1] if planes.quarter_turns % 2 else self._size
        resized = self._converter.reformat(
            planes.frame,
            width,
            height,
            format=FINE_FORMAT,
            interpolation=Interpolation.FAST_BILINEAR,
            threads=1,
        )
        merged = cv2.merge([_rows(plane, np.uint16) for plane in resized.planes], out)
        if planes.quarter_turns:
            np.copyto(out, cv2.rotate(merged, ROTATIONS[planes.quarter_turns]).reshape(out.shape))


def plane_arrays(frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Return Y, U and V of a planar picture of 8 bits: the picture's own memory, uint8 of shape (height, width)."""
    y, u, v = (_rows(plane, np.uint8) for plane in frame.planes)
    return y, u, v


def bgr(frame: VideoFrame) -> Image:
    """Return any picture of FFmpeg as BGR, as it lies."""
    # A converter of our own: by itself FFmpeg starts threads for every picture.
    image = VideoReformatter().reformat(frame, format="bgr24", threads=1).to_ndarray()
    return image.astype(np.uint8, copy=False)


def turned(image: Image, quarter_turns: int) -> Image:
    """Return an image turned counter-clockwise."""
    if not quarter_turns:
        return image
    return cv2.rotate(image, ROTATIONS[quarter_turns]).astype(np.uint8, copy=False)


def _rows(plane: VideoPlane, dtype: type[T]) -> npt.NDArray[T]:
    padded = np.frombuffer(memoryview(plane), np.uint8, plane.height * plane.line_size)
    return padded.reshape(plane.height, plane.line_size).view(dtype)[:, : plane.width]
