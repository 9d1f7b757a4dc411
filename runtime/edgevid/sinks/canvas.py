"""The picture that is drawn on and encoded: YUV 4:2:0, which video mostly is already, in memory of its own."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from edgevid.arrays import Image, Matrix
from edgevid.planes import Planes, plane_arrays
from edgevid.sources.base import Frame

__all__ = ["CANVAS_FORMAT", "Canvas"]

CANVAS_FORMAT = "yuv420p"
# FFmpeg's numbers, which are those of ITU-T H.273.
MATRIX_NUMBERS: dict[Matrix, int] = {"unspecified": 2, "bt601": 6, "bt709": 1, "bt2020": 9}
SQUARE = Fraction(1)


class Canvas:
    """Takes pictures of any size, colour and shape of pixels, and holds them in those of the first.

    Attributes:
        shape: height and width, both even.
        sample_aspect_ratio: how wide a pixel is by its height; None where nobody says.
        colors: colour matrix and range, as FFmpeg numbers them.
        planes: Y, U and V of what was painted last, to be drawn on.
    """

    def __init__(self, first: Frame) -> None:
        picture, self.sample_aspect_ratio = first.picture, first.sample_aspect_ratio
        height, width = picture.shape[:2]
        self.shape = height + height % 2, width + width % 2  # 4:2:0 has no odd sizes
        # What comes as BGR, from a camera say, is converted by BT.601 in the narrow range.
        self._matrix: Matrix = picture.matrix if isinstance(picture, Planes) else "bt601"
        self._full_range = isinstance(picture, Planes) and picture.full_range
        self.colors = (
            MATRIX_NUMBERS[self._matrix],
            int(ColorRange.JPEG if self._full_range else ColorRange.MPEG),
        )
        self._converter = VideoReformatter()
        self._use(VideoFrame(self.shape[1], self.shape[0], CANVAS_FORMAT))

    def paint(self, frame: Frame) -> VideoFrame:
        """Copy a picture, converted or fitted if it has to be, and return what holds it until the next call."""
        picture, stretch = frame.picture, self._stretch(frame)
        if isinstance(picture, Planes) and stretch == 1 and self._fits(picture):
            for own, plane in zip(self.planes, picture.arrays(), strict=True):
                np.copyto(own, plane)
        else:
            self._use(self._converted(_fitted(frame.image, self.shape[1], self.shape[0], stretch)))
        return self._frame

    def _use(self, frame: VideoFrame) -> None:
        self._frame = frame
        self.planes = plane_arrays(frame)

    def _stretch(self, frame: Frame) -> Fraction:
        """Return how much wider a frame's pixels are than ours."""
        if frame.sample_aspect_ratio == self.sample_aspect_ratio:
            return SQUARE
        return (frame.sample_aspect_ratio or SQUARE) / (self.sample_aspect_ratio or SQUARE)

    def _fits(self, planes: Planes) -> bool:
        colors = planes.matrix, planes.full_range
        halves = planes.frame.format.name.endswith("420p")
        return halves and planes.shape == self.shape and colors == (self._matrix, self._full_range)

    def _converted(self, image: Image) -> VideoFrame:
        matrix, color_range = self.colors
        return self._converter.reformat(
            VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), "bgr24"),
            format=CANVAS_FORMAT,
            dst_colorspace=matrix,
            dst_color_range=color_range,
            threads=1,
        )


def _fitted(image: Image, width: int, height: int, stretch: Fraction) -> Image:
    """Return ``image`` in exactly this size: padded by a line at most, else scaled to fit inside.

    Args:
        image: a picture.
        width: of the result.
        height: of the result.
        stretch: how much wider the picture's pixels are than those of the result.
    """
    rows, columns = image.shape[:2]
    if stretch == 1 and (rows, columns) == (height, width):
        return image
    if stretch != 1 or columns not in (width, width - 1) or rows not in (height, height - 1):
        across = columns * stretch
        scale = min(width / across, Fraction(height, rows))
        size = max(1, round(across * scale)), max(1, round(rows * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    bottom, right = height - image.shape[0], width - image.shape[1]
    border = cv2.BORDER_REPLICATE if max(bottom, right) <= 1 else cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, border).astype(np.uint8, copy=False)
