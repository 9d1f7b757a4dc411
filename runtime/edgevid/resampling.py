"""Resizes the planes of a video without rounding in between.

Y, U and V in 8 bits are coarser than the colours that they become: rounded to 8 bits again after resizing, they move a
channel by up to two grey levels, enough to change the label of one frame in ten where two classes are close.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edgevid.arrays import Plane

__all__ = ["FINE", "Resampler", "Wide"]

FINE = 128  # steps in a grey level
Wide = npt.NDArray[np.uint16]


class Resampler:
    """Resizes planes of one shape, or a part of them, to one size.

    Args:
        shape: height and width of what is resized.
        size: height and width of the result.
        interpolation: OpenCV's number of the method.
    """

    def __init__(self, shape: tuple[int, int], size: tuple[int, int], interpolation: int) -> None:
        height, width = shape
        self._size, self._interpolation = size, interpolation
        self._rows: npt.NDArray[np.intp] | None = None
        self._weights: Wide | np.uint16 = np.uint16(FINE)
        if interpolation == cv2.INTER_LINEAR and height > 2 * size[0]:
            # Of a high plane bilinear interpolation looks at two rows for each of its own. Only those are widened, each
            # by twice its weight; what is left is to average two and two, which resizing does as well.
            self._rows, weights = _pairs(height, size[0])
            height = 2 * size[0]
            self._weights = np.repeat(weights[:, None], width, axis=1)  # whole: broadcasting would allocate each time
        self._picked = np.empty((height, width), np.uint8)
        self._wide = np.empty((height, width), np.uint16)

    def __call__(self, plane: Plane, out: Wide) -> Wide:
        """Write ``plane`` resized, in steps of 1/128 grey level, into ``out`` and return it."""
        if self._rows is not None:
            plane = np.take(plane, self._rows, 0, out=self._picked, mode="clip")
        np.copyto(self._wide, plane)
        np.multiply(self._wide, self._weights, out=self._wide)
        height, width = self._size
        resized = cv2.resize(self._wide, (width, height), out, interpolation=self._interpolation)
        if resized is not out:
            np.copyto(out, resized)
        return out


def _pairs(height: int, wanted: int) -> tuple[npt.NDArray[np.intp], Wide]:
    """Return the two rows that each wanted row lies between, one after the other, and twice their weights."""
    centres = (np.arange(wanted) + 0.5) * (height / wanted) - 0.5
    first = np.floor(centres).astype(np.intp)
    second_weight = np.rint((centres - first) * 2 * FINE)
    rows = np.stack([first, first + 1], axis=1).ravel()
    weights = np.stack([2 * FINE - second_weight, second_weight], axis=1).ravel()
    return rows, weights.astype(np.uint16)
