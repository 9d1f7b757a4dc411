"""The picture that is drawn on and encoded: YUV 4:2:0, which video mostly is already, in memory of its own."""

from __future__ import annotations

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from edgevid.arrays import Image, Matrix
from edgevid.picture import Picture
from edgevid.planes import Planes, plane_arrays

__all__ = ["CANVAS_FORMAT", "Canvas"]

CANVAS_FORMAT = "yuv420p"
# FFmpeg's numbers, which are those of ITU-T H.273.
MATRIX_NUMBERS: dict[Matrix, int] = {"unspecified": 2, "bt601": 6, "bt709": 1, "bt2020": 9}


class Canvas:
    """Takes pictures of any size and colour, and holds them in the size and the colours of the first.

    Attributes:
        shape: height and width, both even.
        colors: colour matrix and range, as FFmpeg numbers them.
        planes: Y, U and V of what was painted last, to be drawn on.
    """

    def __init__(self, first: Picture) -> None:
        height, width = first.shape[:2]
        self.shape = height + height % 2, width + width % 2  # 4:2:0 has no odd sizes
        # What comes as BGR, from a camera say, is converted by BT.601 in the narrow range.
        self._matrix: Matrix = first.matrix if isinstance(first, Planes) else "bt601"
        self._full_range = isinstance(first, Planes) and first.full_range
        self.colors = (
            MATRIX_NUMBERS[self._matrix],
            int(ColorRange.JPEG if self._full_range else ColorRange.MPEG),
        )
        self._converter = VideoReformatter()
        self._use(VideoFrame(self.shape[1], self.shape[0], CANVAS_FORMAT))

    def paint(self, picture: Picture) -> VideoFrame:
        """Copy a picture, converted or fitted if it has to be, and return what holds it until the next call."""
        if isinstance(picture, Planes) and self._fits(picture):
            for own, plane in zip(self.planes, picture.arrays(), strict=True):
                np.copyto(own, plane)
        else:
            image = picture.to_bgr() if isinstance(picture, Planes) else picture
            self._use(self._converted(_fitted(image, self.shape[1], self.shape[0])))
        return self._frame

    def _use(self, frame: VideoFrame) -> None:
        self._frame = frame
        self.planes = plane_arrays(frame)

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


def _fitted(image: Image, width: int, height: int) -> Image:
    """Return ``image`` in exactly this size: padded by a line at most, else scaled to fit inside."""
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    if image.shape[1] not in (width, width - 1) or image.shape[0] not in (height, height - 1):
        image = cv2.resize(
            image,
            (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))),
            interpolation=cv2.INTER_AREA,
        ).astype(np.uint8, copy=False)
    bottom, right = height - image.shape[0], width - image.shape[1]
    border = cv2.BORDER_REPLICATE if max(bottom, right) <= 1 else cv2.BORDER_CONSTANT
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, border).astype(np.uint8, copy=False)
