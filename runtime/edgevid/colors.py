"""From YUV as video stores it to the colour order of a model, as one affine step.

Source: ITU-R BT.601-7, BT.709-6 and BT.2020-2, sections on signal format.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgevid.arrays import Matrix
from edgevid.manifest import ColorOrder

__all__ = ["from_yuv"]

# How much red and blue weigh in luma.
RED_BLUE: dict[Matrix, tuple[float, float]] = {
    "unspecified": (0.299, 0.114),  # as FFmpeg and OpenCV read it
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}
CHROMA_ZERO = 128
# What a model's channels are of red, green and blue; grey is luma as OpenCV and Keras compute it (BT.601).
CHANNELS: dict[ColorOrder, tuple[tuple[float, float, float], ...]] = {
    "rgb": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "bgr": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "grey": ((0.299, 0.587, 0.114),),
}


def from_yuv(matrix: Matrix, full_range: bool, color: ColorOrder) -> npt.NDArray[np.float32]:
    """Return the matrix from (Y, U, V, 1) to a model's channels, in grey levels: float32 of shape (channels, 4)."""
    red, blue = RED_BLUE[matrix]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0) if full_range else (255 / 219, 255 / 224, 16)
    to_rgb = np.array(
        [
            [luma, 0, 2 * (1 - red) * chroma],
            [luma, -2 * (1 - blue) * blue / green * chroma, -2 * (1 - red) * red / green * chroma],
            [luma, 2 * (1 - blue) * chroma, 0],
        ]
    )
    offset = -to_rgb @ np.array([black, CHROMA_ZERO, CHROMA_ZERO])
    return np.array(np.array(CHANNELS[color]) @ np.column_stack([to_rgb, offset]), np.float32)
